"""A direction in the truth cannot be.

What it looks at:
    Azimuth in [0, 2 pi] and zenith in [0, pi], finite, of every event; where most zeniths lie
    beyond pi and all within 180, they are called degrees.
Why it hurts:
    A loss by angles is periodic and takes them all: the network learns a direction that is not
    the event's.
A bad run:
    Truth in degrees.
What to do:
    Convert to radians, with azimuth in [0, 2 pi] and zenith in [0, pi].
Limits:
    A direction that is in its domain and wrong is not found, nor one that points where the
    particle went.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .impossible_value import of_faults

CODE = "D08"
NAME = "impossible-truth"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name directions that cannot be."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "truth-in-degrees": "angles are degrees, not radians",
            "truth-out-of-domain": "angles lie outside of their domain",
        },
        remedy="Convert azimuth to [0, 2 pi] and zenith to [0, pi], in radians.",
    )
