"""Whether one batch can be learnt by heart, and what faults cost, as reports tell it."""

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.effects import Effect
from icediag.records.overfit import Trial

from .numbers import counted, number

#: What a verdict is shown as: good, in between, bad.
MARKS = {"learns": "fine", "slow": "warning", "not judged": "muted"}


def learning_of(recording: Recording, diagnosis: Diagnosis) -> str:
    """The overfit test in a sentence, "" where none was run."""
    record = recording.overfit
    if record is None:
        return ""
    batch = record.batch
    if batch is None or batch.last is None:
        return f"no batch was trained on: {record.reason}" if record.reason else ""
    text = (
        f"trained on one batch of {counted(batch.events, 'event')}, it {told(batch)}: loss "
        f"{number(batch.losses[0])} to {number(batch.last)} in {counted(batch.steps, 'step')}"
    )
    if batch.baseline is not None:
        text += f"; a constant prediction scores {number(batch.baseline)}"
    if batch.verdict == "learns" and diagnosis.count("error"):
        text += ". What is wrong does not keep it from learning one batch by heart"
    return text


def early_of(recording: Recording) -> str:
    """A training that is flat so far, beside the reference; "" where there is nothing to say."""
    record = recording.overfit
    early = record.early if record is not None else None
    if record is None or record.batch is None or record.batch.verdict != "learns" or early is None:
        return ""
    left = (
        "had not left it"
        if early.left is None
        else f"had left the baseline of {number(early.baseline)} after {early.left:,} events"
    )
    if early.events is None or early.reference is None:
        return (
            "A training whose loss is flat may still be early. On these events the built-in "
            f"network {left} and came to {number(early.last_loss)} by {early.last:,} "
            f"({early.command})"
        )
    loss = "" if early.loss is None else f" and a loss of {number(early.loss)}"
    beside = f"After {early.events:,} events{loss}, the built-in network stood at "
    beside += f"{number(early.reference)}; it {left} ({early.command})"
    if early.too_early:
        verdict = "too early to tell from a model that cannot learn"
    elif early.loss is not None and early.loss < early.bar:
        verdict = "the training has left its baseline"
    else:
        verdict = "a loss that is flat by then is not early"
    others = "" if early.same_events else ", as far as other events and another network tell"
    return f"{beside}: {verdict}{others}"


def told(trial: Trial) -> str:
    """A verdict as the end of a sentence about the model."""
    words = {"slow": "learns slowly", "non-finite": "ends in what is not finite"}
    words |= {"flat at the uninformed baseline": "stays flat at the uninformed baseline"}
    words |= {"stuck at a constant prediction": "is stuck at a constant prediction"}
    words |= {"not judged": "could not be judged"}
    return words.get(trial.verdict, trial.verdict)


def trials_of(recording: Recording) -> tuple[Trial, ...]:
    """All trainings on fixed events: one event, two, the batch, then what was tried."""
    record = recording.overfit
    if record is None:
        return ()
    attempts = record.attempts
    if attempts is None:
        return record.trials
    others = (attempts.plain, attempts.blind, attempts.shuffled, attempts.double)
    return (*record.trials, *attempts.rates, *(one for one in others if one is not None))


def effects_of(recording: Recording) -> tuple[Effect, ...]:
    """What was repaired in flight to see what it costs, and all of it together."""
    record = recording.effects
    if record is None:
        return ()
    return (*record.effects, *((record.together,) if record.together is not None else ()))


def interval_of(effect: Effect) -> str:
    """The 95 % interval of what a repair wins, such as "0.12 … 0.2"."""
    if effect.interval is None:
        return ""
    low, high = effect.interval
    return f"{number(low)} … {number(high)}"
