"""The instrument: executions of the user's own lines at several batch sizes."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import CodeType

from icediag.instruments.recorder.flow import Flow
from icediag.pipeline import Pipeline
from icediag.place import Location
from icediag.records.work import (
    PHASES,
    LineRecord,
    LinesRecord,
    LoopRecord,
    Phase,
    PythonRecord,
    WorkRun,
)

from .fit import Laws
from .items import read_items
from .loops import Loops
from .own import Own
from .python import Stages, python_of
from .series import Series
from .step import Study, prepared
from .tracer import Counts, Tracer


def record_lines(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> LinesRecord:
    """Count how often the user's own lines run in training steps.

    The model, its gradients, flags and all random generators are left as they were found. What
    fails in the user's code is noted, and what was counted until then is kept.

    Args:
        pipeline: What to count.
        batch_size: Samples of the batch that is diagnosed; without, that of the pipeline.
        device: Where the model is and the batch is to go.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    with prepared(pipeline, batch_size=batch_size, device=device, seed=seed) as study:
        return _count(study)


class LineProbe:
    """Counts lines by phase.

    Args:
        own: Tells the user's own code.
    """

    def __init__(self, own: Own) -> None:
        self.counts: dict[Phase, Counts] = {}
        #: (file, first line of a function) -> stage it ran in first, by phase.
        self.stages: dict[Phase, dict[tuple[str, int], str]] = {}
        self.names: dict[str, str] = {}
        self._phase: Phase | None = None
        self._flow: Flow | None = None
        self._own = own
        self._tracer = Tracer(own.is_own, self._called)

    @property
    def phase(self) -> Phase | None:
        """Which part of the step runs."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase | None) -> None:
        self._phase = phase
        self._tracer.counts = self.counts.setdefault(phase, Counts()) if phase else Counts()

    @contextmanager
    def watching(self, flow: Flow) -> Iterator[None]:
        """Count what runs within."""
        self._flow = flow
        with self._tracer.counting():
            yield

    def _called(self, code: CodeType) -> None:
        if self._phase is None:
            return
        innermost = self._flow.innermost if self._flow is not None else None
        if innermost:
            stages = self.stages.setdefault(self._phase, {})
            stages.setdefault((code.co_filename, code.co_firstlineno), innermost[-1])

    @property
    def executed(self) -> int:
        """Lines that ran, all phases together."""
        return sum(counts.lines.total() for counts in self.counts.values())


def _count(study: Study) -> LinesRecord:
    own = Own(study.pipeline)
    series = Series(study, make=lambda: LineProbe(own), load=lambda probe: probe.executed)
    series.count_small()
    if not series.probes:
        return LinesRecord(batch_size=len(series.whole), not_judged=series.written())
    axes, diagnosed = series.axes()
    loops = _all_loops(series, axes, own)
    # A loop over samples and one over their different lengths look alike until two are equal.
    unclear = any("distinct" in " ".join(loop.growth.also) for loop in loops)
    alike = series.alike() if unclear else []
    if alike and series.count(alike):
        axes, diagnosed = series.axes()
        loops = _all_loops(series, axes, own)
    items = _items(study, own, series)
    lines: list[LineRecord] = []
    python: list[PythonRecord] = []
    runs = tuple(
        WorkRun(samples=len(run.few), axes=here)
        for run, here in zip(series.runs, axes, strict=True)
    )
    target = LinesRecord(batch_size=len(series.whole), axes=diagnosed, runs=runs)
    executed: dict[str, tuple[int, ...]] = {}
    for phase in PHASES:
        found = items if phase == "dataset item" else _of_phase(series, phase)
        if not any(counts.lines for counts in found):
            continue
        laws = Laws(axes)
        of_phase = Loops(phase, found, laws, own.names)
        executed[phase] = tuple(counts.lines.total() for counts in found)
        python += python_of(phase, found, _stages(series, phase), laws, target)
        if phase == "dataset item":
            loops = [*of_phase.records({}), *loops]
        for (file, line), counts in sorted(of_phase.lines.items()):
            growth = laws.growth_of(counts)
            if growth is not None:
                place = Location(file=own.names.get(file, file), line=line)
                lines.append(LineRecord(phase=phase, location=place, counts=counts, growth=growth))
    return replace(
        target,
        longest=series.longest,
        lines=tuple(lines),
        loops=tuple(loops),
        executed=executed,
        python=tuple(python),
        workers=_workers(study.pipeline),
        not_judged=series.written(),
    )


def _workers(pipeline: Pipeline) -> int | None:
    """Worker processes of the pipeline's own loader, where it has one that can be made."""
    try:
        count = None if pipeline.loader is None else getattr(pipeline.loader(), "num_workers", None)
        return None if count is None else int(count)
    except Exception:  # of the user's code; those who read from the loader say so
        return None


def _of_phase(series: Series[LineProbe], phase: Phase) -> list[Counts]:
    return [probe.counts.get(phase, Counts()) for probe in series.probes]


def _all_loops(series: Series[LineProbe], axes: list[dict[str, int]], own: Own) -> list[LoopRecord]:
    laws = Laws(axes)
    found: list[LoopRecord] = []
    for phase in PHASES:
        counts = _of_phase(series, phase)
        if any(here.lines for here in counts):
            stages = _stages(series, phase)
            found.extend(Loops(phase, counts, laws, own.names).records(stages))
    return found


def _stages(series: Series[LineProbe], phase: Phase) -> Stages:
    stages: Stages = {}
    for probe in series.probes:
        stages = probe.stages.get(phase, {}) | stages
    return stages


def _items(study: Study, own: Own, series: Series[LineProbe]) -> list[Counts]:
    """Lines that reading the samples takes: for each run those of its samples together."""
    by_sample: dict[int, Counts] = {}

    def watching(i: int) -> AbstractContextManager[None]:
        tracer = Tracer(own.is_own, lambda _: None)
        tracer.counts = by_sample[i] = Counts()
        return tracer.counting()

    read = read_items(study, series, "lines of dataset items", watching)
    return [
        _sum([by_sample[i] for i in batch]) if read.issuperset(batch) else Counts()
        for batch in series.batches
    ]


def _sum(parts: list[Counts]) -> Counts:
    total = Counts()
    for part in parts:
        total.lines.update(part.lines)
        total.calls.update(part.calls)
        total.edges.update(part.edges)
    return total
