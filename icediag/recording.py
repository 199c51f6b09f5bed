"""What was seen: facts only, serializable. Instruments write it, checks and reports read it.

A recording holds no judgement, no tensor, no absolute path and nothing of the environment but the
versions that the facts depend on.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from icediag.place import Location as Location
from icediag.place import Unjudged as Unjudged
from icediag.plain import Stored
from icediag.records.births import BirthsRecord
from icediag.records.bounds import BoundsRecord
from icediag.records.clock import ClockRecord
from icediag.records.comparison import ComparisonRecord
from icediag.records.contracts import ContractsRecord
from icediag.records.data import DataRecord
from icediag.records.effects import EffectsRecord
from icediag.records.features import FeaturesRecord
from icediag.records.gradients import GradientsRecord
from icediag.records.histograms import HistogramsRecord
from icediag.records.invariances import InvariancesRecord
from icediag.records.loss import LossRecord
from icediag.records.overfit import OverfitRecord
from icediag.records.projection import ProjectionRecord
from icediag.records.provenance import ProvenanceRecord
from icediag.records.source import SourceRecord
from icediag.records.squashing import SquashingRecord
from icediag.records.training import TrainingRecord
from icediag.records.weighing import WeighingRecord
from icediag.records.work import LinesRecord, OperationsRecord

#: Grows when a field changes its meaning or goes; new fields come with a default and leave it.
VERSION = 1

#: Parts of the flow without which no other instrument sees more than the recorder did.
FLOW = frozenset({"dataset item", "collate", "model", "loss"})

Number = int | float


def singular(axis: str) -> str:
    """One of what an axis counts: `pulses` -> `pulse`, and the axis `batch` counts samples."""
    if axis == "batch":
        return "sample"
    return axis[:-1] if axis.endswith("s") and not axis.endswith("ss") else axis


Role = Literal["in", "out", "grad"]
Kind = Literal["item", "collate", "module", "function", "loss"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The values of one tensor; of all its calls together where a stage ran more than once.

    Attributes:
        count: Number of values.
        minimum: Smallest value that is neither NaN nor infinite; None if there is none. An exact
            int where the tensor holds integers.
        maximum: Largest such value.
        median: Median of such values, None if there are none.
        median_of: Number of values the median was taken of; fewer than `count` for a large tensor,
            of which every n-th is taken.
        mean: Mean of such values.
        std: Their standard deviation (divided by n).
        zeros: How many values are exactly 0.
        nans: How many are NaN.
        positive_infs: How many are +inf.
        negative_infs: How many are -inf.
    """

    count: int
    minimum: Number | None = None
    maximum: Number | None = None
    median: Number | None = None
    median_of: int = 0
    mean: float | None = None
    std: float | None = None
    zeros: int = 0
    nans: int = 0
    positive_infs: int = 0
    negative_infs: int = 0

    @property
    def additive_mask(self) -> bool:
        """Whether all values are 0 or -inf, and both occur: a mask to be added to logits.

        That is in order; of -inf alone, as a logarithm of zeros gives, it is not.
        """
        some = self.negative_infs > 0 and self.zeros > 0
        return some and self.negative_infs + self.zeros == self.count


@dataclass(frozen=True, kw_only=True)
class TensorRecord:
    """One tensor at one stage.

    Attributes:
        path: Its place: an argument, field or key, such as `times` or `packing.padding_mask`.
        role: `in`, `out`, or `grad` (the gradient of the loss by an `out`).
        shape: Sizes, of the first call.
        axes: For each axis its symbolic name, or None where the size does not follow the data.
        varies: For each axis whether its size differed between calls of the stage in this batch.
        dtype: Such as `float32`.
        device: Such as `cpu` or `cuda:0`.
        facts: Its values; None where they were not looked at, with the reason in `unseen`.
        unseen: Why there are no facts.
        columns: For a table of a few columns, the facts of each.
        column_names: Names of those columns that are raw columns of the pipeline, None for others.
    """

    path: str
    role: Role
    shape: tuple[int, ...]
    axes: tuple[str | None, ...] = ()
    varies: tuple[bool, ...] = ()
    dtype: str = ""
    device: str = ""
    facts: Facts | None = None
    unseen: str | None = None
    columns: tuple[Facts, ...] = ()
    column_names: tuple[str | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """One stage of the flow.

    Attributes:
        name: Path of a module within the model, or qualified name of a function.
        kind: What it is.
        depth: How many recorded stages it ran inside of.
        calls: How often it ran in the batch, inside of the same stage.
        valued_calls: Of how many of these calls the values are in the facts.
        type: Class of a module, "" otherwise.
        location: Where it is defined.
        tensors: Inputs, outputs and gradients.
    """

    name: str
    kind: Kind
    depth: int = 0
    calls: int = 1
    valued_calls: int = 1
    type: str = ""
    location: Location | None = None
    tensors: tuple[TensorRecord, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RaggedRecord:
    """Lengths along a ragged axis, e.g. DOMs per event.

    Attributes:
        inner: Name of what is counted.
        outer: Name of what it is counted for.
        groups: Number of groups.
        quantiles: Quantile (0..1, as text: JSON keys are text) -> length.
        mean: Mean length.
        mean_square: Mean of its square; None of an older file.
        cut: Mean length if groups were sorted by length, cut into `parts` of equal number, and each
            part padded to its longest.
        cut_square: Mean of the square of that.
        parts: How many parts.
    """

    inner: str
    outer: str
    groups: int
    quantiles: dict[str, float]
    mean: float
    mean_square: float | None = None
    cut: float | None = None
    cut_square: float | None = None
    parts: int = 0

    @property
    def title(self) -> str:
        """Such as "pulses per event"."""
        return f"{self.inner} per {singular(self.outer)}"


@dataclass(frozen=True, kw_only=True)
class PaddingRecord:
    """Padding: a mask that was recognised by its count, or a tensor of one value beyond lengths.

    Attributes:
        stage: Where it was seen first.
        path: Which tensor.
        slots: Entries of the mask.
        used: Entries that hold something.
        padding_is: Which value of the mask means padding; None where it is no mask of booleans.
        holds: What the used entries are, e.g. "doms + events".
    """

    stage: str
    path: str
    slots: int
    used: int
    padding_is: bool | None
    holds: str

    @property
    def padding_share(self) -> float:
        """Share of entries that hold nothing, 0..1."""
        return 1 - self.used / self.slots


@dataclass(frozen=True, kw_only=True)
class ParameterRecord:
    """Parameters of one module and their gradients.

    Attributes:
        stage: Path of the module.
        parameters: Number of weights.
        without_gradient: Number of weights that no gradient reached.
        frozen: Number of weights that ask for no gradient.
        weight_norm: Euclidean norm of the weights.
        gradient_norm: Of their gradients; NaN or infinite if any of them is.
    """

    stage: str
    parameters: int
    without_gradient: int
    frozen: int
    weight_norm: float
    gradient_norm: float


@dataclass(frozen=True, kw_only=True)
class Recording(Stored):
    """All that was seen of one batch on its way through a pipeline.

    Attributes:
        pipeline: Its name.
        batch_size: Number of samples.
        followed: Where a step of all of them takes too long, samples of the batch that went through
            the model: shapes and values are of these, lengths and counts of all.
        loss: Value of the loss; None where it could not be computed.
        baseline_loss: What a predictor that knows nothing scores, as the pipeline states it.
        axes: Symbolic axis -> its size in this batch.
        axis_notes: What a symbolic axis is, where its name does not say it.
        stages: In the order in which they began.
        ragged: Lengths along ragged axes.
        padding: Padding masks.
        parameters: Gradients by module, in the order of the model.
        not_judged: What could not be seen.
        bounds: What was proved of its values; None where that was not asked for.
        provenance: Which raw column reached what; None where that was not asked for.
        operations: What a step does, counted; None where that was not asked for.
        clock: Its steps by time and memory; None where that was not asked for.
        projection: What a step would take on another device; None where that was not asked for.
        contracts: What is declared of tensors, and where that was broken; None of an older file.
        births: Where values that are not finite are born; None where there are none.
        invariances: What moved in batches put together otherwise; None where not asked for.
        lines: How often the user's own lines run; None where that was not asked for.
        features: What reached the first learned layers; None where that was not asked for.
        histograms: How values are spread; None where that was not asked for.
        source: Lines of source that a diagnosis speaks of; None where they were not asked for.
        squashing: What the loss takes for logits; None where that was not asked for.
        weighing: Weighted means that the model takes; None where that was not asked for.
        loss_probe: What the loss does, probed away from the model; None where not asked for.
        comparison: It beside an older one; None where there is none.
        training_flow: How samples come to the training, and its step; None where not asked for.
        overfit: What came of training on one batch; None where that was not asked for.
        gradients: How they flow, and what steps make of them; None where that was not asked for.
        effects: What faults cost the training; None where that was not asked for.
        data: What an audit saw of the whole data set; None where there was none.
        versions: Of torch and python.
        version: Of this format.
    """

    kind: ClassVar[str] = "recording"
    newest: ClassVar[int] = VERSION

    pipeline: str
    batch_size: int
    loss: float | None = None
    baseline_loss: float | None = None
    axes: dict[str, int] = field(default_factory=dict)
    axis_notes: dict[str, str] = field(default_factory=dict)
    stages: tuple[StageRecord, ...] = ()
    ragged: tuple[RaggedRecord, ...] = ()
    padding: tuple[PaddingRecord, ...] = ()
    parameters: tuple[ParameterRecord, ...] = ()
    not_judged: tuple[Unjudged, ...] = ()
    bounds: BoundsRecord | None = None
    provenance: ProvenanceRecord | None = None
    operations: OperationsRecord | None = None
    clock: ClockRecord | None = None
    projection: ProjectionRecord | None = None
    contracts: ContractsRecord | None = None
    births: BirthsRecord | None = None
    invariances: InvariancesRecord | None = None
    lines: LinesRecord | None = None
    features: FeaturesRecord | None = None
    histograms: HistogramsRecord | None = None
    source: SourceRecord | None = None
    squashing: SquashingRecord | None = None
    weighing: WeighingRecord | None = None
    loss_probe: LossRecord | None = None
    comparison: ComparisonRecord | None = None
    training_flow: TrainingRecord | None = None
    overfit: OverfitRecord | None = None
    gradients: GradientsRecord | None = None
    effects: EffectsRecord | None = None
    data: DataRecord | None = None
    versions: dict[str, str] = field(default_factory=dict)
    followed: int | None = None
    version: int = VERSION

    @property
    def came_through(self) -> bool:
        """Whether the batch came through to the loss."""
        return not FLOW & {item.name for item in self.not_judged}
