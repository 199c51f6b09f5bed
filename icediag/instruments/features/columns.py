"""Columns: what the values of features are, with padded rows left out."""

# N rows, F columns

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from icediag.instruments.provenance.origins import MOST_COLUMNS, index_tensors
from icediag.instruments.provenance.raw_column import Column
from icediag.instruments.provenance.recognise import recognise
from icediag.instruments.shapes.slots import Slots
from icediag.instruments.trees.walk import tables
from icediag.pipeline import Pipeline
from icediag.records.features import ColumnFacts, FeatureColumn, FeatureTable
from icediag.records.provenance import Origin

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
#: From so many on, two sets of names may differ a little.
MANY_NAMES = 20
#: A column with this much more spread tells the same better, if its ranks are as much alike; of
#: values that differ in their last digits alone a few ranks are lost.
BETTER, SAME_RANKS = 10.0, 0.98
#: Rows from which ranks are taken.
RANKED = 2048
#: A spread from which on a column needs no twin.
WIDE_ENOUGH = 0.2


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


@dataclass(frozen=True)
class Rows:
    """Which rows of a table are looked at.

    Attributes:
        total: How many there are.
        kept: Those that hold something; None for all.
        picks: Those of these that are looked at.
    """

    total: int
    kept: Bools | None
    picks: slice

    def pick(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The same rows of another array."""
        return values[self.picks] if self.kept is None else values[self.kept][self.picks]


@dataclass(frozen=True)
class Named:
    """How a feature's numbers are used as names: in words, where, and which map they went by."""

    how: str
    file: str | None
    line: int | None
    origin: Origin | None


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

    def of_rows(self, rows: Rows) -> dict[str, F64]:
        """Raw columns of these rows."""
        return {
            name: rows.pick(_double(column))
            for name, column in self._columns.items()
            if column.shape[0] == rows.total
        }

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
    for path, tensor in tables(batch):
        if tensor.is_complex() or tensor.dtype == torch.bool:
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
    rows = Rows(n, kept, picks)
    values = rows.pick(values)
    raw = source.of_rows(rows)
    candidates = {name: Column(x) for name, x in raw.items()}
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
    twins = _twins(values, facts)
    for i, of_column in enumerate(facts):
        if of_column is None:
            continue
        column = np.ascontiguousarray(values[:, i])
        origin = recognise(column, eps, candidates, indices) if width <= MOST_COLUMNS else None
        total = sum(power) if power else 0.0
        named = names.of(column, eps, raw, rows) if not met.image else None
        if named is not None:
            origin = named.origin or origin
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
                named=named.how if named else None,
                file=named.file if named else None,
                line=named.line if named else None,
                twin=met.first + twins[i] if i in twins else None,
            )
        )
    return replace(
        table,
        columns=tuple(columns),
        raw_columns=len(raw),
        raw_constant=sum(bool(x.min() == x.max()) for x in raw.values()),
    )


def _twins(values: F64, facts: list[ColumnFacts | None]) -> dict[int, int]:
    """For columns that hardly vary, the one that varies most among those with the same ranks.

    So it is in a set of waves: the longest waves hardly vary over the data, and rise and fall with
    shorter ones. That is how such a set is made, and nothing is lost.
    """
    spreads = {i: of.spread for i, of in enumerate(facts) if of is not None and of.measure}
    narrow = [i for i, spread in spreads.items() if 0 < spread < WIDE_ENOUGH]
    if not narrow:
        return {}
    few = values[:: max(1, len(values) // RANKED)]
    ranks = {i: _ranks(few[:, i]) for i in spreads if np.isfinite(few[:, i]).all()}
    found = {}
    for i in ranks.keys() & set(narrow):
        alike = [
            j
            for j, other in ranks.items()
            if spreads[j] >= BETTER * spreads[i] and abs(ranks[i] @ other) >= SAME_RANKS
        ]
        if alike:
            found[i] = max(alike, key=lambda j: spreads[j])
    return found


def _ranks(x: F64) -> F64:
    """Ranks with mean 0 and length 1, ties sharing theirs; zeros of a constant."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks = (ends - (counts - 1) / 2)[place]
    ranks = ranks - ranks.mean()
    length = float(np.sqrt(np.square(ranks).sum()))
    scaled: F64 = ranks / length if length > 0 else ranks
    return scaled


def _logged(x: F64, facts: ColumnFacts) -> ColumnFacts | None:
    if facts.low < 0 or not facts.measure:
        return None
    floor = x[x > 0].min() if (x > 0).any() else 1.0
    return facts_of(np.log10(x + (floor if facts.low == 0 else 0.0)))


class Names:
    """Whole numbers of the batch that are used as names.

    Args:
        used: What was used as an index into a table or as a class.
        model: Its embeddings count too, where a number is divided by how many rows they have.
    """

    def __init__(self, used: list[Used], model: Any = None) -> None:
        self._sets = [
            (np.unique(values), values, use) for use in used for values in [_whole(use.values)]
        ]
        self._tables: dict[int, str] = {}
        if isinstance(model, nn.Module):
            for path, module in model.named_modules():
                if isinstance(module, nn.Embedding):
                    self._tables.setdefault(module.num_embeddings, path or "model")

    def holds(self, values: Tensor) -> bool:
        """Whether a set of values is that of names."""
        wanted = np.unique(_double(values))
        if wanted.size < FEW_NAMES or not (wanted == np.trunc(wanted)).all():
            return False
        return any(_alike(wanted, own) for own, _, _ in self._sets)

    def of(self, y: F64, eps: float, raw: Mapping[str, F64], rows: Rows) -> Named | None:
        """How, and where, the whole numbers behind a feature are used as names.

        Args:
            y: `(N,)` the feature.
            eps: Relative spacing of its dtype.
            raw: Raw columns in the same rows.
            rows: Picks the same rows out of a flat array with all of them.
        """
        if np.unique(y).size < FEW_NAMES:
            return None
        whole = {
            name: x
            for name, x in raw.items()
            if (x == np.trunc(x)).all() and np.unique(x).size >= FEW_NAMES
        }
        origin = recognise(y, eps, whole, {}) if whole else None
        if origin is not None and origin.map not in ("identity", "cast", "affine"):
            return None
        if origin is None and not (y == np.trunc(y)).all():
            return None
        x = y if origin is None else whole[origin.column]
        values = np.unique(x)
        for own, all_rows, use in self._sets:
            alike = _alike(values, own)
            if not alike and all_rows.size == rows.total:
                alike = bool((rows.pick(all_rows) == x).all())
            if alike:
                return Named(use.how, use.at.file, use.at.line, origin)
        if origin is not None and origin.map == "affine" and not origin.offset:
            size = round(1 / origin.slope)
            fits = abs(size * origin.slope - 1) < 1e-6 and values[0] >= 0 and values[-1] < size
            if fits and size in self._tables:
                how = f"divided by {size:,}, the number of rows of {self._tables[size]}"
                return Named(how, None, None, origin)
        return None


def _whole(values: Tensor) -> I64:
    found: I64 = values.detach().cpu().to(torch.int64).reshape(-1).numpy()
    return found


def _alike(values: npt.NDArray[Any], own: I64) -> bool:
    """Whether two sets are the same, and not a mere count from 0 or 1, as positions are.

    Of many, a tenth may differ: targets are the tokens but for the first of each line.
    """
    if min(values.size, own.size) < FEW_NAMES:
        return False
    span = max(values[-1], own[-1]) - min(values[0], own[0]) + 1
    both = np.intersect1d(values, own).size
    if values.size == own.size == both:
        return not (span == own.size and own[0] <= 1)
    union = values.size + own.size - both
    return union >= MANY_NAMES and both >= 0.9 * union and union < 0.9 * span
