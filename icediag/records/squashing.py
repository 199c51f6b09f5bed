"""Losses that take logits, or their logarithms, and were handed something else. Plain data."""

from dataclasses import dataclass
from typing import Literal

from icediag.place import Unjudged

#: What a loss takes: scores of any size; logarithms of probabilities, of which none is above 0.
Takes = Literal["logits", "log-probabilities"]


@dataclass(frozen=True, kw_only=True)
class Squashed:
    """One operation of a loss, and what it was handed.

    Attributes:
        op: The operation: log_softmax, binary_cross_entropy_with_logits or nll_loss.
        takes: What it is made for.
        given: What made the values: "softmax" or "sigmoid"; None where only their size tells.
        stage: The stage that was running.
        rows: How many rows of scores.
        classes: Scores in a row; 1 for one of its own each.
        high: Largest value.
        above: Share of the values above 0, 0..1.
        before: Where the values were made, such as "head (mypkg/model.py:12)".
        file: Of the user's line that calls the loss, relative.
        line: That line.
    """

    op: str
    takes: Takes
    given: str | None
    stage: str
    rows: int
    classes: int
    high: float
    above: float
    before: str | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Start:
    """How sure the scores are that one cross entropy is handed, and what it makes of them.

    Attributes:
        op: nll_loss or binary_cross_entropy_with_logits.
        stage: The stage that was running.
        rows: Rows of scores that have a class to be right about.
        classes: Scores in a row; 1 for one of its own each.
        loss: Cross entropy, mean over the rows, unweighted.
        uninformed: That of scores that are all alike.
        sure: Of the class held for the likeliest, the probability, median over the rows.
        spread: Of the scores of a row, the standard deviation, median over the rows; of one score
            its magnitude.
        file: Of the user's line, relative.
        line: That line.
    """

    op: str
    stage: str
    rows: int
    classes: int
    loss: float
    uninformed: float
    sure: float
    spread: float
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class SquashingRecord:
    """What losses of one batch were handed.

    Attributes:
        looked: How many operations of a loss were looked at.
        squashed: Those that were handed what they are not made for, each line once.
        starts: What cross entropies make of the scores, each line once.
        not_judged: What could not be looked at.
    """

    looked: int = 0
    squashed: tuple[Squashed, ...] = ()
    starts: tuple[Start, ...] = ()
    not_judged: tuple[Unjudged, ...] = ()
