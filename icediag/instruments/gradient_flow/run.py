"""Gradient flow: what comes back to each stage and parameter, and what a step makes of it.

A few micro-batches forth and back, then a few steps as the user takes them. Numbers stay on the
device until a batch is through: one copy each.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.preserve import is_lazy
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.stages import location_of
from icediag.instruments.running.workbench import Workbench, has_weights, workbench
from icediag.instruments.trees.rows import floating
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged
from icediag.records.gradients import GradientsRecord, ParameterFlow, StageSignal

from .activations import ActivationWatch
from .dependence import with_effects
from .origin import origin_of_non_finite
from .steps import take_steps

#: Micro-batches, events in each, and steps.
MICRO_BATCHES = 4
EVENTS = 8
STEPS = 4
#: Layers whose `weight` multiplies values of spread 1.
NORMS = (
    *(nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),  # noqa: SLF001
)


def record_gradients(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> GradientsRecord:
    """Record gradients and steps; everything is left as it was found.

    Args:
        pipeline: What to look at.
        batch_size: Events in all micro-batches together at most; without, 32.
        device: Where the model is.
        seed: Of every pass.

    Raises:
        IcediagError: The data set is empty or cannot be read.
    """
    reason = has_weights(pipeline.model)
    if reason is not None and not isinstance(pipeline.model, nn.Module):
        return GradientsRecord(reason=reason)
    if reason is not None and not any(True for _ in pipeline.model.parameters()):
        return GradientsRecord(reason=reason)
    asked = pipeline.batch_size if batch_size is None else batch_size
    flags = {name: module.training for name, module in pipeline.model.named_modules()}
    notes: list[Unjudged] = []
    with workbench(
        pipeline,
        wanted=min(asked, MICRO_BATCHES * EVENTS) if asked > 1 else 2,
        device=device,
        seed=seed,
        notes=notes,
    ) as bench:
        try:
            return _record(bench, flags)
        except Exception as error:  # the user's code does not come through
            return GradientsRecord(reason=reason_of(error, pipeline))


def _micro_batches(bench: Workbench) -> list[list[int]]:
    """Groups of events; the last is not left with a single one, which batch norms cannot take."""
    n = len(bench.samples)
    size = max(2, min(EVENTS, math.ceil(n / MICRO_BATCHES)))
    groups = [list(range(at, min(at + size, n))) for at in range(0, n, size)]
    if len(groups) > 1 and len(groups[-1]) == 1:
        groups[-2] += groups.pop()
    return groups


class _Passes:
    """What comes of the micro-batches together."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.named = {n: p for n, p in model.named_parameters() if not is_lazy(p)}
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}
        self.touched: dict[str, Tensor] = {}
        self.count = 0
        self.order: dict[str, int] = {}
        self.came: dict[str, int] = {}
        self.signals: dict[str, list[Tensor]] = {}
        self.backs: dict[str, list[Tensor]] = {}
        self.depends = True
        self.loss: float | None = None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Follow what each module gives, and what comes back to it and to each parameter."""
        with ExitStack() as hooks:
            for name, parameter in self.named.items():
                if parameter.requires_grad and parameter.is_leaf:

                    def complete(_: Tensor, name: str = name) -> None:
                        self.came.setdefault(name, len(self.came))

                    hooks.callback(
                        parameter.register_post_accumulate_grad_hook(complete).remove  # type: ignore[no-untyped-call]
                    )
            for path, module in self.model.named_modules():

                def before(_: nn.Module, __: Any, name: str = path or "model") -> None:
                    self.order.setdefault(name, len(self.order))

                def after(_: nn.Module, __: Any, output: Any, name: str = path or "model") -> None:
                    for _path, tensor in floating(output):
                        if not tensor.numel():
                            continue
                        value = tensor.detach()
                        self.signals.setdefault(name, []).append(_mean_square(value))
                        if tensor.requires_grad:
                            handle = tensor.register_hook(self._came(name))  # type: ignore[no-untyped-call]
                            hooks.callback(handle.remove)

                try:
                    hooks.callback(module.register_forward_pre_hook(before).remove)
                    hooks.callback(module.register_forward_hook(after).remove)
                except (RuntimeError, TypeError):
                    continue
            yield

    def _came(self, name: str) -> Any:
        def came(gradient: Tensor) -> None:
            g = gradient.detach()
            both = torch.stack([_mean_square(g), (g == 0).double().mean()])
            self.backs.setdefault(name, []).append(both)

        return came

    def gather(self) -> None:
        """Add what the parameters got."""
        self.count += 1
        for name, parameter in self.named.items():
            gradient = parameter.grad
            if gradient is None:
                continue
            g = (gradient.to_dense() if gradient.is_sparse else gradient).detach()
            square, touched = g.double().square().sum(), g != 0
            if name in self.sums:
                self.sums[name] += g
                self.squares[name] += square
                self.touched[name] |= touched
            else:
                self.sums[name], self.squares[name] = g.clone(), square
                self.touched[name] = touched


def _mean_square(values: Tensor) -> Tensor:
    return values.double().square().mean()


def _record(bench: Workbench, flags: dict[str, bool]) -> GradientsRecord:
    groups = _micro_batches(bench)
    batches = [bench.batches(group) for group in groups]
    watch, passes = ActivationWatch(), _Passes(bench.model)
    for batch in batches:
        watch.again()
        with bench.from_here(), torch.enable_grad():
            with passes.hooked(), watch.on(bench.model):
                loss = bench.loss(batch())
                if passes.loss is None:
                    passes.loss = float(loss.detach())
                if not loss.requires_grad:
                    passes.depends = False
                    break
                loss.backward()  # type: ignore[no-untyped-call]
            passes.gather()
    notes: list[str] = []
    steps, moved, decays = take_steps(bench, batches, STEPS, notes)
    parameters, noise = _parameters(passes, flags, moved, decays)
    finite = all(p.gradient is None or math.isfinite(p.gradient) for p in parameters)
    origin = None
    if not finite or any(not math.isfinite(s.signal) for s in _stages(passes)):
        origin = origin_of_non_finite(bench, batches)
    optimizer, adaptive = _optimizer_of(bench)
    record = GradientsRecord(
        parameters=parameters,
        stages=_stages(passes),
        activations=watch.activations(),
        attention=watch.attention(),
        steps=steps,
        micro_batches=len(batches),
        events=len(groups[0]),
        optimizer=optimizer,
        adaptive=adaptive,
        default_optimizer=bench.pipeline.optimizer is None,
        own_step=bench.pipeline.train_step is not None,
        loss_depends=passes.depends,
        loss=passes.loss,
        noise=noise,
        non_finite=origin,
        not_seen=tuple(notes),
    )
    return with_effects(bench, batches[0], record)


def _optimizer_of(bench: Workbench) -> tuple[str, bool]:
    try:
        with bench.from_here():
            optimizer = bench.make_optimizer()
    except Exception:  # the steps met it and said so
        return "", False
    groups = getattr(optimizer, "param_groups", ())
    return type(optimizer).__name__, any("betas" in group for group in groups)


def _parameters(
    passes: _Passes,
    flags: dict[str, bool],
    moved: dict[str, tuple[float, bool, float]],
    decays: dict[int, float | None],
) -> tuple[tuple[ParameterFlow, ...], float | None]:
    """Facts of each parameter, and the gradient noise of all together; one copy from the device."""
    names = list(passes.named)
    numbers = []
    for name in names:
        weight = torch.linalg.vector_norm(passes.named[name].detach().double().abs())
        if name in passes.sums:
            mean = passes.sums[name].double().square().sum() / passes.count**2
            row = [weight, passes.squares[name] / passes.count, mean]
            row.append((~passes.touched[name]).double().mean())
        else:
            row = [weight, *[torch.zeros_like(weight)] * 3]
        numbers.append(torch.stack(row).cpu())
    table = torch.stack(numbers).tolist() if numbers else []
    flows, squares, means = [], 0.0, 0.0
    owners = dict(passes.model.named_modules())
    for name, (weight, square, mean, zeros) in zip(names, table, strict=True):
        parameter = passes.named[name]
        path = name.rpartition(".")[0]
        came = name in passes.sums
        squares, means = squares + square, means + mean
        change, unmoved, lost = moved.get(name, (None, False, 0.0))
        flows.append(
            ParameterFlow(
                name=name,
                stage=path or "model",
                type=type(owners[path]).__name__ if path in owners else "",
                values=parameter.numel(),
                axes=parameter.ndim,
                order=passes.order.get(path or "model"),
                came=passes.came.get(name),
                gain=_gain(owners.get(path), name, parameter, weight),
                trained=parameter.requires_grad,
                training=flags.get(path, True),
                gradient=math.sqrt(square) if came else None,
                zeros=zeros,
                noise=_noise(square, mean, passes.count) if came else None,
                weight=weight,
                drawn=not parameter.requires_grad and _as_drawn(parameter),
                held=id(parameter) in decays,
                decay=decays.get(id(parameter)),
                update=change,
                unmoved=unmoved,
                lost=lost if came else 0.0,
            )
        )
    return tuple(flows), _noise(squares, means, passes.count)


def _gain(owner: nn.Module | None, name: str, parameter: Tensor, norm: float) -> float | None:
    """By how much a parameter of this norm multiplies what goes through it.

    A matrix of n x m independent weights of spread s takes m values of spread 1 to spread
    s sqrt(m), and n gradients back to s sqrt(n): norm over the fourth root of n m is the geometric
    mean of both.
    """
    if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) or not parameter.numel():
        return None
    if parameter.ndim >= 2:
        return norm / math.sqrt(math.sqrt(parameter.shape[0] * parameter.shape[1]))
    if isinstance(owner, NORMS) and name.rpartition(".")[2] == "weight":
        return norm / math.sqrt(parameter.numel())
    return None


def _as_drawn(parameter: Tensor) -> bool:
    """Whether a matrix is as `nn.Linear` and the convolutions begin.

    Uniform in +-1 / sqrt(fan in) (torch: `kaiming_uniform_` with a = sqrt(5)): the largest is next
    to that end, and the spread is the end over the root of 3.
    """
    if parameter.ndim < 2 or parameter.numel() < 64:
        return False
    weight = parameter.detach().double()
    end = weight[0].numel() ** -0.5
    largest, spread = torch.stack([weight.abs().max(), weight.std()]).tolist()
    near = 0.9 < largest / end < 1.0001
    return bool(near and abs(spread * math.sqrt(3) / end - 1) < 0.1)


def _noise(square: float, mean: float, n: int) -> float | None:
    """Variance over the square of the mean, both free of bias, of n gradients.

    The mean of n has the square E^2 + V / n, so E^2 = (n mean - square) / (n - 1); McCandlish et
    al. 2018, arXiv:1812.06162, appendix A.
    """
    if n < 2 or not math.isfinite(square) or not math.isfinite(mean):
        return None
    true = (n * mean - square) / (n - 1)
    variance = (square - mean) * n / (n - 1)
    return variance / true if true > 0 else math.inf


def _stages(passes: _Passes) -> tuple[StageSignal, ...]:
    """Facts of each module that ran; one copy from the device."""
    names = sorted(passes.signals, key=lambda name: passes.order.get(name, 0))
    signals = [torch.stack(passes.signals[name]).mean().cpu() for name in names]
    nothing = torch.full((2,), math.nan, dtype=torch.float64)
    backs = [
        torch.stack(passes.backs[name]).mean(0).cpu() if name in passes.backs else nothing
        for name in names
    ]
    if not names:
        return ()
    table = torch.cat([torch.stack(signals)[:, None], torch.stack(backs)], dim=1).tolist()
    modules = dict(passes.model.named_modules())
    found = []
    for name, (signal, gradient, zeros) in zip(names, table, strict=True):
        module = modules["" if name == "model" else name]
        own = not type(module).__module__.startswith("torch.")
        place = location_of(module) if own else None
        found.append(
            StageSignal(
                stage=name,
                type=type(module).__name__,
                order=passes.order.get(name, 0),
                file=place.file if place else None,
                line=place.line if place else None,
                signal=math.sqrt(signal) if signal >= 0 else signal,
                gradient=math.sqrt(gradient) if name in passes.backs and gradient >= 0 else None,
                zeros=zeros if name in passes.backs else 0.0,
                weights=any(True for _ in module.parameters(recurse=False)),
            )
        )
    return tuple(found)
