"""Baseline: what the loss gives a predictor that knows the targets, but not which is whose.

The best constant prediction is looked for: where predictions are one table, among all constants;
else among those that the model can give, by training it on one event and handing its prediction to
all of them. Any loss will do; nothing is assumed of its scale or sign.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .running.modes import seed_all
from .running.workbench import Batches, Workbench
from .trees.rows import floating, mapped, rolled
from .trees.walk import leaves

#: Starting points of the search, and steps from each.
STARTS = 4
EVALUATIONS = 60
#: So many times further below 0 than the loss was from it, a constant has no best.
ENDLESS = 1e3
#: Steps on one event, and their learning rate, where the model itself gives the constants.
MODEL_STEPS = 30
MODEL_RATE = 5e-3
#: Sizes of random predictions, relative to the model's own and to those of the batch's values.
NOISE = (0.3, 3.0)
#: Different sizes that are tried at most.
MOST_SIZES = 6


def constant_baseline(bench: Workbench, batch: Batches, rows: int) -> tuple[float, str] | None:
    """The loss of the best constant prediction, and how it was found; None where it cannot be had.

    Args:
        bench: The pipeline.
        batch: Of some events.
        rows: How many.
    """
    try:
        with torch.no_grad():
            predictions = mapped(bench.predict(batch()), lambda _, t: t.detach().clone())
            seed_all(bench.seed)
            start = float(bench.pipeline.loss(predictions, batch()))
    except Exception:  # the trials meet it and say so
        return None
    if not math.isfinite(start):
        return None
    try:
        found = _judged_table(bench, batch, predictions)
        if found is not None and found[1].shape[0] > 1:
            best = _best_constant(bench, batch, predictions, *found)
            return (best, "best constant prediction") if best is not None else None
        best = _best_of_model(bench, batch, predictions, rows)
    except Exception:  # a loss that a constant cannot be put into has none
        return None
    return (best, "best constant prediction that the model can give") if best is not None else None


def _judged_table(bench: Workbench, batch: Batches, predictions: Any) -> tuple[str, Tensor] | None:
    """The predictions where they are a table with a row an event, or where the loss has one alone.

    A recurrent net gives its state beside its answer, and the loss goes by the answer.
    """
    tensors = dict(floating(predictions))
    if len(tensors) > 1:
        leaf = {path: tensor.clone().requires_grad_() for path, tensor in tensors.items()}
        seed_all(bench.seed)
        with torch.enable_grad():
            given = mapped(predictions, lambda path, t: leaf.get(path, t))
            loss = bench.pipeline.loss(given, batch())
            slopes: Sequence[Tensor | None] = torch.autograd.grad(
                loss, list(leaf.values()), allow_unused=True
            )
        tensors = {p: t for (p, t), s in zip(tensors.items(), slopes, strict=True) if s is not None}
    found = next(iter(tensors.items())) if len(tensors) == 1 else None
    return found if found is not None and found[1].ndim else None


def _shares(table: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None:
    """How to make rows of probabilities, or of their logarithms, of any; and back.

    Of a loss that is linear in log-probabilities any constant could be bettered: only those are
    constants that are probabilities. None where the table holds something else.
    """
    if table.ndim < 2 or table.shape[-1] < 2:
        return None
    ones = torch.ones((), dtype=torch.float64)
    rows = table.detach().double()
    if torch.allclose(rows.exp().sum(-1).cpu(), ones, atol=1e-3):
        return partial(torch.log_softmax, dim=-1), torch.clone
    if bool((rows >= 0).all()) and torch.allclose(rows.sum(-1).cpu(), ones, atol=1e-3):
        return partial(torch.softmax, dim=-1), lambda mean: mean.clamp(min=1e-6).log()
    return None


def _best_constant(
    bench: Workbench, batch: Batches, predictions: Any, at_path: str, table: Tensor
) -> float | None:
    """Search all constants, from the mean prediction and from points around it."""
    generator = torch.Generator().manual_seed(bench.seed)
    mean = table.mean(0, keepdim=True)
    make: Callable[[Tensor], Tensor] = torch.clone
    shares = _shares(table)
    if shares is not None:
        make, back = shares
        mean = back(mean)
    found: list[float] = []

    def loss_of(constant: Tensor) -> Tensor:
        seed_all(bench.seed)
        whole = make(constant).expand_as(table)
        given = mapped(predictions, lambda path, t: whole if path == at_path else t)
        return bench.pipeline.loss(given, batch())

    for start in range(STARTS):
        noise = torch.randn(mean.shape, generator=generator, dtype=torch.float64)
        at = mean + (noise.to(mean) * (1 + mean.abs()) if start else 0)
        constant = at.detach().clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [constant], max_iter=EVALUATIONS, line_search_fn="strong_wolfe"
        )

        def closure(constant: Tensor = constant, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(constant)
            loss.backward()  # type: ignore[no-untyped-call]
            found.append(float(loss.detach()))
            return loss

        with torch.enable_grad():
            optimizer.step(closure)  # type: ignore[no-untyped-call]
    finite = [value for value in found if math.isfinite(value)]
    # Where the predictions are a likelihood themselves, there is always a better constant.
    endless = bool(finite) and min(finite) < -ENDLESS * (1 + abs(found[0]))
    return min(finite) if finite and not endless else None


def _best_of_model(bench: Workbench, batch: Batches, predictions: Any, rows: int) -> float | None:
    """Train the model on one event for the targets of all."""
    shapes = {path: tensor.shape for path, tensor in floating(predictions)}
    if not shapes or any(not shape or shape[0] != rows for shape in shapes.values()):
        return None
    one = bench.batches([0])
    found: list[float] = []
    asked = [p for p in bench.model.parameters() if p.requires_grad]
    with bench.from_here(), torch.enable_grad():
        optimizer = torch.optim.Adam(asked, lr=MODEL_RATE)
        for step in range(MODEL_STEPS):
            alone = bench.predict(one())
            if any(t.shape[0] != 1 for _, t in floating(alone)):
                return None
            repeated = mapped(
                alone, lambda path, t: t.expand(shapes[path]) if path in shapes else t
            )
            loss = bench.pipeline.loss(repeated, batch())
            found.append(float(loss.detach()))
            settled = step > 15 and found[-11] - min(found[-10:]) < 1e-3 * abs(found[-11])
            if not loss.requires_grad or not math.isfinite(found[-1]) or settled:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    finite = [value for value in found if math.isfinite(value)]
    return min(finite) if finite else None


def target_paths(bench: Workbench, batch: Batches) -> tuple[str, ...]:
    """What of the batch the loss looks at beside the predictions, found by moving its rows."""
    found = []
    with torch.no_grad():
        before = _values(bench, batch())
        for path, tensor in _with_rows(batch()):
            if tensor.shape[0] < 2 or torch.equal(tensor, tensor.roll(1, 0)):
                continue
            try:
                after = _values(bench, rolled(batch(), (path,)), like=batch())
            except Exception:  # noqa: S112 - an index that no longer fits is no target
                continue
            if any(a != b for a, b in zip(after, before, strict=True) if a == a and b == b):
                found.append(path)
    return tuple(found)


def pairing_of(bench: Workbench, batch: Batches, targets: tuple[str, ...]) -> float | None:
    """By how much the loss of random predictions changes with targets of other events, relative."""
    if not targets:
        return None
    changes = []
    with torch.no_grad():
        before = _values(bench, batch())
        for by in (1, 2, 3):
            after = _values(bench, rolled(batch(), targets, by), like=batch())
            changes += [abs(a - b) / max(abs(b), 1e-30) for a, b in zip(after, before, strict=True)]
    finite = [change for change in changes if math.isfinite(change)]
    return max(finite) if finite else None


def _values(bench: Workbench, batch: Any, like: Any = None) -> list[float]:
    """The loss of predictions that differ from event to event whatever the model gives.

    At several sizes: a mean absolute error does not care for pairs as long as all predictions lie
    on one side of all targets.

    Args:
        bench: The pipeline.
        batch: What the loss gets.
        like: What the model gets, where that is another batch.
    """
    predictions = bench.predict(batch if like is None else like)
    values = []
    for size in _sizes(predictions, batch):
        generator = torch.Generator().manual_seed(bench.seed)

        def add(_: str, t: Tensor, size: float = size, g: torch.Generator = generator) -> Tensor:
            if not t.is_floating_point():
                return t
            return t.detach() + size * torch.randn(t.shape, generator=g, dtype=torch.float64).to(t)

        seed_all(bench.seed)
        values.append(float(bench.pipeline.loss(mapped(predictions, add), batch)))
    return values


def _sizes(predictions: Any, batch: Any) -> list[float]:
    """Sizes of noise, in order: around the predictions, and around what the batch holds."""
    tensors = [t.detach() for _, t in (*floating(predictions), *floating(batch)) if t.numel()]
    means = [float(t.double().abs().mean()) for t in tensors]
    wanted = sorted(scale * (mean + 1e-3) for mean in means if mean < math.inf for scale in NOISE)
    apart: list[float] = []
    for size in wanted:
        if not apart or size > 2 * apart[-1]:
            apart.append(size)
    stride = max(1, math.ceil(len(apart) / MOST_SIZES))
    return apart[::-1][::stride][::-1]


def _with_rows(batch: Any) -> list[tuple[str, Tensor]]:
    return [(path, t) for path, t in leaves(batch) if t.ndim and t.layout == torch.strided]
