"""What a loss does with its predictions and its targets, seen by probing it. Plain data."""

from dataclasses import dataclass
from typing import Literal

from icediag.place import Location, Unjudged

#: Predictions at which a loss is looked at:
#:
#: * `best`: those that it is smallest for, found by going down its slope, or the targets as they
#:   are;
#: * `opposite`: those that it is largest for, where predictions are bounded;
#: * `zero`: all of them 0, where nothing keeps them from it.
Where = Literal["best", "opposite", "zero"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What of the batch the loss goes by, for predictions that are held still.

    Attributes:
        read: Tensors of the batch that the loss reads, and the model does not.
        shared: Those that both read.
        moving: Those whose values, put in another order, change the loss or its slopes.
        unread: Tensors with one entry a sample that neither reads, and that are no numbers of
            samples: those that look like targets by their names first.
        flags: Which of `moving` hold only true and false.
        views: Tensors of predictions of one shape: 2 or more are what training without targets
            compares; so are predictions with a number for each pair of samples.
        coupled: Whether the slope of one row depends on the predictions of other rows by more than
            a factor that all rows share; None where rows are not known.
    """

    read: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    views: int = 1
    coupled: bool | None = None


@dataclass(frozen=True, kw_only=True)
class IdleColumn:
    """A column of the targets that changes neither the loss nor its slopes, whatever it holds.

    Attributes:
        path: The tensor of the batch.
        column: Which column; None for a tensor that is a column by itself.
        width: How many columns the tensor has.
        output: The declared output that it is the truth of, by its name or by the order of the
            outputs; None where that is not known.
        beside: Whether the loss has a slope by the same column of predictions of the same shape;
            None where there are none.
    """

    path: str
    column: int | None
    width: int
    output: str | None = None
    beside: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which target moves the slope of which row of the predictions.

    Attributes:
        rows: How many rows.
        by_samples: Whether a row is a sample of the batch.
        tried: In how many rows the target was replaced by that of another.
        own: In how many of these that moved the slope of the same row.
        others: In how many it moved that of another, by more than a factor all rows share.
        pair: Row whose target was replaced and another row that moved, of the largest move; empty
            where none did.
        size: That move, relative to the slope.
        permuted: By how much the loss changes, relative to its size, where targets change places.
    """

    rows: int
    by_samples: bool
    tried: int
    own: int
    others: int
    pair: tuple[int, ...] = ()
    size: float = 0.0
    permuted: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """A column of the rows that met a row of as many: a table of all pairs, reduced as a whole.

    Attributes:
        operation: In which they met.
        rows: How many rows.
        location: The user's line.
    """

    operation: str
    rows: int
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """Predictions along a sequence that are held against later places of what the model reads.

    Attributes:
        tensor: Of the batch.
        output: Path of the predictions.
        lag: How many places later.
        tried: Places whose value was replaced.
        leaking: In how many of these the prediction that is held against the value moved with it.
        size: The largest such move, relative to the size of the predictions.
    """

    tensor: str
    output: str
    lag: int
    tried: int
    leaking: int
    size: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """The loss and its slopes at some predictions.

    Attributes:
        where: Which.
        loss: The loss there.
        scale: The loss of the model's own predictions.
        bad_values: Rows of which the loss is not finite (1 where rows cannot be told).
        bad_slopes: Slopes that are not finite.
        slopes: How many there are.
        width: Largest relative distance from there at which a slope is still not finite, 0 for
            there alone; None where all are finite.
        operation: The operation at which that begins.
        argument: The value that went into it.
        location: The user's line.
        backward: Whether it begins on the way back: the value is finite, its slope is not.
        alone: Whether one row at that point is enough, the others as the model predicts them; None
            where that is not known.
    """

    where: Where
    loss: float
    scale: float
    bad_values: int = 0
    bad_slopes: int = 0
    slopes: int = 0
    width: float | None = None
    operation: str | None = None
    argument: float | None = None
    location: Location | None = None
    backward: bool = False
    alone: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One column of the predictions, or the size of all, moved over a range.

    Attributes:
        output: Path of the tensor, "" for predictions that are one.
        column: Which column; None for the size of the whole tensor.
        error: How far, relative to their size, the other predictions are from the best.
        low: The first value of the range.
        high: The last.
        stops_at: The value from which on the loss or its slope is not finite, though the loss
            falls on the way there; None where it does not.
        smallest: The least finite loss on the way.
        operation: The operation at which that begins.
        location: The user's line.
        jump_at: A value at which the loss jumps, where it is no larger than that of the model's own
            predictions; None where it does not.
        jump: By how much.
        span: Largest less smallest finite loss, of those that are no larger than that.
    """

    output: str
    column: int | None
    error: float
    low: float
    high: float
    stops_at: float | None = None
    smallest: float = 0.0
    operation: str | None = None
    location: Location | None = None
    jump_at: float | None = None
    jump: float = 0.0
    span: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Seam:
    """A periodic output, just before and just behind the point where its domain closes.

    Attributes:
        output: Its name.
        low: The beginning of its domain.
        high: The end, the same point.
        difference: Of the losses on both sides of it.
        span: Largest less smallest loss over the whole domain.
        slope: Difference of the slopes on both sides, median over rows.
        slope_span: Largest magnitude of a slope.
    """

    output: str
    low: float
    high: float
    difference: float
    span: float
    slope: float = 0.0
    slope_span: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Predicted and true directions, turned together.

    Attributes:
        about: About which axis: "about z", or "about any axis".
        size: Largest change of the loss.
        rounding: What rounding explains.
        loss: The loss before.
    """

    about: Literal["about z", "about any axis"]
    size: float
    rounding: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class MetricSeen:
    """A metric beside the loss, where two rows of predictions that fit are exchanged.

    Attributes:
        name: Its name.
        from_best: Whether they are the predictions that the loss is smallest for; those of the
            model after a brief training otherwise.
        loss: The loss of these.
        first: The metric of these.
        exchanges: How many exchanges were tried.
        worse: How many of them made the loss larger.
        better: How many made it smaller.
        larger: How many of those made the metric larger.
        smaller: How many of those made it smaller.
        follows: Whether it changes with the predictions at all.
        paired: Whether it changes where each row gets the prediction of another.
        by_targets: Whether it changes with the targets.
    """

    name: str
    from_best: bool
    loss: float
    first: float
    exchanges: int
    worse: int
    better: int
    larger: int
    smaller: int
    follows: bool = True
    paired: bool = True
    by_targets: bool = True


@dataclass(frozen=True, kw_only=True)
class LossRecord:
    """A loss, probed.

    Attributes:
        name: What the loss is called.
        location: Where it is defined.
        samples: Samples in the batch.
        outputs: Tensors of predictions that it goes by.
        declared: Outputs that the pipeline declares.
        periodic: Those whose domain is periodic.
        targets: What of the batch it goes by; None where that could not be tried.
        rows: Which target moves which row; None where that could not be tried.
        foresight: Predictions of what comes next in a sequence; None where there are none.
        crossed: Where all pairs of rows are made by broadcasting; None where they are not.
        idle: Columns of the targets that it does not go by.
        unused: Columns that the pipeline declares as outputs and that have no slope anywhere.
        points: The loss at predictions that are special.
        sweeps: The loss over ranges.
        seams: Of periodic outputs.
        rotations: Of prediction and truth together, where both are directions.
        states_metric: Whether the pipeline states a metric.
        metric_location: Where that is defined.
        metrics: Metrics beside the loss, where rows of predictions are exchanged.
        doubled: The loss of each sample twice over that of each once; None where that is not known.
        evaluations: How often the loss was evaluated.
        not_tried: What could not be tried, and why.
    """

    name: str
    location: Location | None = None
    samples: int = 0
    outputs: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    periodic: tuple[str, ...] = ()
    targets: Targets | None = None
    rows: Rows | None = None
    foresight: Foresight | None = None
    crossed: Crossed | None = None
    idle: tuple[IdleColumn, ...] = ()
    unused: tuple[str, ...] = ()
    points: tuple[Point, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    seams: tuple[Seam, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    states_metric: bool = False
    metric_location: Location | None = None
    metrics: tuple[MetricSeen, ...] = ()
    doubled: float | None = None
    evaluations: int = 0
    not_tried: tuple[Unjudged, ...] = ()

    @property
    def subject(self) -> str:
        """Its name at the beginning of a sentence."""
        return "The loss" if self.name == "the loss" else self.name
