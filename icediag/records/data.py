"""What an audit saw of a data set: counts, distributions, and what is not as it should be."""

from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Unjudged

#: What can be wrong with a data set; each is counted, and judged elsewhere.
Fault = Literal[
    "charge-not-finite",
    "charge-not-positive",
    "sensor-out-of-range",
    "time-not-finite",
    "times-unsorted",
    "event-twice",
    "event-missing",
    "event-unknown",
    "rows-disagree",
    "rows-exclusive",
    "truth-out-of-domain",
    "truth-in-degrees",
    "schema-differs",
    "file-missing",
    "file-unreadable",
]


#: Spread below which a normalised feature is called narrow.
NARROW = 0.3


@dataclass(frozen=True, kw_only=True)
class DataFault:
    """Something in a file that is not as it should be.

    Attributes:
        fault: What.
        file: Where, below the data set's folder.
        column: Of the file; "" where the fault is not one of a column.
        count: How often.
        of: Out of how many.
        row: First row of the file that shows it, counted from 0; None where it is no row.
        example: What is there.
        expected: What should be.
    """

    fault: Fault
    file: str
    column: str = ""
    count: int
    of: int
    row: int | None = None
    example: str = ""
    expected: str = ""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """One quantity over the whole data set.

    Attributes:
        name: What.
        unit: Of its values, "" for none.
        count: Number of values, without those that are not finite.
        minimum: The smallest.
        maximum: The largest.
        mean: Their mean, None where there are none.
        std: Their standard deviation.
        quantiles: Quantile (0..1, as text: JSON keys are text) -> value.
        error: By how much a quantile may be off: 0 for none, else a share of its value.
        edges: Where the bins of the histogram begin and the last one ends, for plots.
        counts: Values in each bin.
    """

    name: str
    unit: str = ""
    count: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: dict[str, float] = field(default_factory=dict)
    error: float = 0.0
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """One file of pulses.

    Attributes:
        file: Its name.
        events: Events of it in the table of events.
        pulses: Its rows.
        columns: Column -> type.
    """

    file: str
    events: int
    pulses: int
    columns: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One quantity of the events of one file against those of all others (or of another data set).

    Attributes:
        file: Which.
        against: What it is compared with.
        quantity: Of events.
        distance: Largest distance of the two distribution functions, 0..1.
        chance: What two samples of one population stay below in all but one of 100,000 cases.
        here: Median of the file.
        there: Median of the others.
        events: Events of the file.
    """

    file: str
    against: str
    quantity: str
    distance: float
    chance: float
    here: float
    there: float
    events: int


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Events of a second data set that are in this one too.

    Attributes:
        against: The second data set.
        shared: Events with the same id and the same number of pulses.
        same_truth: Of these, those whose truth is the same too.
        events: Events of the second data set.
        example: The first event_id that is shared.
    """

    against: str
    shared: int
    same_truth: int
    events: int
    example: int | None = None


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """What a feature's constants make of it: (value - shift) / scale.

    Attributes:
        feature: Such as "time" or "log10(charge)".
        shift: In use.
        scale: In use.
        minimum: What comes out at least.
        maximum: And at most.
        median: Of what comes out.
        spread: Half of the distance of the quantiles 0.1587 and 0.8413 of what comes out, which is
            one standard deviation of a normal distribution.
        negative: Share of what comes out that is below 0.
        far: Share that is further than 5 spreads from the median.
        fitted_shift: That would give median 0.
        fitted_scale: That would give spread 1.
    """

    feature: str
    shift: float
    scale: float
    minimum: float
    maximum: float
    median: float
    spread: float
    negative: float
    far: float
    fitted_shift: float
    fitted_scale: float

    @property
    def narrow(self) -> bool:
        """Whether the spread is far below the 1 that layers are initialised for; not of flags."""
        return 0 < self.spread < NARROW and self.fitted_scale != self.scale


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One figure beside the published one.

    Attributes:
        quantity: What.
        here: In this data set.
        published: In the competition's.
        ratio: Of the two.
        limit: How far from 1 the ratio may be for a simulation that is called calibrated.
    """

    quantity: str
    here: float
    published: float
    ratio: float
    limit: float

    @property
    def off(self) -> bool:
        """Whether the ratio is further from 1 than the limit."""
        return abs(self.ratio - 1) > self.limit


@dataclass(frozen=True, kw_only=True)
class DataRecord:
    """What an audit saw.

    Attributes:
        name: Last part of the data set's path.
        files_there: Files of pulses in the folder.
        files: Those that were looked at.
        events: Events looked at.
        pulses: Pulses looked at.
        distributions: Of pulses, events and truth.
        pulses_per_dom: Such as "2-3" -> share of the DOMs of events.
        auxiliary: Share of pulses; None where there are none.
        auxiliary_small: The same, of events below 90 pulses.
        faults: What is not as it should be.
        drifts: Files whose events differ from those of the others, by more than chance.
        overlaps: With other data sets.
        normalization: What the constants of the normalisation make of these data.
        comparison: With published figures, where that was asked for.
        not_judged: What could not be looked at.
    """

    name: str
    files_there: int
    files: tuple[FileFacts, ...] = ()
    events: int = 0
    pulses: int = 0
    distributions: tuple[Distribution, ...] = ()
    pulses_per_dom: dict[str, float] = field(default_factory=dict)
    auxiliary: float | None = None
    auxiliary_small: float | None = None
    faults: tuple[DataFault, ...] = ()
    drifts: tuple[Drift, ...] = ()
    overlaps: tuple[Overlap, ...] = ()
    normalization: tuple[Normalization, ...] = ()
    comparison: tuple[Comparison, ...] = ()
    not_judged: tuple[Unjudged, ...] = ()

    def distribution(self, name: str) -> Distribution | None:
        """The distribution of this name."""
        return next((d for d in self.distributions if d.name == name), None)
