"""The same values are computed more than once in a step.

What it looks at:
    Every operation of one step with the tensors that go into it, told apart by where they lie in
    memory and how often they were written: the same operation on the same values is the same work.
Why it hurts:
    A forward pass that is run again for a log or a metric costs another forward pass, and its
    backward pass where it is part of the loss.
A bad run:
    `loss = criterion(model(batch), y); accuracy = metric(model(batch), y)`.
What to do:
    Keep the result and use it again.
Limits:
    The largest of the small batches. What is computed again on the way back, by checkpointing, is
    meant and not counted; nor are values that were copied before. Where it is little, it is not
    named.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.work import Repeated
from icediag.work_reading import amount, at_line, of_the_step

CODE = "P06"
NAME = "recomputation"
NEEDS = ("operations",)

#: Share of the operations of a step, in flops or bytes, that hurts, and that is worth knowing.
SHARE, KNOWING = 0.10, 0.05
#: Samples of the largest of the small batches: in it work that is done again is looked for.
SMALL = 16
#: Make a tensor of nothing but its size: cheap, and often meant to be written to.
MADE = frozenset({"zeros", "ones", "full", "arange", "eye", "scalar_tensor", "linspace"})


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the line that does most again, with the others."""
    record = recording.operations
    assert record is not None
    if not record.runs:
        return Unjudged(name=NAME, reason="no step was counted")
    again = [
        item
        for item in record.repeated
        if item.phase not in ("dataset item", "collate", "transfer", "optimizer")
        and item.op not in MADE
        and not item.op.startswith(("new_", "zeros_", "ones_", "full_"))
    ]
    # What is repeated was counted in the largest small batch, not in the whole.
    small = max((i for i, run in enumerate(record.runs) if run.samples <= SMALL), default=0)
    step = of_the_step(record)
    moved = sum(row.bytes_read[small] + row.bytes_written[small] for row in step)
    flops = sum(row.flops[small] for row in step)
    by_bytes = sum(item.bytes for item in again) / moved if moved else 0.0
    by_flops = sum(item.flops for item in again) / flops if flops else 0.0
    share = max(by_bytes, by_flops)
    if not again or share < KNOWING:
        return ()
    severity: Severity = "warning" if share >= SHARE else "note"
    worst = max(again, key=lambda item: (item.flops, item.bytes))
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity=severity,
            stage=worst.phase,
            message=(
                f"{sum(item.times for item in again):,} operations of a step are done again on the "
                f"same values, {by_flops:.0%} of its arithmetic and {by_bytes:.0%} of its bytes "
                f"({amount(sum(item.bytes for item in again))}); most of it {_from(worst)}."
            ),
            evidence={
                "times": sum(item.times for item in again),
                "flops": sum(item.flops for item in again),
                "bytes": sum(item.bytes for item in again),
                "flops_share": by_flops,
                "bytes_share": by_bytes,
                "samples": record.runs[small].samples,
                "again": [
                    {
                        "op": item.op,
                        "line": at_line(item.location),
                        "first": at_line(item.first),
                        "times": item.times,
                    }
                    for item in sorted(again, key=lambda item: -item.bytes)[:8]
                ],
            },
            remedy="Keep the result of the first time and use it again.",
            location=worst.location,
        ),
    )


def _from(item: Repeated) -> str:
    if item.location is None or item.first is None:
        return f"is {item.op}"
    if item.location == item.first:
        return f"is {item.op} at line {item.location.line}, by the line itself"
    where = "" if item.location.file == item.first.file else f" of {item.first.file}"
    return f"is {item.op} at line {item.location.line}, first done at line {item.first.line}{where}"
