"""Sections of the HTML report on learning: one batch by heart, effects, and gradients by depth."""

import math
from typing import Any

from markupsafe import Markup

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.overfit import Trial

from . import charts
from .html_part import Part
from .learning import MARKS, early_of, effects_of, interval_of, learning_of, told, trials_of
from .numbers import number, percent, share

#: Stages whose gradient is drawn, and curves that are drawn beside that of the batch.
MOST_STAGES, MOST_CURVES = 60, 3
#: Stages nested deeper than this are left out where there are many.
DEPTH = 2


def learning(recording: Recording, diagnosis: Diagnosis) -> Part | None:
    """Whether one batch can be learnt by heart, and what faults cost."""
    sentence = learning_of(recording, diagnosis)
    effects = effects_of(recording)
    if not sentence and not effects:
        return None
    record = recording.overfit
    batch = record.batch if record is not None else None
    return Part(
        id="learning",
        title="Does it learn?",
        short="Learning",
        template="part_learning.html",
        values={
            "sentence": sentence[:1].upper() + sentence[1:],
            "mark": MARKS.get(batch.verdict, "alarm") if batch is not None else "muted",
            "curve": _curve(recording, batch) if batch is not None else None,
            "baseline": record.baseline_from if record is not None else "",
            "early": early_of(recording),
            "trials": [_row(trial) for trial in trials_of(recording)],
            "effects": [
                (one, number(_mean(one.as_it_is)), number(_mean(one.repaired)), interval_of(one))
                for one in effects
            ],
            "how": recording.effects,
        },
    )


def _mean(values: tuple[float, ...]) -> float | None:
    return sum(values) / len(values) if values else None


def _curve(recording: Recording, batch: Trial) -> Markup | None:
    levels = [
        (f"{name} {number(value)}", value)
        for name, value in (("constant prediction", batch.baseline), ("floor", batch.floor))
        if value is not None
    ]
    attempts = recording.overfit.attempts if recording.overfit is not None else None
    others = [] if attempts is None else [t for t in attempts.rates if t.losses][:MOST_CURVES]
    kinds = ("second", "third", "fourth")
    lines = [("as it is", batch.losses, "")]
    lines += [(t.name, t.losses, kind) for t, kind in zip(others, kinds, strict=False)]
    label = (
        f"Loss on one batch over {batch.steps} steps: it begins at {number(batch.losses[0])} and "
        f"ends at {number(batch.last)}"
        if batch.losses
        else "No step was taken"
    )
    return charts.curves(lines, levels, label)


def _row(trial: Trial) -> dict[str, Any]:
    return {
        "name": trial.name,
        "verdict": trial.failure or told(trial),
        "mark": MARKS.get(trial.verdict, "alarm"),
        "events": f"{trial.events:,}",
        "steps": f"{trial.steps:,}",
        "first": number(trial.losses[0] if trial.losses else None),
        "last": number(trial.last),
        "learnt": "" if trial.progress is None else percent(max(0.0, trial.progress)),
    }


def gradients(recording: Recording, _: Diagnosis) -> Part | None:
    """Gradients by depth, and weights and gradients by part of the model."""
    flow = recording.gradients
    stages = [s for s in flow.stages if s.stage != "model"] if flow is not None else []
    if len(stages) > MOST_STAGES:
        stages = [s for s in stages if s.stage.count(".") < DEPTH][:MOST_STAGES]
    if not recording.parameters and not stages:
        return None
    scale = _scale([s.gradient for s in stages])
    steps = flow.steps if flow is not None else ()
    return Part(
        id="gradients",
        title="Gradient flow",
        short="Gradients",
        template="part_gradients.html",
        values={
            "rows": _parameters(recording),
            "stages": [
                (s, charts.bar(scale(s.gradient), f"gradient {number(s.gradient)}", "gradient"))
                for s in stages
            ],
            "flow": flow,
            "clipped": sum(step.scale is not None and step.scale < 1 for step in steps),
            "updates": _updates(recording),
        },
    )


def _scale(values: list[float | None]) -> Any:
    """Value -> its place on a logarithmic scale of all, 0..1; what is 0 or not finite is at 0."""
    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    high = math.log10(max(known)) if known else 0.0
    low = min(math.log10(min(known)) - 0.3, high - 1) if known else -1.0

    def place(value: float | None) -> float:
        if value is None or not math.isfinite(value) or value <= 0:
            return 0.0
        return (math.log10(value) - low) / (high - low)

    return place


def _parameters(recording: Recording) -> list[tuple[Any, Markup, str]]:
    scale = _scale([p.gradient_norm for p in recording.parameters])
    return [
        (
            part,
            charts.bar(
                scale(part.gradient_norm), f"gradient norm {number(part.gradient_norm)}", "gradient"
            ),
            share(part.without_gradient, part.parameters),
        )
        for part in recording.parameters
    ]


def _updates(recording: Recording) -> list[tuple[str, str]]:
    """(parameter, its largest update beside its weight) of the smallest and largest."""
    flow = recording.gradients
    if flow is None:
        return []
    known = [(p.ratio, p.name) for p in flow.parameters if p.ratio is not None and p.axes > 1]
    ends = sorted(known)
    shown = ends[:1] + ends[-1:] if len(ends) > 1 else ends
    return [(name, number(ratio)) for ratio, name in shown]
