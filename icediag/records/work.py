"""What a training step does, counted: operations and lines of source, at several batch sizes.

Counts, not times: the same on every machine and in every run.
"""

from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Location, Unjudged

#: Parts of a training step, in their order. `step` is what a train step of the user's own does
#: outside of its forward pass, backward pass and optimizer.
Phase = Literal[
    "dataset item", "collate", "transfer", "forward", "loss", "step", "backward", "optimizer"
]
PHASES: tuple[Phase, ...] = (
    "dataset item",
    "collate",
    "transfer",
    "forward",
    "loss",
    "step",
    "backward",
    "optimizer",
)

#: Seconds of a line of Python that does little. Measured: 36 ns (a sum) to 120 ns (a look-up in a
#: dict and an append) on CPython 3.11.
LINE_S = 1e-7


@dataclass(frozen=True, kw_only=True)
class WorkRun:
    """One of the batches that were counted.

    Attributes:
        samples: Number of samples.
        axes: Symbolic axis -> its size in this batch. Beside axes of tensors also sums over groups,
            such as `doms^2 in each event`.
    """

    samples: int
    axes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How a count grows: `intercept + slope * axis`, in all runs.

    Attributes:
        axis: What it follows; a product such as `pulses*doms` where it follows two.
        order: 1 where it grows as the batch, 2 where it grows as its square.
        slope: Count an element of the axis.
        intercept: What does not grow.
        exact: Whether all runs are met exactly; otherwise to 5 %.
        also: Other axes that explain the counts as well.
    """

    axis: str
    order: int
    slope: float
    intercept: float
    exact: bool = True
    also: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OperationRecord:
    """One dispatched operation at one line, in one stage and phase. Counts are by run.

    Attributes:
        phase: Part of the step.
        stage: Innermost recorded stage; of a backward operation the stage whose gradient it is.
        op: Its name, such as `addmm`; of a reading that is not dispatched, such as `tolist`, that.
        node: Of a backward operation the autograd node that runs it, such as `AddmmBackward0`.
        dtype: Of its first result.
        location: The user's line; of a backward operation the forward line. None where no line of
            the user's own is involved.
        calls: How often it was dispatched.
        launches: Kernels that these calls start on a GPU; views and allocations start none.
        elements: Elements of its results, views excepted.
        bytes_read: Bytes that are read of its arguments.
        bytes_written: Bytes that are written.
        flops: Floating point operations of matrix products, convolutions and attention.
        syncs: How often the host must wait for the device, were this run on one.
        growth: How `calls` grow; None where they do not, or follow nothing that is known.
        work: How `elements` grow.
    """

    phase: Phase
    stage: str
    op: str
    node: str | None = None
    dtype: str = ""
    location: Location | None = None
    calls: tuple[int, ...] = ()
    launches: tuple[int, ...] = ()
    elements: tuple[int, ...] = ()
    bytes_read: tuple[int, ...] = ()
    bytes_written: tuple[int, ...] = ()
    flops: tuple[int, ...] = ()
    syncs: tuple[int, ...] = ()
    growth: Growth | None = None
    work: Growth | None = None


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """The same operation on the same values, done more than once in the largest run.

    Attributes:
        phase: Part of the step.
        op: Name of the operation.
        location: Where it was done again.
        first: Where it was done before.
        times: How often it was done again.
        bytes: Bytes read and written again.
        flops: Floating point operations done again.
    """

    phase: Phase
    op: str
    location: Location | None
    first: Location | None
    times: int
    bytes: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class OperationsRecord:
    """Operations of a training step.

    Attributes:
        batch_size: Samples of the batch that is diagnosed.
        axes: Symbolic axis -> its size in that batch, to which counts may be extended.
        longest: Of these, those that follow the longest group alone: more samples leave them as
            they are.
        runs: The batches that were counted, smallest first; all counts are by run.
        operations: In the order of their first call.
        repeated: Work done more than once.
        not_judged: What could not be counted.
    """

    batch_size: int
    axes: dict[str, int] = field(default_factory=dict)
    longest: tuple[str, ...] = ()
    runs: tuple[WorkRun, ...] = ()
    operations: tuple[OperationRecord, ...] = ()
    repeated: tuple[Repeated, ...] = ()
    not_judged: tuple[Unjudged, ...] = ()


def at_axes(growth: Growth, axes: dict[str, int]) -> float | None:
    """What a count is expected to be in a batch of these axes; None where the axis is not there."""
    size = 1.0
    for factor in growth.axis.split("*"):
        if factor not in axes:
            return None
        size *= axes[factor]
    return growth.intercept + growth.slope * size


#: How the user's own code repeats itself. `call` is a function of the user's own that something
#: else calls for every element: `map`, `numpy.vectorize`, `DataFrame.apply`, the key of a sort.
#: `backward` is one that the backward pass calls.
LoopKind = Literal["for", "while", "comprehension", "call", "recursion", "backward"]


@dataclass(frozen=True, kw_only=True)
class Span:
    """Lines of a source file, both ends included."""

    file: str
    first: int
    last: int

    def holds(self, place: Location | None) -> bool:
        """Whether a line is among these."""
        return (
            place is not None and place.file == self.file and self.first <= place.line <= self.last
        )


@dataclass(frozen=True, kw_only=True)
class LineRecord:
    """A line of the user's own that runs more often in a larger batch.

    Attributes:
        phase: Part of the step.
        location: The line.
        counts: How often it ran, by run.
        growth: How this grows.
    """

    phase: Phase
    location: Location
    counts: tuple[int, ...]
    growth: Growth


@dataclass(frozen=True, kw_only=True)
class LoopRecord:
    """A loop of the user's own that takes more rounds in a larger batch.

    Attributes:
        phase: Part of the step.
        stage: Innermost recorded stage in which it stands.
        kind: What repeats.
        function: Qualified name of the function it stands in.
        location: Its first line; of a `call` or a recursion the line that calls.
        counts: Rounds in all, by run.
        entries: How often it began, by run.
        growth: How its rounds grow.
        lines: Lines of the user's own that it ran, with what it called, by run.
        spans: The loop itself, and functions that are called in it alone.
        inside: The growing loop around it, if any.
        text: Source of its first line.
    """

    phase: Phase
    stage: str
    kind: LoopKind
    function: str
    location: Location
    counts: tuple[int, ...]
    entries: tuple[int, ...]
    growth: Growth
    lines: tuple[int, ...] = ()
    spans: tuple[Span, ...] = ()
    inside: Location | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class PythonRecord:
    """Lines of the user's own that one stage runs in one phase.

    Attributes:
        phase: Part of the step.
        stage: Innermost recorded stage in which their function ran first.
        grows: Whether they are lines that run more often in a larger batch.
        lines: Executions in the batch that is diagnosed.
    """

    phase: Phase
    stage: str
    grows: bool
    lines: float


@dataclass(frozen=True, kw_only=True)
class LinesRecord:
    """How often lines of the user's own run in a training step.

    Attributes:
        batch_size: Samples of the batch that is diagnosed.
        axes: Symbolic axis -> its size in that batch.
        longest: As in `OperationsRecord`.
        runs: The batches that were counted, smallest first; all counts are by run.
        lines: Lines whose count grows.
        loops: Loops that take more rounds in a larger batch.
        executed: Executions of all lines of the user's own, by phase and run.
        python: The same by stage, at the size of the batch that is diagnosed.
        workers: Worker processes of the pipeline's own loader; None where it has none that says.
        not_judged: What could not be counted.
    """

    batch_size: int
    axes: dict[str, int] = field(default_factory=dict)
    longest: tuple[str, ...] = ()
    runs: tuple[WorkRun, ...] = ()
    lines: tuple[LineRecord, ...] = ()
    loops: tuple[LoopRecord, ...] = ()
    executed: dict[str, tuple[int, ...]] = field(default_factory=dict)
    python: tuple[PythonRecord, ...] = ()
    workers: int | None = None
    not_judged: tuple[Unjudged, ...] = ()
