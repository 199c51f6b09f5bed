"""A loss that takes logits is handed probabilities.

What it looks at:
    What `log_softmax`, which `cross_entropy` begins with, `binary_cross_entropy_with_logits` and
    `nll_loss` are handed. Results of softmax and sigmoid are followed from the model into the loss.
Why it hurts:
    A softmax of probabilities is nearly flat, however sure the network is: the loss cannot fall
    below log(1 + (K - 1) / e) for K classes, and its gradient is small where it should not be.
    `nll_loss` of what is no logarithm is not the likelihood of anything, and has no floor.
A bad run:
    A network that ends in softmax, trained with `CrossEntropyLoss`; one that ends in sigmoid, with
    `BCEWithLogitsLoss`; one that gives logits, with `NLLLoss`.
What to do:
    Leave the softmax or sigmoid out of the network and apply it where probabilities are wanted, or
    take the loss that is made for probabilities.
Limits:
    Only these operations are looked at; a loss written out by hand is not. Arithmetic between the
    two, such as a temperature, is taken for intended.
"""

import math

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.squashing import Squashed

CODE = "L26"
NAME = "squashed-logits"
NEEDS = ("squashing",)


def _floor(seen: Squashed) -> tuple[str, dict[str, float]]:
    """How low the loss can get, and what it would be of a predictor that knows nothing."""
    if seen.takes == "log-probabilities":
        if seen.given is None:
            text = f"{100 * seen.above:.3g} % of them are above 0: the loss has no floor"
            return text, {"share_above_0": seen.above, "largest": seen.high}
        return "the loss is minus a probability", {"largest": seen.high}
    if seen.op == "log_softmax":
        least, uninformed = math.log(1 + (seen.classes - 1) / math.e), math.log(seen.classes)
        text = (
            f"of {seen.classes} classes the loss cannot fall below {least:.3g}, where knowing "
            f"nothing gives {uninformed:.3g}"
        )
        return text, {"floor": least, "uninformed": uninformed}
    one, other = math.log(1 + 1 / math.e), math.log(2)
    text = f"the loss cannot fall below {one:.3g} of what is there and {other:.3g} of what is not"
    return text, {"floor_of_positives": one, "floor_of_negatives": other}


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the loss, and what was squashed before it."""
    record = recording.squashing
    if record is None:
        return Unjudged(name=NAME, reason="what the loss is handed was not recorded")
    findings = []
    for seen in record.squashed:
        text, numbers = _floor(seen)
        source = f"a {seen.given} made in {seen.before}" if seen.given else "scores of any size"
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="warning" if seen.given else "error",
                stage=seen.stage,
                message=f"{seen.op} takes {seen.takes} and is handed {source}: {text}.",
                evidence={
                    "operation": seen.op,
                    "takes": seen.takes,
                    "given": seen.given,
                    "made_in": seen.before,
                    "rows": seen.rows,
                    "classes": seen.classes,
                    **numbers,
                },
                remedy=(
                    f"Leave the {seen.given} out, or take a loss that is made for probabilities."
                    if seen.given
                    else "Hand it log_softmax of the scores, or take cross_entropy."
                ),
                location=Location(file=seen.file, line=seen.line)
                if seen.file and seen.line
                else None,
            )
        )
    return tuple(findings)
