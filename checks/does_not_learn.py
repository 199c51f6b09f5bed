"""The model cannot learn one batch by heart.

What it looks at:
    The overfit test: one batch, dropout off, until it is known by heart or the budget is spent. It
    has to get below what the best constant prediction scores. Where it does not, icediag tries
    other learning rates and optimizers, a plain step, inputs at 0, targets of other events and
    float64, and follows the differences between events and the gradient from stage to stage.
Why it hurts:
    What cannot learn eight events cannot learn a million.
A bad run:
    A `detach()` between encoder and head; a mean squared error of shapes (B,) and (B, 1), which
    holds every prediction against every target; a layer whose units are all dead.
What to do:
    Begin at the stage that is named; the causes are ranked, the one that was shown comes first.
Limits:
    The events are those of the batch and the weights those of the moment. Without a cause that was
    shown it is a warning: some models leave a plateau later. A note for a small head on a frozen
    backbone.
"""

import math
from collections.abc import Iterator
from typing import Any

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.overfit import Attempts, OverfitRecord, StageProbe, Trial

CODE = "L01"
NAME = "does-not-learn"
NEEDS = ("overfit",)

#: Relative spread over events above which they can be told apart in float32, and below which not.
APART = 1e-4
ALIKE = 3e-6
#: A gradient that is this much smaller than the largest of a later stage has not arrived.
LOST = 1e-9
#: Relative change of the loss under which targets may be anybody's.
UNPAIRED = 1e-6
#: Up to this share of trained values a model is a head on what is frozen, which may not fit.
HEAD = 0.1
#: Of the way to the floor, what an attempt has to gain at least.
SHOWS = 0.01

FLAT = ("flat at the uninformed baseline", "stuck at a constant prediction")


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say why the batch could not be learnt."""
    record = recording.overfit
    if record is None:
        return Unjudged(name=NAME, reason="no overfit test was made")
    batch = record.batch
    if record.reason is not None or batch is None:
        return Unjudged(name=NAME, reason=record.reason or "no batch was trained on")
    if batch.failure is not None:
        return Unjudged(name=NAME, reason=batch.failure)
    if batch.verdict == "not judged":
        return Unjudged(name=NAME, reason=_why_not(batch))
    return () if batch.constant else tuple(failures(record, CODE, NAME))


def failures(record: OverfitRecord, code: str, name: str) -> Iterator[Finding]:
    """The finding, where the batch was not learnt and will not be."""
    batch = record.batch
    if batch is None or record.attempts is None or batch.verdict not in (*FLAT, "slow"):
        return
    causes = ranked_causes(record.attempts, batch)
    # A loss that is still falling towards the best constant is not flat yet; what cannot be told
    # apart, or is held against anybody's targets, will not be learnt for all that.
    if batch.verdict == "slow" and not any(c["stands"] for c in causes):
        return
    first = causes[0] if causes else None
    shown = [{"stage": c["stage"], "shown": c["text"]} for c in causes]
    spread = (
        f", with predictions that differ by {batch.spread_last:.2g} over the events"
        if batch.constant and batch.spread_last is not None
        else ""
    )
    yield Finding(
        code=code,
        name=name,
        severity="error" if first else "warning" if record.trained > HEAD else "note",
        stage=first["stage"] if first else "model",
        message=(
            f"After {batch.steps} steps on {batch.events} events the loss is {batch.last:.4g}"
            f"{spread}; the {record.baseline_from or 'baseline'} scores {batch.baseline:.4g}: "
            f"{batch.verdict}. "
            + (f"{first['text']}." if first else "None of what was tried changes that.")
        ),
        evidence=_evidence(record, batch) | {"causes": shown},
        remedy=(
            first["remedy"]
            if first
            else "Train longer on one event; then remove stages until it is learnt."
        ),
        location=first["location"] if first else None,
    )


def _why_not(batch: Trial) -> str:
    if batch.baseline is None:
        return "the loss of a constant prediction could not be had; declare `baseline_loss`"
    return f"a constant prediction already scores {batch.baseline:.4g}, the floor of these events"


def _evidence(record: OverfitRecord, batch: Trial) -> dict[str, Any]:
    attempts = record.attempts
    tried = {}
    if attempts is not None:
        others = (attempts.plain, attempts.blind, attempts.shuffled, attempts.double)
        for trial in (*attempts.rates, *others):
            if trial is not None:
                tried[trial.name] = {"loss": trial.last, "verdict": trial.verdict}
    return {
        "verdict": batch.verdict,
        "events": batch.events,
        "steps": batch.steps,
        "first_loss": batch.losses[0] if batch.losses else None,
        "last_loss": batch.last,
        "baseline": batch.baseline,
        "floor": batch.floor,
        "learning_rate": batch.learning_rate,
        "optimizer": batch.optimizer,
        "spread": [batch.spread_first, batch.spread_last],
        "tried": tried,
    }


def helped(trial: Trial | None, batch: Trial) -> bool:
    """Whether an attempt brought the loss down where the training as it is did not."""
    if trial is None or trial.last is None or batch.last is None or not trial.losses:
        return False
    if trial.verdict == "learns":
        return True
    first = batch.losses[0]
    unit = abs(first - (batch.floor or 0.0))
    gain = first - trial.last
    return gain > SHOWS * unit and gain > 10 * max(first - batch.last, 0.0)


def ranked_causes(attempts: Attempts, batch: Trial) -> list[dict[str, Any]]:
    """What could be the cause, that which was shown by trying first."""
    causes: list[dict[str, Any]] = []

    def add(
        stage: str, text: str, remedy: str, place: Location | None = None, stands: bool = False
    ) -> None:
        cause = {"stage": stage, "text": text, "remedy": remedy, "location": place}
        causes.append(cause | {"stands": stands})

    plain = attempts.plain
    if plain is not None and helped(plain, batch):
        add(
            "train step",
            f"With a plain step in place of its own the loss falls to {plain.last:.4g} in "
            f"{plain.steps} steps",
            "Look at the training step: zero_grad, backward, step, and what it does in between.",
        )
    if attempts.pairing is not None and attempts.pairing < UNPAIRED:
        add(
            "loss",
            "The loss does not care which event a target belongs to: with targets of other events "
            f"it changes by {attempts.pairing:.1g} of itself",
            "Look at the shapes that meet in the loss: (B,) and (B, 1) give (B, B).",
            stands=True,
        )
    lost = information_lost(attempts.stages)
    if lost is not None:
        add(
            lost.stage,
            f"From {lost.stage} on events can no longer be told apart: their spread is "
            f"{lost.spread_out or 0:.1g} of their size",
            f"Look at what comes before {lost.stage}: what goes in is the same for all events."
            if lost.spread_in is not None and lost.spread_in <= ALIKE
            else f"Look at what {lost.stage} does with its input: dead units, a mask, a constant.",
            _place(lost),
            stands=True,
        )
    cut = gradient_cut(attempts.stages)
    if cut is not None:
        add(
            cut.stage,
            f"No gradient comes back to what {cut.stage} gives",
            f"Look for detach(), .item(), no_grad or a step function after {cut.stage}.",
            _place(cut),
        )
    better = [trial for trial in attempts.rates if helped(trial, batch)]
    own = [trial for trial in better if trial.name.startswith("own")]
    if better:
        best = min(own or better, key=lambda t: t.last if t.last is not None else math.inf)
        add(
            "optimizer",
            f"With {best.name} the loss falls to {best.last:.4g} in {best.steps} steps (as it is: "
            f"{batch.optimizer} at {batch.learning_rate:g})",
            f"Set the learning rate to about {best.learning_rate:g}."
            if own
            else "Look at the optimizer: which parameters it has, and its settings.",
        )
    double = attempts.double
    if double is not None and double.verdict == "learns":
        add("model", "In float64 it learns", "Look for differences of large numbers.")
    blind = attempts.blind
    none = better or lost or cut
    if blind is not None and blind.last is not None and not none and batch.last is not None:
        best_loss = min(t.last for t in (batch, *attempts.rates) if t.last is not None)
        unit = (batch.baseline or 0) - (batch.floor or 0)
        if blind.last <= best_loss + 0.02 * abs(unit) and batch.constant:
            add(
                "model",
                f"With its inputs at 0 it comes as far ({blind.last:.4g}): it does not look",
                "Look at how the inputs reach the first stage.",
            )
    return causes


def gradient_cut(stages: tuple[StageProbe, ...]) -> StageProbe | None:
    """The last stage of the flow that no gradient comes back through, where later ones have one."""
    with_out = [s for s in stages if s.spread_out is not None and s.stage != "model"]
    largest = max((s.gradient for s in with_out if s.gradient), default=None)
    if largest is None:
        return with_out[-1] if with_out else None
    for stage in reversed(with_out):
        if not stage.gradient or stage.gradient < LOST * largest:
            after = with_out[with_out.index(stage) + 1 :]
            before = with_out[: with_out.index(stage)]
            if not any(s.trained for s in (*before, stage)):
                return None  # frozen up to here: nothing asks for one
            # A stage off the path has none either, but then those before it have.
            if after and not any(s.gradient and s.gradient >= LOST * largest for s in before):
                return stage
            return None
    return None


def information_lost(stages: tuple[StageProbe, ...]) -> StageProbe | None:
    """The first stage after which, up to the end, events can no longer be told apart."""
    lost = None
    for stage in reversed([s for s in stages if s.spread_out is not None]):
        assert stage.spread_out is not None
        if stage.spread_out > ALIKE:
            break
        if stage.spread_in is None or stage.spread_in > APART or lost is None:
            lost = stage
    return lost


def _place(stage: StageProbe) -> Location | None:
    if stage.file is None or stage.line is None:
        return None
    return Location(file=stage.file, line=stage.line)
