"""An activation is saturated.

What it looks at:
    Squashing activations inside the model (tanh, sigmoid and their hard forms): the share of
    values within a thousandth of an end, over several micro-batches.
Why it hurts:
    At an end the slope is below a thousandth: next to nothing comes back through it.
A bad run:
    tanh after weights that were drawn a hundred times too large, or after features in their
    thousands.
What to do:
    Scale down what goes in: a normalisation before it, or smaller weights.
Limits:
    A trained classifier is sure of itself: an activation at whose ends the loss is small is no
    fault, so a last activation is judged by its outputs (saturated-output). Fewer than 32
    values a unit are not judged.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged

from .dead_units import enough

CODE = "G13"
NAME = "saturated-units"
NEEDS = ("gradients",)

#: Share of values at an end, and least units.
SHARE = 0.8
UNITS = 4


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the activations that are flat."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    last = max((s.order for s in record.stages), default=0)
    orders = {s.stage: s.order for s in record.stages}
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=seen.stage,
            message=(
                f"{seen.saturated:.0%} of what {seen.op} gives in {seen.stage} is within a "
                f"thousandth of an end; {seen.dead} of {seen.units} units always."
            ),
            evidence={
                "saturated": seen.saturated,
                "always": seen.dead,
                "units": seen.units,
                "rows": seen.rows,
            },
            remedy=f"Scale down what goes into {seen.op}.",
            location=(
                Location(file=seen.file, line=seen.line)
                if seen.file is not None and seen.line is not None
                else None
            ),
        )
        for seen in record.activations
        if seen.kind == "squash"
        and seen.units >= UNITS
        and enough(seen)
        and seen.saturated > SHARE
        and orders.get(seen.stage, 0) < last
    )
