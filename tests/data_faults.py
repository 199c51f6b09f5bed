"""Faults of the loss, of batches and of samples on their way to the training.

As in `learning_faults`, each is a small change that is told where to strike.
"""

# ruff: noqa: NPY002 - what users write draws from the global generator

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, SubsetRandomSampler

from icediag import Pipeline
from icediag.icecube import pipeline as icecube
from icediag.instruments.trees.rows import floating, mapped
from icediag.instruments.trees.walk import leaves
from icediag.model.directions import to_unit_vector
from icediag.model.losses import competition_metric
from tests.learning_faults import (
    LOSS,
    SITES,
    LearningFault,
    Site,
    Stack,
    after,
    loss_of,
    replaced,
    trunk_of,
    with_step,
)
from tests.pipelines import regrouped

#: The same places, and one with padding, a mask and normalisation over the batch.
PLACES = (
    *SITES,
    Site(
        name="regrouped",
        make=regrouped.pipeline,
        early="lift",
        trunk="norm",
        middle="head",
        width=16,
        targets="y",
    ),
)
SUPERVISED = ("icecube", "images", "sequences", "regrouped")
CLASSIFIERS = ("images",)
#: Those whose data set can be read in any order.
INDEXED = ("icecube", "images", "language", "regrouped")


def with_loss(pipeline: Pipeline, loss: Callable[[Any, Any], Tensor]) -> Pipeline:
    return dataclasses.replace(pipeline, loss=loss)


def with_collate(pipeline: Pipeline, collate: Callable[[list[Any]], Any]) -> Pipeline:
    return dataclasses.replace(pipeline, collate=collate)


# ---- loss


def itself(pipeline: Pipeline, _: Site) -> Pipeline:
    """Predictions are held against what they were a moment ago."""

    def loss(p: Any, _: Any) -> Tensor:
        return torch.stack([(t - t.detach().round()).square().mean() for _, t in floating(p)]).sum()

    return with_loss(pipeline, loss)


def with_targets(
    pipeline: Pipeline, site: Site, change: Callable[[Tensor], Tensor]
) -> Callable[[Any, Any], Tensor]:
    """The loss with changed targets."""
    own = pipeline.loss
    return lambda p, b: own(p, mapped(b, lambda at, t: change(t) if at == site.targets else t))


def rolled_in_loss(pipeline: Pipeline, site: Site) -> Pipeline:
    return with_loss(pipeline, with_targets(pipeline, site, lambda t: t.roll(1, 0)))


def one_truth(pipeline: Pipeline, site: Site) -> Pipeline:
    return with_loss(pipeline, with_targets(pipeline, site, lambda t: t[:1].expand_as(t)))


def summed(pipeline: Pipeline, site: Site) -> Pipeline:
    own = pipeline.loss

    def loss(p: Any, b: Any) -> Tensor:
        held = dict(leaves(b))[site.targets]
        return own(p, b) * len(held)

    return with_loss(pipeline, loss)


def squashed(pipeline: Pipeline, _: Site) -> Pipeline:
    own = pipeline.loss
    return with_loss(pipeline, lambda p, b: own(p.softmax(-1), b))


def column_left_out(pipeline: Pipeline, site: Site) -> Pipeline:
    """The first column of the truth is taken twice."""
    return with_loss(pipeline, with_targets(pipeline, site, lambda t: t[:, :1].repeat(1, 2)))


def column_untrained(pipeline: Pipeline, _: Site) -> Pipeline:
    return with_loss(pipeline, lambda p, b: (p[:, 0] - b["y"][:, 0]).square().mean())


def checkpoint_of_model(pipeline: Pipeline, _: Site) -> Pipeline:
    """Weights alone are saved, and Adam begins without its averages."""

    def save(path: Any, model: nn.Module, _: Any) -> None:
        torch.save(model.state_dict(), path)

    def load(path: Any, model: nn.Module, _: Any) -> None:
        model.load_state_dict(torch.load(path))

    return dataclasses.replace(pipeline, save=save, load=load)


def checkpoint_of_start(pipeline: Pipeline, site: Site) -> Pipeline:
    """The weights of a copy that is not trained."""
    first = copy.deepcopy(pipeline.model.state_dict())
    pipeline = checkpoint_of_model(pipeline, site)
    return dataclasses.replace(pipeline, save=lambda path, *_: torch.save(first, path))


def metric_of_next(pipeline: Pipeline, site: Site) -> Pipeline:
    """The metric holds predictions against the truth of the next event."""
    return dataclasses.replace(
        pipeline, metric=with_targets(pipeline, site, lambda t: t.roll(1, 0))
    )


def metric_of_truth(pipeline: Pipeline, site: Site) -> Pipeline:
    """Of the targets alone."""

    def metric(_: Any, batch: Any) -> Tensor:
        return dict(leaves(batch))[site.targets].float().std()

    return dataclasses.replace(pipeline, metric=metric)


def metric_exchanged(pipeline: Pipeline, _: Site) -> Pipeline:
    return dataclasses.replace(
        pipeline, metric=lambda p, b: competition_metric(p.zenith, p.azimuth, b.targets)
    )


def bare_arccos(pipeline: Pipeline, _: Site) -> Pipeline:
    def loss(p: Any, b: Any) -> Tensor:
        truth = to_unit_vector(*b.targets.unbind(-1))
        value: Tensor = (p.direction * truth).sum(-1).clamp(-1, 1).arccos().mean()
        return value

    return with_loss(pipeline, loss)


def overflowing(pipeline: Pipeline, _: Site) -> Pipeline:
    """The normaliser of von Mises and Fisher as it stands in the book."""

    def loss(p: Any, b: Any) -> Tensor:
        cosine = (p.direction * to_unit_vector(*b.targets.unbind(-1))).sum(-1)
        value: Tensor = -(p.kappa.log() - p.kappa.sinh().log() + p.kappa * cosine).mean()
        return value

    return with_loss(pipeline, loss)


def jumping(pipeline: Pipeline, _: Site) -> Pipeline:
    """A normaliser of two forms that miss each other by log 2."""

    def loss(p: Any, b: Any) -> Tensor:
        cosine = (p.direction * to_unit_vector(*b.targets.unbind(-1))).sum(-1)
        low = p.kappa.clamp(max=20.0).sinh().log()
        normaliser = torch.where(p.kappa < 20, low, p.kappa) - p.kappa.log()
        value: Tensor = (normaliser - p.kappa * cosine).mean()
        return value

    return with_loss(pipeline, loss)


def root(pipeline: Pipeline, _: Site) -> Pipeline:
    """The root of a square, event by event."""
    return with_loss(pipeline, lambda p, b: (p - b.labels).square().sqrt().mean())


def root_of_rows(pipeline: Pipeline, _: Site) -> Pipeline:
    return with_loss(pipeline, lambda p, b: (p - b["y"]).square().sum(1).sqrt().mean())


def not_periodic(pipeline: Pipeline, _: Site) -> Pipeline:
    def loss(p: Any, b: Any) -> Tensor:
        azimuth, zenith = b.targets.unbind(-1)
        value: Tensor = ((p.azimuth - azimuth).abs() + (p.zenith - zenith).abs()).mean()
        return value

    return with_loss(pipeline, loss)


def turned(pipeline: Pipeline, _: Site) -> Pipeline:
    """Azimuth counts the same at the poles, where it means nothing."""

    def loss(p: Any, b: Any) -> Tensor:
        azimuth, zenith = b.targets.unbind(-1)
        value: Tensor = (2 - (p.azimuth - azimuth).cos() - (p.zenith - zenith).cos()).mean()
        return value

    return with_loss(pipeline, loss)


# ---- batches


def centred(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.trunk, lambda t: t - t.mean(0, keepdim=True))
    return pipeline


def of_the_batch(pipeline: Pipeline, site: Site) -> Pipeline:
    """Batch statistics in evaluation too."""
    norm = nn.BatchNorm1d(site.width, track_running_stats=False)
    replaced(pipeline.model, site.trunk, lambda m: Stack(m, norm))
    return pipeline


def unmasked(pipeline: Pipeline, site: Site) -> Pipeline:
    """Attention looks at padding."""
    if site.name == "regrouped":
        return regrouped.pipeline("no padding mask")
    model: Any = pipeline.model
    own = model.parts.pack

    def pack(*args: Any) -> Any:
        packed = own(*args)
        buckets = tuple(dataclasses.replace(b, padded=False) for b in packed.buckets)
        mask = torch.zeros_like(packed.padding_mask)
        return dataclasses.replace(packed, buckets=buckets, padding_mask=mask, runs=None)

    model.parts = dataclasses.replace(model.parts, pack=pack)
    return pipeline


def _moved(
    pipeline: Pipeline, site: Site, order: Callable[[Tensor], Tensor]
) -> Callable[[list[Any]], Any]:
    own = pipeline.collate
    return lambda samples: mapped(
        own(samples), lambda at, t: t[order(t)] if at == site.targets else t
    )


def targets_moved(pipeline: Pipeline, site: Site) -> Pipeline:
    return with_collate(pipeline, _moved(pipeline, site, lambda t: torch.arange(len(t)).roll(1)))


def targets_sorted(pipeline: Pipeline, site: Site) -> Pipeline:
    def order(t: Tensor) -> Tensor:
        return t.reshape(len(t), -1)[:, 0].argsort(stable=True)

    return with_collate(pipeline, _moved(pipeline, site, order))


def targets_at_random(pipeline: Pipeline, site: Site) -> Pipeline:
    """The order is drawn for the targets alone."""
    return with_collate(pipeline, _moved(pipeline, site, lambda t: torch.randperm(len(t))))


def _short(sample: Any, than: int) -> bool:
    return sum(tensor.numel() for _, tensor in leaves(sample)) < than


def _middle(pipeline: Pipeline) -> int:
    sizes = sorted(sum(t.numel() for _, t in leaves(sample)) for sample in pipeline.dataset)
    return sizes[len(sizes) // 4]


def dropping(pipeline: Pipeline, _: Site) -> Pipeline:
    """A quarter of the samples, the shortest, get lost."""
    own, bar = pipeline.collate, _middle(pipeline)
    return with_collate(pipeline, lambda ss: own([s for s in ss if not _short(s, bar)] or ss))


def doubling(pipeline: Pipeline, _: Site) -> Pipeline:
    own, bar = pipeline.collate, _middle(pipeline)
    return with_collate(
        pipeline, lambda ss: own([t for s in ss for t in [s] * (1 + _short(s, bar))])
    )


def random_in_evaluation(pipeline: Pipeline, site: Site) -> Pipeline:
    after(pipeline.model, site.trunk, lambda t: functional.dropout(t, 0.3))
    return pipeline


def own_noise(pipeline: Pipeline, site: Site) -> Pipeline:
    """Noise in training from a generator of its own."""
    generator = torch.Generator().manual_seed(0)

    def noise(t: Tensor) -> Tensor:
        strength = 0.1 if pipeline.model.training else 0.0
        return t + strength * torch.randn(t.shape, generator=generator)

    after(pipeline.model, site.trunk, noise)
    return pipeline


def squeezed(pipeline: Pipeline, _: Site) -> Pipeline:
    """Of one event the axis of events goes."""
    forward = pipeline.forward or (lambda model, batch: model(batch))
    return dataclasses.replace(
        pipeline,
        forward=lambda model, batch: mapped(forward(model, batch), lambda _, t: t.squeeze(0)),
    )


def cut(pipeline: Pipeline, _: Site) -> Pipeline:
    """The first rows of each event alone."""
    own = pipeline.collate

    def shorter(sample: Any) -> Any:
        return mapped(sample, lambda _, t: t[:60] if t.ndim == 2 else t)

    return with_collate(pipeline, lambda samples: own([shorter(sample) for sample in samples]))


# ---- validation, loader, step


class Held:
    """Samples of another data set, changed."""

    def __init__(self, dataset: Any, change: Callable[[Tensor], Tensor] = lambda t: t) -> None:
        self.dataset, self.change = dataset, change

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        def change(_: str, t: Tensor) -> Tensor:
            return self.change(t) if t.is_floating_point() and t.ndim > 1 else t

        return mapped(self.dataset[index], change)


def overlapping(pipeline: Pipeline, _: Site) -> Pipeline:
    n = len(pipeline.dataset)
    return dataclasses.replace(
        pipeline, validation=torch.utils.data.Subset(pipeline.dataset, range(n // 2, n))
    )


def augmented(pipeline: Pipeline, _: Site) -> Pipeline:
    def noisy(t: Tensor) -> Tensor:
        return t + 0.1 * torch.rand(t.shape)

    return dataclasses.replace(pipeline, validation=Held(pipeline.dataset, noisy))


def drifted(pipeline: Pipeline, _: Site) -> Pipeline:
    other = icecube(n_events=32, seed=5).dataset
    return dataclasses.replace(pipeline, validation=Held(other, lambda t: 3 * t + 1))


def with_loader(pipeline: Pipeline, **how: Any) -> Pipeline:
    size = max(1, len(pipeline.dataset) // 12)

    def loader() -> Any:
        return DataLoader(pipeline.dataset, size, collate_fn=pipeline.collate, **how)

    return dataclasses.replace(pipeline, loader=loader)


def in_order(pipeline: Pipeline, _: Site) -> Pipeline:
    return with_loader(pipeline)


def shuffled_once(pipeline: Pipeline, _: Site) -> Pipeline:
    n = len(pipeline.dataset)
    return with_loader(
        pipeline, sampler=torch.randperm(n, generator=torch.Generator().manual_seed(4)).tolist()
    )


def repeating(pipeline: Pipeline, _: Site) -> Pipeline:
    n = len(pipeline.dataset)
    return with_loader(pipeline, sampler=SubsetRandomSampler([i // 2 for i in range(n)]))


def workers_alike(pipeline: Pipeline, _: Site) -> Pipeline:

    def jittered(t: Tensor) -> Tensor:
        """Of the first column alone: others may be names."""
        return torch.cat([t[..., :1] + np.random.rand() / 100, t[..., 1:]], -1)

    noisy = Held(pipeline.dataset, jittered)

    def seeded(_: int) -> None:
        np.random.seed(1)

    return with_loader(
        dataclasses.replace(pipeline, dataset=noisy),
        shuffle=True,
        num_workers=2,
        worker_init_fn=seeded,
    )


def in_evaluation(pipeline: Pipeline, site: Site) -> Pipeline:
    """model.eval() for a validation, and no model.train() after it."""
    replaced(pipeline.model, site.trunk, lambda m: Stack(m, nn.Dropout(0.1)))

    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        model.eval()
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    return with_step(pipeline, step)


def clipped_late(pipeline: Pipeline, _: Site) -> Pipeline:
    def step(model: Any, batch: Any, optimizer: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        return loss

    return with_step(pipeline, step)


def scheduled(pipeline: Pipeline, _: Site) -> Pipeline:
    """A schedule that is made for epochs takes a step a batch."""
    optimizer = torch.optim.SGD(pipeline.model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)

    def step(model: Any, batch: Any, _: Any, pipeline: Pipeline) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batch, pipeline)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        return loss

    return with_step(with_loader(pipeline, shuffle=True), step)


def _named(name: str) -> Callable[[Site], str]:
    return lambda _: name


COLLATE, METRIC, CHECKPOINT = _named("collate"), _named("metric"), _named("checkpoint")
ICECUBE = ("icecube",)


DATA_FAULTS: tuple[LearningFault, ...] = (
    LearningFault(
        name="itself-for-truth",
        code="L20",
        strike=itself,
        stage=LOSS,
        # Labels of sequences are whole numbers, each there once: they look like numbers of samples.
        only=("icecube", "images", "regrouped"),
    ),
    LearningFault(
        name="column-left-out", code="L20", strike=column_left_out, stage=LOSS, only=ICECUBE
    ),
    LearningFault(
        name="column-untrained",
        code="L20",
        strike=column_untrained,
        stage=LOSS,
        only=("regrouped",),
    ),
    LearningFault(
        name="metric-of-next",
        code="L27",
        strike=metric_of_next,
        stage=METRIC,
        only=("icecube", "regrouped"),
    ),
    LearningFault(
        name="metric-of-truth",
        code="L27",
        strike=metric_of_truth,
        stage=METRIC,
        only=SUPERVISED,
    ),
    LearningFault(
        name="metric-exchanged",
        code="L27",
        strike=metric_exchanged,
        stage=METRIC,
        only=ICECUBE,
    ),
    LearningFault(
        name="checkpoint-of-model", code="T10", strike=checkpoint_of_model, stage=CHECKPOINT
    ),
    LearningFault(
        name="checkpoint-of-start",
        code="T10",
        strike=checkpoint_of_start,
        stage=CHECKPOINT,
        severity="error",
    ),
    LearningFault(name="bare-arccos", code="L21", strike=bare_arccos, stage=LOSS, only=ICECUBE),
    LearningFault(name="overflow", code="L21", strike=overflowing, stage=LOSS, only=ICECUBE),
    LearningFault(name="jump", code="L21", strike=jumping, stage=LOSS, only=ICECUBE),
    LearningFault(name="root", code="L21", strike=root, stage=LOSS, only=("sequences",)),
    LearningFault(
        name="root-of-rows", code="L21", strike=root_of_rows, stage=LOSS, only=("regrouped",)
    ),
    LearningFault(name="not-periodic", code="L22", strike=not_periodic, stage=LOSS, only=ICECUBE),
    LearningFault(name="rolled", code="L23", strike=rolled_in_loss, stage=LOSS, only=SUPERVISED),
    LearningFault(name="one-truth", code="L23", strike=one_truth, stage=LOSS, only=SUPERVISED),
    LearningFault(
        name="summed", code="L24", strike=summed, stage=LOSS, severity="note", only=SUPERVISED
    ),
    LearningFault(
        name="turned", code="L25", strike=turned, stage=LOSS, severity="note", only=ICECUBE
    ),
    LearningFault(name="squashed", code="L26", strike=squashed, severity="note", only=CLASSIFIERS),
    LearningFault(
        name="centred",
        code="I01",
        strike=centred,
        stage=trunk_of,
        only=("icecube", "images", "language", "regrouped"),
    ),
    LearningFault(
        name="of-the-batch",
        code="I01",
        strike=of_the_batch,
        stage=trunk_of,
        only=("icecube", "images", "regrouped"),
    ),
    LearningFault(name="unmasked", code="I01 I02", strike=unmasked, only=("icecube", "regrouped")),
    LearningFault(
        name="targets-moved", code="I03", strike=targets_moved, stage=COLLATE, only=SUPERVISED
    ),
    LearningFault(
        name="targets-sorted", code="I03", strike=targets_sorted, stage=COLLATE, only=SUPERVISED
    ),
    LearningFault(
        name="targets-at-random",
        code="I03",
        strike=targets_at_random,
        stage=COLLATE,
        only=SUPERVISED,
    ),
    LearningFault(
        name="dropping",
        code="I04",
        strike=dropping,
        stage=COLLATE,
        only=("icecube", "sequences", "regrouped"),
    ),
    LearningFault(
        name="doubling",
        code="I04",
        strike=doubling,
        stage=COLLATE,
        only=("icecube", "sequences", "regrouped"),
    ),
    LearningFault(name="cut", code="I04", strike=cut, stage=COLLATE, severity="note", only=ICECUBE),
    LearningFault(
        name="random-in-evaluation",
        code="I05",
        strike=random_in_evaluation,
        only=("icecube", "images", "language", "regrouped"),
    ),
    LearningFault(
        name="squeezed", code="I06", strike=squeezed, only=("images", "sequences", "regrouped")
    ),
    LearningFault(name="own-noise", code="I09", strike=own_noise, severity="note"),
    LearningFault(name="overlap", code="T01", strike=overlapping, only=INDEXED),
    LearningFault(
        name="augmented", code="T02", strike=augmented, only=("icecube", "images", "regrouped")
    ),
    LearningFault(name="in-order", code="T03", strike=in_order, only=INDEXED),
    LearningFault(name="shuffled-once", code="T03", strike=shuffled_once, only=INDEXED),
    LearningFault(name="repeating", code="T04", strike=repeating, only=INDEXED),
    LearningFault(
        name="workers-alike",
        code="T05",
        strike=workers_alike,
        only=("icecube", "images", "regrouped"),
    ),
    LearningFault(name="in-evaluation", code="T06", strike=in_evaluation),
    LearningFault(name="clipped-late", code="T07", strike=clipped_late),
    LearningFault(
        name="scheduled",
        code="T08",
        strike=scheduled,
        # An epoch of six texts is too short to tell.
        only=("icecube", "images", "regrouped"),
    ),
    LearningFault(name="drifted", code="T09", strike=drifted, severity="note", only=ICECUBE),
)
