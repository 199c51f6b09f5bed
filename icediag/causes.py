"""Cause, not suspicion: findings get the effect that was measured of what they name.

What is said to hurt learning, and was not seen to, is a note. What breaks a contract is wrong
whatever it costs: it keeps its severity, and the cost is told beside it.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from icediag.finding import Finding
from icediag.records.effects import Effect, EffectsRecord, RepairKind

#: Which findings a repair speaks to.
SPEAKS_TO: dict[RepairKind, frozenset[str]] = {
    "raw values": frozenset({"normalized-relative"}),
    "raw weights": frozenset({"normalized-weights"}),
    "bounded outputs": frozenset({"unbounded-output"}),
    "standardised features": frozenset({"unnormalized-input"}),
    "rescaled features": frozenset({"under-scaled-feature", "off-centre-feature"}),
    "rate": frozenset({"learning-rate", "update-ratio"}),
    "plain step": frozenset({"clipping-always-on", "accumulating-gradients", "no-optimizer-step"}),
}
#: Answers after which a warning is a note.
DROPS = ("not shown", "refuted")
#: Repairs that have no stage of the flow: their findings may be anywhere.
EVERYWHERE: frozenset[RepairKind] = frozenset({"rate", "plain step"})


def with_effects(findings: Iterable[Finding], record: EffectsRecord | None) -> tuple[Finding, ...]:
    """The findings, with what was measured of each."""
    if record is None or record.reason is not None:
        return tuple(findings)
    return tuple(_with_effect(finding, record) for finding in findings)


def _with_effect(finding: Finding, record: EffectsRecord) -> Finding:
    for effect in record.effects:
        here = effect.kind in EVERYWHERE or effect.stage == finding.stage
        if finding.name in SPEAKS_TO[effect.kind] and here and finding.effect is None:
            told = told_of(effect, record)
            drops = effect.answer in DROPS and finding.severity == "warning"
            return dataclasses.replace(
                finding, effect=told, severity="note" if drops else finding.severity
            )
    return finding


def told_of(effect: Effect, record: EffectsRecord) -> dict[str, Any]:
    """The numbers of an effect, and a sentence that says them."""
    interval = effect.interval
    told: dict[str, Any] = {
        "answer": effect.answer,
        "repair": effect.repair,
        "difference": effect.mean,
        "interval": None if interval is None else list(interval),
        "at_most": effect.at_most,
        "as_it_is": list(effect.as_it_is),
        "ceiling": effect.ceiling,
        "repaired": list(effect.repaired),
        "seeds": record.seeds,
        "steps": record.steps,
        "events": record.events,
        "different_events": record.pool,
    }
    return told | {"summary": sentence(effect, record)}


def sentence(effect: Effect, record: EffectsRecord) -> str:
    """What was measured, in one sentence."""
    interval = effect.interval
    within = (
        "with a single seed"
        if interval is None
        else f"95 % interval {interval[0]:+.3g} to {interval[1]:+.3g}"
    )
    most = ""
    if effect.answer in ("not shown", "refuted") and effect.at_most is not None:
        wide = effect.at_most >= 1  # it may cost all that is to be learnt: nothing is said
        most = f", at most {effect.at_most:.0%} of the way to the floor"
        most = ", too wide to tell" if wide else most
    said = {
        "confirmed": "hurts learning, as measured",
        "not shown": "no effect on learning shown",
        "refuted": "no effect on learning that matters",
        "too short": "effect on learning not measured, neither training got far enough",
    }[effect.answer]
    capped = (
        f"; losses above {effect.ceiling:.3g}, that of knowing nothing, count as that"
        if effect.capped
        else ""
    )
    return (
        f"{said[0].upper()}{said[1:]}: as it is, the loss after {record.steps} steps of "
        f"{record.events} events is {effect.mean:+.3g} beside that with {effect.repair} "
        f"({within}{most}, {record.seeds} seeds{capped})."
    )
