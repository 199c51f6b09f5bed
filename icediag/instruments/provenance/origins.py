"""Origins: holds every tensor that a flow meets against the raw columns of the batch.

Rides on any flow. A tensor that has as many rows as a raw column, or as an index tensor of the
batch, is looked at; what is not recognised to rounding is unknown.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icediag.instruments.contracts.terms import terms_of
from icediag.instruments.recorder.flow import Flow, SeenStage
from icediag.instruments.recorder.looked import Looked
from icediag.instruments.trees.walk import tables
from icediag.pipeline import Pipeline, Raw
from icediag.recording import Role
from icediag.records.provenance import Origin, OriginRecord

from .raw_column import F64, I64, Column
from .recognise import recognise

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
    for path, tensor in tables(batch):
        if not tensor.is_floating_point():
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
    for path, tensor in tables(batch):
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


class Origins:
    """Recognises what a flow meets, at the first call of each stage.

    What fails in here is kept in `failure`, and nothing more is looked at: the flow goes on.

    Args:
        columns: batch -> raw columns.
    """

    def __init__(self, columns: Callable[[Any], dict[str, Tensor]]) -> None:
        #: Arguments of one axis, by owner and path: weights, and what groups them.
        self.arguments: dict[str, dict[str, Tensor]] = {}
        self.origins: list[OriginRecord] = []
        #: Rows that a stage's first axis has, by owner: (most taken, most given).
        self.rows: dict[str, tuple[int, int]] = {}
        #: What signatures declare to be raw: (owner, argument) -> contract.
        self.declared: dict[tuple[str, str], Raw] = {}
        self.failure: Exception | None = None
        self._columns = columns
        self._raw: dict[str, Column] | None = None
        self._indices: dict[str, I64] = {}
        self._lengths: set[int] = set()
        self._recognised: Looked[list[tuple[int | None, Origin | None, float, float]]] = Looked()

    def met(
        self, flow: Flow, stage: SeenStage, role: Role, path: str, tensor: Tensor, annotation: Any
    ) -> None:
        """Recognise one tensor."""
        if self.failure is not None or stage.kind in SOURCES or role == "grad" or stage.calls > 1:
            return
        if flow.batch is None:
            return
        try:
            self._meet(flow.batch, stage, role, path, tensor, annotation)
        except Exception as error:  # of a tensor that only its author knows
            self.failure = error

    def _meet(
        self, batch: Any, stage: SeenStage, role: Role, path: str, tensor: Tensor, annotation: Any
    ) -> None:
        owner = stage.owner
        raw = next((terms.raw for terms in terms_of(annotation) if terms.raw is not None), None)
        if raw is not None and role == "in":
            self.declared[owner, path] = raw
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_complex():
            return
        if tensor.ndim:
            taken, given = self.rows.get(owner, (0, 0))
            n = tensor.shape[0]
            self.rows[owner] = (max(taken, n), given) if role == "in" else (taken, max(given, n))
        if self._raw is None:
            found = self._columns(batch)
            self._raw = {name: Column(as_float64(column)) for name, column in found.items()}
            self._indices = index_tensors(batch)
            self._lengths = {c.values.size for c in self._raw.values()}
            self._lengths |= {index.size for index in self._indices.values()}
        if tensor.dtype == torch.bool:
            return
        if role == "in" and tensor.ndim == 1:
            self.arguments.setdefault(owner, {})[path] = tensor.detach()
        known = self._recognised.get(tensor)
        if known is None:
            known = list(self._columns_of(tensor))
            self._recognised.put(tensor, known)
        place = stage.location
        self.origins.extend(
            OriginRecord(
                stage=stage.name,
                owner=owner,
                role=role,
                path=path,
                column=column,
                origin=origin,
                negative=negative,
                spread=spread,
                file=place.file if place else None,
                line=place.line if place else None,
            )
            for column, origin, negative, spread in known
        )

    def _columns_of(
        self, tensor: Tensor
    ) -> Iterator[tuple[int | None, Origin | None, float, float]]:
        """(column, origin, share of negative values, spread) of each column."""
        assert self._raw is not None
        if tensor.ndim not in (1, 2) or tensor.shape[0] not in self._lengths or not tensor.numel():
            return
        if tensor.ndim == 2 and tensor.shape[1] > MOST_COLUMNS:
            return
        eps = torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0
        table = as_float64(tensor)
        columns = [(None, table)] if tensor.ndim == 1 else list(enumerate(table.T))
        for i, column in columns:
            values = np.ascontiguousarray(column)
            origin = recognise(values, eps, self._raw, self._indices)
            yield i, origin, float((values < 0).mean()), float(values.std())
