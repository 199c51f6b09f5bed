"""Memory of tensors by stage, and what steps leave behind, as the allocator counts them.

On a CPU torch's profiler reports every allocation; on CUDA the caching allocator keeps the peak.
Neither is the process's memory as the system sees it: that moves by itself.
"""

import bisect
import gc
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile, record_function

from icediag.instruments.running.stages import location_of
from icediag.instruments.running.young import young
from icediag.records.clock import GrowingPlace, MemoryRecord, StageMemory

from .spans import HostTimer, Path, Spans
from .step import Stepper

#: Steps that are looked at, after two that make what is made once (the optimizer's state).
STEPS = 3
#: How our marks are called in a profile.
MARK = "icediag stage "
#: Marks the begin of a step.
STEP: Path = ("a step",)
#: Of Kineto, under torch's profiler, and of torch's allocator, about blocks older than a profile.
NOISE = (b"ActivityProfilerHandler.cpp", b"Memory block of unknown size was allocated before")


def measure_memory(stepper: Stepper, n: int) -> MemoryRecord:
    """Take steps on the same batch and count what they allocate and leave."""
    batch = stepper.batch(n)
    stepper.on_batch(batch)
    on_device = stepper.device.type == "cuda"
    gc.collect()
    with quiet_profiler(), young():
        seen = _on_cuda(stepper, batch) if on_device else _on_host(stepper, batch)
    # The first step frees what was allocated before anything was counted.
    changes, alive = seen.changes[1:], seen.alive
    lefts, stages = zip(*map(replay, changes), strict=True)
    peak = max((stage.peak_bytes for stage in stages[0] if stage.depth == 0), default=0)
    return MemoryRecord(
        batch_size=n,
        peak_bytes=peak,
        stages=tuple(stages[0]),
        left_bytes=tuple(itertools.accumulate(lefts)),
        left_tensors=tuple(after - alive[0][0] for after, _ in alive[1:]),
        left_graphs=tuple(after - alive[0][1] for _, after in alive[1:]),
        growing=tuple(_growing(stepper.pipeline.model, seen.lengths)),
    )


@dataclass
class Seen:
    """What was counted over steps.

    Attributes:
        changes: By step.
        alive: After each step, as `_alive` gives it.
        lengths: After each step, as `_lengths` gives it.
    """

    changes: list[list["Change"]] = field(default_factory=list)
    alive: list[tuple[int, int]] = field(default_factory=list)
    lengths: list[dict[tuple[str, str], int]] = field(default_factory=list)

    def after_step(self, model: Any) -> None:
        """Count what is there between steps."""
        gc.collect()
        self.alive.append(_alive())
        self.lengths.append(_lengths(model))


@contextmanager
def quiet_profiler() -> Iterator[None]:
    """Keep back two lines that torch's profiler writes past Python, and nothing else.

    Everything on standard error is held until the end of the block.
    """
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ else None
    except (OSError, ValueError):
        descriptor = None
    if descriptor is None:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), descriptor)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            held.seek(0)
            for line in held:
                if not any(noise in line for noise in NOISE):
                    os.write(descriptor, line)


@dataclass(frozen=True)
class Change:
    """An allocation (positive) or its end (negative), or a stage's begin or end.

    Attributes:
        at: Nanoseconds.
        by: Bytes; 0 of a stage.
        path: Of the stage, None of an allocation.
        begins: Whether the stage begins.
    """

    at: int
    by: int = 0
    path: Path | None = None
    begins: bool = False


def replay(changes: list[Change]) -> tuple[int, list[StageMemory]]:
    """Bytes left in the end, and by stage the peak beyond what the first found, and what was kept.

    Args:
        changes: In any order; those at the same time keep theirs.
    """
    level = base = 0
    calls: list[tuple[Path, int, list[int]]] = []
    order: dict[Path, tuple[int, int]] = {}
    for change in sorted(changes, key=lambda change: change.at):
        if change.path is None:
            level += change.by
            for _, _, top in calls:
                top[0] = max(top[0], level)
        elif change.begins:
            if not order:
                base = level
            order.setdefault(change.path, (level, 0))
            calls.append((change.path, level, [level]))
        else:
            path, found, top = calls.pop()
            peak, kept = order[path]
            order[path] = max(peak, top[0]), kept + level - found
    stages = [
        StageMemory(
            name=path[-1], depth=len(path) - 1, peak_bytes=max(0, peak - base), kept_bytes=kept
        )
        for path, (peak, kept) in order.items()
    ]
    return level, stages


class _Marks:
    """Marks stages in torch's profile."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self._open: list[Any] = []

    def begin(self, path: Path) -> None:
        mark = record_function(f"{MARK}{len(self.paths)}")
        self.paths.append(path)
        self._open.append(mark)
        mark.__enter__()  # type: ignore[no-untyped-call]

    def end(self, _: Path) -> None:
        self._open.pop().__exit__(None, None, None)


def _on_host(stepper: Stepper, batch: Any) -> Seen:
    seen = Seen()
    marks = _Marks()
    spans = Spans(HostTimer(lambda: 0.0), (marks,))
    # One profile for all steps: to begin one takes longer than most steps do.
    with (
        stepper.marks(spans),
        # Not torch.profiler's: that imports torch's compiler, and for nothing that is wanted here.
        profile(use_cpu=True, profile_memory=True, use_kineto=True) as profiled,
    ):
        for _ in range(STEPS + 1):
            marks.begin(STEP)
            marks.end(STEP)
            stepper.on_batch(batch, spans)
            seen.after_step(stepper.pipeline.model)
    results: Any = profiled
    changes: list[Change] = []
    starts: list[int] = []
    for event in results.kineto_results.events():
        name, start = event.name(), event.start_ns()
        if name == "[memory]":
            changes.append(Change(start, by=event.nbytes()))
        elif name.startswith(MARK):
            path = marks.paths[int(name.removeprefix(MARK))]
            if path == STEP:
                starts.append(start)
                continue
            changes.append(Change(start, path=path, begins=True))
            changes.append(Change(start + event.duration_ns(), path=path))
    starts.sort()
    seen.changes = [[] for _ in starts]
    for change in changes:
        step = bisect.bisect(starts, change.at) - 1
        if step >= 0:
            seen.changes[step].append(change)
    return seen


class _Peaks:
    """Peaks by stage of an allocator that keeps its own, which begins anew at every boundary."""

    def __init__(
        self, level: Callable[[], int], peak: Callable[[], int], reset: Callable[[], None]
    ) -> None:
        self._level, self._peak, self._reset = level, peak, reset
        self.changes: list[Change] = []
        self._at = 0
        self._known = level()
        reset()

    def _boundary(self) -> None:
        # The peak since the last boundary, and where it stands now.
        for level in (max(self._peak(), self._known), self._level()):
            self.changes.append(Change(self._at, by=level - self._known))
            self._known = level
            self._at += 1
        self._reset()

    def begin(self, path: Path) -> None:
        self._boundary()
        self.changes.append(Change(self._at, path=path, begins=True))
        self._at += 1

    def end(self, path: Path) -> None:
        self._boundary()
        self.changes.append(Change(self._at, path=path))
        self._at += 1

    def close(self) -> None:
        self._boundary()


def _on_cuda(stepper: Stepper, batch: Any) -> Seen:
    device = stepper.device
    seen = Seen()
    for _ in range(STEPS + 1):
        peaks = _Peaks(
            lambda: torch.cuda.memory_allocated(device),
            lambda: torch.cuda.max_memory_allocated(device),
            lambda: torch.cuda.reset_peak_memory_stats(device),
        )
        spans = Spans(HostTimer(lambda: 0.0), (peaks,))
        with stepper.marks(spans):
            stepper.on_batch(batch, spans)
        seen.after_step(stepper.pipeline.model)
        peaks.close()
        seen.changes.append(peaks.changes)
    return seen


def _alive() -> tuple[int, int]:
    """Tensors alive that Python knows, and how many of these carry a graph."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    return len(tensors), sum(tensor.grad_fn is not None for tensor in tensors)


def _lengths(model: Any) -> dict[tuple[str, str], int]:
    """Lengths of the containers that modules hold: (path, attribute) -> entries."""
    if not isinstance(model, nn.Module):
        return {}
    return {
        (path or "model", name): len(value)
        for path, module in model.named_modules()
        for name, value in vars(module).items()
        if isinstance(value, (list, dict, set)) and not name.startswith("_")
    }


def _growing(model: Any, lengths: list[dict[tuple[str, str], int]]) -> Iterator[GrowingPlace]:
    """Containers that grew by the same number with every step."""
    modules = dict(model.named_modules()) if isinstance(model, nn.Module) else {}
    for key in lengths[0]:
        steps = [b.get(key, 0) - a.get(key, 0) for a, b in itertools.pairwise(lengths)]
        if steps[0] > 0 and len(set(steps)) == 1:
            path, attribute = key
            place = location_of(modules["" if path == "model" and "" in modules else path])
            yield GrowingPlace(
                stage=path,
                attribute=attribute,
                per_step=steps[0],
                location=place,
            )
