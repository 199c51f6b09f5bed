"""The training step does things in the wrong order.

What it looks at:
    Four calls of the pipeline's own `train_step`: when gradients are set to zero, filled and used,
    whether they are changed after they were used, and when a schedule of the learning rate moves.
Why it hurts:
    The optimizer steps by gradients that are zero, or that are clipped too late; a schedule that
    moves first leaves its first learning rate out.
A bad run:
    loss.backward(); optimizer.zero_grad(); optimizer.step()
What to do:
    zero_grad, backward, clip, optimizer.step, scheduler.step.
Limits:
    Gradients are looked at, not the names of calls: whatever clips after the step by changing them
    is seen. Gradient accumulation, closures and scalers are in order.
"""

from collections.abc import Iterator

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.training import Step, TrainingRecord

from .validation_overlap import unseen

CODE = "T07"
NAME = "step-order"
NEEDS = ("training_flow",)


def _finding(
    record: TrainingRecord,
    severity: Severity,
    message: str,
    remedy: str,
    evidence: dict[str, object],
) -> Finding:
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage="train_step",
        message=message,
        evidence={"first_call": record.steps[0].events, "calls": len(record.steps), **evidence},
        remedy=remedy,
        location=record.step_location,
    )


def _early(step: Step) -> bool:
    events = step.events
    if "step" not in events or "schedule" not in events:
        return False
    return events.index("schedule") < events.index("step")


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Look at the order of events of each call."""
    record = recording.training_flow
    assert record is not None
    if not record.states_step:
        return Unjudged(name=NAME, reason="the pipeline states no train_step")
    if not record.steps:
        return unseen(record, ("steps",), NAME) or ()
    return tuple(_findings(record))


def _findings(record: TrainingRecord) -> Iterator[Finding]:
    steps = record.steps
    empty = sum(step.no_gradient > 0 for step in steps)
    if empty == len(steps):
        yield _finding(
            record,
            "error",
            f"In all {empty} calls of train_step that were watched, the gradients of the backward "
            "pass are zero or gone when the optimizer steps.",
            "Set gradients to zero before the backward pass, not after it.",
            {"steps_without_gradient": empty},
        )
    late = [step for step in steps if step.changed_after]
    if late and all(step.changed_after for step in steps if "step" in step.events):
        worst = max(late, key=lambda step: step.by)
        yield _finding(
            record,
            "warning",
            f"train_step changes gradients after the optimizer has used them: those of "
            f"{worst.changed_after} parameters, by a factor of up to {worst.by:.3g}.",
            "Clip between the backward pass and the optimizer's step.",
            {"parameters": worst.changed_after, "factor": worst.by},
        )
    if sum(_early(step) for step in steps) == len(steps):
        yield _finding(
            record,
            "warning",
            "The schedule of the learning rate moves before the optimizer steps, so that its first "
            "value is never used.",
            "Call scheduler.step() after optimizer.step().",
            {},
        )
