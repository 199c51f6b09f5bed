"""What reaches the first learned layers, column by column, and what was met on the way. Plain data.

A *feature* is a value that comes from the batch and through no weight: it is what the data are to
the model.
"""

from dataclasses import dataclass
from typing import Literal

from icediag.records.provenance import Origin

#: Fewer distinct values than this make a flag or a category, not a measure.
FEW_VALUES = 5
#: From this share of one and the same value on (mostly 0) a column is sparse.
SPARSE = 0.4

Consumer = Literal["linear", "convolution", "recurrent", "layer norm"]


@dataclass(frozen=True, kw_only=True)
class ColumnFacts:
    """Values of one column; padded rows are left out.

    Attributes:
        rows: How many values.
        median: Median.
        mean: Mean.
        std: Standard deviation (divided by n).
        robust: Distance of the quartiles over 1.349: the standard deviation of a normal
            distribution with these quartiles.
        low: Smallest value.
        high: Largest value.
        commonest: Share of the most frequent value, 0..1.
        distinct: Number of different values.
        whole: Whether all are whole numbers.
        top_share: Share of the summed squared distance from the median that the hundredth of the
            rows furthest from it holds, 0..1.
    """

    rows: int
    median: float
    mean: float
    std: float
    robust: float
    low: float
    high: float
    commonest: float
    distinct: int
    whole: bool
    top_share: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether there is one value alone."""
        return self.low == self.high

    @property
    def measure(self) -> bool:
        """Whether it is a quantity: neither constant, nor a flag or category, nor sparse."""
        return self.distinct >= FEW_VALUES and self.commonest < SPARSE

    @property
    def tail(self) -> float:
        """Distance of the furthest value from the median, in robust spreads; 0 where there is none.

        About 4 for 10,000 values of a normal distribution, about 10 for an exponential one.
        """
        if not self.robust > 0:
            return 0.0
        return max(self.high - self.median, self.median - self.low) / self.robust

    @property
    def spread(self) -> float:
        """Standard deviation; where a few values make it, that of the middle half."""
        heavy = self.tail > HEAVY and self.robust > 0
        return self.robust if heavy else self.std

    @property
    def size(self) -> float:
        """How large the values are: root of median squared plus spread squared."""
        return float((self.median**2 + self.spread**2) ** 0.5)

    @property
    def in_unit(self) -> bool:
        """Whether all values lie in 0..1 or -1..1: scaled by their range."""
        return self.low >= -1 and self.high <= 1


#: Of a tail from here on (in robust spreads) the standard deviation tells of the tail alone.
HEAVY = 25.0


@dataclass(frozen=True, kw_only=True)
class FeatureColumn:
    """One column of features.

    Attributes:
        index: Which column of the table.
        facts: Its values.
        origin: The raw column it comes from, by which map; None where that is unknown.
        source: Values of that raw column, in the same rows.
        logged: Its values after log10 (of value + smallest positive value), where none is negative.
        weighs: Share of the variance of what the layer gives that comes from this column, through
            the weights as they are, 0..1.
        named: Where the values are used as names: as an index into a table, as classes.
        file: Source file of that use.
        line: Its line there.
        twin: Index of a column of the same table that varies ten times as much or more and orders
            the rows in the same way, or in the opposite: what this one tells, that one does.
    """

    index: int
    facts: ColumnFacts
    origin: Origin | None = None
    source: ColumnFacts | None = None
    logged: ColumnFacts | None = None
    weighs: float | None = None
    named: str | None = None
    file: str | None = None
    line: int | None = None
    twin: int | None = None

    @property
    def text(self) -> str:
        """Such as "column 0, (time - 10000) / 30000,"; without an origin "column 0"."""
        return f"column {self.index}" + (f", {self.origin.formula}," if self.origin else "")


@dataclass(frozen=True, kw_only=True)
class FeatureTable:
    """One tensor of features at the first learned layer that takes it.

    Attributes:
        stage: The layer.
        consumer: What kind of layer.
        width: Number of columns (channels of an image).
        columns: Facts of each; empty where there are too many.
        rows: Rows that were looked at.
        padded: Rows left out, because they hold padding.
        samples: Samples in the batch.
        size: Root mean square of all values.
        image: Whether columns are the channels of images.
        joined: Whether the columns are joined with learned ones before the layer.
        dtype: Such as `float32`.
        raw_columns: How many raw columns have the same rows.
        raw_constant: How many of these are constant.
        file: Source file from which the layer is called.
        line: The line there.
    """

    stage: str
    consumer: Consumer
    width: int
    columns: tuple[FeatureColumn, ...] = ()
    rows: int = 0
    padded: int = 0
    samples: int = 0
    size: float = 0.0
    image: bool = False
    joined: bool = False
    dtype: str = "float32"
    raw_columns: int = 0
    raw_constant: int = 0
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class RepeatedLog:
    """A logarithm of what is a logarithm already.

    Attributes:
        stage: Where the second one runs.
        op: The second one, such as `log10`.
        before: Where the first one runs: "stage (file:line)".
        reaches: The learned layer that takes the result.
        file: Source file of the second one.
        line: Its line there.
    """

    stage: str
    op: str
    before: str
    reaches: str
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class NormalizerFacts:
    """A division by constants that the model carries, and what it gives.

    Attributes:
        stage: Where.
        columns: What it gives, column by column.
        scale: The constant of each column.
        before: Where the same values were shifted and divided before: "stage (file:line)".
        file: Source file.
        line: Its line there.
    """

    stage: str
    columns: tuple[ColumnFacts, ...]
    scale: tuple[float, ...]
    before: str | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunningFacts:
    """Running statistics of a batch normalisation against those of the batch.

    Attributes:
        stage: The module.
        tracked: Batches that the running statistics have seen.
        channels: Number of channels.
        far: Share of channels whose batch mean is over 5 running deviations away, or whose variance
            differs by more than a factor 25.
        offset: Median distance of the means, in running deviations.
        ratio: Median of batch variance over running variance.
        file: Source file from which it is called.
        line: The line there.
    """

    stage: str
    tracked: int
    channels: int
    far: float
    offset: float
    ratio: float
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Overflow:
    """Whole numbers that left their type.

    Attributes:
        stage: Where.
        op: The operation.
        dtype: The type.
        low: Smallest value that was to be held.
        high: Largest value that was to be held.
        wrapped: How many values of this batch came out wrong.
        entries: Of how many.
        at_batch_size: The batch size at which it would happen, where this batch is too small.
        file: Source file.
        line: Its line there.
    """

    stage: str
    op: str
    dtype: str
    low: int
    high: int
    wrapped: int
    entries: int
    at_batch_size: int | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Values in a floating type that is too narrow for them.

    Attributes:
        stage: Where.
        what: Which values: the operation, or the path in the batch.
        dtype: The narrow type.
        named: Whether they are names: whole numbers that go on as whole numbers.
        largest: Largest magnitude.
        middle: Median magnitude; 0 of an older file.
        gap: Spacing of the type's values at the median magnitude.
        step: Smallest difference between two values before; None where that was not seen.
        spread: Standard deviation of the values.
        before: Distinct values before, None where that was not seen.
        after: Distinct values after.
        grid: What all values were multiples of before, from some point on; None where they were
            not, or where that does not matter: the type's own spacing is 1 or more.
        file: Source file.
        line: Its line there.
    """

    stage: str
    what: str
    dtype: str
    named: bool
    largest: float
    gap: float
    step: float | None
    spread: float
    before: int | None
    after: int
    middle: float = 0.0
    grid: float | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class LooseState:
    """State of a module that torch does not know of, and that the forward pass uses.

    Attributes:
        module: The module that holds it.
        attribute: Under which name.
        kind: A plain tensor, or weights in a plain container.
        numbers: How many numbers it holds.
        asks: Whether it asks for gradients.
        mixes: The operation that takes it together with a tensor on another device, when all that
            torch knows of is moved; None where none was met.
        followed: Whether the moved run came as far as every use of it.
        file: Source file where it is used.
        line: Its line there.
    """

    module: str
    attribute: str
    kind: Literal["tensor", "weights"]
    numbers: int
    asks: bool
    mixes: str | None = None
    followed: bool = False
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class PaddedStatistic:
    """A statistic that changes with the amount of padding.

    Attributes:
        stage: Where it is taken.
        op: The operation.
        extra: How many padded slots were added to each sample.
        slots: Slots of a sample before.
        change: Largest change of what it gives, over the largest value that it gave.
        loss: Loss of the batch as it is.
        padded_loss: Loss with the added padding.
        file: Source file.
        line: Its line there.
    """

    stage: str
    op: str
    extra: int
    slots: int
    change: float
    loss: float
    padded_loss: float
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class FeaturesNote:
    """Something that could not be seen, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FeaturesRecord:
    """What was seen of features in one batch.

    Attributes:
        batch_size: Number of samples.
        tables: Features at the learned layers that take them first.
        logs: Logarithms of logarithms.
        normalizers: Divisions by constants of the model.
        running: Running statistics.
        overflows: Whole numbers that left their type.
        roundings: Values in too narrow a floating type.
        loose: State that torch does not know of.
        padding: Statistics that follow the padding.
        padding_tried: Whether the batch has padding that could be added to.
        not_judged: What could not be seen.
    """

    batch_size: int
    tables: tuple[FeatureTable, ...] = ()
    logs: tuple[RepeatedLog, ...] = ()
    normalizers: tuple[NormalizerFacts, ...] = ()
    running: tuple[RunningFacts, ...] = ()
    overflows: tuple[Overflow, ...] = ()
    roundings: tuple[Rounding, ...] = ()
    loose: tuple[LooseState, ...] = ()
    padding: tuple[PaddedStatistic, ...] = ()
    padding_tried: bool = False
    not_judged: tuple[FeaturesNote, ...] = ()
