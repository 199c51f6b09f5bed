"""Columns: what the values of features are, with padded rows left out."""

# N rows, F columns

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from icediag.features_record import ColumnFacts, FeatureColumn, FeatureTable
from icediag.instruments.provenance import MOST_COLUMNS, index_tensors
from icediag.instruments.recognise import recognise
from icediag.instruments.trees import leaves
from icediag.pipeline import Pipeline

from .slots import Slots
from .trace import Met, Used

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Tables of more columns are embeddings or pixels: looked at as a whole.
MOST_FEATURES = 64
#: Rows beyond this are thinned out evenly.
MOST_ROWS = 1 << 15
#: Fewer rows are too few to call a set of values that of names.
FEW_NAMES = 8


def facts_of(x: F64) -> ColumnFacts | None:
    """Facts of finite values; None where there are none."""
    x = x[np.isfinite(x)]
    if not x.size:
        return None
    low, first, middle, third, high = np.quantile(x, [0, 0.25, 0.5, 0.75, 1])
    values, counts = np.unique(x, return_counts=True)
    squares = np.sort(np.square(x - middle))
    total = float(squares.sum())
    top = float(squares[-max(1, x.size // 100) :].sum())
    return ColumnFacts(
        rows=x.size,
        median=float(middle),
        mean=float(x.mean()),
        std=float(x.std()),
        robust=float(third - first) / 1.349,
        low=float(low),
        high=float(high),
        commonest=float(counts.max()) / x.size,
        distinct=values.size,
        whole=bool((x == np.trunc(x)).all()),
        top_share=top / total if total > 0 else 0.0,
    )


def _rows(tensor: Tensor, axis: int) -> Tensor:
    """`(N, F)` with the columns last."""
    if tensor.ndim == 1:
        return tensor.detach()[:, None]
    if axis == 0:
        return tensor.detach().reshape(tensor.shape[0], -1).T
    return tensor.detach().movedim(axis, -1).reshape(-1, tensor.shape[axis])


def _double(tensor: Tensor) -> F64:
    values: F64 = tensor.detach().cpu().double().numpy()
    return values


class Source:
    """Raw columns of a batch, to hold features against.

    Args:
        pipeline: What is looked at.
        batch: What collate gave.
        slots: Which slots of it hold padding.
    """

    def __init__(self, pipeline: Pipeline, batch: Any, slots: Slots) -> None:
        self._slots = slots
        self._columns = dict(_raw(pipeline, batch))
        self._indices = index_tensors(batch)

    def of_rows(self, n: int, kept: Bools | None, picks: slice) -> dict[str, F64]:
        """Raw columns of n rows, less padded ones, thinned."""
        found = {}
        for name, column in self._columns.items():
            if column.shape[0] == n:
                values = _double(column)
                found[name] = values[kept][picks] if kept is not None else values[picks]
        return found

    def indices(self, n: int, whole: bool) -> dict[str, I64]:
        """Index tensors that tell groups of rows apart; none of thinned rows."""
        return {k: v for k, v in self._indices.items() if v.size == n} if whole else {}

    def kept(self, shape: tuple[int, ...]) -> Bools | None:
        """Which rows of a table of this shape hold something; None: all."""
        return self._slots.kept(shape)


def _raw(pipeline: Pipeline, batch: Any) -> Iterator[tuple[str, Tensor]]:
    """Columns of the batch as flat tensors: those the pipeline names first."""
    seen: set[tuple[int, int, int]] = set()
    for name, give in pipeline.raw.items():
        try:
            column = give(batch)
        except Exception:  # noqa: S112 - of no use here
            continue
        if getattr(column, "ndim", None) == 1:
            seen.add(_place(column))
            yield name, column
    for path, tensor in leaves(batch):
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.dtype == torch.bool:
            continue
        path = path or "batch"
        if tensor.ndim == 1:
            if _place(tensor) not in seen:
                yield path, tensor
            continue
        if tensor.ndim == 0:
            continue
        if not tensor.is_floating_point() and tensor.ndim == 2:
            yield path, tensor.reshape(-1)
        axes = {tensor.ndim - 1, 1} if tensor.ndim > 2 else {1}
        for axis in sorted(axes, reverse=True):
            if tensor.shape[axis] > MOST_COLUMNS:
                continue
            mark = "" if axis == tensor.ndim - 1 else ":, "
            for i in range(tensor.shape[axis]):
                column = tensor.select(axis, i)
                if column.ndim > 1 or _place(column) not in seen:
                    yield f"{path}[{mark}{i}]", column.reshape(-1)


def _place(column: Tensor) -> tuple[int, int, int]:
    return column.data_ptr(), column.numel(), column.stride(0) if column.ndim else 0


def table_of(met: Met, source: Source, names: "Names", n_samples: int) -> FeatureTable:
    """Everything about one table of features."""
    x_NF = _rows(met.x, met.axis)
    n, width = x_NF.shape
    shape = tuple(met.x.shape) if met.axis == -1 else (n,)
    kept = source.kept(shape)
    left = int(kept.sum()) if kept is not None else n
    picks = slice(None, None, max(1, left // MOST_ROWS))
    table = FeatureTable(
        stage=met.at.stage,
        consumer=met.consumer,
        width=width,
        rows=left,
        padded=n - left,
        samples=n_samples,
        size=float(met.x.detach().double().square().mean().sqrt()),
        image=met.image,
        joined=met.joined,
        dtype=str(met.x.dtype).removeprefix("torch."),
        file=met.at.file,
        line=met.at.line,
    )
    if width > MOST_FEATURES or left == 0:
        return table
    values = _double(x_NF)
    values = values[kept][picks] if kept is not None else values[picks]
    raw = source.of_rows(n, kept, picks)
    indices = source.indices(n, kept is None and picks.step == 1)
    eps = torch.finfo(met.x.dtype).eps
    facts = [facts_of(values[:, i]) for i in range(width)]
    power = None
    if met.weights is not None and met.weights.numel() == width:
        power = [
            float(w) * (f.std**2 if f else 0.0)
            for w, f in zip(met.weights.tolist(), facts, strict=True)
        ]
    columns = []
    for i, of_column in enumerate(facts):
        if of_column is None:
            continue
        column = np.ascontiguousarray(values[:, i])
        origin = recognise(column, eps, raw, indices) if width <= MOST_COLUMNS else None
        total = sum(power) if power else 0.0
        named = names.of(column, of_column, origin, raw)
        columns.append(
            FeatureColumn(
                index=met.first + i,
                facts=of_column,
                origin=origin,
                source=facts_of(raw[origin.column])
                if origin is not None and origin.rows is None
                else None,
                logged=_logged(column, of_column),
                weighs=power[i] / total if power and total > 0 else None,
                named=named[0] if named else None,
                file=named[1] if named else None,
                line=named[2] if named else None,
            )
        )
    return replace(
        table,
        columns=tuple(columns),
        raw_columns=len(raw),
        raw_constant=sum(bool(x.min() == x.max()) for x in raw.values()),
    )


def _logged(x: F64, facts: ColumnFacts) -> ColumnFacts | None:
    if facts.low < 0 or not facts.measure:
        return None
    floor = x[x > 0].min() if (x > 0).any() else 1.0
    return facts_of(np.log10(x + (floor if facts.low == 0 else 0.0)))


class Names:
    """Whole numbers of the batch that are used as names.

    Args:
        used: What was used as an index into a table or as a class.
    """

    def __init__(self, used: list[Used]) -> None:
        self._used = [(_whole(use.values), use) for use in used]
        self._sets = [(np.unique(values), values, use) for values, use in self._used]

    def holds(self, values: Tensor) -> bool:
        """Whether a set of values is that of names."""
        wanted = np.unique(_double(values))
        if wanted.size < FEW_NAMES or not (wanted == np.trunc(wanted)).all():
            return False
        return any(_alike(wanted, own) for own, _, _ in self._sets)

    def of(
        self, y: F64, facts: ColumnFacts, origin: Any, raw: Mapping[str, F64]
    ) -> tuple[str, str | None, int | None] | None:
        """How, and where, the whole numbers behind a feature are used as names."""
        if facts.distinct < FEW_NAMES:
            return None
        x = y
        if origin is not None:
            if origin.map not in ("identity", "cast", "affine") or origin.rows is not None:
                return None
            x = raw[origin.column]
        if not (x == np.trunc(x)).all():
            return None
        values = np.unique(x)
        for own, rows, use in self._sets:
            if _alike(values, own) or (rows.size == x.size and (rows == x).all()):
                return use.how, use.at.file, use.at.line
        return None


def _whole(values: Tensor) -> I64:
    found: I64 = values.detach().cpu().to(torch.int64).reshape(-1).numpy()
    return found


def _alike(values: npt.NDArray[Any], own: I64) -> bool:
    """Whether two sets are the same, and not a mere count from 0 or 1, as positions are."""
    if values.size != own.size or values.size < FEW_NAMES or not (values == own).all():
        return False
    gapless = int(own[-1] - own[0]) == own.size - 1
    return not (gapless and own[0] <= 1)
