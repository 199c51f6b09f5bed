"""Foresee: which larger batch can be counted too, by what those before it took.

Counts alone decide, so that every run and every machine counts the same batches.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from icediag.instruments.profiling.projection import Work, extended
from icediag.records.work import OperationsRecord

#: A step whose growth is not known is counted at so many times the samples before that of all is.
FURTHER = 4
#: Bytes that a step may write on its way forward: about what it holds for the way back.
MOST_HELD = 4 * 10**9
#: Floating point operations that take a core about as long as to move a byte.
FLOPS_A_BYTE = 25


@dataclass(frozen=True)
class Load:
    """What a step takes.

    Attributes:
        calls: Operations.
        bytes: Read and written.
        flops: Floating point operations.
        held: Bytes written on the way forward.
    """

    calls: float
    bytes: float
    flops: float
    held: float

    def within(self, other: "Load") -> bool:
        """Whether no part of it is more."""
        return all(getattr(self, name) <= getattr(other, name) for name in vars(self))

    def plus(self, other: "Load", times: float = 1.0) -> "Load":
        """Both together."""
        return Load(*(a + times * b for a, b in zip(_parts(self), _parts(other), strict=True)))


NOTHING = Load(0.0, 0.0, 0.0, 0.0)


def limits(most_calls: int, most_bytes: int) -> Load:
    """What a step may take that is counted."""
    return Load(most_calls, most_bytes, FLOPS_A_BYTE * most_bytes, min(MOST_HELD, most_bytes))


def _parts(load: Load) -> tuple[float, ...]:
    return load.calls, load.bytes, load.flops, load.held


def _load(works: Iterable[Work]) -> Load:
    total = NOTHING
    for work in works:
        forward = work.record.phase in ("forward", "loss", "step")
        last = sum(work.record.bytes_read[-1:]) + sum(work.record.bytes_written[-1:])
        written = work.record.bytes_written[-1] / last if last else 0.0
        held = work.bytes * written if forward else 0.0
        total = total.plus(Load(work.calls, work.bytes, work.flops, held))
    return total


def next_size(record: OperationsRecord, most: Load) -> int | None:
    """Samples of the batch that is to be counted next; None where that would take too much.

    What follows nothing that is known was extended as the samples; it may grow as their square.
    Then a batch between is counted first, and shows it.

    Args:
        record: What was counted, its rows and the axes of the whole batch.
        most: What a step may take.
    """
    last, whole = record.runs[-1].samples, record.batch_size
    if last >= whole:
        return None
    known, unknown = _expected(record)
    if known.plus(unknown, whole / last).within(most):
        return whole
    between = FURTHER * last
    if between >= whole or not known.plus(unknown).within(most):
        return None
    counted = Load(
        sum(row.calls[-1] for row in record.operations),
        sum(row.bytes_read[-1] + row.bytes_written[-1] for row in record.operations),
        sum(row.flops[-1] for row in record.operations),
        sum(
            row.bytes_written[-1]
            for row in record.operations
            if row.phase in ("forward", "loss", "step")
        ),
    )
    part = between / whole
    expected = counted.plus(known, part).plus(unknown, FURTHER * part)
    return between if expected.within(most) else None


def foreseen(record: OperationsRecord, most: Load) -> bool:
    """Whether a step of the whole batch is expected to take no more than this."""
    if not record.runs:
        return False
    known, unknown = _expected(record)
    return known.plus(unknown, record.batch_size / record.runs[-1].samples).within(most)


def _expected(record: OperationsRecord) -> tuple[Load, Load]:
    """What the whole batch takes: of operations whose growth is known, and of all others."""
    works = [extended(row, record) for row in record.operations]
    return (
        _load(work for work in works if work.fitted),
        _load(work for work in works if not work.fitted),
    )
