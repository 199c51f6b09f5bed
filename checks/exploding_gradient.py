"""The gradient explodes through depth.

What it looks at:
    The root mean square gradient of each weight matrix, in the order in which they run: whether
    it grows by a steady factor from the loss towards the input. And weights that multiply what
    goes through them by 100 and more, where those before them get a gradient that many times
    larger than their own.
Why it hurts:
    One step that suits the last layers throws the first ones away; in half precision it
    overflows.
A bad run:
    Twenty layers whose weights are drawn three times too large; one whose weights are drawn a
    thousand times too large.
What to do:
    A normalisation layer between, weights drawn to keep the variance (He et al. 2015,
    arXiv:1502.01852), clipping.
Limits:
    At least four layers in a row, or one that multiplies by 100. Recurrent nets are not unrolled
    in time.
"""

import math

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.gradients import GradientsRecord, ParameterFlow, StageSignal

from .vanishing_gradient import longest_fall, weights_of

CODE = "G04"
NAME = "exploding-gradient"
NEEDS = ("gradients",)

#: From the last to the first layer of a row.
DECADES = 4.0
#: What one layer multiplies values, and by it the gradient that comes back to those before it.
GAIN = 100.0


def size_of(parameter: ParameterFlow) -> float:
    """Root mean square of a parameter's gradient."""
    return (parameter.gradient or 0.0) / math.sqrt(max(1, parameter.values))


def leaps_of(record: GradientsRecord) -> list[tuple[ParameterFlow, ParameterFlow, float]]:
    """Weights across which the gradient grows in one leap.

    Where y = W x, a change of W by a share and of x by the same share move y alike: sizes of
    gradients go as one over the sizes of what they belong to. So the gradients before a weight
    that is too large exceed its own by as much as it is too large.

    Returns:
        The weight, the matrix before it with the median gradient, and how many times the gradient
        of that one exceeds its own.
    """
    moving = [
        p
        for p in record.parameters
        if p.trained and p.came is not None and p.gradient and math.isfinite(p.gradient)
    ]
    found = []
    for large in moving:
        if large.gain is None or not GAIN <= large.gain < math.inf:
            continue
        before = [
            p
            for p in moving
            if p.axes >= 2 and p.gain is not None and (p.came or 0) > (large.came or 0)
        ]
        if not before:
            continue
        before.sort(key=size_of)
        middle = before[len(before) // 2]
        times = size_of(middle) / size_of(large)
        if times >= GAIN:
            found.append((large, middle, times))
    return found


def innermost(record: GradientsRecord) -> list[StageSignal]:
    """Stages that hold no others: what one gives that holds others comes after what they give.

    Example: a model with weights of its own, such as a token that stands for the whole event,
    begins before its layers, and its output is the last of all.
    """
    return [
        stage
        for stage in record.stages
        if not any(
            other.stage != stage.stage
            and (stage.stage == "model" or other.stage.startswith(f"{stage.stage}."))
            for other in record.stages
        )
    ]


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say by how much it grows."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    weights = weights_of(record)
    layers = [
        s for s in innermost(record) if s.weights and s.gradient and math.isfinite(s.gradient)
    ]
    rows = {
        "weights": [(p.stage, (p.gradient or 1.0) / math.sqrt(p.values)) for p in weights],
        "outputs": [(s.stage, s.gradient or 1.0) for s in layers],
    }
    found = {
        of: rise
        for of, row in rows.items()
        if (rise := longest_fall([-math.log10(size) for _, size in row])) is not None
        and rise[0] >= DECADES
    }
    if not found:
        return tuple(_leap(record))
    of, (decades, first, last) = next(iter(found.items()))
    ends = rows[of][first][0], rows[of][last][0]
    place = record.place_of(ends[0])
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=ends[0],
            message=(
                f"From {ends[1]} back to {ends[0]} the gradient of the {of} grows by a factor of "
                f"{10**decades:.1e} over {last - first + 1} layers."
            ),
            evidence={"decades": decades, "layers": last - first + 1, "of": of, "last": ends[1]},
            remedy="Add normalisation between the layers, or draw the weights smaller.",
            location=None if place is None else Location(file=place[0], line=place[1]),
        ),
    )


def _leap(record: GradientsRecord) -> list[Finding]:
    """One finding for all weights across which the gradient leaps, at the worst."""
    leaps = leaps_of(record)
    if not leaps:
        return []
    large, before, times = max(leaps, key=lambda leap: leap[0].gain or 0.0)
    place = record.place_of(large.stage)
    more = f", and so do {len(leaps) - 1} more" if len(leaps) > 1 else ""
    return [
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=large.stage,
            message=(
                f"{large.name} multiplies what goes through it by {large.gain:.3g}{more}: the "
                f"gradient of {before.name} before it is {times:.3g} times its own."
            ),
            evidence={
                "weight": large.name,
                "gain": large.gain,
                "before": before.name,
                "times": times,
                "weights": len(leaps),
            },
            remedy=f"Draw {large.name} smaller: so that it keeps the variance.",
            location=None if place is None else Location(file=place[0], line=place[1]),
        )
    ]
