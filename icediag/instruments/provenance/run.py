"""Provenance: which raw column reached which stage, and by what map.

Rides on the recorder's own pass; where a logarithm was found, a few samples are sent once more.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icediag.instruments.contracts.terms import terms_of
from icediag.instruments.recorder.flow import Flow, SeenStage
from icediag.instruments.recorder.record import follow, record
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.shapes.naming import small_size
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged
from icediag.records.provenance import Origin, OriginRecord, ProvenanceRecord, RawContract

from .origins import Origins, as_float64, raw_columns
from .recognise import round_off


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
        if tensor.layout != torch.strided or tensor.is_nested or not tensor.numel():
            return
        for column in (None, *range(tensor.shape[1] if tensor.ndim == 2 else 0)):
            key = (stage.name, role, path, column)
            fits = tensor.ndim == (1 if column is None else 2)
            if key in self._wanted and key not in self.values and fits:
                at = tensor[self._row] if column is None else tensor[self._row, column]
                self.values[key] = float(at.detach())


def record_with_origins(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> Recording:
    """Record one batch, and recognise on the way what reaches every stage.

    Arguments and errors as for `record`.
    """
    found = Origins(partial(raw_columns, pipeline))
    recording = record(pipeline, batch_size=batch_size, device=device, seed=seed, lookers=(found,))
    if recording.loss is None:
        return recording
    try:
        if found.failure is not None:
            raise found.failure
        seen = _finished(pipeline, found, batch_size=recording.batch_size, device=device, seed=seed)
    except Exception as error:  # of the user's code, or ours: the recording stands
        reason = f"recognising raw columns failed: {reason_of(error, pipeline)}"
        missing = Unjudged(name="provenance", reason=reason)
        return replace(recording, not_judged=(*recording.not_judged, missing))
    return replace(recording, provenance=seen)


def record_origins(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> ProvenanceRecord:
    """Recognise what reaches every stage, in one forward pass of its own.

    Args:
        pipeline: What to look at.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    found = Origins(partial(raw_columns, pipeline))
    size = pipeline.batch_size if batch_size is None else batch_size
    follow(pipeline, Flow(None, (found,)), batch_size=size, device=device, seed=seed)
    if found.failure is not None:
        raise found.failure
    return _finished(pipeline, found, batch_size=size, device=device, seed=seed)


def _finished(
    pipeline: Pipeline, found: Origins, *, batch_size: int, device: str, seed: int
) -> ProvenanceRecord:
    """Put in what a logarithm keeps away from 0, the contracts, and the sums of weights.

    Where a logarithm was found, a few samples are sent once more with one value of its raw column
    set to 0: what arrives then tells what the argument of the logarithm is kept away from 0 by.
    """
    origins = list(found.origins)
    logarithms = {
        (seen.stage, seen.role, seen.path, seen.column): seen.origin
        for seen in origins
        if seen.origin is not None and seen.origin.map == "logarithm" and seen.origin.rows is None
    }
    for name in {origin.column for origin in logarithms.values()}:
        wanted = {key for key, origin in logarithms.items() if origin.column == name}
        watch = _Watch(wanted, row=0)
        probed = replace(pipeline, collate=partial(_with_zero, pipeline, name))
        follow(probed, watch, batch_size=small_size(batch_size), device=device, seed=seed)
        for i, seen in enumerate(origins):
            value = watch.values.get((seen.stage, seen.role, seen.path, seen.column))
            if value is not None and seen.origin is not None and seen.origin.column == name:
                origins[i] = replace(seen, origin=_with_floor(seen.origin, value))
    contracts = tuple(_contracts(pipeline, found, origins))
    pooled = {(contract.owner, contract.argument) for contract in contracts if contract.pools}
    return ProvenanceRecord(
        origins=tuple(
            _with_sums(seen, found.arguments.get(seen.owner, {}))
            if seen.role == "in" and (seen.owner, seen.path) in pooled
            else seen
            for seen in origins
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
    pipeline: Pipeline, found: Origins, origins: list[OriginRecord]
) -> Iterator[RawContract]:
    """What signatures and the pipeline declare to be raw, and whether that was seen."""
    declared = dict(found.declared)
    for owner, arguments in pipeline.contracts.items():
        for argument, contract in arguments.items():
            for terms in terms_of(contract):
                if terms.raw is not None:
                    declared[owner, argument] = terms.raw
    for (owner, argument), raw in declared.items():
        taken, given = found.rows.get(owner, (0, 0))
        yield RawContract(
            owner=owner,
            argument=argument,
            column=raw.column,
            unit=raw.unit,
            pools=0 < given < taken,
            reached=any((o.owner, o.role, o.path) == (owner, "in", argument) for o in origins),
        )
