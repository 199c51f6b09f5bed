"""Attention looks at one key alone.

What it looks at:
    Attention weights, where they can be had (scaled_dot_product_attention,
    multi_head_attention_forward): the entropy over the keys beside that of equal weights.
Why it hurts:
    A softmax that is 1 at one key passes no gradient to queries and keys, and no information of
    the others.
A bad run:
    Logits without the 1 / sqrt(d), or queries and keys in their hundreds.
What to do:
    Scale the logits by 1 / sqrt(d); norm queries and keys.
Limits:
    All heads of a stage together, at least eight keys. Equal weights are what fresh attention
    gives, and no fault.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged

CODE = "G14"
NAME = "collapsed-attention"
NEEDS = ("gradients",)

#: Entropy, over that of equal weights, below which nothing but one key is looked at.
SHARP = 0.02
KEYS = 8


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the stages whose heads all look at one key."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=seen.stage,
            message=(
                f"All {seen.heads} heads look at one of up to {seen.keys} keys: the entropy of the "
                f"weights is {seen.entropy:.2g} of that of equal ones, {seen.highest:.2g} at most."
            ),
            evidence={
                "entropy": seen.entropy,
                "lowest": seen.lowest,
                "highest": seen.highest,
                "heads": seen.heads,
                "keys": seen.keys,
            },
            remedy="Scale the logits by 1 / sqrt(d), or norm queries and keys.",
            location=(
                Location(file=seen.file, line=seen.line)
                if seen.file is not None and seen.line is not None
                else None
            ),
        )
        for seen in record.attention
        if seen.keys >= KEYS and seen.highest < SHARP
    )
