"""Traces of torch's profiler with our names of stages, for Perfetto and TensorBoard's plugin."""

import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import torch
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile, schedule

from icediag.errors import IcediagError
from icediag.instruments.clock.memory import quiet_profiler
from icediag.instruments.clock.spans import HostTimer, Path, Spans
from icediag.instruments.clock.step import Stepper
from icediag.instruments.recorder.flow import Flow
from icediag.instruments.recorder.record import prepared
from icediag.instruments.running.affordable import most_affordable
from icediag.instruments.running.containment import contained
from icediag.instruments.running.preserve import unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.shapes.naming import Run
from icediag.pipeline import Pipeline

#: Steps in a trace, after one that the profiler warms up in.
STEPS = 3
#: Seconds of a step that is traced: a loop of a minute makes more events than any viewer loads.
LONGEST_S = 2.0
#: As TensorBoard's plugin wants them named: who, when, and this.
ENDING = ".pt.trace.json.gz"


class Ranges:
    """Marks every stage in the profile, and on CUDA as an NVTX range too, for Nsight Systems.

    Args:
        push: Opens an NVTX range; None where there is no CUDA device.
        pop: Closes it.
    """

    def __init__(
        self, push: Callable[[str], Any] | None = None, pop: Callable[[], Any] | None = None
    ) -> None:
        #: Names of stages that were marked.
        self.names: set[str] = set()
        self._push, self._pop = push, pop
        self._open: list[Any] = []

    def begin(self, path: Path) -> None:
        """A stage begins."""
        mark = record_function(path[-1])
        mark.__enter__()  # type: ignore[no-untyped-call]
        self._open.append(mark)
        self.names.add(path[-1])
        if self._push is not None:
            self._push(path[-1])

    def end(self, _: Path) -> None:
        """It ends."""
        if self._pop is not None:
            self._pop()
        self._open.pop().__exit__(None, None, None)


def ranges_for(device: torch.device) -> Ranges:
    """Marks that suit a device."""
    if device.type == "cuda":
        return Ranges(torch.cuda.nvtx.range_push, torch.cuda.nvtx.range_pop)
    return Ranges()


def record_trace(
    pipeline: Pipeline,
    folder: FilePath,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    steps: int = STEPS,
    longest_s: float = LONGEST_S,
    timeout: float | None = None,
) -> tuple[FilePath, int]:
    """Write one trace of whole steps, from reading samples to the optimizer.

    Args:
        pipeline: Whose steps; everything is left as it was found.
        folder: Where to write; it exists.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.
        steps: How many.
        longest_s: Seconds that a step may take: of too long a one fewer samples are taken.
        timeout: Seconds that it may take; None for any time.

    Returns:
        The file, and of how many samples its steps are.

    Raises:
        IcediagError: The data set is empty, a step cannot be taken, or nothing can be written.
    """
    run = Run(Flow(None))
    with prepared(pipeline, run, batch_size, device, seed) as (samples, stages, target):
        if not samples:
            raise IcediagError("--trace: the samples cannot be read")
        with unchanged(samples):
            stepper = Stepper(pipeline, samples, stages, target)
            try:
                with contained(timeout):
                    n = most_affordable(stepper.step, len(samples), longest_s=longest_s)
                    return _steps(stepper, n, steps, folder), n
            except OSError as error:
                raise IcediagError(f"--trace: {folder}: {error.strerror or error}") from error
            except Exception as error:  # of the user's code
                raise IcediagError(f"--trace: {reason_of(error, pipeline)}") from error


def _steps(stepper: Stepper, n: int, steps: int, folder: FilePath) -> FilePath:
    activities = [ProfilerActivity.CPU]
    if stepper.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    ranges = ranges_for(stepper.device)
    spans = Spans(HostTimer(lambda: 0.0), (ranges,))
    with (
        quiet_profiler(),
        stepper.marks(spans),
        profile(
            activities=activities,
            # TensorBoard's plugin counts steps by the marks that a schedule makes.
            schedule=schedule(wait=0, warmup=1, active=steps, repeat=1),
            record_shapes=True,
            profile_memory=True,
        ) as profiler,
    ):
        for _ in range(1 + steps):
            stepper.step(n, spans)
            profiler.step()
    with tempfile.TemporaryDirectory() as scratch:
        raw = FilePath(scratch) / "trace.json"
        profiler.export_chrome_trace(str(raw))
        trace = json.loads(raw.read_text(encoding="utf-8"))
    path = folder / f"icediag.{time.time_ns()}{ENDING}"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        json.dump(adapted(trace, ranges.names), stream)
    return path


def adapted(trace: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The trace with our stages as operators, which TensorBoard's plugin has tables of.

    Marks of the user's, which is what stages are to the profiler, it shows nowhere but in the
    picture. To Perfetto it is all one.

    Args:
        trace: As torch's profiler wrote it.
        names: Of stages.
    """
    events = [
        {**event, "cat": "cpu_op"}
        if event.get("cat") == "user_annotation" and event.get("name") in names
        else event
        for event in trace["traceEvents"]
    ]
    # The name of the trace is a path of this machine, which is nobody's concern.
    return {**trace, "traceEvents": events, "traceName": "icediag"}
