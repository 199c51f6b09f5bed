"""A checkpoint does not restore all of the training.

What it looks at:
    Two trainings on the same batches, from the same random numbers: one that saves and goes on, and
    one with everything as it was at first, which loads and goes on. Parameters and buffers, the
    optimizer's state and the learning rate after loading are compared with what was saved, and the
    weights some steps later.
Why it hurts:
    After every interruption Adam begins without its averages, with steps as large as its learning
    rate, and a schedule begins anew: the loss jumps up, and a long training is another one.
A bad run:
    torch.save(model.state_dict(), path), and nothing of optimizer and scheduler.
What to do:
    Save and load the state_dict of model, optimizer, scheduler and gradient scaler.
Limits:
    Needs `Pipeline.save` and `load`. Random numbers and the place in the epoch are set from
    outside, so that these are not looked at. Two steps before and after: what a schedule changes
    later is not seen, and an optimizer without a state, as plain SGD, has nothing to lose.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.training import Checkpoint, TrainingRecord

from .validation_overlap import unseen

CODE = "T10"
NAME = "checkpoint-incomplete"
NEEDS = ("training_flow",)

#: Of the way that the steps after the checkpoint take, how far the two trainings may be apart: in
#: half precision the weights alone are off by as much.
APART = 1.0


def _severity(seen: Checkpoint) -> tuple[Severity, str, str] | None:
    """How bad, what is missing and what to do; None where all is back."""
    if seen.lost and seen.trained > 0:
        name = ", ".join(seen.lost_names)
        what = (
            f"{seen.lost} of {seen.tensors} parameters and buffers ({name}) are not what they were"
        )
        return "error", what, "Save and load the state_dict of the whole model."
    if seen.missing:
        keys = ", ".join(seen.missing_names)
        what = (
            f"{seen.missing} of {seen.entries} entries of {seen.optimizer}'s state ({keys}) are not"
        )
        return "warning", f"{what} what they were", "Save and load optimizer.state_dict() too."
    if seen.rate is not None and seen.rate_resumed is not None:
        what = f"the learning rate goes on at {seen.rate_resumed:.3g} in place of {seen.rate:.3g}"
        return "warning", what, "Save and load scheduler.state_dict() too."
    if seen.moved > 0 and seen.apart > APART * seen.moved and seen.apart > 4 * seen.rounding:
        what = "model, optimizer and learning rate are back, and something else is not"
        return "note", what, "Save and load all that the training step keeps."
    return None


def _finding(record: TrainingRecord, seen: Checkpoint) -> tuple[Finding, ...]:
    said = _severity(seen)
    if said is None:
        return ()
    severity, what, remedy = said
    later = (
        f"; {seen.after} steps later the weights are apart by {seen.apart / seen.moved:.2g} of "
        "what these steps change"
        if seen.moved > 0
        else ""
    )
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity=severity,
            stage="checkpoint",
            message=f"After load, {what}{later}.",
            evidence={
                "lost": seen.lost,
                "tensors": seen.tensors,
                "missing": seen.missing,
                "entries": seen.entries,
                "names": (*seen.lost_names, *seen.missing_names),
                "apart": seen.apart,
                "moved": seen.moved,
            },
            remedy=remedy,
            location=record.load_location,
        ),
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name what is not back."""
    record = recording.training_flow
    assert record is not None
    if not record.states_checkpoint:
        return Unjudged(name=NAME, reason="the pipeline states no save and load")
    if record.checkpoint is None:
        return unseen(record, ("checkpoint",), NAME) or ()
    return _finding(record, record.checkpoint)
