"""The order of findings: what costs most first, and each before what follows from it.

First what keeps a training from learning at all, then what takes a large part of a step, then the
others by severity and by what they cost; notes come last. Only what findings say of themselves is
used: severity, evidence, effect, stage and line.
"""

import math
from dataclasses import replace

from icediag.finding import SEVERITIES, Finding

#: Share of a step from which on time lost stands before errors of unknown cost.
LARGE = 0.2
#: Checks whose errors mean that nothing is learnt, or nothing runs.
BLOCKING = frozenset(
    {
        *("run-fails", "non-finite-value", "non-finite-gradient", "no-gradient"),
        *("no-optimizer-step", "does-not-learn", "diverging-training", "constant-prediction"),
    }
)
#: Check -> checks whose errors, at the same stage or of the whole model, are reason enough for it.
FOLLOWS = {
    name: frozenset({"no-optimizer-step", "non-finite-value", "non-finite-gradient", "no-gradient"})
    for name in ("does-not-learn", "slow-overfit", "diverging-training", "constant-prediction")
}
#: Stages that stand for all of a training.
WHOLE = frozenset({"model", "loss", "optimizer", "train step"})
#: Seconds that a fault takes, in evidence or effect: of the first that is there.
SECONDS = ("lost_s", "projected_s", "stage_s")
#: Shares, 0..1, of a step or of what the loss could fall.
SHARES = ("share_of_step", "share", "wait_share", "gain")


def cost_of(finding: Finding) -> float | None:
    """Share of a step that a finding takes, or of the loss that it was seen to cost, 0..1.

    None where it says neither.
    """
    for source in (finding.evidence, finding.effect or {}):
        step = source.get("step_s")
        if isinstance(step, (int, float)) and step > 0:
            for key in SECONDS:
                if isinstance(value := source.get(key), (int, float)) and math.isfinite(value):
                    return min(1.0, max(0.0, value / step))
    if (won := _won(finding)) is not None:
        return won
    for source in (finding.effect or {}, finding.evidence):
        for key in SHARES[:1] if source is finding.evidence else SHARES:
            value = source.get(key)
            if isinstance(value, float) and math.isfinite(value):
                return min(1.0, max(0.0, value))
    return None


def _won(finding: Finding) -> float | None:
    """By what share of itself a repair was shown to lower the loss; None where it was not shown."""
    effect = finding.effect or {}
    difference, losses = effect.get("difference"), effect.get("as_it_is")
    if effect.get("answer") != "confirmed" or not isinstance(difference, (int, float)):
        return None
    if not isinstance(losses, (list, tuple)) or not losses:
        return None
    ceiling = effect.get("ceiling")
    top = ceiling if isinstance(ceiling, float) else math.inf
    mean = abs(sum(min(loss, top) for loss in losses) / len(losses))
    share = difference / mean if mean > 0 else math.nan
    return min(1.0, max(0.0, share)) if math.isfinite(share) else None


def blocks(finding: Finding) -> bool:
    """Whether nothing can be learnt before it is mended."""
    return finding.severity == "error" and finding.name in BLOCKING


def ranked(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings in their order, with the cause named in those that follow from another.

    Findings of one code at one stage stay together.
    """
    order = sorted(range(len(findings)), key=lambda i: (*_rank(findings[i]), i))
    rows = [findings[i] for i in order]
    causes: dict[int, int] = {}
    # Causes that findings name themselves come before those that are found here.
    for i in sorted(range(len(rows)), key=lambda i: rows[i].cause is None):
        found = next((j for j in range(len(rows)) if _follows(rows[i], rows[j], i, j)), None)
        above = found
        while above is not None and above != i:
            above = causes.get(above)
        if found is not None and above is None:
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


def _rank(finding: Finding) -> tuple[bool, float, int, float]:
    cost = cost_of(finding) or 0.0
    weight = 1.0 if blocks(finding) else cost if cost >= LARGE else 0.0
    severity = SEVERITIES.index(finding.severity)
    return finding.severity == "note", -weight, severity, -cost


def _follows(effect: Finding, cause: Finding, i: int, j: int) -> bool:
    """Whether one finding is explained by another of a check of its own."""
    if i == j or effect.code == cause.code:
        return False
    if effect.cause is not None:
        return effect.cause == cause.label
    if cause.name in FOLLOWS.get(effect.name, ()) and blocks(cause):
        return cause.stage in WHOLE or cause.stage == effect.stage
    if SEVERITIES.index(cause.severity) > SEVERITIES.index(effect.severity):
        return False
    if _at_loop(effect, cause):
        return True
    # The same map of the same raw column arrived at both: normalised once, used twice.
    same = ("declared", "map")
    one, other = effect.evidence, cause.evidence
    return j < i and all(
        one.get(key) is not None and one.get(key) == other.get(key) for key in same
    )


def _at_loop(effect: Finding, cause: Finding) -> bool:
    """Whether a finding says that its line stands in the loop that another speaks of."""
    place = cause.location
    return place is not None and effect.evidence.get("in_loop") == f"{place.file}:{place.line}"
