"""What signatures and the pipeline declare of tensors, and where that was broken. Plain data."""

from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Location

BreachKind = Literal["shape", "dtype", "range", "multiple", "finite"]


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One way in which a tensor is not what was declared.

    Attributes:
        kind: What is broken.
        expected: What was declared, such as `pulses = 56` or `>= 0`.
        got: What came, such as `38`.
        beside: Where an axis got the other size: path of the tensor that had it first.
        call: At which call of the stage, from 1.
        count: How many values break it; None where they were not counted.
        total: Of how many values.
    """

    kind: BreachKind
    expected: str
    got: str
    beside: str | None = None
    call: int = 1
    count: int | None = None
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What is declared of one tensor, and what came.

    Attributes:
        stage: Stage of the flow.
        owner: "module:name" of its class or function.
        role: `in` or `out`.
        path: Which tensor.
        holder: "module:Class" of the container that declares it; None where a signature does.
        declared: As text, such as `Float 'pulses 4', >= 0`.
        axes: Name of each axis that has one; empty where the number of axes is not declared.
        sizes: Its shape in the batch; empty where calls differ.
        small_sizes: The same in a smaller batch; empty where it was not seen there.
        unit: The unit that is declared.
        column: The raw column that is declared.
        number: The same for a tensor that is met more than once; None where values were not read.
        breaches: How it is broken.
        location: Where the stage is defined.
    """

    stage: str
    owner: str
    role: str
    path: str
    holder: str | None = None
    declared: str = ""
    axes: tuple[str | None, ...] = ()
    sizes: tuple[int, ...] = ()
    small_sizes: tuple[int, ...] = ()
    unit: str | None = None
    column: str | None = None
    number: int | None = None
    breaches: tuple[Breach, ...] = ()
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class ContractsRecord:
    """All contracts that were met.

    Attributes:
        contracts: In the order in which they were met.
        batch_axes: Sizes (large batch, smaller batch) of the axes of the batch's own tensors that
            follow the data.
        unread: What is declared and could not be compared: place -> why.
    """

    contracts: tuple[Contract, ...] = ()
    batch_axes: tuple[tuple[int, ...], ...] = ()
    unread: dict[str, str] = field(default_factory=dict)
