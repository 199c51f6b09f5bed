"""What reached a tensor: which raw column it carries, and by what map. Plain data."""

import math
from dataclasses import dataclass
from typing import Literal

Map = Literal[
    "identity", "cast", "affine", "logarithm", "clipped", "shifted by group", "scaled by group"
]


def _text(value: float) -> str:
    """A constant as a person would write it: 30000, 0.025, 1e-08."""
    return f"{value:.6g}"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A raw column and the map that turns it into what was seen.

    The map is `slope * f(x) + offset` with f the identity, or log10(x + floor) for a logarithm; for
    a map by group, `offset` (and `slope`) differ from group to group and the values are those of
    the median group.

    Attributes:
        column: Name of the raw column.
        map: What kind of map.
        slope: See above.
        offset: See above.
        floor: Of a logarithm: what was added to its argument, 0 if nothing that shows.
        clamp: Of a logarithm: the smallest argument that is let through, where that was probed.
        low: Of a clipped map: smallest value that is left.
        high: Of a clipped map: largest value that is left.
        group: Of a map by group: path of the index tensor that tells the groups apart.
        rows: Path of the index tensor by which rows were gathered; None where they are in order.
        residual: Largest distance between what was seen and what the map gives.
        tolerance: What rounding in the tensor's dtype explains.
        compared: Number of rows compared.
    """

    column: str
    map: Map
    slope: float = 1.0
    offset: float = 0.0
    floor: float | None = None
    clamp: float | None = None
    low: float | None = None
    high: float | None = None
    group: str | None = None
    rows: str | None = None
    residual: float = 0.0
    tolerance: float = 0.0
    compared: int = 0

    @property
    def raw(self) -> bool:
        """Whether the column arrives as it is in the data."""
        return self.map == "identity"

    @property
    def formula(self) -> str:
        """Such as `(time - 10000) / 30000`."""
        x = self.column if self.rows is None else f"{self.column}[{self.rows}]"
        if self.map == "identity":
            return x
        if self.map == "cast":
            return f"{x}, cast to fewer bits"
        if self.map == "logarithm":
            x = f"({x}{f' + {_text(self.floor)}' if self.floor else ''})"
            x = x if self.clamp is None else f"(max({x[1:-1]}, {_text(self.clamp)}))"
            natural = self.slope / math.log(10)
            if abs(natural - round(natural, 3)) < 1e-5 * abs(natural):
                text = self._line(f"ln{x}", shift_first=False, slope=round(natural, 3))
            else:
                text = self._line(f"log10{x}", shift_first=False)
        elif self.map == "shifted by group":
            text = f"{self._line(x, shift_first=True, offset=0.0)}, shifted in each {self.group}"
        elif self.map == "scaled by group":
            text = f"{x}, shifted and scaled in each {self.group}"
        else:
            text = self._line(x, shift_first=True)
        if self.map == "clipped":
            text += f", clipped to {_text(self.low or 0.0)}..{_text(self.high or 0.0)}"
        return text

    def _line(
        self,
        x: str,
        *,
        shift_first: bool,
        offset: float | None = None,
        slope: float | None = None,
    ) -> str:
        """`slope * x + offset`, in the way such maps are written."""
        offset = self.offset if offset is None else offset
        slope = self.slope if slope is None else slope
        if shift_first and offset and slope:
            shift = -offset / slope
            x = f"({x} {'-' if shift > 0 else '+'} {_text(abs(shift))})"
            offset = 0.0
        if slope != 1 and slope:
            over = 1 / slope
            # Divisions by round numbers are what people write.
            if abs(slope) < 1 and abs(over - round(over)) < 1e-5 * abs(over):
                x = f"{x} / {_text(round(over))}"
            else:
                x = f"{_text(slope)} * {x}"
        if offset:
            x = f"{x} {'+' if offset > 0 else '-'} {_text(abs(offset))}"
        return x


@dataclass(frozen=True, kw_only=True)
class OriginRecord:
    """Where a tensor, or one column of it, comes from.

    Attributes:
        stage: Stage of the flow.
        owner: "module:name" of its class or function.
        role: `in` or `out`.
        path: Which tensor.
        column: Which of its columns; None for a tensor of one axis.
        origin: What it was recognised as; None where it is unknown.
        negative: Share of negative values, 0..1.
        spread: Standard deviation of the values.
        groups: Of a declared argument of a stage that pools: the argument that says to which group
            each row belongs.
        smallest_sum: Then the smallest magnitude of the sum of a group of two rows or more.
        cancelled: Then the smallest such magnitude over the sum of magnitudes of the same group:
            1 where all have the same sign, 0 where they cancel.
        file: Source file of the stage.
        line: Its line there.
    """

    stage: str
    owner: str
    role: str
    path: str
    column: int | None = None
    origin: Origin | None = None
    negative: float = 0.0
    spread: float = 0.0
    groups: str | None = None
    smallest_sum: float | None = None
    cancelled: float | None = None
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class RawContract:
    """An argument that the pipeline declares to be a raw column.

    Attributes:
        owner: "module:name" of the stage's class or function.
        argument: Which argument.
        column: The raw column it is to carry.
        unit: In which unit.
        pools: Whether the stage gives fewer rows than it takes: then the argument weighs or sums.
        reached: Whether the stage ran and the argument was seen.
    """

    owner: str
    argument: str
    column: str
    unit: str | None = None
    pools: bool = False
    reached: bool = False


@dataclass(frozen=True, kw_only=True)
class ProvenanceRecord:
    """What was recognised of one batch.

    Attributes:
        origins: Every tensor that has the rows of a raw column or of an index tensor.
        contracts: What the pipeline declares of them.
    """

    origins: tuple[OriginRecord, ...] = ()
    contracts: tuple[RawContract, ...] = ()
