"""A value is NaN or infinite.

What it looks at:
    Outputs and gradients of every stage, in the order of the flow. The finding names the first
    stage that gives a value that is not finite although all it was given is, and in it the first
    operation that does so, with its line and the values that went in.
Why it hurts:
    NaN spreads to everything computed from it; after one optimizer step all weights are NaN.
A bad run:
    A logarithm of a charge that is 0, a division by the length of a zero vector, an overflow in
    half precision.
What to do:
    Guard the operation that is named: clamp its argument, add a floor to its denominator, compute
    it in float32. For a gradient: use a form whose slope is finite too.
Limits:
    A mask of 0 and -inf, to be added to logits, is in order and passed over; so is any -inf beside
    finite values while the loss is finite, as in scores that are masked before a softmax, and
    infinities that were put in by number. Other values that reach neither the loss, the
    predictions nor a gradient, such as missing data that the model fills in, are a note. The
    operation is found in one more run of the same batch: where that gives other values (random
    numbers without a seed) it may not be met again, and the finding names the stage alone. Of a
    stage that runs many times in a batch, only the first calls are looked at.
"""

import math
from dataclasses import replace
from typing import Any

from icediag.finding import Finding
from icediag.recording import Facts, Recording, StageRecord, TensorRecord, Unjudged
from icediag.records.births import Birth

CODE = "V01"
NAME = "non-finite-value"
NEEDS: tuple[str, ...] = ()


def _bad(tensor: TensorRecord, *, masks: bool = True) -> bool:
    """Whether a tensor holds NaN or infinities; with `masks`, -inf beside finite values may be."""
    facts = tensor.facts
    if facts is None or facts.additive_mask:
        return False
    wrong = facts.nans + facts.positive_infs
    if not masks or facts.minimum is None:
        wrong += facts.negative_infs
    return wrong > 0


def _counts(facts: Facts) -> dict[str, int]:
    return {
        "nans": facts.nans,
        "positive_infs": facts.positive_infs,
        "negative_infs": facts.negative_infs,
        "values": facts.count,
    }


def _born(recording: Recording, phase: str, facts: Facts | None, stages: set[str]) -> Birth | None:
    """The operation at which the first of these values is born.

    Args:
        recording: With the operations.
        phase: `forward` or `backward`.
        facts: Of the tensor that holds them; None for weights.
        stages: Where to look; everywhere if empty.
    """
    if recording.births is None:
        return None
    found = [
        birth
        for birth in recording.births.births
        if birth.phase == phase and not birth.constant and (not stages or birth.stage in stages)
    ]
    if facts is None or facts.nans:
        wanted = [b for b in found if b.nans] if facts is not None else found
        first = wanted[0] if wanted else None
        if first is not None and first.from_infinite:
            # inf - inf: look for the infinity.
            earlier = [b for b in found[: found.index(first)] if not b.nans]
            return earlier[-1] if earlier else first
        return first or (found[0] if found else None)
    kind = "positive_infs" if facts.positive_infs else "negative_infs"
    return next((birth for birth in found if getattr(birth, kind)), found[0] if found else None)


def _sentence(birth: Birth) -> str:
    """Such as " The first operation there that gives one is log of 0 (net.py:12)."."""
    place = birth.location
    where = f" ({place.file}:{place.line})" if place is not None else ""
    if birth.node is not None:
        where = f" in {birth.node}{where}"
    values = [f"{i.name} = {i.at:.6g}" for i in birth.inputs if i.at is not None]
    ranges = [
        f"{i.name} in [{i.minimum:.4g}, {i.maximum:.4g}]"
        for i in birth.inputs
        if i.at is None and i.minimum is not None and i.maximum is not None
    ]
    given = f", with {', '.join(values or ranges)}" if values or ranges else ""
    return f" The first operation that gives one is {birth.op}{where}{given}."


def _evidence(birth: Birth) -> dict[str, Any]:
    return {
        "operation": birth.op,
        "node": birth.node,
        "operation_stage": birth.stage,
        "operation_values": birth.values,
        "index": list(birth.index),
        "inputs": {
            i.name: {"min": i.minimum, "max": i.maximum, "at": i.at, "shape": list(i.shape)}
            for i in birth.inputs
        },
        "times": birth.times,
    }


def _finding(
    stage: StageRecord, tensor: TensorRecord, what: str, remedy: str, birth: Birth | None = None
) -> Finding:
    assert tensor.facts is not None
    counts = _counts(tensor.facts)
    infinite = counts["positive_infs"] + counts["negative_infs"]
    numbers = [
        f"{n:,} {kind}" for n, kind in ((counts["nans"], "NaN"), (infinite, "infinite")) if n
    ]
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=stage.name,
        message=f"{what} {' and '.join(numbers)} of {counts['values']:,} values."
        + (_sentence(birth) if birth is not None else ""),
        evidence={"tensor": tensor.path, "role": tensor.role, **counts}
        | (_evidence(birth) if birth is not None else {}),
        remedy=remedy,
        location=(birth.location if birth is not None else None) or stage.location,
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the stage where the first value that is not finite appears, forward and backward."""
    if not any(tensor.facts for stage in recording.stages for tensor in stage.tensors):
        return Unjudged(name=NAME, reason="values were not recorded")
    found = _first_forward(recording) or _first_backward(recording) or _first_weights(recording)
    if found is None:
        return ()
    if not _ends_finite(recording):
        return (found,)
    # Nothing of it reaches the loss, the predictions or a gradient.
    if _deliberate(recording, found):
        return ()
    message = (
        f"{found.message} In this batch the loss, the predictions and all gradients are finite."
    )
    return (replace(found, severity="note", message=message),)


def _ends_finite(recording: Recording) -> bool:
    """Whether loss, predictions and every gradient are finite."""
    if recording.loss is None or not math.isfinite(recording.loss):
        return False
    if not recording.parameters:
        return False  # the way back was not gone
    if any(not math.isfinite(part.gradient_norm) for part in recording.parameters):
        return False
    ends = [
        tensor
        for stage in recording.stages
        for tensor in stage.tensors
        if tensor.role == "grad" or (stage.kind == "loss" and tensor.role == "in")
    ]
    return not any(_bad(tensor, masks=tensor.role != "grad") for tensor in ends)


def _deliberate(recording: Recording, found: Finding) -> bool:
    """Whether infinities were put in by number, as before a minimum over what is masked."""
    data = {stage.name for stage in recording.stages if stage.kind in ("item", "collate")}
    if recording.births is None or found.evidence.get("nans") or found.stage in data:
        return False
    forward = [birth for birth in recording.births.births if birth.phase == "forward"]
    return all(birth.constant for birth in forward)


def _first_forward(recording: Recording) -> Finding | None:
    # What a mask hides does not reach the loss.
    masks = recording.loss is not None and math.isfinite(recording.loss)
    stages = recording.stages
    for i, stage in enumerate(stages):
        inputs = [t for t in stage.tensors if t.role == "in" and _bad(t, masks=masks)]
        outputs = [
            t
            for t in stage.tensors
            if t.role == "out" and _bad(t, masks=masks and stage.kind != "item")
        ]
        if inputs:
            # Nothing before gave it: it arose in the code around this stage.
            around = _around(recording, i)
            birth = _born(
                recording,
                "forward",
                inputs[0].facts,
                {around.name} if around is not None else set(),
            )
            return _finding(
                around or stage,
                inputs[0],
                f"In its own code, before {stage.name}, arise"
                if around
                else f"Before it, outside of every stage that was recorded, arise in "
                f"{inputs[0].path}",
                "Guard the operation there whose argument reaches a pole or overflows.",
                birth,
            )
        if not outputs:
            continue
        # An outer stage begins before the inner one that is at fault: look inside first.
        if any(
            _bad(tensor, masks=masks)
            for within in _inside(recording, i)
            for tensor in within.tensors
            if tensor.role != "grad"
        ):
            continue
        if stage.kind == "item":
            return _finding(
                stage,
                outputs[0],
                f"The data set gives {outputs[0].path or 'samples'} with",
                "Drop or repair these samples where the data set is read.",
            )
        return _finding(
            stage,
            outputs[0],
            "All that goes in is finite, and out come",
            "Guard the operation in this stage whose argument reaches a pole or overflows.",
            _born(
                recording,
                "forward",
                outputs[0].facts,
                {stage.name, *(inner.name for inner in _inside(recording, i))},
            ),
        )
    return None


def _around(recording: Recording, i: int) -> StageRecord | None:
    """The stage that stage i ran inside of."""
    depth = recording.stages[i].depth
    return next((s for s in reversed(recording.stages[:i]) if s.depth < depth), None)


def _inside(recording: Recording, i: int) -> list[StageRecord]:
    """Stages that ran inside of stage i."""
    depth = recording.stages[i].depth
    inner = []
    for stage in recording.stages[i + 1 :]:
        if stage.depth <= depth:
            break
        inner.append(stage)
    return inner


def _first_backward(recording: Recording) -> Finding | None:
    """The last stage in the flow, which is the first on the way back, with a bad gradient."""
    for stage in reversed(recording.stages):
        for tensor in stage.tensors:
            if tensor.role == "grad" and _bad(tensor, masks=False):
                return _finding(
                    stage,
                    tensor,
                    "Every value is finite, but the gradient that comes back to it has",
                    "What follows this stage needs a form with a finite slope.",
                    _born(recording, "backward", None, set()),
                )
    return None


def _first_weights(recording: Recording) -> Finding | None:
    """The last part of the model whose weights alone get a bad gradient."""
    for part in reversed(recording.parameters):
        if not math.isfinite(part.gradient_norm):
            birth = _born(recording, "backward", None, set())
            place = next((s.location for s in recording.stages if s.name == part.stage), None)
            return Finding(
                code=CODE,
                name=NAME,
                severity="error",
                stage=part.stage,
                message="Every value is finite, and so is what comes back to it, but the gradient "
                f"of its weights has a norm of {part.gradient_norm}."
                + (_sentence(birth) if birth is not None else ""),
                evidence={"gradient_norm": part.gradient_norm, "parameters": part.parameters}
                | (_evidence(birth) if birth is not None else {}),
                remedy="An operation inside of this part needs a form with a finite slope.",
                location=(birth.location if birth is not None else None) or place,
            )
    return None
