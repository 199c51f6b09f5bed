"""Validation samples are in the training set.

What it looks at:
    The content of samples, bit for bit, of both data sets; where both are parts of one data set,
    their indices. Data sets of up to 2,048 samples are compared whole; of larger ones a spread of
    validation samples against training samples at the same places from either end and a spread.
Why it hurts:
    The score is that of events the network has seen: it does not tell whether it learns or
    memorises, and the best checkpoint is the one that memorised most.
A bad run:
    Subset(data, range(0, 1000)) for validation beside the whole of `data` for training; a file that
    is listed twice.
What to do:
    Split by index or by file before anything else, once.
Limits:
    A sample that is augmented on its way is not recognised by its content. Of large data sets an
    overlap drawn at random may be missed. Where the training set repeats samples as often by
    itself, it is a note.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.training import Overlap, TrainingRecord

CODE = "T01"
NAME = "validation-overlap"
NEEDS = ("training_flow",)

#: Up to this multiple of the share that repeats by itself, an overlap is no surprise.
NATURAL = 3.0
#: From this share of the validation set on the score is wrong, not only tainted.
MUCH = 0.01


def unseen(record: TrainingRecord, parts: tuple[str, ...], name: str) -> Unjudged | None:
    """Why a check has no answer, where its look failed."""
    reasons = [item.reason for item in record.not_tried if item.name in parts]
    return Unjudged(name=name, reason=reasons[0]) if reasons else None


def _finding(overlap: Overlap) -> Finding:
    share = overlap.shared / overlap.validation_read
    natural = overlap.repeated / max(1, overlap.training_read)
    expected = not overlap.by_index and share <= NATURAL * natural
    looked = (
        f"{overlap.validation_read:,} validation samples"
        if overlap.validation_read == overlap.validation
        else f"{overlap.validation_read:,} validation samples looked at (of {overlap.validation:,})"
    )
    among = (
        f"the {overlap.training:,} of the training set"
        if overlap.training_read == overlap.training
        else f"{overlap.training_read:,} looked at of the {overlap.training:,} of the training set"
    )
    how = "by index in the data set both are parts of" if overlap.by_index else "bit for bit"
    pairs = ""
    if len(overlap.examples) >= 2:
        one, other = overlap.examples[:2]
        pairs = f", such as number {one}, which is number {other} there"
    also = f"; {overlap.repeated:,} samples are more than once in it" if overlap.repeated else ""
    return Finding(
        code=CODE,
        name=NAME,
        severity="note" if expected else "error" if share >= MUCH else "warning",
        stage="dataset item",
        message=f"{overlap.shared:,} of {looked} are among {among}, {how}{pairs}{also}.",
        evidence={
            "shared": overlap.shared,
            "validation": overlap.validation,
            "validation_read": overlap.validation_read,
            "training": overlap.training,
            "training_read": overlap.training_read,
            "repeated_in_training": overlap.repeated,
            "by_index": overlap.by_index,
        },
        remedy="Split by index or file before anything else, and keep the parts apart.",
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Count what both sets hold."""
    record = recording.training_flow
    assert record is not None
    if not record.states_validation:
        return Unjudged(name=NAME, reason="the pipeline states no validation set")
    overlap = record.overlap
    if overlap is None:
        return unseen(record, ("overlap", "validation", "validation, read twice"), NAME) or ()
    if overlap.shared:
        return (_finding(overlap),)
    if overlap.whole or not overlap.training_read:
        return ()
    return Unjudged(
        name=NAME,
        reason=f"none of {overlap.validation_read:,} validation samples is among "
        f"{overlap.training_read:,} training samples looked at; not all were compared",
    )
