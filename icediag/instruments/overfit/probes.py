"""Probes: from which stage on events can no longer be told apart, and where no gradient comes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.modes import seed_all
from icediag.instruments.running.preserve import preserved
from icediag.instruments.running.stages import location_of
from icediag.instruments.running.still import running_statistics
from icediag.instruments.running.workbench import Batches, Workbench
from icediag.instruments.trees.rows import floating, mapped, table_of
from icediag.records.overfit import StageProbe

#: Events that are sent alone.
MOST_EVENTS = 8
#: Stages that are listed; models with more are shown by those nearest to the root.
MOST_STAGES = 200
#: Evaluations of the loss in the fit of a linear probe.
EVALUATIONS = 40


@dataclass
class _Seen:
    """One module over all events: what went in and came out, summed up."""

    module: nn.Module
    ins: list[Tensor] = field(default_factory=list)
    outs: list[Tensor] = field(default_factory=list)


def summary(tree: Any) -> Tensor | None:
    """Mean, spread and extremes over the rows of each column of a tree's tensors, as one vector."""
    parts = []
    for _, tensor in floating(tree):
        table = tensor.detach().double()
        table = table.reshape(-1, table.shape[-1]) if table.ndim > 1 else table.reshape(-1, 1)
        if table.numel():
            ends = (table.amax(0), table.amin(0))
            parts += [table.mean(0), table.std(0, correction=0), *ends]
    return torch.cat(parts) if parts else None


def spread(vectors: list[Tensor]) -> float | None:
    """Root mean square deviation of vectors from their mean, relative to their size."""
    if len(vectors) < 2 or len({v.shape for v in vectors}) != 1:
        return None
    table = torch.stack(vectors)
    size = float(table.square().mean().sqrt())
    off = float((table - table.mean(0)).square().mean().sqrt())
    return off / size if size else 0.0


@contextmanager
def _hooked(model: nn.Module, seen: dict[str, _Seen], order: list[str]) -> Iterator[None]:
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            name = path or "model"
            if isinstance(module, (nn.ModuleList, nn.ModuleDict)) or name.count(".") > 6:
                continue

            def after(
                module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name
            ) -> None:
                if name not in seen:
                    seen[name] = _Seen(module)
                    order.append(name)
                for kept, tree in ((seen[name].ins, (args, kwargs)), (seen[name].outs, output)):
                    vector = summary(tree)
                    if vector is not None:
                        kept.append(vector)

            try:
                handle = module.register_forward_hook(after, with_kwargs=True)
            except (RuntimeError, TypeError):
                continue  # a scripted module takes none
            hooks.callback(handle.remove)
        yield


def probe_stages(bench: Workbench, batch: Batches, indices: list[int]) -> tuple[StageProbe, ...]:
    """Send events alone, then the batch back and forth, and tell what is left at each stage.

    Args:
        bench: The pipeline.
        batch: Of `indices`.
        indices: Positions of the samples.
    """
    seen: dict[str, _Seen] = {}
    order: list[str] = []
    model = bench.model
    with (
        bench.from_here(),
        running_statistics(model),
        torch.no_grad(),
        _hooked(model, seen, order),
    ):
        for i in indices[:MOST_EVENTS]:
            bench.predict(bench.batches([i])())
    gradients = _gradients(bench, batch)
    probes = []
    for name in order[:MOST_STAGES]:
        stage = seen[name]
        place = location_of(stage.module)
        installed = type(stage.module).__module__.startswith("torch.")
        probes.append(
            StageProbe(
                stage=name,
                type=type(stage.module).__name__,
                file=place.file if place and not installed else None,
                line=place.line if place and not installed else None,
                spread_in=spread(stage.ins),
                spread_out=spread(stage.outs),
                trained=any(p.requires_grad for p in stage.module.parameters()),
                gradient=gradients.get(name),
                probe_loss=_linear(bench, batch, stage.outs, len(indices)),
            )
        )
    return tuple(probes)


def _gradients(bench: Workbench, batch: Batches) -> dict[str, float]:
    """Norm of the loss's gradient by what each module gives, with one copy from the device."""
    arrived: dict[str, Tensor] = {}
    with bench.from_here(), torch.enable_grad(), ExitStack() as hooks:
        for path, module in bench.model.named_modules():

            def after(_: nn.Module, __: Any, output: Any, name: str = path or "model") -> None:
                for _path, tensor in floating(output):
                    if not tensor.requires_grad:
                        continue

                    def came(gradient: Tensor, name: str = name) -> None:
                        square = gradient.detach().double().square().sum()
                        arrived[name] = arrived.get(name, torch.zeros_like(square)) + square

                    handle = tensor.register_hook(came)  # type: ignore[no-untyped-call]
                    hooks.callback(handle.remove)

            try:
                hooks.callback(module.register_forward_hook(after).remove)
            except (RuntimeError, TypeError):
                continue
        loss = bench.loss(batch())
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
    if not arrived:
        return {}
    norms = torch.stack([square.cpu() for square in arrived.values()]).sqrt().tolist()
    return dict(zip(arrived, norms, strict=True))


def _linear(bench: Workbench, batch: Batches, outs: list[Tensor], rows: int) -> float | None:
    """The loss when a linear map of a stage's summed-up output stands in for the prediction."""
    if len(outs) != rows or len({v.shape for v in outs}) != 1:
        return None
    with preserved(bench.model), torch.no_grad():
        predictions = mapped(bench.predict(batch()), lambda _, t: t.detach().clone())
    table = table_of(predictions, rows)
    if table is None or table.ndim > 2:
        return None
    x = torch.stack(outs)
    sd, mean = x.std(0, correction=0), x.mean(0)
    # What float32 cannot tell apart is not there for the rest of the model either.
    kept = sd > 1e-5 * mean.abs().clamp_min(1e-12)
    x = torch.cat([((x - mean) / sd)[:, kept], torch.ones(rows, 1, dtype=x.dtype)], 1).to(table)
    weight = torch.zeros(x.shape[1], table[0].numel(), dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=EVALUATIONS, line_search_fn="strong_wolfe")
    found: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        seed_all(bench.seed)
        whole = (x @ weight).reshape(table.shape)
        stand_in = mapped(predictions, lambda _, t: whole if t.shape == whole.shape else t)
        loss = bench.pipeline.loss(stand_in, batch())
        loss.backward()  # type: ignore[no-untyped-call]
        found.append(float(loss.detach()))
        return loss

    try:
        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
    except Exception:  # a loss that takes no such predictions
        return None
    finite = [value for value in found if value == value]
    return min(finite) if finite else None
