"""Times training steps: with and without marks on stages, each beside a fixed piece of work."""

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from icediag.clock_record import ClockRecord
from icediag.instruments.flow import Flow
from icediag.instruments.naming import Run
from icediag.instruments.preserve import unchanged
from icediag.instruments.reasons import reason_of
from icediag.instruments.record import prepared
from icediag.pipeline import Pipeline

from .access import measure_access
from .join import measure_collate
from .loader import measure_loaders
from .memory import measure_memory
from .spans import Spans, Timer, gathered, timer_for
from .step import Stepper

Clock = Callable[[], float]

#: Share of the budget that a single step may take: so many fit with and without marks.
STEPS_IN_BUDGET = 8
#: A step twice as large takes at most so many times as long: the loops of the case do four.
WORST_GROWTH = 4.0


def record_clock(
    pipeline: Pipeline,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    repeats: int = 3,
    budget_s: float = 2.5,
    workers: tuple[int, ...] = (),
    clock: Clock = time.perf_counter,
    processor: Clock = time.process_time,
) -> ClockRecord:
    """Time steps on the first batch; everything is left as it was found.

    Steps begin with few samples and double: where a step of all that was asked for would take too
    long, fewer are timed, and the record says so.

    Args:
        pipeline: What to time.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.
        repeats: Steps to time with marks, and as many without; fewer where the budget ends first,
            but at least one.
        budget_s: Seconds for these steps, about.
        workers: Numbers of worker processes to try a DataLoader with, beside the pipeline's own.
        clock: Seconds.
        processor: Seconds of processor time of all threads.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    run = Run(Flow(None))
    with prepared(pipeline, run, batch_size, device, seed) as (samples, stages, target):
        wanted = len(samples)
        missing = {item.name: item.reason for item in run.not_judged}
        record = ClockRecord(
            device=device,
            machine=machine(target),
            timer="CUDA events" if target.type == "cuda" else "host clock",
            batch_size=wanted,
            wanted=wanted,
            own_step=pipeline.train_step is not None,
            missing=missing,
        )
        if not samples:
            return record
        with unchanged(samples):
            stepper = Stepper(pipeline, samples, stages, target)
            timer = timer_for(target, clock)
            fields: dict[str, Any] = {}
            try:
                fields |= _steps(stepper, wanted, timer, clock, processor, repeats, budget_s)
            except Exception as error:
                missing["steps"] = reason_of(error, pipeline)
            name = type(stepper.optimizer).__name__
            fields["optimizer"] = None if stepper.optimizer is None else name
            n = fields.get("batch_size", wanted)
            parts: tuple[tuple[str, Callable[[], Any]], ...] = (
                ("collate", lambda: measure_collate(stepper, wanted, repeats, clock)),
                ("access", lambda: measure_access(stepper, clock)),
                ("memory", lambda: measure_memory(stepper, n)),
                ("loader", lambda: measure_loaders(stepper, n, workers, clock, missing)),
            )
            for field, measure in parts:
                if "steps" in missing and field in ("memory", "loader"):
                    continue
                try:
                    fields[field] = measure()
                except Exception as error:
                    missing[field] = reason_of(error, pipeline)
    kept = {name: value for name, value in vars(record).items() if name not in fields}
    return ClockRecord(**kept, **fields)


def _steps(
    stepper: Stepper,
    wanted: int,
    timer: Timer,
    clock: Clock,
    processor: Clock,
    repeats: int,
    budget_s: float,
) -> dict[str, Any]:
    """Warm up with growing batches, then steps without and with marks in turn."""
    n = _affordable(stepper, wanted, timer, clock, budget_s / STEPS_IN_BUDGET)
    yardstick = Yardstick(stepper.device)
    yardstick()
    bare: list[tuple[float, float]] = []
    beside: list[tuple[float, float]] = []
    marked: list[Spans] = []
    marked_s: list[float] = []
    began = clock()
    while len(bare) < repeats and (not bare or clock() - began < budget_s):
        bare.append(_timed(partial(stepper.step, n), timer, clock, processor))
        beside.append(_timed(yardstick, timer, clock, processor))
        spans = Spans(timer)
        with stepper.marks(spans):
            step = partial(stepper.step, n, spans)
            marked_s.append(_timed(step, timer, clock, processor)[0])
        marked.append(spans)
    stages = gathered(marked)
    inside = [sum(s.total_s[i] for s in stages if s.depth == 0) for i in range(len(marked))]
    return {
        "batch_size": n,
        "stages": stages,
        "step_s": tuple(wall for wall, _ in bare),
        "processor_s": tuple(used for _, used in bare),
        "marked_s": tuple(marked_s),
        "yardstick_s": tuple(wall for wall, _ in beside),
        "yardstick_processor_s": tuple(used for _, used in beside),
        "other_s": tuple(
            max(0.0, whole - part) for whole, part in zip(marked_s, inside, strict=True)
        ),
    }


def _affordable(stepper: Stepper, wanted: int, timer: Timer, clock: Clock, longest: float) -> int:
    """The most samples, by doubling, that a step is short enough on."""
    size = max(1, min(wanted, max(2, wanted // 8)))
    first = True
    while True:
        start = clock()
        try:
            stepper.step(size)
            timer.wait()
        except Exception:
            if size == wanted:
                raise
            # Few samples may be too few: batch norm wants more than one row.
            size = min(wanted, 2 * size)
            continue
        took = clock() - start
        if first:  # it loads and allocates what later ones find: to be timed once more
            first = False
            if size < wanted:
                continue
        if size == wanted or took * WORST_GROWTH > longest:
            return size
        size = min(wanted, 2 * size)


def _timed(
    run: Callable[[], Any], timer: Timer, clock: Clock, processor: Clock
) -> tuple[float, float]:
    timer.wait()
    start, used = clock(), processor()
    run()
    timer.wait()
    return clock() - start, processor() - used


class Yardstick:
    """A fixed piece of work, of the interpreter and of arithmetic, about 5 ms of a laptop's core.

    Args:
        device: Where the arithmetic is done.
    """

    def __init__(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        self._matrix = torch.rand(192, 192, generator=generator).to(device)

    def __call__(self) -> None:
        """Do it."""
        total = 0
        for i in range(30_000):
            total += i & 7
        with torch.no_grad():
            for _ in range(8):
                torch.mm(self._matrix, self._matrix)


def machine(device: torch.device) -> str:
    """What kind of machine this is, without its name."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    parts = (
        platform.machine(),
        _processor(),
        f"{os.cpu_count()} cores",
        f"{threads} thread{'' if threads == 1 else 's'}",
        f"torch {torch.__version__}",
    )
    return ", ".join(part for part in parts if part)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
