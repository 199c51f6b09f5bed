"""The order of findings: most severe first, then what costs most, each before what follows from it.

Only what findings say of themselves is used: severity, evidence, effect, stage and line.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from icediag.finding import SEVERITIES, Finding

#: Entries of effect and evidence that tell what share of a training step a fault takes, 0..1.
SHARES = ("share_of_step", "step_share", "time_share", "projected_share", "wait_share")
#: Those that tell by how much a repair was seen to lower the loss, relative to its baseline.
GAINS = ("gain", "loss_gain", "relative_gain")


def cost_of(finding: Finding) -> float:
    """What a finding was measured or projected to cost: a share of time or loss, 0 if not known."""
    known = [
        float(value)
        for source in (finding.effect or {}, finding.evidence)
        for key in (*SHARES, *GAINS)
        if isinstance(value := source.get(key), (int, float)) and not isinstance(value, bool)
    ]
    return max((value for value in known if math.isfinite(value)), default=0.0)


def ranked(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings in their order, with the cause named in those that follow from another.

    Findings of one code at one stage stay together.
    """
    order = sorted(
        range(len(findings)),
        key=lambda i: (SEVERITIES.index(findings[i].severity), -cost_of(findings[i]), i),
    )
    rows = [findings[i] for i in order]
    causes: dict[int, int] = {}
    for i, finding in enumerate(rows):
        found = next((j for j in range(len(rows)) if _follows(finding, rows[j], i, j)), None)
        if found is not None and found not in causes:
            causes[i] = found
    placed: list[Finding] = []
    done: set[int] = set()

    def place(i: int) -> None:
        if i in done:
            return
        done.add(i)
        cause = causes.get(i)
        label = rows[cause].label if cause is not None else rows[i].cause
        placed.append(replace(rows[i], cause=label))
        for j, other in enumerate(rows):  # of one kind at one stage: side by side
            same = (other.code, other.stage, other.severity)
            if same == (rows[i].code, rows[i].stage, rows[i].severity) and j not in causes:
                place(j)
        for j in range(len(rows)):
            if causes.get(j) == i:
                place(j)

    for i in range(len(rows)):
        if i not in causes:
            place(i)
    for i in range(len(rows)):
        place(i)
    return tuple(placed)


def _follows(effect: Finding, cause: Finding, i: int, j: int) -> bool:
    """Whether one finding is explained by another of a check of its own."""
    if i == j or effect.code == cause.code:
        return False
    severities = SEVERITIES.index(cause.severity), SEVERITIES.index(effect.severity)
    if severities[0] > severities[1]:
        return False
    if effect.cause is not None:
        return effect.cause == cause.label
    if _inside(effect, cause):
        return not _inside(cause, effect) or j < i
    # The same map of the same raw column arrived at both: normalised once, used twice.
    return j < i and _same(effect.evidence, cause.evidence, ("declared", "map"))


def _same(one: Mapping[str, Any], other: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    return all(one.get(key) is not None and one.get(key) == other.get(key) for key in keys)


def _inside(effect: Finding, cause: Finding) -> bool:
    """Whether a finding's line is one of the lines that another speaks of, as a loop's body is."""
    if effect.location is None or cause.location is None:
        return False
    if effect.location.file != cause.location.file:
        return False
    first, last = cause.evidence.get("first_line"), cause.evidence.get("last_line")
    if not isinstance(first, int) or not isinstance(last, int):
        return False
    return first <= effect.location.line <= last
