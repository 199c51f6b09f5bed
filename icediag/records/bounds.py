"""What was proved of a pipeline's values: facts only, serializable.

Bounds hold in real arithmetic with the rounding of each operation allowed for; a value that is NaN
lies in no interval and is not spoken of.
"""

from dataclasses import dataclass, field
from typing import Literal

#: What kind of map keeps a value in its bounds. `squash`: tanh, sigmoid, arcsine and their kin;
#: `periodic`: arctan2 and remainders, which wrap around; `share`: softmax, a part of a whole;
#: `norm`: normalisation layers, bounded by the number of features; `wave`: sine and cosine.
BoundKind = Literal["squash", "clamp", "periodic", "share", "norm", "wave"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """An operation of the program.

    Attributes:
        op: Its name in torch, such as `aten::tanh`.
        stage: The innermost stage that it ran in.
        file: Source file of the innermost line that is neither torch's nor installed; relative to
            the folder of its top-level package. None where there is none.
        line: That line.
        count: How many times it ran.
    """

    op: str
    stage: str
    file: str | None = None
    line: int | None = None
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class BoundingOp:
    """The last operation that narrowed a value.

    Attributes:
        kind: How it does.
        place: Where.
    """

    kind: BoundKind
    place: Place


@dataclass(frozen=True, kw_only=True)
class StageBounds:
    """The interval of one output of a stage, over all its entries and calls.

    Attributes:
        stage: Name of the stage.
        path: Which of its outputs, "" for the only one.
        low: Lower end, -inf where there is none.
        high: Upper end, +inf where there is none.
        proved: Whether every operation before it has a rule.
    """

    stage: str
    path: str
    low: float
    high: float
    proved: bool = True


@dataclass(frozen=True, kw_only=True)
class Witness:
    """An input on which an output leaves its domain.

    Attributes:
        how: `batch`: on a batch of the data set as it is. `ascent`: after moving the batch's
            floating-point values along the gradient. `weights`: on the batch as it is, with
            weights multiplied.
        value: What the output is there.
        row: Which row of the output, mostly which sample of the batch.
        inputs: Ranges of the moved inputs at that point: path -> (low, high) as a list.
        module: Whose weights were multiplied.
        factor: By how much.
    """

    how: Literal["batch", "ascent", "weights"]
    value: float
    row: int
    inputs: dict[str, tuple[float, ...]] = field(default_factory=dict)
    module: str | None = None
    factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class OutputBounds:
    """One output column.

    Attributes:
        column: Its name in `Pipeline.outputs`.
        domain_low: Lower end of its domain.
        domain_high: Upper end.
        periodic: Whether these are one point.
        low: Proved lower bound for any finite input, with the weights as they are.
        high: Proved upper bound.
        proved: Whether that lies inside the domain.
        why_not: Why nothing could be proved, where that is not a matter of the bounds: operations
            without a rule, or a flow that depends on values.
        last: The last operation that bounds it; None where none does.
        stage: The stage that gives it.
        file: Source file of that stage.
        line: Where that stage begins.
        witness: An input on which it leaves the domain, where one was found.
        searched: What was tried to find one.
        attained_low: Smallest value on the batch.
        attained_high: Largest value on the batch.
        reach_low: Lower bound for any input and any weights: below it, training cannot get.
        reach_high: Upper bound likewise.
        saturated: Share of values within a thousandth of an end of that range, where a squashing or
            clamping operation gives it.
        saturated_wrong: Share that is so and further than a tenth of the domain from its target.
        targets: Whether target values of this column were found in the batch.
        targets_out_of_reach: Share of targets outside of the reachable range.
        targets_near_seam: For a periodic domain, share of targets within a twentieth of the period
            from the seam.
    """

    column: str
    domain_low: float
    domain_high: float
    periodic: bool = False
    low: float
    high: float
    proved: bool
    why_not: str | None = None
    last: BoundingOp | None = None
    stage: str = "model"
    file: str | None = None
    line: int | None = None
    witness: Witness | None = None
    searched: str = ""
    attained_low: float | None = None
    attained_high: float | None = None
    reach_low: float = float("-inf")
    reach_high: float = float("inf")
    saturated: float | None = None
    saturated_wrong: float | None = None
    targets: bool = False
    targets_out_of_reach: float | None = None
    targets_near_seam: float | None = None


@dataclass(frozen=True, kw_only=True)
class Pole:
    """A point where an operation or its slope is not finite, and which its input can reach.

    Attributes:
        place: The operation.
        what: What happens there, such as "the logarithm of 0".
        argument: The value of the argument there.
        value: The value of the operation there, in the argument's type.
        slope: Its derivative there.
        dtype: That type.
        confirmed: Whether it was met in a run of the pipeline, and what came of it was a value, a
            loss or a gradient that is not finite.
        outcome: What was not finite in that run.
        met: How: on the batch as it is, or on one with values moved within their ranges.
        entries: How many entries met it in that run.
    """

    place: Place
    what: str
    argument: float
    value: float
    slope: float
    dtype: str
    confirmed: bool = False
    outcome: str = ""
    met: str = ""
    entries: int = 0


@dataclass(frozen=True, kw_only=True)
class InputRange:
    """The range that a column of the batch was taken to have.

    Attributes:
        path: Which tensor, with the column where it is a table of a few.
        low: Lower end.
        high: Upper end.
        source: `declared` where a contract states an end of it, else `observed` on this batch.
    """

    path: str
    low: float
    high: float
    source: Literal["declared", "observed"]


@dataclass(frozen=True, kw_only=True)
class BoundsNote:
    """Something that could not be established, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class BoundsRecord:
    """What was proved, and what was found while trying.

    Attributes:
        batch_size: Samples of the batch whose lengths and indices the proofs are for.
        outputs: Each column of `Pipeline.outputs`.
        stages: Intervals of what every stage gives, for any finite input.
        poles: Poles that inputs within their ranges can reach or cannot be shown not to.
        ranges: Those ranges.
        unproved: Operations without a rule that met a value that is not constant.
        not_judged: What could not be looked at.
    """

    batch_size: int
    outputs: tuple[OutputBounds, ...] = ()
    stages: tuple[StageBounds, ...] = ()
    poles: tuple[Pole, ...] = ()
    ranges: tuple[InputRange, ...] = ()
    unproved: tuple[Place, ...] = ()
    not_judged: tuple[BoundsNote, ...] = ()
