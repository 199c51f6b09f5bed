"""Python: lines of the user's own that a stage runs, at the size of the batch.

A loop that calls no operation takes the host's time all the same, and a projection from operations
alone would not see it.
"""

from collections.abc import Iterable

from icediag.records.work import LinesRecord, Phase, PythonRecord, WorkRun, at_axes

from .fit import Laws
from .tracer import Counts

#: (file, first line of a function) -> the stage it ran in.
Stages = dict[tuple[str, int], str]


def python_of(
    phase: Phase, counts: list[Counts], stages: Stages, laws: Laws, target: LinesRecord
) -> list[PythonRecord]:
    """Executions of lines by stage: those that grow with the batch apart from those that do not.

    Args:
        phase: Which part of the step this is.
        counts: What was counted in it, by run.
        stages: Where each function ran.
        laws: How counts may grow.
        target: Its runs, and the axes of the batch that is diagnosed.
    """
    by_line: dict[tuple[str, str, int], list[int]] = {}
    for i, here in enumerate(counts):
        for (code, line), n in here.lines.items():
            stage = stages.get((code.co_filename, code.co_firstlineno))
            key = stage or ("model" if phase == "forward" else phase), code.co_filename, line
            by_line.setdefault(key, [0] * len(counts))[i] += n
    found: dict[tuple[str, bool], float] = {}
    for (stage, _, _), numbers in by_line.items():
        law = laws.growth_of(tuple(numbers))
        expected = at_axes(law, target.axes) if law is not None else None
        if expected is None:
            expected = _scaled(numbers, target.runs, target.batch_size)
        key_of = stage, law is not None
        found[key_of] = found.get(key_of, 0.0) + max(0.0, expected)
    return [
        PythonRecord(phase=phase, stage=stage, grows=grows, lines=lines)
        for (stage, grows), lines in found.items()
    ]


def _scaled(numbers: list[int], runs: Iterable[WorkRun], batch_size: int) -> float:
    """What does not vary stays; what follows nothing that is known grows as the samples."""
    if len(set(numbers)) == 1:
        return float(numbers[-1])
    last = list(runs)[-1].samples
    return numbers[-1] * batch_size / max(1, last)
