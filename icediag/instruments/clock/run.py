"""Times training steps: with and without marks on stages, each beside a fixed piece of work."""

import math
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from icediag.instruments.recorder.flow import Flow
from icediag.instruments.recorder.record import prepared
from icediag.instruments.running.affordable import Clock, most_affordable
from icediag.instruments.running.companions import companions_kept
from icediag.instruments.running.preserve import unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.shapes.naming import Run
from icediag.pipeline import Pipeline
from icediag.records.clock import ClockRecord

from .access import measure_access
from .join import measure_collate
from .loader import measure_loaders
from .memory import measure_memory
from .spans import Spans, Timer, gathered, timer_for
from .step import Stepper

#: Seconds that each of the other measurements takes at least, about.
ENOUGH_S = 5.0
#: Share of the budget that a single step may take: so many fit with and without marks.
STEPS_IN_BUDGET = 8


def record_clock(
    pipeline: Pipeline,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    repeats: int = 3,
    budget_s: float = 2.5,
    rounds: int = 1,
    size: int | None = None,
    most: int | None = None,
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
        rounds: In how many rounds the steps are taken, with other measurements between them: what
            happens to a machine for some seconds does not happen to all of them.
        size: Samples in a step; without, as many as the budget allows.
        most: No more than these, where no size is asked for.
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
        # What the user's own step holds, its optimizer or schedule, moves with it.
        functions = (pipeline.train_step, pipeline.optimizer, pipeline.forward, pipeline.loss)
        with unchanged(samples), companions_kept(functions, pipeline.model):
            stepper = Stepper(pipeline, samples, stages, target)
            timer = timer_for(target, clock)
            fields: dict[str, Any] = {}
            share = budget_s / rounds
            steps = Steps(stepper, timer, clock, processor)
            try:
                n = min(wanted, size or most or wanted)
                steps.warm_up(n, share / STEPS_IN_BUDGET, fixed=size is not None)
                steps.round(-(-repeats // rounds), share)
            except Exception as error:
                missing["steps"] = reason_of(error, pipeline)
            else:
                fields |= steps.fields()
            name = type(stepper.optimizer).__name__
            fields["optimizer"] = None if stepper.optimizer is None else name
            n = fields.get("batch_size", wanted)
            enough_s = max(ENOUGH_S, budget_s / 2)
            parts: tuple[tuple[str, Callable[[], Any]], ...] = (
                ("collate", lambda: measure_collate(stepper, wanted, repeats, clock, enough_s)),
                ("access", lambda: measure_access(stepper, clock)),
                ("memory", lambda: measure_memory(stepper, n)),
                (
                    "loader",
                    lambda: measure_loaders(stepper, n, workers, clock, missing, enough_s),
                ),
            )
            for field, measure in parts:
                if "steps" in missing and field in ("memory", "loader"):
                    continue
                try:
                    fields[field] = measure()
                except Exception as error:
                    missing[field] = reason_of(error, pipeline)
            if "steps" not in missing and rounds > 1:
                try:
                    for _ in range(1, rounds):
                        steps.round(-(-repeats // rounds), share)
                except Exception as error:  # they came through before
                    missing["further steps"] = reason_of(error, pipeline)
                else:
                    fields |= steps.fields()
    kept = {name: value for name, value in vars(record).items() if name not in fields}
    return ClockRecord(**kept, **fields)


class Steps:
    """Steps without and with marks in turn, each beside the yardstick.

    Args:
        stepper: Takes them.
        timer: Reads the time of stages.
        clock: Seconds.
        processor: Seconds of processor time.
    """

    def __init__(self, stepper: Stepper, timer: Timer, clock: Clock, processor: Clock) -> None:
        self._stepper, self._timer = stepper, timer
        self._clock, self._processor = clock, processor
        self._yardstick = Yardstick(stepper.device)
        self._n = 0
        self._bare: list[tuple[float, float]] = []
        self._beside: list[tuple[float, float]] = []
        self._marked: list[Spans] = []
        self._marked_s: list[float] = []
        self._rounds: list[int] = []

    def warm_up(self, wanted: int, longest: float, *, fixed: bool = False) -> None:
        """Take steps on growing batches; those that are timed are of the last size, or `fixed`."""

        def take(n: int) -> None:
            self._stepper.step(n)
            self._timer.wait()

        limit = math.inf if fixed else longest
        self._n = most_affordable(take, wanted, longest_s=limit, clock=self._clock)

    def round(self, repeats: int, budget_s: float) -> None:
        """Take some; at least one, and no more once the budget is spent."""
        self._yardstick()
        began, taken = self._clock(), 0
        while taken < repeats and (not taken or self._clock() - began < budget_s):
            self._bare.append(self._timed(partial(self._stepper.step, self._n)))
            self._beside.append(self._timed(self._yardstick))
            spans = Spans(self._timer)
            with self._stepper.marks(spans):
                step = partial(self._stepper.step, self._n, spans)
                self._marked_s.append(self._timed(step)[0])
            self._marked.append(spans)
            taken += 1
        self._rounds.append(taken)

    def fields(self) -> dict[str, Any]:
        """What a `ClockRecord` holds of them."""
        stages = gathered(self._marked)
        inside = [sum(s.total_s[i] for s in stages if s.depth == 0) for i in range(len(self._bare))]
        return {
            "batch_size": self._n,
            "stages": stages,
            "step_s": tuple(wall for wall, _ in self._bare),
            "processor_s": tuple(used for _, used in self._bare),
            "marked_s": tuple(self._marked_s),
            "yardstick_s": tuple(wall for wall, _ in self._beside),
            "yardstick_processor_s": tuple(used for _, used in self._beside),
            "rounds": tuple(self._rounds),
            "other_s": tuple(
                max(0.0, whole - part) for whole, part in zip(self._marked_s, inside, strict=True)
            ),
        }

    def _timed(self, run: Callable[[], Any]) -> tuple[float, float]:
        self._timer.wait()
        start, used = self._clock(), self._processor()
        run()
        self._timer.wait()
        return self._clock() - start, self._processor() - used


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
