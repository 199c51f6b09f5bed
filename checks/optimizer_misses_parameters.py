"""The optimizer does not have all parameters.

What it looks at:
    Parameters that get a gradient, against those that the optimizer holds, and whether a few
    steps move them.
Why it hurts:
    A parameter that no optimizer holds stays as it was drawn, however large its gradient is.
A bad run:
    `Adam(model.head.parameters())`; an optimizer made before a layer was replaced or added; a
    list of layers that is no ModuleList.
What to do:
    Give the optimizer `model.parameters()`, after the model is complete.
Limits:
    Parts that are left out on purpose but still ask for a gradient are named too: set their
    requires_grad to False, which also saves the work.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged

CODE = "G02"
NAME = "optimizer-misses-parameters"
NEEDS = ("gradients",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the parts that no optimizer steps."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    if not record.steps or not any(p.held for p in record.parameters):
        return ()
    missed = {
        p.name for p in record.parameters if p.trained and p.gradient and not p.held and p.unmoved
    }
    total = sum(p.values for p in record.parameters if p.trained)
    findings = []
    for part, inside in record.parts(missed).items():
        values, one = sum(p.values for p in inside), len(inside) == 1
        place = record.place_of(part)
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="warning",
                stage=part,
                message=(
                    f"{len(inside)} parameter{'' if one else 's'} of {part} ({values:,} of "
                    f"{total:,} values) get{'s' if one else ''} a gradient and "
                    f"{'is' if one else 'are'} not in the optimizer ({record.optimizer}): "
                    f"{len(record.steps)} steps left them bit for bit."
                ),
                evidence={
                    "parameters": [p.name for p in inside][:20],
                    "values": values,
                    "share": values / total,
                    "largest_gradient": max(p.gradient or 0.0 for p in inside),
                },
                remedy="Make the optimizer from model.parameters(), after the model is complete.",
                location=None if place is None else Location(file=place[0], line=place[1]),
            )
        )
    return tuple(findings)
