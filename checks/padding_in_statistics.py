"""A statistic is taken over padding.

What it looks at:
    Where the batch is padded: it is sent through once as it is and once with three more padded
    slots for every sample, the same values and masks as the padding that is there. The operation
    whose arguments agree on the slots that were there before, and whose result does not, is where
    the padding enters: a mean, a batch normalisation, a norm over time, a loss. It is named only
    if the loss of the batch changes with it.
Why it hurts:
    What a sample gives depends on how long the longest of its batch happens to be, and a short
    sample is diluted by zeros.
A bad run:
    x.mean(1) over padded points; BatchNorm1d over padded rows.
What to do:
    Take the statistic over what the mask keeps: sum and divide by the length, or flatten first.
Limits:
    Padding that the batch brings along alone, not what a model makes for itself; the first eight
    samples. Attention and convolutions over padding are not statistics.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import PaddedStatistic

from .unnormalized_input import place_of

CODE = "N05"
NAME = "padding-in-statistics"
NEEDS = ("features",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name statistics that follow the padding."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    for note in recording.features.not_judged:
        if note.name == "padding":
            return Unjudged(name=NAME, reason=note.reason)
    return tuple(_finding(statistic) for statistic in recording.features.padding)


def _finding(statistic: PaddedStatistic) -> Finding:
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=statistic.stage,
        message=(
            f"{statistic.op} in {statistic.stage} takes padding in: with {statistic.extra} more "
            f"padded slots beside {statistic.slots}, and nothing else changed, what it gives "
            f"changes by {statistic.change:.3g} of its size, and the loss from "
            f"{statistic.loss:.4g} to {statistic.padded_loss:.4g}."
        ),
        evidence={
            "operation": statistic.op,
            "extra_slots": statistic.extra,
            "slots": statistic.slots,
            "change": statistic.change,
            "loss": statistic.loss,
            "loss_with_more_padding": statistic.padded_loss,
        },
        remedy="Take it over what the mask keeps: divide by lengths, or flatten to rows first.",
        location=place_of(statistic),
    )
