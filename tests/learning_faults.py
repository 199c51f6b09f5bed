"""Faults of learning, each a small change to a healthy pipeline: model, loss, optimizer or loop.

Every fault is told where to strike (`Site`), so that the same ones go into pipelines of any style.
"""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.icecube import pipeline as icecube
from icediag.instruments.trees.rows import mapped
from icediag.model.network import NetworkConfig
from tests.pipelines import images, language, sequences


@dataclass(frozen=True, kw_only=True)
class Site:
    """A healthy pipeline and the parts of it that faults strike.

    Attributes:
        name: What tests call it.
        make: Builds it.
        early: A part with weights at the beginning, through which everything goes that it gives.
        trunk: A part through which all information about an event goes.
        middle: A single torch layer that comes after `early`.
        width: Last axis of what `trunk` gives.
        attention: Layer whose weights make queries and keys; None without attention.
        targets: Path of the targets in a batch; "" where they are the inputs themselves.
    """

    name: str
    make: Callable[[], Pipeline]
    early: str
    trunk: str
    middle: str
    width: int
    attention: str | None = None
    targets: str = ""


SITES = (
    Site(
        name="icecube",
        make=lambda: icecube(
            n_events=32,
            batch_size=32,
            config=NetworkConfig(d_model=16, n_heads=2, n_layers=2),
        ),
        early="dom_encoder",
        trunk="transformer",
        middle="to_token",
        width=16,
        attention="transformer.layers.0.to_qkv",
        targets="targets",
    ),
    Site(
        name="images",
        make=images.pipeline,
        early="0",
        trunk="4",
        middle="5",
        width=8,
        targets="1",
    ),
    Site(
        name="sequences",
        make=sequences.pipeline,
        early="rnn",
        trunk="rnn",
        middle="head",
        width=9,
        targets="labels",
    ),
    Site(
        name="language",
        make=language.pipeline,
        early="encoder.layers.0",
        trunk="encoder",
        middle="encoder.layers.1.linear1",
        width=16,
        attention="encoder.layers.0.self_attn",
    ),
)


@dataclass(frozen=True, kw_only=True)
class LearningFault:
    """A fault, and what has to be said of it.

    Attributes:
        name: What it is.
        code: Of the check that must name it, or of those of which one must.
        stage: Where: of a site the stage that the finding must be at or inside of; None for any.
        strike: (pipeline, site) -> the pipeline with the fault.
        severity: At least this.
        only: Names of the sites it can strike; none for all.
    """

    name: str
    code: str
    strike: Callable[[Pipeline, Site], Pipeline]
    stage: Callable[[Site], str] | None = None
    severity: str = "warning"
    only: tuple[str, ...] = ()


def after(model: nn.Module, path: str, change: Callable[[Tensor], Tensor]) -> None:
    """Change what a module gives, wherever its tensors are."""
    module = model.get_submodule(path)
    forward = module.forward

    def changed(*args: Any, **kwargs: Any) -> Any:
        return mapped(
            forward(*args, **kwargs), lambda _, t: change(t) if t.is_floating_point() else t
        )

    module.forward = changed


def replaced(model: nn.Module, path: str, make: Callable[[nn.Module], nn.Module]) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, make(model.get_submodule(path)))


def with_step(pipeline: Pipeline, step: Callable[[Any, Any, Any, Pipeline], Any]) -> Pipeline:
    return dataclasses.replace(
        pipeline,
        optimizer=pipeline.optimizer or adam(1e-3),
        train_step=lambda model, batch, optimizer: step(model, batch, optimizer, pipeline),
    )


def loss_of(model: Any, batch: Any, pipeline: Pipeline) -> Tensor:
    forward = pipeline.forward or (lambda m, b: m(b))
    return pipeline.loss(forward(model, batch), batch)


def adam(rate: float, **more: Any) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.Adam(parameters, rate, **more)


class Detached(nn.Module):
    """A stage whose flow is cut by no_grad."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return self.inner(*args, **kwargs)


class Stack(nn.Module):
    """Layers behind a trunk, on whatever tensors it gives."""

    def __init__(self, trunk: nn.Module, *layers: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.layers = nn.Sequential(*layers)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.trunk(*args, **kwargs)
        return mapped(out, lambda _, t: self.layers(t) if t.is_floating_point() else t)


def sigmoids(width: int) -> list[nn.Module]:
    return [m for _ in range(14) for m in (nn.Linear(width, width), nn.Sigmoid())]


def large(width: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for _ in range(12):
        layer = nn.Linear(width, width)
        with torch.no_grad():
            layer.weight.mul_(12)
        layers.append(layer)
    return [*layers, nn.LayerNorm(width)]


class Root(nn.Module):
    """A square root of what is 0 in half of its entries."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x * (x > 0)).sqrt()


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Offset(nn.Module):
    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


# ---- model


def detached(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.early, Tensor.detach)
    return pipeline


def without_grad(pipeline: Pipeline, site: Site) -> Pipeline:
    replaced(pipeline.model, site.early, Detached)
    return pipeline


class _Nothing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return torch.zeros_like(g)


def zeroed_gradient(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.early, lambda t: _Nothing.apply(t))  # type: ignore[no-untyped-call]
    return pipeline


def rounded(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.early, lambda t: (50 * t).round() / 50)
    return pipeline


def frozen(pipeline: Pipeline, site: Site) -> Pipeline:
    pipeline.model.get_submodule(site.middle).requires_grad_(False)
    return pipeline


def unused(pipeline: Pipeline, site: Site) -> Pipeline:
    pipeline.model.extra = nn.Linear(3, 3)
    return pipeline


def predictions_detached(pipeline: Pipeline, site: Site) -> Pipeline:
    forward = pipeline.forward or (lambda model, batch: model(batch))
    return dataclasses.replace(
        pipeline,
        forward=lambda model, batch: mapped(forward(model, batch), lambda _, t: t.detach()),
    )


def silenced(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.trunk, lambda t: 0 * t)
    return pipeline


def averaged(pipeline: Pipeline, site: Site) -> Pipeline:
    """A trunk whose output is that of all rows together."""
    after(pipeline.model, site.trunk, lambda t: t.mean(dim=-2, keepdim=True).expand_as(t))
    return pipeline


def normed_away(pipeline: Pipeline, site: Site) -> Pipeline:
    """A norm over an axis of length 1."""
    after(
        pipeline.model, site.trunk, lambda t: nn.functional.layer_norm(t[..., None], (1,))[..., 0]
    )
    return pipeline


def softmax_of_one(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.trunk, lambda t: t[..., None].softmax(-1)[..., 0])
    return pipeline


def dead(pipeline: Pipeline, site: Site) -> Pipeline:
    replaced(
        pipeline.model,
        site.trunk,
        lambda m: Stack(m, Offset(-100.0), nn.ReLU(), nn.Linear(site.width, site.width)),
    )
    return pipeline


def saturated(pipeline: Pipeline, site: Site) -> Pipeline:
    replaced(
        pipeline.model,
        site.trunk,
        lambda m: Stack(m, Scaled(1e3), Offset(20.0), nn.Tanh(), nn.Linear(site.width, site.width)),
    )
    return pipeline


def vanishing(pipeline: Pipeline, site: Site) -> Pipeline:
    replaced(pipeline.model, site.trunk, lambda m: Stack(m, *sigmoids(site.width)))
    return pipeline


def exploding(pipeline: Pipeline, site: Site) -> Pipeline:
    replaced(pipeline.model, site.trunk, lambda m: Stack(m, *large(site.width)))
    return pipeline


def pole(pipeline: Pipeline, site: Site) -> Pipeline:
    replaced(pipeline.model, site.trunk, lambda m: Stack(m, Root()))
    return pipeline


def sharp_attention(pipeline: Pipeline, site: Site) -> Pipeline:
    assert site.attention is not None
    module = pipeline.model.get_submodule(site.attention)
    weight = module.in_proj_weight if isinstance(module, nn.MultiheadAttention) else module.weight
    assert isinstance(weight, Tensor)
    with torch.no_grad():
        weight.mul_(1000)
    return pipeline


# ---- loss


def unpaired(pipeline: Pipeline, site: Site) -> Pipeline:
    """Every event is held against the mean of all predictions."""
    loss = pipeline.loss

    def of_mean(predictions: Any, batch: Any) -> Tensor:
        mean = mapped(predictions, lambda _, t: t.mean(0, keepdim=True).expand_as(t))
        return loss(mean, batch)

    return dataclasses.replace(pipeline, loss=of_mean)


def tiny_loss(pipeline: Pipeline, site: Site) -> Pipeline:
    loss = pipeline.loss
    return dataclasses.replace(
        pipeline,
        loss=lambda p, b: 1e-12 * loss(p, b),
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.1),
    )


# ---- optimizer


def zero_rate(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(pipeline, optimizer=adam(0.0))


def tiny_rate(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(pipeline, optimizer=adam(1e-10))


def tiny_rate_flat(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(pipeline, optimizer=adam(1e-8))


def huge_rate(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(pipeline, optimizer=adam(10.0))


def huge_descent(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(pipeline, optimizer=lambda p: torch.optim.SGD(p, 1e4))


def climbing(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(pipeline, optimizer=adam(3e-3, maximize=True))


def misses_early(pipeline: Pipeline, site: Site) -> Pipeline:
    kept = {id(p) for p in pipeline.model.get_submodule(site.early).parameters()}
    return dataclasses.replace(
        pipeline, optimizer=lambda ps: torch.optim.Adam([p for p in ps if id(p) not in kept], 1e-3)
    )


def stale(pipeline: Pipeline, site: Site) -> Pipeline:
    """The optimizer was made before a layer was replaced."""
    before = list(pipeline.model.parameters())
    replaced(pipeline.model, site.middle, copy.deepcopy)
    return dataclasses.replace(pipeline, optimizer=lambda _: torch.optim.Adam(before, 1e-3))


def of_a_copy(pipeline: Pipeline, site: Site) -> Pipeline:
    twin = copy.deepcopy(pipeline.model)
    return dataclasses.replace(
        pipeline, optimizer=lambda _: torch.optim.Adam(twin.parameters(), 1e-3)
    )


def decayed(pipeline: Pipeline, site: Site) -> Pipeline:
    return dataclasses.replace(
        pipeline, optimizer=lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.3)
    )


# ---- loop


def never_cleared(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def never_stepped(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return with_step(pipeline, step)


def never_back(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def cleared_late(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.zero_grad()
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def loss_wrapped(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline).detach().requires_grad_()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def reset_each_step(pipeline: Pipeline, site: Site) -> Pipeline:
    kept = copy.deepcopy(pipeline.model.state_dict())

    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        model.load_state_dict(kept)
        return loss

    return with_step(pipeline, step)


def clipped(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1e-5)
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def clipped_by_hand(pipeline: Pipeline, site: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        for p in model.parameters():
            if p.grad is not None:
                p.grad.mul_(1e-5)
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def early_of(site: Site) -> str:
    return site.early


def trunk_of(site: Site) -> str:
    return site.trunk


def middle_of(site: Site) -> str:
    return site.middle


def stack_of(site: Site) -> str:
    return f"{site.trunk}.layers"


def _named(name: str) -> Callable[[Site], str]:
    return lambda _: name


OPTIMIZER, STEP, LOSS = _named("optimizer"), _named("train step"), _named("loss")

FAULTS: tuple[LearningFault, ...] = (
    LearningFault(name="detached", code="G01", strike=detached, stage=early_of),
    LearningFault(
        name="no_grad",
        code="G01",
        strike=without_grad,
        stage=early_of,
        only=("icecube", "images", "sequences"),
    ),
    LearningFault(name="zeroed-gradient", code="G01", strike=zeroed_gradient, stage=early_of),
    LearningFault(name="rounded", code="G01", strike=rounded, stage=early_of),
    LearningFault(
        name="frozen",
        code="G01",
        strike=frozen,
        stage=middle_of,
        # A frozen last layer of ten values could as well have been learnt.
        only=("icecube", "images", "language"),
    ),
    LearningFault(
        name="unused",
        code="G01",
        strike=unused,
        stage=_named("extra"),
        severity="note",
        only=("icecube", "sequences", "language"),
    ),
    LearningFault(
        name="predictions-detached", code="G01", strike=predictions_detached, stage=_named("model")
    ),
    LearningFault(name="silenced", code="L01 L04", strike=silenced, stage=trunk_of),
    LearningFault(name="normed-away", code="L01 L04", strike=normed_away, stage=trunk_of),
    LearningFault(name="softmax-of-one", code="L01 L04", strike=softmax_of_one, stage=trunk_of),
    LearningFault(name="dead-units", code="G06", strike=dead, stage=stack_of),
    LearningFault(name="dead-units-overfit", code="L01 L04", strike=dead, stage=stack_of),
    LearningFault(name="saturated", code="G13", strike=saturated, stage=stack_of),
    LearningFault(name="vanishing", code="G03", strike=vanishing),
    LearningFault(name="exploding", code="G04", strike=exploding),
    LearningFault(name="pole", code="G05", strike=pole, only=("icecube", "sequences")),
    LearningFault(
        name="sharp-attention",
        code="G14",
        strike=sharp_attention,
        only=("icecube",),
        stage=_named("transformer.layers.0"),
    ),
    # Whether the loss is named or the model hangs on how soon one event alone is learnt.
    LearningFault(name="unpaired", code="L01 L04", strike=unpaired),
    LearningFault(name="tiny-loss", code="G07 G11", strike=tiny_loss),
    LearningFault(name="zero-rate", code="G08", strike=zero_rate, stage=OPTIMIZER),
    LearningFault(name="tiny-rate", code="G08", strike=tiny_rate, stage=OPTIMIZER),
    LearningFault(name="tiny-rate-overfit", code="L01 L04", strike=tiny_rate_flat, stage=OPTIMIZER),
    LearningFault(name="huge-rate", code="G08", strike=huge_rate, stage=OPTIMIZER),
    LearningFault(
        name="huge-descent", code="G07", strike=huge_descent, only=("icecube", "images", "language")
    ),
    LearningFault(name="climbing", code="L02", strike=climbing),
    LearningFault(name="misses-early", code="G02", strike=misses_early, stage=early_of),
    LearningFault(name="stale-optimizer", code="G02", strike=stale, stage=middle_of),
    LearningFault(name="optimizer-of-a-copy", code="G11", strike=of_a_copy, stage=OPTIMIZER),
    LearningFault(
        name="decayed-norms", code="G12", strike=decayed, stage=OPTIMIZER, severity="note"
    ),
    LearningFault(name="never-cleared", code="G10", strike=never_cleared, stage=STEP),
    LearningFault(name="never-stepped", code="G11", strike=never_stepped, stage=STEP),
    LearningFault(name="never-back", code="G11", strike=never_back, stage=STEP),
    LearningFault(name="cleared-late", code="G11", strike=cleared_late, stage=STEP),
    LearningFault(name="loss-wrapped", code="G11", strike=loss_wrapped, stage=STEP),
    LearningFault(name="reset-each-step", code="G11", strike=reset_each_step, stage=STEP),
    LearningFault(name="clipped", code="G09", strike=clipped, stage=STEP),
    LearningFault(name="scaled-by-hand", code="G09", strike=clipped_by_hand, stage=STEP),
    LearningFault(name="step-at-fault", code="L01 L04", strike=cleared_late, stage=STEP),
)
