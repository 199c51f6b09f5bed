"""Reading counts: what an axis is called, how a count grows with the batch, what a row comes to.

Counts grow along axes. Some of these are sums over the samples (pulses, DOMs, the samples
themselves); others follow the longest group alone, and stay where the batch only has more samples.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icediag.recording import Location, singular
from icediag.records.projection import ProjectionRecord
from icediag.records.work import (
    Growth,
    OperationRecord,
    OperationsRecord,
    Phase,
    Span,
    at_axes,
)

#: Parts of a step that run on the host whatever the device, in worker processes if there are any.
HOST_PHASES: tuple[Phase, ...] = ("dataset item", "collate", "transfer")


def of_one(axis: str) -> str:
    """One of what an axis counts, in a sentence: "doms" -> "dom", "n_x" -> "row of x"."""
    if "*" in axis:
        first, second = axis.split("*", 1)
        one, other = of_one(first), of_one(second)
        return f"pair of one {one} and another" if one == other else f"{one} and each {other}"
    if axis.endswith("^2"):
        inner, _, outer = axis.removesuffix("^2").partition("/")
        return f"pair of {inner} in one {outer}"
    if axis.startswith("longest"):
        rest = axis.removeprefix("longest").strip()
        inner, _, outer = rest.partition("/")
        return f"row of the longest {outer or 'sample'}" + (f" ({inner})" if inner else "")
    if axis.startswith("rows of "):
        path = axis.removeprefix("rows of ")
        # Samples that are tuples have no names, but places.
        return f"row of item {path} of a sample" if path.isdecimal() else f"row of {path}"
    if axis.startswith("n_"):
        path, _, last = axis.removeprefix("n_").rpartition("_")
        if path and last.isdigit():
            return f"entry of {path} along axis {last}"
        return f"row of {axis.removeprefix('n_')}"
    return singular(axis)


def degree(growth: Growth | None, longest: Iterable[str]) -> int:
    """With what power of the number of samples a count grows; 0 where it does not.

    A rectangle of samples by the longest of them, and pairs within each sample, grow as the
    samples do.
    """
    if growth is None:
        return 0
    return sum(
        1
        for factor in growth.axis.split("*")
        if factor not in longest and not factor.startswith("longest")
    )


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What some rows of operations come to in the batch that is diagnosed.

    Attributes:
        operations: How many are dispatched.
        launches: Kernels that they start.
        syncs: How often the host must wait.
        bytes: Read and written in the largest batch that was counted.
    """

    operations: float = 0.0
    launches: float = 0.0
    syncs: float = 0.0
    bytes: int = 0


def calls_of(row: OperationRecord, record: OperationsRecord) -> float:
    """How often an operation is dispatched in the batch that is diagnosed."""
    if record.runs and record.runs[-1].samples == record.batch_size:
        return float(row.calls[-1])
    law = at_axes(row.growth, record.axes) if row.growth is not None else None
    if law is not None:
        return max(0.0, law)
    if row.growth is None and len(set(row.calls)) == 1:
        return float(row.calls[-1])
    return row.calls[-1] * record.batch_size / max(1, record.runs[-1].samples)


def tally(rows: Iterable[OperationRecord], record: OperationsRecord) -> Tally:
    """Add rows up."""
    operations = launches = syncs = 0.0
    moved = 0
    for row in rows:
        calls = calls_of(row, record)
        share = calls / row.calls[-1] if row.calls[-1] else 0.0
        operations += calls
        launches += row.launches[-1] * share
        syncs += row.syncs[-1] * share
        moved += row.bytes_read[-1] + row.bytes_written[-1]
    return Tally(operations=operations, launches=launches, syncs=syncs, bytes=moved)


def rows_in(spans: Sequence[Span], record: OperationsRecord) -> list[OperationRecord]:
    """Operations of lines that spans hold."""
    return [row for row in record.operations if any(span.holds(row.location) for span in spans)]


def projected_in(spans: Sequence[Span], projection: ProjectionRecord) -> float:
    """Seconds that operations of these lines take in the projected step, as far as they grow."""
    return min(
        projection.step_s,
        sum(
            line.forward_s + line.backward_s
            for line in projection.lines
            if any(span.holds(line.location) for span in spans)
        ),
    )


def duration(seconds: float) -> str:
    """Seconds in a sentence: 0.0042 -> "4.2 ms"."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def of_the_step(record: OperationsRecord) -> list[OperationRecord]:
    """Operations from the forward pass to the optimizer, which a GPU would do."""
    return [row for row in record.operations if row.phase not in HOST_PHASES]


def moved(row: OperationRecord) -> int:
    """Bytes that an operation read and wrote in the largest batch that was counted."""
    return row.bytes_read[-1] + row.bytes_written[-1] if row.bytes_read else 0


def share_of(part: Iterable[OperationRecord], whole: Iterable[OperationRecord]) -> float:
    """Share of the bytes that are moved, 0..1."""
    total = sum(moved(row) for row in whole)
    return sum(moved(row) for row in part) / total if total else 0.0


def at_line(place: Location | None) -> str:
    """A line in evidence."""
    return "outside" if place is None else f"{place.file}:{place.line}"


def amount(n: float) -> str:
    """Bytes in a sentence: 3_400_000 -> "3.4 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} bytes"
