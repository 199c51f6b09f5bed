"""The events of one file differ from those of the others.

What it looks at:
    Seven quantities by event (pulses, first and last pulse, share of auxiliary pulses, mean
    charge, azimuth, zenith): the largest distance between the distribution functions of one
    file and of all others (Kolmogorov-Smirnov), or of a second data set.
Why it hurts:
    Files read one after the other then change what the network sees in the middle of an epoch;
    if whole files are held out, the validation is of other events than the training.
A bad run:
    Two simulations with different ice under consecutive numbers.
What to do:
    Mix such files in every batch, and hold out events of all of them.
Limits:
    Distances below 0.1, or such as chance gives once in 100,000 times, are passed over.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.data import Drift

CODE = "D10"
NAME = "drifting-file"
NEEDS = ("data",)

#: Distance of two distribution functions from which on they are called different.
LEAST = 0.1


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name files that differ."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    worst: dict[str, Drift] = {}
    for drift in recording.data.drifts:
        if drift.distance >= LEAST and (
            drift.file not in worst or drift.distance > worst[drift.file].distance
        ):
            worst[drift.file] = drift
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage="data",
            message=(
                f"{drift.quantity} of the {drift.events:,} events of {drift.file} is distributed "
                f"otherwise than in {drift.against}: the distribution functions are "
                f"{drift.distance:.3g} apart, where chance gives {drift.chance:.3g}; medians "
                f"{drift.here:.4g} and {drift.there:.4g}."
            ),
            evidence={
                "quantity": drift.quantity,
                "distance": drift.distance,
                "chance": drift.chance,
                "median": drift.here,
                "median_of_others": drift.there,
                "events": drift.events,
                "all": {
                    d.quantity: d.distance
                    for d in recording.data.drifts
                    if d.file == drift.file and d.distance >= LEAST
                },
            },
            remedy="Mix such files in every batch, and hold out events of all of them.",
        )
        for drift in worst.values()
    )
