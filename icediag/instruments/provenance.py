"""Provenance: which raw column reached which stage, and by what map.

One forward pass; every input and output that has as many rows as a raw column, or as an index
tensor of the batch, is held against the raw columns. What is not recognised to rounding is unknown.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from icediag.pipeline import Pipeline, Raw
from icediag.provenance_record import Origin, OriginRecord, ProvenanceRecord, RawContract

from .flow import Flow, SeenStage
from .recognise import F64, I64, recognise, round_off
from .record import follow
from .signatures import owner_of
from .terms import terms_of
from .trees import leaves

#: Tables of more columns are hidden layers, not features.
MOST_COLUMNS = 16
#: Stages that hand on the raw data themselves: there is nothing to find out about these.
SOURCES = ("item", "collate")


def raw_columns(pipeline: Pipeline, batch: Any) -> dict[str, Tensor]:
    """Raw columns of a batch: those the pipeline declares, else its own floating columns.

    Columns that a declared function fails to give are left out.
    """
    found: dict[str, Tensor] = {}
    for name, column in pipeline.raw.items():
        try:
            values = column(batch)
        except Exception:  # noqa: S112 - of no use here
            continue
        if getattr(values, "ndim", None) == 1:
            found[name] = values
    if found:
        return found
    for path, tensor in leaves(batch):
        if not tensor.is_floating_point() or tensor.layout != torch.strided:
            continue
        path = path or "batch"
        if tensor.ndim == 1:
            found[path] = tensor
        elif tensor.ndim == 2 and tensor.shape[1] <= MOST_COLUMNS:
            found |= {f"{path}[{i}]": column for i, column in enumerate(tensor.unbind(1))}
    return found


def index_tensors(batch: Any) -> dict[str, I64]:
    """Tensors of the batch that may say where rows come from or belong to."""
    whole = (torch.int16, torch.int32, torch.int64)
    found: dict[str, I64] = {}
    for path, tensor in leaves(batch):
        if tensor.ndim == 1 and tensor.dtype in whole and tensor.numel():
            values: I64 = tensor.detach().cpu().to(torch.int64).numpy()
            # Numbers far above the number of rows are names, not positions.
            if values.min() >= 0 and values.max() <= 4 * values.size:
                found[path] = values
    return found


def as_float64(tensor: Tensor) -> F64:
    """Values of a tensor, exactly, on the host."""
    values: F64 = tensor.detach().cpu().double().numpy()
    return values


class OriginFlow(Flow):
    """A flow that recognises what it meets instead of measuring it.

    Args:
        columns: batch -> raw columns.
    """

    def __init__(self, columns: Callable[[Any], dict[str, Tensor]]) -> None:
        super().__init__(None)
        #: Arguments of one axis, by owner and path: weights, and what groups them.
        self.arguments: dict[str, dict[str, Tensor]] = {}
        self.origins: list[OriginRecord] = []
        #: Rows that a stage's first axis has, by owner: (most taken, most given).
        self.rows: dict[str, tuple[int, int]] = {}
        #: What signatures declare to be raw: (owner, argument) -> contract.
        self.declared: dict[tuple[str, str], Raw] = {}
        self._columns = columns
        self._owners: dict[int, str] = {}
        self._raw: dict[str, F64] | None = None
        self._indices: dict[str, I64] = {}
        self._recognised: Any = WeakTensorKeyDictionary()

    def begin(self, name: str, kind: Any, owner: Any = None) -> SeenStage:
        """Enter a stage, and remember whose it is."""
        stage = super().begin(name, kind, owner)
        self._owners.setdefault(id(stage), owner_of(owner, name))
        return stage

    def note_tensor(
        self, stage: SeenStage, role: Any, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Recognise one tensor, at the first call of its stage."""
        super().note_tensor(stage, role, path, tensor, annotation)
        if stage.kind in SOURCES or role == "grad" or stage.calls > 1 or self.batch is None:
            return
        owner = self._owners[id(stage)]
        raw = next((terms.raw for terms in terms_of(annotation) if terms.raw is not None), None)
        if raw is not None and role == "in":
            self.declared[owner, path] = raw
        if tensor.ndim:
            taken, given = self.rows.get(owner, (0, 0))
            n = tensor.shape[0]
            self.rows[owner] = (max(taken, n), given) if role == "in" else (taken, max(given, n))
        if self._raw is None:
            self._raw = {
                name: as_float64(column) for name, column in self._columns(self.batch).items()
            }
            self._indices = index_tensors(self.batch)
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.dtype == torch.bool:
            return
        if role == "in" and tensor.ndim == 1 and tensor.layout == torch.strided:
            self.arguments.setdefault(owner, {})[path] = tensor.detach()
        found = self._recognised.get(tensor)
        if found is None:
            found = self._recognised[tensor] = list(self._columns_of(tensor))
        place = stage.location
        self.origins.extend(
            OriginRecord(
                stage=stage.name,
                owner=owner,
                role=role,
                path=path,
                column=column,
                origin=origin,
                negative=float((values < 0).mean()),
                spread=float(values.std()),
                file=place.file if place else None,
                line=place.line if place else None,
            )
            for column, origin, values in found
        )

    def _columns_of(self, tensor: Tensor) -> Iterator[tuple[int | None, Origin | None, F64]]:
        assert self._raw is not None
        lengths = {x.size for x in (*self._raw.values(), *self._indices.values())}
        if tensor.ndim not in (1, 2) or tensor.shape[0] not in lengths or not tensor.numel():
            return
        eps = torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0
        table = as_float64(tensor)
        if tensor.ndim == 1:
            yield None, recognise(table, eps, self._raw, self._indices), table
        elif tensor.shape[1] <= MOST_COLUMNS:
            for i in range(table.shape[1]):
                column = np.ascontiguousarray(table[:, i])
                yield i, recognise(column, eps, self._raw, self._indices), column


class _Watch(Flow):
    """A flow that keeps single values: what a raw column set to 0 becomes."""

    def __init__(self, wanted: set[tuple[str, str, str, int | None]], row: int) -> None:
        super().__init__(None)
        self.values: dict[tuple[str, str, str, int | None], float] = {}
        self._wanted, self._row = wanted, row

    def note_tensor(
        self, stage: SeenStage, role: Any, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Keep the value of the row, where it is one of those that are wanted."""
        super().note_tensor(stage, role, path, tensor, annotation)
        for column in (None, *range(tensor.shape[1] if tensor.ndim == 2 else 0)):
            key = (stage.name, role, path, column)
            fits = tensor.ndim == (1 if column is None else 2)
            if key in self._wanted and key not in self.values and fits:
                at = tensor[self._row] if column is None else tensor[self._row, column]
                self.values[key] = float(at.detach())


def record_origins(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> ProvenanceRecord:
    """Recognise what reaches every stage.

    Where a logarithm was found, the batch is sent once more with one value of its raw column set to
    0: what arrives then tells what the argument of the logarithm is kept away from 0 by.

    Args:
        pipeline: What to look at.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    flow = OriginFlow(partial(raw_columns, pipeline))
    follow(pipeline, flow, batch_size=batch_size, device=device, seed=seed)
    origins = list(flow.origins)
    logarithms = {
        (record.stage, record.role, record.path, record.column): record.origin
        for record in origins
        if record.origin is not None
        and record.origin.map == "logarithm"
        and record.origin.rows is None
    }
    for name in {origin.column for origin in logarithms.values()}:
        wanted = {key for key, origin in logarithms.items() if origin.column == name}
        watch = _Watch(wanted, row=0)
        probed = replace(pipeline, collate=partial(_with_zero, pipeline, name))
        follow(probed, watch, batch_size=batch_size, device=device, seed=seed)
        for i, record in enumerate(origins):
            value = watch.values.get((record.stage, record.role, record.path, record.column))
            if value is not None and record.origin is not None and record.origin.column == name:
                origins[i] = replace(record, origin=_with_floor(record.origin, value))
    contracts = tuple(_contracts(pipeline, flow, origins))
    pooled = {(contract.owner, contract.argument) for contract in contracts if contract.pools}
    return ProvenanceRecord(
        origins=tuple(
            _with_sums(record, flow.arguments.get(record.owner, {}))
            if record.role == "in" and (record.owner, record.path) in pooled
            else record
            for record in origins
        ),
        contracts=contracts,
    )


def _with_sums(record: OriginRecord, arguments: dict[str, Tensor]) -> OriginRecord:
    """How the weights of a pooling add up, group by group."""
    weights = arguments.get(record.path)
    if weights is None or not weights.numel():
        return record
    values = as_float64(weights)
    for path, index in arguments.items():
        whole = index.dtype in (torch.int64, torch.int32)
        if not whole or index.shape != weights.shape or int(index.min()) < 0:
            continue
        group = index.cpu().to(torch.int64).numpy()
        many = np.bincount(group) > 1
        if not many.any():
            continue
        sums = np.abs(np.bincount(group, values))[many]
        sizes = np.bincount(group, np.abs(values))[many]
        shares = sums[sizes > 0] / sizes[sizes > 0]
        return replace(
            record,
            groups=path,
            smallest_sum=float(sums.min()),
            cancelled=float(shares.min()) if shares.size else None,
        )
    return record


def _with_zero(pipeline: Pipeline, column: str, samples: list[Any]) -> Any:
    """The batch with the first value of a raw column set to 0, where that can be written to."""
    batch = pipeline.collate(samples)
    with torch.no_grad():
        values = raw_columns(pipeline, batch).get(column)
        if values is not None and values.numel():
            values[0] = 0
    return batch


def _with_floor(origin: Origin, at_zero: float) -> Origin:
    """What a logarithm of 0 gave, put into the map: a floor that is added, or one to clamp at."""
    if not np.isfinite(at_zero):
        return origin
    floor = round_off(float(10 ** ((at_zero - origin.offset) / origin.slope)))
    # One that were added would have shown in the fit, unless it is tiny beside every value.
    if origin.floor or not 0 < floor < 1:
        return origin
    return replace(origin, clamp=floor) if floor > 1e-6 else replace(origin, floor=floor)


def _contracts(
    pipeline: Pipeline, flow: OriginFlow, origins: list[OriginRecord]
) -> Iterator[RawContract]:
    """What signatures and the pipeline declare to be raw, and whether that was seen."""
    declared = dict(flow.declared)
    for owner, arguments in pipeline.contracts.items():
        for argument, contract in arguments.items():
            for terms in terms_of(contract):
                if terms.raw is not None:
                    declared[owner, argument] = terms.raw
    for (owner, argument), raw in declared.items():
        taken, given = flow.rows.get(owner, (0, 0))
        yield RawContract(
            owner=owner,
            argument=argument,
            column=raw.column,
            unit=raw.unit,
            pools=0 < given < taken,
            reached=any((o.owner, o.role, o.path) == (owner, "in", argument) for o in origins),
        )
