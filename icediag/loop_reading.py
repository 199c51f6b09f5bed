"""Reading loops: which belong together, which of them costs most, and how its work grows."""

from collections.abc import Iterable
from dataclasses import dataclass

from icediag.records.work import (
    LinesRecord,
    LoopRecord,
    OperationRecord,
    OperationsRecord,
    at_axes,
)
from icediag.work_reading import HOST_PHASES, Tally, degree, rows_in, tally


@dataclass(frozen=True, kw_only=True)
class LoopNest:
    """A loop with all loops around and inside of it.

    Attributes:
        loop: The one of them that costs most.
        others: The others.
        rounds: Of the loop, in the batch that is diagnosed.
        order: With what power of the batch the work grows.
        axis: What the work follows, where a round grows with the batch; None where that is no
            axis exactly.
        rows: Operations that grow, in all of them.
        cost: What these come to.
        lines: Lines of Python that it runs, in the batch that is diagnosed.
        by_sample: Whether it takes a round a sample.
        sequence: Whether it goes along the longest sample, however many there are.
    """

    loop: LoopRecord
    others: tuple[LoopRecord, ...]
    rounds: float
    order: int
    axis: str | None
    rows: list[OperationRecord]
    cost: Tally
    lines: float
    by_sample: bool
    sequence: bool


def nests(loops: Iterable[LoopRecord]) -> list[list[LoopRecord]]:
    """Loops that stand in one another, together; what ran in several phases once."""
    by_place: dict[tuple[str, int, bool], LoopRecord] = {}
    for loop in loops:
        key = loop.location.file, loop.location.line, loop.phase in HOST_PHASES
        known = by_place.get(key)
        if known is None or loop.counts[-1] > known.counts[-1]:
            by_place[key] = loop
    nests: dict[tuple[str, int, bool], list[LoopRecord]] = {}
    for key, loop in by_place.items():
        root, seen = key, {key}
        while (around := by_place[root].inside) is not None:
            outer = around.file, around.line, key[2]
            if outer not in by_place or outer in seen:
                break
            root = outer
            seen.add(root)
        nests.setdefault(root, []).append(loop)
    return list(nests.values())


def look(nest: list[LoopRecord], lines: LinesRecord, operations: OperationsRecord) -> LoopNest:
    """What a nest comes to in the batch that is diagnosed."""
    host = nest[0].phase in HOST_PHASES
    per_loop: list[tuple[float, float, LoopRecord]] = []
    rows: list[OperationRecord] = []
    root = next((one for one in nest if one.inside is None), nest[0])
    for loop in nest:
        inner = [span for other in nest if other.inside == loop.location for span in other.spans]
        found = _growing(rows_in(loop.spans, operations), host)
        here = [row for row in found if not _once(row, root, lines, operations)]
        rows.extend(row for row in here if row not in rows)
        own = [row for row in here if not any(span.holds(row.location) for span in inner)]
        per_loop.append((tally(own, operations).operations, _rounds(loop, lines), loop))
    _, rounds, loop = max(per_loop, key=lambda entry: entry[:2])
    longest = (*lines.longest, *operations.longest)
    order = max(degree(loop.growth, longest) for loop in nest)
    axis = next((o.growth.axis for o in nest if degree(o.growth, longest) == order > 1), None)
    for row in rows:
        work = row.work
        if row.phase == "backward" or work is None or not work.exact:
            continue
        if degree(work, longest) > max(order, 1):
            order, axis = degree(work, longest), work.axis
    if order == 1 and any(joins_again(row, lines) for row in rows):
        order = 2
    executed = max(nest, key=lambda one: one.lines[-1] if one.lines else 0)
    scale = _rounds(executed, lines) / max(1, executed.counts[-1])
    return LoopNest(
        loop=loop,
        others=tuple(other for other in nest if other is not loop),
        rounds=rounds,
        order=order,
        axis=axis,
        rows=rows,
        cost=tally(rows, operations),
        lines=scale * (executed.lines[-1] if executed.lines else 0),
        by_sample=all(_by_sample(loop, lines) for loop in nest),
        sequence=order == 0,
    )


def _growing(rows: Iterable[OperationRecord], host: bool) -> list[OperationRecord]:
    """Those of the same half of the step whose number is not the same in all runs."""
    return [row for row in rows if (row.phase in HOST_PHASES) == host and len(set(row.calls)) > 1]


def _once(
    row: OperationRecord, loop: LoopRecord, lines: LinesRecord, operations: OperationsRecord
) -> bool:
    """Whether an operation on a line of a loop is done as often as the loop begins, not a round."""
    seen = [
        (calls, begun)
        for a, b, calls, begun in zip(
            lines.runs, operations.runs, row.calls, loop.entries, strict=False
        )
        if a.samples == b.samples and begun
    ]
    return len(seen) > 1 and all(n * seen[0][1] == seen[0][0] * m for n, m in seen)


def _rounds(loop: LoopRecord, lines: LinesRecord) -> float:
    law = at_axes(loop.growth, lines.axes)
    return float(loop.counts[-1]) if law is None else law


def _by_sample(loop: LoopRecord, lines: LinesRecord) -> bool:
    return all(run.axes.get(loop.growth.axis) == run.samples for run in lines.runs)


def joins_again(row: OperationRecord, lines: LinesRecord) -> bool:
    """Whether parts are joined to what was joined before, more in each round.

    Then a call joins more where there are more samples, and follows no axis exactly.
    """
    if row.op != "cat" or row.phase == "backward" or (row.work is not None and row.work.exact):
        return False
    samples = [run.samples for run in lines.runs]
    each = [n / m if m else 0.0 for n, m in zip(row.elements, row.calls, strict=True)]
    few = len(samples) // 2
    if not each[few] or samples[-1] <= samples[few]:
        return False
    more: float = (samples[-1] / samples[few]) ** 0.6
    return each[len(samples) - 1] / each[few] > max(1.3, more)
