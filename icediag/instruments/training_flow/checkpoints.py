"""Checkpoints: what a training that goes on from the user's own does otherwise.

Train some steps, save, train on: that is one training. The other begins with everything as it was
found, and an optimizer that is made anew, loads, and trains on the same batches from the same
random numbers. What the two do not have in common was not in the checkpoint.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.companions import kept_optimizer
from icediag.instruments.running.workbench import Workbench
from icediag.records.training import Checkpoint

#: Steps before the checkpoint, and after it: even numbers, since some sum gradients over two.
BEFORE, AFTER = 2, 2
#: Of the way that a tensor has come, what it may be off by after loading.
OFF = 0.05
#: Types in which a checkpoint may be kept to be smaller: two steps are below their resolution.
HALVES = (torch.bfloat16, torch.float16)
#: Names that are written down.
EXAMPLES = 3


@dataclass
class _State:
    """A model and an optimizer at one moment."""

    model: dict[str, Tensor]
    #: Parameter number -> entry -> value.
    optimizer: dict[int, dict[str, Any]]
    rates: list[float]


def look_at_checkpoint(bench: Workbench, batch: Callable[[int], Any]) -> Checkpoint:
    """Save, load, train on, and compare.

    Args:
        bench: The pipeline, with `save` and `load`.
        batch: number -> a batch; see `Workbench.batches`.

    Raises:
        Exception: Whatever the user's code raises.
    """
    pipeline = bench.pipeline
    assert pipeline.save is not None and pipeline.load is not None
    with tempfile.TemporaryDirectory(prefix="icediag-") as folder:
        path = Path(folder) / "checkpoint.pt"
        with _training(bench) as optimizer:
            first = _values(bench.model)
            _run(bench, optimizer, batch, range(BEFORE))
            pipeline.save(path, bench.model, optimizer)
            saved = _state(bench.model, optimizer)
            on = _run(bench, optimizer, batch, range(BEFORE, BEFORE + AFTER))
        with _training(bench) as optimizer:
            with _flags_kept(bench.model):
                pipeline.load(path, bench.model, optimizer)
            loaded = _state(bench.model, optimizer)
            resumed = _run(bench, optimizer, batch, range(BEFORE, BEFORE + AFTER))
    apart = _apart(on[-1].model, resumed[-1].model)
    rounding = 0.0
    if apart > 0:  # what does not repeat itself is no fault of the checkpoint
        with _training(bench) as optimizer:
            again = _run(bench, optimizer, batch, range(BEFORE + AFTER))
        rounding = _apart(on[-1].model, again[-1].model)
    lost = [
        name
        for name, value in saved.model.items()
        if not _restored(value, loaded.model.get(name), first.get(name))
    ]
    entries = [(number, key) for number, of in saved.optimizer.items() for key in of]
    missing = [
        (number, key)
        for number, key in entries
        if not _same(saved.optimizer[number][key], loaded.optimizer.get(number, {}).get(key))
    ]
    moved = _apart(saved.model, on[-1].model)
    rates = [(a.rates, b.rates) for a, b in zip(on, resumed, strict=True)]
    other = next(((a, b) for a, b in rates if not _close(a, b)), None)
    return Checkpoint(
        before=BEFORE,
        after=AFTER,
        tensors=len(saved.model),
        lost=len(lost),
        lost_names=tuple(lost[:EXAMPLES]),
        trained=_apart(first, saved.model),
        entries=len(entries),
        missing=len(missing),
        missing_names=tuple(dict.fromkeys(key for _, key in missing))[:EXAMPLES],
        rate=max(other[0], default=None) if other is not None else None,
        rate_resumed=max(other[1], default=None) if other is not None else None,
        moved=moved,
        apart=apart,
        rounding=rounding,
        optimizer=type(optimizer).__name__,
    )


@contextmanager
def _training(bench: Workbench) -> Iterator[Any]:
    """An optimizer that is made anew; model and companions are put back at the end."""
    with bench.from_here(), ExitStack() as stack, torch.enable_grad():
        optimizer = bench.make_optimizer()
        kept_optimizer(optimizer, stack)
        yield optimizer


@contextmanager
def _flags_kept(model: Any) -> Iterator[None]:
    """What is loaded is often put into evaluation too; the loop puts it back into training."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    flags = [module.training for module in modules]
    yield
    for module, flag in zip(modules, flags, strict=True):
        module.training = flag


def _run(
    bench: Workbench, optimizer: Any, batch: Callable[[int], Any], numbers: range
) -> list[_State]:
    """Some steps; the state after each."""
    found = []
    for number in numbers:
        bench.step_of(optimizer, batch(number))()
        found.append(_state(bench.model, optimizer))
    return found


def _values(model: Any) -> dict[str, Tensor]:
    named = model.state_dict() if isinstance(model, nn.Module) else {}
    return {k: v.detach().clone() for k, v in named.items() if isinstance(v, Tensor)}


def _state(model: Any, optimizer: Any) -> _State:
    entries: dict[int, dict[str, Any]] = {}
    state = getattr(optimizer, "state", {})
    groups = getattr(optimizer, "param_groups", ())
    parameters = [p for group in groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        of = state.get(parameter, {})
        kept = {
            key: value.detach().clone() if isinstance(value, Tensor) else value
            for key, value in of.items()
            if isinstance(value, (Tensor, int, float))
        }
        if kept:
            entries[number] = kept
    return _State(_values(model), entries, [float(g["lr"]) for g in groups if "lr" in g])


def _same(one: Any, other: Any) -> bool:
    """Whether two values agree, but for type and place."""
    if other is None:
        return False
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    if a.shape != b.shape:
        return False
    # A checkpoint in half precision is coarse, and no other state.
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    size = float(a.abs().max()) if a.numel() else 0.0
    return bool(torch.allclose(a, b, rtol=0.02, atol=0.01 * size, equal_nan=True))


def _restored(saved: Tensor, loaded: Tensor | None, first: Tensor | None) -> bool:
    """Whether a tensor of the model is back, measured by the way it had come."""
    if loaded is None or loaded.shape != saved.shape:
        return False
    if first is None or first.shape != saved.shape or not saved.is_floating_point():
        return _same(saved, loaded)
    if any(torch.equal(saved.to(kind), loaded.to(saved.device, kind)) for kind in HALVES):
        return True
    way = float((saved.double() - first.double()).norm())
    off = float((saved.double() - loaded.double().to(saved.device)).norm())
    return off <= OFF * way if way else _same(saved, loaded)


def _close(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-15) for a, b in zip(one, other, strict=True)
    )


def _apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Euclidean distance of the floating-point values of two states."""
    total = 0.0
    for name, value in one.items():
        there = other.get(name)
        if value.is_floating_point() and there is not None and there.shape == value.shape:
            total += float((value.double() - there.double()).square().sum())
    return math.sqrt(total)
