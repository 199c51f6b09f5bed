"""A gradient is NaN or infinite.

What it looks at:
    The gradient of every parameter, and where one is not finite the backward pass operation by
    operation: the first whose input is finite and whose output is not.
Why it hurts:
    One such value puts NaN into the weight, and from there into everything.
A bad run:
    sqrt of 0, whose slope is infinite; a norm of a zero vector; arccos at 1; 0 * inf behind a
    where.
What to do:
    Keep the argument away from the pole (a floor inside the root), or choose the safe argument
    before the operation, not the safe result after it.
Limits:
    The micro-batches that were sent; an operation of a library in one piece is named as a
    whole.
"""

import math

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged

CODE = "G05"
NAME = "non-finite-gradient"
NEEDS = ("gradients",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the operation and its line."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    bad = [p for p in record.parameters if p.gradient is not None and not math.isfinite(p.gradient)]
    op = record.non_finite
    if not bad or (record.loss is not None and not math.isfinite(record.loss)):
        return ()
    at = f"{op.op} ({op.file}:{op.line})" if op is not None and op.file else ""
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage=op.stage if op is not None and op.stage else bad[-1].stage,
            message=(
                f"The loss is {record.loss:.4g} and the gradient of {len(bad)} parameters is not "
                "finite"
                + (f": {op.value} first comes out of {at or op.op}." if op is not None else ".")
            ),
            evidence={
                "parameters": [p.name for p in bad][:20],
                "operation": op.op if op is not None else None,
                "value": op.value if op is not None else None,
                "loss": record.loss,
            },
            remedy="Keep the argument of that operation away from where its slope is infinite.",
            location=(
                Location(file=op.file, line=op.line)
                if op is not None and op.file is not None and op.line is not None
                else None
            ),
        ),
    )
