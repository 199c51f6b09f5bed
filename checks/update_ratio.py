"""Updates are out of proportion to the weights.

What it looks at:
    The size of a real step of the optimizer beside the size of each weight matrix; healthy runs
    are around 1e-3. And weights whose update is lost in rounding.
Why it hurts:
    Above 1 a step replaces the weights instead of changing them; below 1e-7 it is lost in the
    rounding of float32.
A bad run:
    A loss multiplied by 1e-12; plain gradient descent on a loss summed over a million pulses; a
    weight decay of 100.
What to do:
    Scale the loss to order 1, and the learning rate so that the ratio is about 1e-3.
Limits:
    Matrices alone; biases and norms begin at 0 or 1. Where the rule of the optimizer makes the
    learning rate alone responsible, the check of the learning rate speaks. While the rate
    rises, small updates are a warm-up.
"""

import statistics

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.gradients import GradientsRecord, ParameterFlow

CODE = "G07"
NAME = "update-ratio"
NEEDS = ("gradients",)

#: Ratios from which on a step replaces, or does not move, a weight.
LARGE = 1.0
SMALL = 1e-7
#: Share of values left bit for bit, and share of all weights that must be so.
LOST = 0.5
MOST = 0.5


def out_of_range(record: GradientsRecord) -> tuple[str, float, list[ParameterFlow]] | None:
    """Whether most of the weights are thrown away, or not moved, by a step.

    Returns:
        `large` or `small`, the median ratio of those, and which they are; None where most of the
        weights are neither.
    """
    if not any(step.steps for step in record.steps):
        return None  # a step with a closure is many steps
    weights = [
        p
        for p in record.parameters
        if p.held and p.trained and p.gradient and p.axes >= 2 and p.ratio is not None
    ]
    if all(p.unmoved for p in record.parameters if p.trained):
        return None  # that is another finding: nothing moves
    total = sum(p.values for p in weights)
    for how, picked in (
        ("large", [p for p in weights if (p.ratio or 0.0) > LARGE]),
        ("small", [p for p in weights if (p.ratio or 0.0) < SMALL or p.lost > LOST]),
    ):
        if total and sum(p.values for p in picked) > MOST * total:
            return how, statistics.median(p.ratio or 0.0 for p in picked), picked
    return None


def warms_up(record: GradientsRecord) -> bool:
    """Whether the learning rate rises from step to step."""
    rates = [step.rate for step in record.steps if step.rate is not None]
    return len(rates) > 1 and rates[-1] > rates[0]


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say by how much."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    found = out_of_range(record)
    if found is None or record.adaptive or (found[0] == "small" and warms_up(record)):
        return ()
    how, ratio, weights = found
    rate = record.steps[-1].rate if record.steps else None
    lost = max(p.lost for p in weights)
    if how == "small" and rate == 0:
        return ()
    worst = (max if how == "large" else min)(weights, key=lambda p: p.ratio or 0.0)
    place = record.place_of(worst.stage)
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=worst.stage,
            message=(
                f"A step of {record.optimizer} at {rate} changes {len(weights)} weight matrices by "
                f"{ratio:.2g} of their size (median)" + consequence(how, lost)
            ),
            evidence={
                "ratio": ratio,
                "learning_rate": rate,
                "weights": len(weights),
                "worst": worst.name,
                "worst_ratio": worst.ratio,
                "lost": lost,
            },
            remedy="Scale loss or learning rate so that a step is about 1e-3 of the weights.",
            location=None if place is None else Location(file=place[0], line=place[1]),
        ),
    )


def consequence(how: str, lost: float) -> str:
    """What a step of that size does, at the end of a sentence."""
    if how == "large":
        return ": it replaces them."
    if lost > LOST:
        return f", and leaves {lost:.0%} of the values bit for bit: it is lost in rounding."
    return ": it is lost in rounding."
