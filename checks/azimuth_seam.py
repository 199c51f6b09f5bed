"""A periodic output has a seam.

What it looks at:
    Columns whose domain is periodic, such as an azimuth, and the last operation that bounds them:
    tanh, sigmoid or clamp squeeze a line into the period and do not join its ends; atan2 does.
Why it hurts:
    Directions on both sides of 0 = 2 pi are neighbours in the sky and as far apart as can be for
    the network: it has to jump there, and gives the mean of the two, which points the other way.
A bad run:
    azimuth = pi * (1 + tanh(x)).
What to do:
    Predict a vector (cos, sin) and take atan2.
Limits:
    A note unless targets near the seam are seen in the batch: with a tenth of them within a
    twentieth of the period, as for directions from everywhere, it is a warning only if the loss
    is not periodic, which is not known here; so it stays a note below a quarter.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.bounds import OutputBounds

CODE = "B03"
NEEDS = ("bounds",)
NAME = "azimuth-seam"

#: Of targets without a preferred direction a tenth lie near the seam; from this share on it is
#: where the data are.
MANY = 0.25


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name periodic outputs that come from a map that is not."""
    if recording.bounds is None:
        return Unjudged(name=NAME, reason="bounds were not recorded")
    return tuple(_finding(output) for output in recording.bounds.outputs if _has_seam(output))


def _has_seam(output: OutputBounds) -> bool:
    if not (output.periodic and output.proved and output.last is not None):
        return False
    return output.last.kind in ("squash", "clamp", "wave", "share")


def _finding(output: OutputBounds) -> Finding:
    assert output.last is not None
    place, share = output.last.place, output.targets_near_seam
    near = "" if share is None else f"; {share:.0%} of the batch's targets are near it"
    located = place.file is not None and place.line is not None
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning" if share is not None and share >= MANY else "note",
        stage=place.stage,
        message=(
            f"{output.column} is periodic, but {place.op.removeprefix('aten::')} bounds it, which "
            f"is not: {output.domain_low:g} and {output.domain_high:.4g} are one direction and lie "
            f"farthest apart{near}."
        ),
        evidence={"column": output.column, "targets_near_seam": share, "op": place.op},
        remedy="Predict a vector (cos, sin) and take atan2.",
        location=Location(file=str(place.file), line=int(place.line or 0)) if located else None,
    )
