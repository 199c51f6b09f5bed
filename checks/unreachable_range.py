"""A part of an output's domain is out of reach.

What it looks at:
    The interval that a column of `Pipeline.outputs` can reach with any input and any weights,
    against its domain, and the batch's targets.
Why it hurts:
    Whatever is trained, events with a truth out there stay wrong.
A bad run:
    zenith = 2 * sigmoid(x): never above 2, and a third of the sky is above.
What to do:
    Scale the bounding function to the whole domain.
Limits:
    A gap of less than a hundredth of the domain is passed over. Frozen weights and buffers count as
    they are. Without targets in the batch it is a warning, since the domain may be stated too wide.
"""

import math

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.bounds import OutputBounds

CODE = "B04"
NEEDS = ("bounds",)
NAME = "unreachable-range"

#: Smallest gap that counts, as a share of the domain.
GAP = 0.01


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the outputs whose head cannot give all of their domain."""
    if recording.bounds is None:
        return Unjudged(name=NAME, reason="bounds were not recorded")
    return tuple(
        _finding(output, gaps) for output in recording.bounds.outputs if (gaps := _gaps(output))
    )


def _gaps(output: OutputBounds) -> list[tuple[float, float]]:
    """Parts of the domain beyond reach."""
    span = output.domain_high - output.domain_low
    if not math.isfinite(span):
        return []
    ends = (
        (output.domain_low, min(output.reach_low, output.domain_high)),
        (max(output.reach_high, output.domain_low), output.domain_high),
    )
    return [(low, high) for low, high in ends if high - low > GAP * span]


def _finding(output: OutputBounds, gaps: list[tuple[float, float]]) -> Finding:
    span = output.domain_high - output.domain_low
    share = sum(high - low for low, high in gaps) / span
    lost = output.targets_out_of_reach
    seen = f"; {lost:.1%} of the batch's targets lie there" if lost else ""
    place = output.last.place if output.last is not None else None
    file = place.file if place is not None and place.file is not None else output.file
    line = place.line if place is not None and place.file is not None else output.line
    parts = " and ".join(f"({low:.4g}, {high:.4g})" for low, high in gaps)
    return Finding(
        code=CODE,
        name=NAME,
        severity="error" if lost else "warning",
        stage=place.stage if place is not None else output.stage,
        message=(
            f"{output.column} cannot come to {parts}, which is {share:.0%} of its domain, with any "
            f"input and any weights{seen}."
        ),
        evidence={
            "column": output.column,
            "reach": [output.reach_low, output.reach_high],
            "domain": [output.domain_low, output.domain_high],
            "targets_out_of_reach": lost,
        },
        remedy="Scale the function that bounds this output to its whole domain.",
        location=Location(file=file, line=line) if file is not None and line is not None else None,
    )
