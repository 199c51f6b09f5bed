"""The learning rate is used up within an epoch.

What it looks at:
    Schedules that the pipeline's own `train_step` moves on: each is moved on alone for as many
    steps as half an epoch takes, and its learning rate is compared with the highest on the way.
Why it hurts:
    After a fraction of the first epoch nothing is learned any more.
A bad run:
    StepLR(step_size=1, gamma=0.9) or CosineAnnealingLR(T_max=epochs), meant by epoch and moved on
    after every batch.
What to do:
    Call scheduler.step() once an epoch, or give the schedule its length in batches.
Limits:
    Needs the number of batches of an epoch, from the loader or the size of the data set. A rate
    that falls to less than a hundredth within half an epoch counts; a schedule that comes back up
    is judged where it stands then.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .validation_overlap import unseen

CODE = "T08"
NAME = "schedule-ends-early"
NEEDS = ("training_flow",)

#: Share of the highest learning rate that is as good as nothing.
NOTHING = 0.01
#: An epoch of fewer steps says nothing of half of it.
FEWEST = 8


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name a schedule that is through too early."""
    record = recording.training_flow
    assert record is not None
    if not record.states_step:
        return Unjudged(name=NAME, reason="the pipeline states no train_step")
    if not record.steps:
        return unseen(record, ("steps",), NAME) or ()
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage="train_step",
            message=(
                f"{schedule.name} moves on by {schedule.per_call:g} in each call of train_step: "
                f"after half an epoch of {schedule.calls:,} calls the learning rate is "
                f"{schedule.half:.3g}, of {schedule.highest:.3g} at its highest."
            ),
            evidence={
                "schedule": schedule.name,
                "steps_a_call": schedule.per_call,
                "calls_an_epoch": schedule.calls,
                "highest": schedule.highest,
                "after_half_an_epoch": schedule.half,
            },
            remedy="Move the schedule once an epoch, or give it its length in batches.",
            location=record.step_location,
        )
        for schedule in record.schedules
        if schedule.calls >= FEWEST and schedule.half < NOTHING * schedule.highest
    )
