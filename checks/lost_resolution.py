"""Values are held in a type that is too coarse for them.

What it looks at:
    Columns of samples and batches, and casts in collate and model, in float16, bfloat16 or float32,
    of which most values lie above what the type holds in steps of 1: 2,048, 256 or 16,777,216. Of
    casts, whether different values become the same. A cast of values in finer steps of their own,
    such as times in tenths of a nanosecond, is named where the type's steps are twice as coarse and
    a fifth of the different values is lost.
Why it hurts:
    A time of 12,000 ns in float16 is a multiple of 8 ns: pulses that are nearer fall together, and
    no later subtraction brings them apart again.
A bad run:
    Raw times converted to half precision; Unix time in float32. Of times that are scaled to order 1
    already, which half precision holds in steps of a few nanoseconds, a note is made.
What to do:
    Subtract the offset and scale in the wider type, then convert.
Limits:
    Casts that autocast asks for are on purpose and not named. Values that lie on no grid have no
    resolution of their own to lose, and are named from steps of 1 on. What was rounded before the
    data set gave it is told from its size, not from its values.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import Rounding

from .unnormalized_input import place_of

CODE = "V04"
NAME = "lost-resolution"
NEEDS = ("features",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name values that lost their last digits."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    measured = [r for r in recording.features.roundings if not r.named]
    # What the samples hold already is not named again where it is collated.
    held = {r.what.rpartition(".")[2] for r in measured if r.stage == "dataset item"}
    return tuple(
        _finding(r)
        for r in measured
        if r.stage == "dataset item" or r.before is not None or r.what not in held
    )


#: Values of a median magnitude below this are scaled ones.
SCALED = 8.0


def _finding(rounding: Rounding) -> Finding:
    lost = ""
    if rounding.before is not None and rounding.step is not None:
        was = f"differences from {rounding.step:.3g} on were there before"
        if rounding.grid is not None:
            was = f"before, they are in steps of {rounding.grid:.3g}"
        lost = f"; {was}, and {rounding.before:,} different values become {rounding.after:,}"
    # Below that a type of half the bits holds no more than about three digits of anything.
    scaled = rounding.grid is not None and rounding.middle < SCALED
    return Finding(
        code=CODE,
        name=NAME,
        severity="note" if scaled else "warning",
        stage=rounding.stage,
        message=(
            f"Values up to {_number(rounding.largest)} in {rounding.dtype} ({rounding.what}) are "
            f"held in steps of {rounding.gap:.4g}, beside a spread of {rounding.spread:.4g}{lost}."
        ),
        evidence={
            "what": rounding.what,
            "dtype": rounding.dtype,
            "largest": rounding.largest,
            "step_of_type": rounding.gap,
            "smallest_difference": rounding.step,
            "own_step": rounding.grid,
            "spread": rounding.spread,
            "distinct_before": rounding.before,
            "distinct_after": rounding.after,
        },
        remedy="Subtract the offset and scale in the wider type, then convert.",
        location=place_of(rounding),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
