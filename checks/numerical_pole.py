"""An operation can reach its pole.

What it looks at:
    Logarithms, divisions, roots, arc functions, powers, exponentials and norms, in runs on the
    batch as it is and on the batch with rows moved to the ends of their ranges: those that a
    contract declares, else those observed. Reported is what gives a value or a slope there that is
    not finite, where that spoils predictions, loss or the gradients of weights.
Why it hurts:
    One such event, and after one step all weights are NaN. It may take a thousand batches to come.
A bad run:
    log(charge) where a charge may be 0; sqrt of a variance of equal numbers, whose slope is
    infinite; where(x > 0, sqrt(x), 0), whose gradient at 0 is 0 times infinity.
What to do:
    Keep the argument from the pole *before* the operation: clamp it, add a floor, or choose the
    argument with `where` first and the result with `where` again.
Limits:
    Poles inside of the ranges that neither the batch nor moved rows hit are missed, and so are
    those in fused kernels.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.bounds import Pole

CODE = "B05"
NEEDS = ("bounds",)
NAME = "numerical-pole"


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the operations that were at a pole and did harm."""
    bounds = recording.bounds
    if bounds is None:
        return Unjudged(name=NAME, reason="bounds were not recorded")
    failed = [note for note in bounds.not_judged if note.name == "poles"]
    if failed:
        return Unjudged(name=NAME, reason=failed[0].reason)
    declared = [r.path for r in bounds.ranges if r.source == "declared"]
    return tuple(_finding(pole, declared) for pole in bounds.poles if pole.confirmed)


def _finding(pole: Pole, declared: list[str]) -> Finding:
    place = pole.place
    as_it_is = pole.met == "the batch as it is"
    ranges = f"declared for {', '.join(declared)}, else observed" if declared else "observed"
    located = place.file is not None and place.line is not None
    return Finding(
        code=CODE,
        name=NAME,
        severity="error" if as_it_is or declared else "warning",
        stage=place.stage,
        message=(
            f"{place.op.removeprefix('aten::')} comes to {pole.what}, at {pole.argument:.4g}: "
            f"value {pole.value:.4g}, slope {pole.slope:.4g} in {pole.dtype}. Met on {pole.met}; "
            f"it makes {pole.outcome} not finite."
        ),
        evidence={
            "op": place.op,
            "argument": pole.argument,
            "value": pole.value,
            "slope": pole.slope,
            "dtype": pole.dtype,
            "entries": pole.entries,
            "met": pole.met,
            "ranges": ranges,
            "outcome": pole.outcome,
        },
        remedy="Keep its argument from the pole before the operation: clamp it or add a floor.",
        location=Location(file=str(place.file), line=int(place.line or 0)) if located else None,
    )
