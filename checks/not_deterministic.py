"""In evaluation the same batch gives different outputs.

What it looks at:
    One batch twice through the model with every module in evaluation, bit for bit; and which
    operation drew random numbers meanwhile.
Why it hurts:
    The score of a validation set is noise on top of what it measures, and no prediction can be made
    twice.
A bad run:
    `F.dropout(x)` without `training=self.training`: it drops in evaluation too. A hidden state that
    is carried over from the batch before.
What to do:
    Hand `self.training` to functional dropout, or use the module. Start each batch afresh.
Limits:
    Sampling may be meant (a variational or diffusion model): what draws from the global generators
    and is no dropout is a note.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .batch_leak import named, not_tried

CODE = "I05"
NAME = "not-deterministic"
NEEDS = ("invariances",)


def _remedy(*, dropout: bool, kept: bool) -> str:
    if dropout:
        return "Hand self.training to the dropout, or use the module."
    if kept:
        return "Carry nothing from one batch to the next in evaluation."
    return "Draw no random numbers in evaluation, unless sampling is meant."


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the output and what draws."""
    record = recording.invariances
    assert record is not None
    seen = record.evaluation
    if seen is None:
        return not_tried(record, ("evaluation", "dataset item"), NAME) or ()
    if seen.output is None:
        return ()
    operation = (seen.operation or "").removeprefix("aten::").partition(".")[0]
    # Attention draws for its dropout alone.
    dropout = any(word in operation for word in ("dropout", "bernoulli", "dot_product_attention"))
    if operation:
        why = f"; {operation} draws random numbers"
    else:
        why = "" if seen.same_seed else "; something is kept from run to run"
    return (
        Finding(
            code=CODE,
            name=NAME,
            severity="warning" if dropout or not seen.same_seed else "note",
            stage="model",
            message=(
                f"In evaluation {named(seen.output)} of the same batch differs by {seen.size:.3g} "
                f"between two runs, where its largest value is {seen.scale:.3g}{why}."
            ),
            evidence={
                "output": seen.output,
                "size": seen.size,
                "scale": seen.scale,
                "same_seed": seen.same_seed,
                "operation": seen.operation,
            },
            remedy=_remedy(dropout=dropout, kept=not seen.same_seed),
            location=seen.location,
        ),
    )
