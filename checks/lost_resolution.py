"""Values are held in a type that is too coarse for them.

What it looks at:
    Columns of samples and batches, and casts in collate and model, in float16, bfloat16 or float32,
    of which most values lie above what the type holds in steps of 1: 2,048, 256 or 16,777,216. Of
    casts, whether different values become the same.
Why it hurts:
    A time of 12,000 ns in float16 is a multiple of 8 ns: pulses that are nearer fall together, and
    no later subtraction brings them apart again.
A bad run:
    Raw times converted to half precision; Unix time in float32.
What to do:
    Subtract the offset and scale in the wider type, then convert.
Limits:
    Casts that autocast asks for are on purpose and not named. What was rounded before the data set
    gave it is told from its size, not from its values.
"""

from icediag.features_record import Rounding
from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

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


def _finding(rounding: Rounding) -> Finding:
    lost = ""
    if rounding.before is not None and rounding.step is not None:
        lost = (
            f"; differences from {rounding.step:.3g} on were there before, and "
            f"{rounding.before:,} different values become {rounding.after:,}"
        )
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=rounding.stage,
        message=(
            f"Values up to {rounding.largest:,.0f} in {rounding.dtype} ({rounding.what}) are held "
            f"in steps of {rounding.gap:g}, beside a spread of {rounding.spread:.4g}{lost}."
        ),
        evidence={
            "what": rounding.what,
            "dtype": rounding.dtype,
            "largest": rounding.largest,
            "step_of_type": rounding.gap,
            "smallest_difference": rounding.step,
            "spread": rounding.spread,
            "distinct_before": rounding.before,
            "distinct_after": rounding.after,
        },
        remedy="Subtract the offset and scale in the wider type, then convert.",
        location=place_of(rounding),
    )
