"""The gradient explodes through depth.

What it looks at:
    The root mean square gradient of each weight matrix, in the order in which they run: whether
    it grows by a steady factor from the loss towards the input.
Why it hurts:
    One step that suits the last layers throws the first ones away; in half precision it
    overflows.
A bad run:
    Twenty layers whose weights are drawn three times too large.
What to do:
    A normalisation layer between, weights drawn to keep the variance (He et al. 2015,
    arXiv:1502.01852), clipping.
Limits:
    At least four layers in a row. Recurrent nets are not unrolled in time.
"""

import math

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged

from .vanishing_gradient import longest_fall, weights_of

CODE = "G04"
NAME = "exploding-gradient"
NEEDS = ("gradients",)

#: From the last to the first layer of a row.
DECADES = 4.0


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say by how much it grows."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    weights = weights_of(record)
    layers = [s for s in record.stages if s.weights and s.gradient and math.isfinite(s.gradient)]
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
        return ()
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
                f"1e{decades:.1f} over {last - first + 1} layers."
            ),
            evidence={"decades": decades, "layers": last - first + 1, "of": of, "last": ends[1]},
            remedy="Add normalisation between the layers, or draw the weights smaller.",
            location=None if place is None else Location(file=place[0], line=place[1]),
        ),
    )
