"""The loss does not know that an output is periodic.

What it looks at:
    Outputs whose domain is declared periodic, such as an azimuth: the loss and its slope just
    behind the beginning of the domain against those just before its end, which are one direction.
Why it hurts:
    A prediction of 0.01 is punished for a truth of 2 pi - 0.01 as if it were half a turn off, and
    the gradient leads it the long way round. Events near the seam are learned wrongly.
A bad run:
    (azimuth - truth).abs().mean()
What to do:
    Compare directions: the angle between unit vectors, or 1 - cos(azimuth - truth).
Limits:
    Only outputs declared with a periodic Domain that the loss goes by itself.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.loss import Seam

from .loss_ignores_targets import missing

CODE = "L22"
NAME = "loss-not-periodic"
NEEDS = ("loss_probe",)

#: A loss that closes differs by 1e-4 of its span at most over the 2e-4 of the period between.
APART, TURNED = 0.05, 0.1


def _broken(seam: Seam) -> bool:
    if not seam.span:
        return False
    return seam.difference > APART * seam.span or seam.slope > TURNED * seam.slope_span


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Compare both sides of the seam."""
    record = recording.loss_probe
    assert record is not None
    if not record.declared:
        return Unjudged(
            name=NAME, reason="no output is declared, so which are periodic is not known"
        )
    if record.periodic and not record.seams and not record.outputs:
        return missing(record, ("loss", "seams", "dataset item"), NAME) or ()
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="loss",
            message=(
                f"{seam.output} of {seam.low:g} and of {seam.high:.4g} are one direction, and "
                f"{record.name} differs between them by {seam.difference:.3g} of {seam.span:.3g}; "
                f"its slope goes from one to the other by {seam.slope:.3g}, where it is at most "
                f"{seam.slope_span:.3g}."
            ),
            evidence={
                "output": seam.output,
                "difference": seam.difference,
                "span": seam.span,
                "slope": seam.slope,
                "slope_span": seam.slope_span,
            },
            remedy="Compare directions: the angle between unit vectors, or 1 - cos(difference).",
            location=record.location,
        )
        for seam in record.seams
        if _broken(seam)
    )
