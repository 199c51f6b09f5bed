"""Whole numbers do not fit their type.

What it looks at:
    Sums, differences and products of int8, int16 and int32 tensors, in collate and in the model,
    computed again in int64; casts between types of whole numbers; and ids that go through a
    floating type with too few bits (above 2,048 in float16, 256 in bfloat16, 16,777,216 in float32
    neighbours collide).
Why it hurts:
    An id that wrapped around, or was rounded, is another id: rows of different events or sensors
    fall together, without an error.
A bad run:
    event * 5160 + sensor_id in int16; sensor ids as a column of a half-precision table.
What to do:
    Keep ids in int64.
Limits:
    What numpy computes before the batch is made of tensors is not seen. A product by more than
    2^20 is taken for a hash that is meant to wrap. At the pipeline's batch size only products of
    the running number of the sample are foreseen.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import Overflow, Rounding

from .unnormalized_input import place_of

CODE = "V03"
NAME = "integer-overflow"
NEEDS = ("features",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name what does not fit."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    found = [_overflow(overflow) for overflow in recording.features.overflows]
    names = [_rounded(r) for r in recording.features.roundings if r.named]
    return (*found, *names)


def _overflow(overflow: Overflow) -> Finding:
    shown = overflow.at_batch_size is None
    if shown:
        what = (
            f"{overflow.wrapped:,} of {overflow.entries:,} results come out as other numbers, "
            f"where {overflow.low:,} to {overflow.high:,} are to be held"
        )
    else:
        what = (
            f"with {overflow.at_batch_size:,} samples a batch, as in training, it would have to "
            f"hold up to {overflow.high:,}"
        )
    return Finding(
        code=CODE,
        name=NAME,
        severity="error" if shown else "warning",
        stage=overflow.stage,
        message=f"{overflow.op} in {overflow.dtype} overflows: {what}.",
        evidence={
            "operation": overflow.op,
            "dtype": overflow.dtype,
            "low": overflow.low,
            "high": overflow.high,
            "wrong": overflow.wrapped,
            "entries": overflow.entries,
            "at_batch_size": overflow.at_batch_size,
        },
        remedy="Convert to int64 before this operation.",
        location=place_of(overflow),
    )


def _rounded(rounding: Rounding) -> Finding:
    lost = ""
    if rounding.before is not None:
        lost = f"; {rounding.before:,} different ones become {rounding.after:,}"
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=rounding.stage,
        message=(
            f"Ids up to {rounding.largest:,.0f} go through {rounding.dtype} ({rounding.what}), "
            f"which holds whole numbers in steps of {rounding.gap:g} there{lost}."
        ),
        evidence={
            "dtype": rounding.dtype,
            "what": rounding.what,
            "largest": rounding.largest,
            "step_of_type": rounding.gap,
            "distinct_before": rounding.before,
            "distinct_after": rounding.after,
        },
        remedy="Keep ids in int64, apart from what is in floating point.",
        location=place_of(rounding),
    )
