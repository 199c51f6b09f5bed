"""The loss depends on where in the sky a direction lies.

What it looks at:
    Predicted and true directions, turned together: about z, and about no axis in particular. Both
    are unit vectors, or azimuth and zenith that are declared as outputs; that they are read rightly
    is seen by the loss being least where they agree.
Why it hurts:
    The same error counts more in one part of the sky than in another: near the poles a large
    difference in azimuth is a small angle.
A bad run:
    (azimuth - truth).abs() + (zenith - truth).abs()
What to do:
    Compare directions by the angle between them, or weight by the density of events on purpose.
Limits:
    A note: a weight that depends on the direction may be meant.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "L25"
NAME = "turned-loss"
NEEDS = ("loss_probe",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the rotation that changes the loss most."""
    record = recording.loss_probe
    assert record is not None
    moved = [turn for turn in record.rotations if turn.size > turn.rounding]
    if not moved:
        return ()
    worst = max(moved, key=lambda turn: turn.size)
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="note",
            stage="loss",
            message=(
                f"With prediction and truth turned together {worst.about}, {record.name} changes "
                f"by {worst.size:.3g} of {worst.loss:.4g}; rounding explains {worst.rounding:.1g}."
            ),
            evidence={
                "about": worst.about,
                "size": worst.size,
                "loss": worst.loss,
                "rounding": worst.rounding,
            },
            remedy="Compare directions by the angle between them.",
            location=record.location,
        ),
    )
