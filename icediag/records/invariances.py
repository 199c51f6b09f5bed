"""What stays the same when a batch is put together otherwise. Plain data."""

from dataclasses import dataclass
from typing import Literal

from icediag.place import Location, Unjudged

#: What was changed, and what is compared with it:
#:
#: * `content`: other values in the neighbours, of the same shapes: the output of the rest;
#: * `gradient`: the slope of an event's output by the input of another;
#: * `batch size`: the event twice in a batch, against alone;
#: * `padding`: together with the longest event, against alone;
#: * `company`: together with all others, against alone;
#: * `order of rows`: the rows of each event in another order;
#: * `shift of time`: the raw times of the batch, all moved by one amount.
Change = Literal[
    "content",
    "gradient",
    "batch size",
    "padding",
    "company",
    "order of rows",
    "shift of time",
]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One change, and what it did to one output of the events that it must not touch.

    Attributes:
        change: What was changed.
        output: Path of the output, "" for a prediction that is one tensor.
        events: How many events were compared.
        moved: How many of them moved by more than rounding.
        size: Largest difference; of a gradient, relative to that by the event's own input.
        rounding: What rounding explains.
        scale: Largest value of the output.
        precise: Whether it was computed in float64, by a copy of the model.
        native: The largest difference at the precision of training; None where nothing moved.
        event: Index in the data set of the event that moved most.
        neighbour: Index of the event that moved it, where it is one.
        stage: First stage that moved, where it could be found.
        location: Of that stage.
        moved_rows: Rows of the events that moved.
        still_rows: Rows of those that did not.
    """

    change: Change
    output: str
    events: int
    moved: int
    size: float
    rounding: float
    scale: float = 0.0
    precise: bool = False
    native: float | None = None
    event: int | None = None
    neighbour: int | None = None
    stage: str | None = None
    location: Location | None = None
    moved_rows: tuple[int, ...] = ()
    still_rows: tuple[int, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether an output moved, at the precision of training too, by more than rounding."""
        return self.moved > 0 and self.native is not None and self.native > self.rounding


@dataclass(frozen=True, kw_only=True)
class RandomEvaluation:
    """Outputs of one batch, twice through the model in evaluation.

    Attributes:
        output: Path of the output that differs most; None where all are alike bit for bit.
        size: Its largest difference.
        scale: Its largest value.
        same_seed: Whether it is alike where both start from the same random numbers.
        operation: The first operation that drew random numbers, e.g. "aten::native_dropout".
        location: The user's line that called it.
    """

    output: str | None = None
    size: float = 0.0
    scale: float = 0.0
    same_seed: bool = True
    operation: str | None = None
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class RepeatedTraining:
    """The same step of training, twice from the same random numbers.

    Attributes:
        loss: Difference of the losses.
        gradient: Largest difference of a gradient.
        scale: Largest value of a gradient.
    """

    loss: float
    gradient: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Whether the rows of predictions and of targets are of the same events.

    Attributes:
        output: Path of the prediction.
        targets: Path of the targets in the batch.
        batches: How many batches were put together.
        rows: Rows compared.
        astray: Rows whose target is another event's.
        reordered: Rows of predictions that do not stand where their event stood in the list.
        row: The first row astray.
        event: Index in the data set of the event it is predicted from.
        owner: Index of an event whose target it is.
    """

    output: str
    targets: str
    batches: int
    rows: int
    astray: int
    reordered: int = 0
    row: int | None = None
    event: int | None = None
    owner: int | None = None


@dataclass(frozen=True, kw_only=True)
class Conservation:
    """What of the samples arrives in the batch.

    Attributes:
        path: Tensor of the batch.
        kind: Whether it holds one row an event, or the rows of all events one after the other.
        events: Events looked at.
        rows: Rows that they have, in all.
        arrived: Rows that are in the batch.
        lost: Indices in the data set of events of which fewer rows arrive than there are.
        doubled: Indices of those of which more arrive.
        lost_rows: Rows of the sample, for each of `lost`.
        kept_rows: Rows that arrive, for each of `lost`.
    """

    path: str
    kind: Literal["events", "rows"]
    events: int
    rows: int
    arrived: int
    lost: tuple[int, ...] = ()
    doubled: tuple[int, ...] = ()
    lost_rows: tuple[int, ...] = ()
    kept_rows: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SmallCase:
    """A batch at the edge: one event alone, an event without rows, an event of one row.

    Attributes:
        case: Which.
        occurs: How many events of the batch at hand are like that already.
        failed: What it raised, with the line; None where it came through.
        at: In which part: "collate", "model" or "loss".
        location: The user's line.
        lacks_axis: Path of an output that has no axis of events any more.
        shape: Its shape.
        expected: The shape it would have.
        nonfinite: Outputs of the small event that are not finite.
        others_nonfinite: Outputs of the other events that are not finite.
        loss_finite: Whether the loss of the batch is finite.
        gradient_finite: Whether all its gradients are.
    """

    case: Literal["one event", "no rows", "one row"]
    occurs: int = 0
    failed: str | None = None
    at: str | None = None
    location: Location | None = None
    lacks_axis: str | None = None
    shape: tuple[int, ...] = ()
    expected: tuple[int, ...] = ()
    nonfinite: int = 0
    others_nonfinite: int = 0
    loss_finite: bool = True
    gradient_finite: bool = True


@dataclass(frozen=True, kw_only=True)
class InvariancesRecord:
    """What was tried with batches put together otherwise.

    Attributes:
        samples: How many events took part in the trials.
        precise: Whether a copy of the model in float64 was at hand.
        trials: Each change, by output.
        evaluation: Whether evaluation is random; None where it failed.
        training: Whether a step of training repeats; None where it failed.
        pairings: Predictions against targets.
        conservation: Events and rows from data set to batch.
        small: Batches at the edge.
        not_tried: What could not be tried, and why.
    """

    samples: int
    precise: bool = False
    trials: tuple[Trial, ...] = ()
    evaluation: RandomEvaluation | None = None
    training: RepeatedTraining | None = None
    pairings: tuple[Pairing, ...] = ()
    conservation: tuple[Conservation, ...] = ()
    small: tuple[SmallCase, ...] = ()
    not_tried: tuple[Unjudged, ...] = ()
