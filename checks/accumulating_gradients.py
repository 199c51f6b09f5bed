"""Gradients of earlier steps are never cleared.

What it looks at:
    The training step of the pipeline, several times: the gradient that the optimizer gets, held
    against what came back since its last step, and against all that ever came back.
Why it hurts:
    Each step goes along the sum of all gradients so far: it overshoots, and grows without end.
A bad run:
    A loop without `zero_grad()`; one that clears the gradients of another optimizer.
What to do:
    Call `optimizer.zero_grad()` once for each `optimizer.step()`.
Limits:
    Gradients that are summed over several batches before a step are in order and not reported.
    Needs `train_step`.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "G10"
NAME = "accumulating-gradients"
NEEDS = ("gradients",)

#: Relative distance from a multiple of a sum of gradients that rounding explains, and that not.
SAME = 1e-3
OTHER = 1e-2


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say whether the optimizer gets the sum of all gradients."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    stepping = [s for s in record.steps if s.steps and s.since is not None and s.ever is not None]
    later = stepping[1:]  # at the first, all so far is what came since the last
    summed = [s for s in later if (s.ever or 0.0) < SAME and (s.since or 0.0) > OTHER]
    if len(later) < 2 or len(summed) < len(later):
        return ()
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="error",
            stage="train step",
            message=(
                f"In {len(summed)} steps after the first, what the optimizer gets is the sum of "
                f"all gradients so far (to {max(s.ever or 0.0 for s in summed):.1g}), not what "
                f"came back since the last step (off by {min(s.since or 0.0 for s in summed):.2g})."
            ),
            evidence={
                "steps": len(summed),
                "from_sum_of_all": max(s.ever or 0.0 for s in summed),
                "from_last": [s.since for s in summed],
            },
            remedy="Call optimizer.zero_grad() before backward().",
        ),
    )
