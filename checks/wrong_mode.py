"""The training step runs the model in evaluation.

What it looks at:
    Four calls of the pipeline's own `train_step`, the model in training before: which modules with
    dropout or batch statistics then run in evaluation, and which are left there.
Why it hurts:
    Batch statistics stay those of the first weights while the weights move on, and dropout does
    nothing.
A bad run:
    model.eval() for a validation in the middle of an epoch, and no model.train() after it.
What to do:
    model.train() before every training step or epoch, model.eval() around validation alone.
Limits:
    A model whose own `train` keeps a frozen part in evaluation does so on purpose. A validation
    loop that forgets model.eval() lies outside of what a pipeline states and is not seen.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .validation_overlap import unseen

CODE = "T06"
NAME = "wrong-mode"
NEEDS = ("training_flow",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name modules that do not run as they were set."""
    record = recording.training_flow
    assert record is not None
    if not record.states_step:
        return Unjudged(name=NAME, reason="the pipeline states no train_step")
    if not record.steps:
        return unseen(record, ("steps",), NAME) or ()
    ran = record.steps[0].eval_modules or record.steps[-1].eval_modules
    if not ran:
        return ()
    left = (
        f", and {len(record.left_eval)} modules are left in evaluation" if record.left_eval else ""
    )
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage=ran[0] or "model",
            message=(
                f"train_step runs {ran[0] or 'the model'}"
                f"{f' and {len(ran) - 1} more modules' if len(ran) > 1 else ''} in evaluation, "
                f"though the model was in training before{left}."
            ),
            evidence={"modules": ran, "left_in_evaluation": record.left_eval},
            remedy="Call model.train() before each training step.",
            location=record.step_location,
        ),
    )
