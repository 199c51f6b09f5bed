"""Much of a step is spent on copying tensors into another order.

What it looks at:
    Copies of tensors whose elements do not lie in order, as `.contiguous()`, `reshape` after a
    transposition, or a kernel that wants them in order makes: their share of all bytes of the step.
Why it hurts:
    A copy reads and writes a whole tensor and computes nothing; on a GPU it runs at the speed of
    memory, as most of a small network does anyway.
A bad run:
    `x.permute(0, 2, 1).contiguous()` before and after every layer.
What to do:
    Choose one order of axes and keep to it: (batch, length, features) for linear layers and
    attention; use `channels_last` for convolutions.
Limits:
    Worth knowing at most: some copies are needed, and attention splits heads by one. Which kernels
    of a GPU copy inside is not seen.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.work import OperationRecord
from icediag.work_reading import amount, at_line, moved, of_the_step, share_of, tally

CODE = "P08"
NAME = "contiguous-copies"
NEEDS = ("operations",)

#: Share of the bytes of a step. Attention of torch's own takes about 0.15.
SHARE = 0.25


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the line that copies most, with the others."""
    record = recording.operations
    assert record is not None
    if not record.runs:
        return Unjudged(name=NAME, reason="no step was counted")
    step = of_the_step(record)
    copies = [row for row in step if row.op == "contiguous"]
    share = share_of(copies, step)
    if share < SHARE:
        return ()
    lines: dict[Location | None, list[OperationRecord]] = {}
    for row in copies:
        lines.setdefault(row.location, []).append(row)
    order = sorted(lines, key=lambda place: -sum(map(moved, lines[place])))
    worst = lines[order[0]]
    count = tally(copies, record).operations
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage=worst[0].stage,
            message=(
                f"{count:,.0f} copies into another order of elements move "
                f"{amount(sum(map(moved, copies)))}, {share:.0%} of what the step moves; "
                f"{sum(map(moved, worst)) / sum(map(moved, copies)):.0%} of it here."
            ),
            evidence={
                "share": share,
                "copies": count,
                "bytes": sum(map(moved, copies)),
                "lines": {at_line(place): sum(map(moved, lines[place])) for place in order[:8]},
            },
            remedy="Keep one order of axes throughout, and transpose once where it must be.",
            location=order[0],
        ),
    )
