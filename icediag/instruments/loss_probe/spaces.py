"""Spaces: what predictions may be, told from what they are, so that probes stay within."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from icediag.instruments.trees.outputs import output_columns
from icediag.instruments.trees.walk import leaves
from icediag.pipeline import Domain, Pipeline

from .probe import Probe

Kind = Literal["unit", "shares", "log shares", "columns"]
#: Norms and sums that agree with 1 to this were made so.
ONE = 1e-3
#: So many rows above 0, or from 0 to 1, are no chance.
ENOUGH = 8
#: What autograd calls operations that give a part of a tensor, or all of it in another shape.
VIEWS = frozenset(
    f"{name}Backward{version}"
    for name in ("View", "UnsafeView", "Squeeze", "Unsqueeze", "Select", "Slice", "T", "Transpose")
    for version in range(2)
)


@dataclass
class Space:
    """What one tensor of predictions may be.

    Attributes:
        kind: Unit vectors, shares that sum to 1, their logarithms, or columns each by itself.
        domains: Of columns, the domain that is declared for each, by its number.
        positive: Of columns, those that are above 0 throughout.
        bounds: Of columns, the least and the largest value that probes go to, where there are some.
        scale: Of free columns, how far a step may go.
    """

    kind: Kind = "columns"
    domains: dict[int, Domain] = field(default_factory=dict)
    positive: frozenset[int] = frozenset()
    bounds: dict[int, tuple[float, float]] = field(default_factory=dict)
    scale: float = 1.0

    def enter(self, values: Tensor) -> Tensor:
        """Coordinates in which every value is allowed."""
        if self.kind == "shares":
            return values.clamp(min=1e-30).log()
        if self.kind in ("unit", "log shares"):
            return values.clone()
        columns = _columns(values).clone()
        for column in self.positive:
            columns[..., column] = columns[..., column].log()
        return columns

    def leave(self, inner: Tensor, shape: torch.Size) -> Tensor:
        """Predictions of some coordinates."""
        if self.kind == "unit":
            unit: Tensor = inner / inner.norm(dim=-1, keepdim=True)
            return unit
        if self.kind == "shares":
            return inner.softmax(-1)
        if self.kind == "log shares":
            return inner.log_softmax(-1)
        parts = []
        for column in range(inner.shape[-1]):
            part = inner[..., column]
            domain = self.domains.get(column)
            if column in self.positive:
                part = part.clamp(-30, 30).exp()
            if domain is not None and domain.periodic:
                part = domain.low + (part - domain.low) % (domain.high - domain.low)
            elif (ends := self.ends(column)) is not None:
                part = part.clamp(*ends)
            parts.append(part)
        return torch.stack(parts, -1).reshape(shape)

    def ends(self, column: int) -> tuple[float, float] | None:
        """The ends of the range of a column, None where it has none."""
        domain = self.domains.get(column)
        if domain is not None:
            return None if domain.periodic else (domain.low, domain.high)
        return self.bounds.get(column)

    def back(self, moved: Tensor, values: Tensor) -> Tensor:
        """Predictions near `values`, those that left what is allowed brought back inside."""
        if self.kind == "unit":
            unit: Tensor = moved / moved.norm(dim=-1, keepdim=True)
            return unit
        if self.kind != "columns":
            return values  # what sums to 1 is left as it was found
        parts = []
        for column in range(width_of(moved)):
            part = column_of(moved, column)
            ends = self.ends(column)
            if column in self.positive:
                part = part.clamp(min=1e-6 * float(column_of(values, column).abs().max()))
            elif ends is not None:
                # Mirrored at the ends: clamped, they would come to lie on them. What is inside
                # stays: near 0 an end that is added and taken off leaves rounding alone.
                within = ends[0] + (part - ends[0]).abs()
                within = (ends[1] - (ends[1] - within).abs()).clamp(*ends)
                part = torch.where((part < ends[0]) | (part > ends[1]), within, part)
            parts.append(part)
        return torch.stack(parts, -1).reshape(values.shape)

    @property
    def bounded(self) -> bool:
        """Whether there is a largest loss to look for."""
        return self.kind == "unit"

    def closed(self, width: int) -> bool:
        """Whether all columns have a declared domain."""
        return self.kind == "columns" and len(self.domains) == width


def _columns(values: Tensor) -> Tensor:
    """A tensor with its columns last: one of its own for a vector."""
    return values[..., None] if values.ndim < 2 else values


def width_of(values: Tensor) -> int:
    """Columns of a tensor of predictions."""
    return int(_columns(values).shape[-1])


def column_of(values: Tensor, column: int) -> Tensor:
    """A view of one column."""
    return _columns(values)[..., column]


def spaces_of(pipeline: Pipeline, probe: Probe) -> dict[str, Space]:
    """The space of each tensor of predictions that the loss goes by."""
    found = {path: _space(values) for path, values in probe.values.items()}
    tensors = dict(leaves(probe.predictions))
    for path, space in found.items():
        if space.bounds and not _from_sigmoid(tensors.get(path)):
            _widen(probe, path, space)
    for path, names in declared(pipeline, probe).items():
        if found[path].kind == "columns":
            found[path].domains = {k: pipeline.outputs[name] for k, name in names.items()}
            found[path].positive -= set(names)
            found[path].bounds = {}
    return found


def declared(pipeline: Pipeline, probe: Probe) -> dict[str, dict[int, str]]:
    """Names of declared outputs, by tensor and column, of those that the loss goes by."""
    # A tensor that is the whole prediction has the path "", which is no field of a dict.
    tree = probe.every[""] if set(probe.every) == {""} else dict(probe.every)
    columns, _ = output_columns(tree, pipeline.outputs)
    found: dict[str, dict[int, str]] = {}
    for name, view in columns.items():
        for path in probe.values:
            values = probe.every[path]
            if view.untyped_storage().data_ptr() != values.untyped_storage().data_ptr():
                continue
            for column in range(width_of(values)):
                part = column_of(values, column)
                whole = view.shape == values.shape and width_of(values) == 1
                same = part.storage_offset() == view.storage_offset() and part.shape == view.shape
                if same or whole:
                    found.setdefault(path, {})[column] = name
    return found


def _widen(probe: Probe, path: str, space: Space) -> None:
    """Take columns that lie between 0 and 1 for positive numbers, if the loss takes larger ones.

    A concentration or a width often begins there. What the loss takes for shares, it does not take
    from 1 on: the logarithm of what is left of 1 is NaN.
    """
    values = probe.values[path]
    columns = [k for k in space.bounds if float(column_of(values, k).min()) > 0]
    moved = values.clone()
    for column in columns:
        column_of(moved, column).add_(1.0)
    try:
        loss, slopes = probe.slopes({**probe.values, path: moved})
    except Exception:  # such as torch's own loss of shares, which refuses them
        return
    if abs(loss) < float("inf") and all(bool(slope.isfinite().all()) for slope in slopes.values()):
        space.positive |= set(columns)
        space.bounds = {k: ends for k, ends in space.bounds.items() if k not in columns}


def _from_sigmoid(tensor: Tensor | None) -> bool:
    """Whether a tensor is what a sigmoid gives, or a view of that."""
    step = None if tensor is None else tensor.grad_fn
    while step is not None and step.name() in VIEWS:
        step = step.next_functions[0][0]
    return step is not None and step.name() == "SigmoidBackward0"


def _space(values: Tensor) -> Space:
    last = values.shape[-1] if values.ndim >= 2 else 1
    rows = values.reshape(-1, last)
    if not bool(values.isfinite().all()):
        return Space()
    if last >= 2 and len(rows) >= 2:
        if last <= 4 and float((rows.norm(dim=-1) - 1).abs().max()) < ONE:
            return Space("unit")
        sums = rows.sum(-1)
        if float(rows.min()) >= 0 and float((sums - 1).abs().max()) < ONE:
            return Space("shares")
        logs = rows.logsumexp(-1)
        if float(rows.max()) <= 0 and float(logs.abs().max()) < ONE:
            return Space("log shares")
    enough = range(last) if len(rows) >= ENOUGH else ()
    lowest, highest = rows.amin(0).tolist(), rows.amax(0).tolist()
    within = {k: (0.0, 1.0) for k in enough if lowest[k] >= 0 and highest[k] <= 1}
    positive = frozenset(k for k in enough if lowest[k] > 0 and k not in within)
    spread = float(rows.std()) if rows.numel() > 1 else 0.0
    scale = max(1.0, spread, float(rows.abs().mean()))
    return Space("columns", positive=positive, bounds=within, scale=scale)
