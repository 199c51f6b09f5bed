"""The gradient vanishes through depth.

What it looks at:
    The root mean square gradient of each weight matrix, in the order in which they run: whether it
    falls from layer to layer, without a break, over many decades from the loss towards the input.
Why it hurts:
    The first layers get next to nothing: they learn a million times slower than the last, or their
    gradient is below what the optimizer can tell from 0.
A bad run:
    Twenty linear layers with a sigmoid after each; weights drawn far too small.
What to do:
    Residual connections, a normalisation layer between, an activation that does not flatten,
    weights drawn to keep the variance (He et al. 2015, arXiv:1502.01852).
Limits:
    At least four weight matrices in a row; a branch that is small on purpose (a layer scale) is no
    such row. Recurrent nets are not unrolled in time.
"""

import itertools
import math
from collections.abc import Sequence

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.gradients import GradientsRecord, ParameterFlow

CODE = "G03"
NAME = "vanishing-gradient"
NEEDS = ("gradients",)

#: Layers in a row, and decades from the last to the first of them.
LEAST = 4
DECADES = 5.0
#: Share of a fall that one layer makes, from which on it is no matter of depth.
ALONE = 0.7


def weights_of(record: GradientsRecord) -> list[ParameterFlow]:
    """Weight matrices that got a finite gradient, in the order in which they are used.

    Weights that a part holds itself, beside parts inside it, may be used after those: not where the
    part began to run tells their place, but when their gradient came back.
    """
    weights = [
        p
        for p in record.parameters
        if p.trained and p.axes >= 2 and p.order is not None and p.gradient and p.weight
    ]
    weights = [p for p in weights if p.gradient is not None and math.isfinite(p.gradient)]
    if all(p.came is not None for p in weights):
        return sorted(weights, key=lambda p: p.came or 0, reverse=True)
    return sorted(weights, key=lambda p: p.order or 0)


def longest_fall(logarithms: Sequence[float]) -> tuple[float, int, int] | None:
    """The largest fall towards the beginning that no layer interrupts, and none makes up alone.

    Layers stand in a row in which not each passes on what the one after it gives: the weights of
    queries and keys get next to nothing where attention is even, and stand between others.

    Example: for [-9, -7, -5, -2, -3] it is (7, 0, 3); for [-9, -3, -2.5, -2] there is none.

    Returns:
        Decades, and positions of its first and last layer; None where no row is long enough.
    """
    best: tuple[float, int, int] | None = None
    start = 0
    for i in range(1, len(logarithms) + 1):
        if i < len(logarithms) and logarithms[i] > logarithms[i - 1]:
            continue
        fall = logarithms[i - 1] - logarithms[start]
        row = logarithms[start:i]
        leap = max((b - a for a, b in itertools.pairwise(row)), default=0.0)
        if i - start >= LEAST and leap <= ALONE * fall and (best is None or fall > best[0]):
            best = fall, start, i - 1
        start = i
    return best


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say by how much it falls."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    weights = weights_of(record)
    found = longest_fall([math.log10((p.gradient or 1.0) / math.sqrt(p.values)) for p in weights])
    if found is None or found[0] < DECADES:
        return ()
    decades, first, last = found[0], weights[found[1]], weights[found[2]]
    place = record.place_of(first.stage)
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=first.stage,
            message=(
                f"From {last.stage} back to {first.stage} the gradient of the weights falls by a "
                f"factor of {10**decades:.1e}: from {last.gradient:.2g} to {first.gradient:.2g}."
            ),
            evidence={
                "decades": decades,
                "layers": found[2] - found[1] + 1,
                "first": first.gradient,
                "last": last.gradient,
            },
            remedy="Add residual connections or normalisation, or draw the weights larger.",
            location=None if place is None else Location(file=place[0], line=place[1]),
        ),
    )
