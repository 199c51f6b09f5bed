"""The gradient copies a whole tensor for every row written or read.

What it looks at:
    Operations of the backward pass whose number grows with the batch while each of them handles a
    tensor that grows as well: the gradient of a write in place (`out[i] = row`), which copies all
    of `out`, and of reading a row, a slice or a mask (`x[i]`, `x[mask]`), which fills a tensor of
    zeros as large as `x` and adds it to the others.
Why it hurts:
    The way back costs rows times the whole tensor: the square of the batch, in bytes, where the way
    forward looks linear.
A bad run:
    DOMs that are packed row by row into a padded tensor: 20,000 copies of 190,000 slots each.
What to do:
    Write all rows in one operation, or collect them in a list and stack it; read them by one
    gather, `split` or `unbind`.
Limits:
    Bytes of the largest batch that was counted. A few writes in place, whatever the batch, are in
    order and not named. Where P01 names the loop, this is a part of its cost.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Location, Recording, Unjudged
from icediag.records.work import OperationRecord
from icediag.work_reading import amount, degree, moved, of_one, of_the_step, share_of, tally

CODE = "P04"
NAME = "backward-copies"
NEEDS = ("operations",)

#: Share of the bytes of a step from which on they are shown to hurt, and are worth knowing.
SHARE, KNOWING = 0.10, 0.01
#: Nodes whose gradient is as large as what was written into or read from.
WHOLE = frozenset(
    {
        *("CopySlices", "SelectBackward0", "SliceBackward0", "IndexBackward0", "GatherBackward0"),
        *("IndexSelectBackward0", "MaskedSelectBackward0", "AsStridedBackward0", "TakeBackward0"),
    }
)
#: How many times as large as what is written a copy must be to be one of the whole.
TIMES = 4
#: Fewer than these are no loop.
CALLS = 8


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each line whose gradient copies more than it wrote or read."""
    record = recording.operations
    assert record is not None
    if len(record.runs) < 3:
        return Unjudged(name=NAME, reason="too few batches were counted to see what grows")
    step = of_the_step(record)
    lines: dict[Location | None, list[OperationRecord]] = {}
    for row in step:
        if row.phase != "backward" or row.node not in WHOLE or row.calls[-1] < CALLS:
            continue
        if degree(row.growth, record.longest) > 0 and _whole(row, step):
            lines.setdefault(row.location, []).append(row)
    findings = []
    for place, rows in lines.items():
        share = share_of(rows, step)
        if share < KNOWING:
            continue
        worst = max(rows, key=moved)
        # The same line may run in several stages: of each what it does once a row.
        plain = min(rows, key=_plainness)
        alike = [row for row in rows if (row.op, row.node) == (plain.op, plain.node)]
        times = tally(alike, record).operations
        calls = worst.growth
        assert calls is not None
        follows = worst.work.axis if worst.work is not None and worst.work.exact else None
        grows = f" It grows as {follows}." if follows else ""
        writes = any(row.node == "CopySlices" for row in rows)
        forward = [row for row in step if row.location == place and row.phase != "backward"]
        severity: Severity = "warning" if share >= SHARE else "note"
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity=severity,
                stage=worst.stage,
                message=(
                    f"The gradient of {'writing' if writes else 'reading'} here copies the whole "
                    f"tensor for every {of_one(calls.axis)}: {times:,.0f} times in this batch. In "
                    f"the largest batch that was counted ({record.runs[-1].samples} samples) that "
                    f"moves {amount(sum(map(moved, rows)))}, {share:.0%} of what the step moves."
                    f"{grows}"
                ),
                evidence={
                    "axis": calls.axis,
                    "work_axis": follows,
                    "calls": times,
                    "bytes": sum(map(moved, rows)),
                    "forward_bytes": sum(map(moved, forward)),
                    "share": share,
                    "nodes": list(dict.fromkeys(row.node for row in rows)),
                    "samples": record.runs[-1].samples,
                },
                remedy=(
                    "Write all rows in one operation (out[group, place] = rows), or collect them "
                    "in a list and torch.stack it."
                    if writes
                    else "Read all rows in one operation: one gather or index_add by group, or "
                    "split and unbind in place of indexing."
                ),
                location=place,
            )
        )
    return tuple(sorted(findings, key=lambda finding: -float(finding.evidence["bytes"])))


def _whole(row: OperationRecord, step: list[OperationRecord]) -> bool:
    """Whether an operation handles all of a tensor, of which a row is meant.

    Either it follows the square of what it is called for; or, in the gradient of a write, each copy
    is several times what is written.
    """
    calls, work = row.growth, row.work
    if calls is not None and work is not None and work.order > calls.order:
        return True
    if row.node != "CopySlices" or row.op != "copy":
        return False
    written = [
        other.elements[-1] / other.calls[-1]
        for other in step
        if (other.location, other.node) == (row.location, row.node)
        and other.op in ("clone", "contiguous", "zeros_like")
        and other.calls[-1]
    ]
    return bool(written) and row.elements[-1] / row.calls[-1] > TIMES * max(written)


def _plainness(row: OperationRecord) -> tuple[float, float]:
    """Least for what is done exactly once a row."""
    growth = row.growth
    assert growth is not None
    return abs(growth.intercept), growth.slope
