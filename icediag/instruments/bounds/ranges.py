"""Ranges: what values a batch's columns may have, and batches with rows moved to their ends."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.recorder.flow import FEW_COLUMNS
from icediag.records.bounds import InputRange

from .search import floating_leaves
from .watch import Limit


@dataclass(frozen=True)
class Column:
    """A column of the batch, or a whole tensor of it.

    Attributes:
        path: Its name.
        values: A view of the batch.
        low: Smallest value that it may have.
        high: Largest value.
        declared: Whether a contract states one of them.
    """

    path: str
    values: Tensor
    low: float
    high: float
    declared: bool


def columns_of(batch: Any, limits: list[Limit], targets: list[Tensor]) -> list[Column]:
    """Columns of the floating-point tensors of a batch, with their ranges.

    Args:
        batch: The batch.
        limits: Ranges that signatures state of arguments, which may be columns of the batch.
        targets: Tensors that hold true values: they are left alone.
    """
    columns = []
    kept = {target.untyped_storage()._cdata for target in targets}  # noqa: SLF001 - its identity
    for path, leaf in floating_leaves(batch).items():
        if leaf.untyped_storage()._cdata in kept:  # noqa: SLF001 - its identity
            continue
        table = leaf.ndim > 1 and 1 < leaf.shape[-1] <= FEW_COLUMNS
        parts = (
            [(f"{path}[..., {i}]", leaf[..., i]) for i in range(leaf.shape[-1])]
            if table
            else [(path or "batch", leaf)]
        )
        for name, values in parts:
            finite = values.detach()[values.detach().isfinite()]
            if not finite.numel():
                continue
            low, high = float(finite.min()), float(finite.max())
            stated = [limit for limit in limits if _same(limit.tensor, values)]
            lows = [limit.low for limit in stated if limit.low is not None]
            highs = [limit.high for limit in stated if limit.high is not None]
            columns.append(
                Column(name, values, min([low, *lows]), max([high, *highs]), bool(lows or highs))
            )
    return columns


def within(columns: list[Column], known: list[Column]) -> list[Column]:
    """Columns of a batch with the ranges that the same columns of another were found to have."""
    ranges = {column.path: column for column in known}
    return [
        replace(column, low=of.low, high=of.high, declared=of.declared)
        if (of := ranges.get(column.path)) is not None
        else column
        for column in columns
    ]


def _same(a: Tensor, b: Tensor) -> bool:
    return (
        a.untyped_storage()._cdata == b.untyped_storage()._cdata  # noqa: SLF001 - its identity
        and a.storage_offset() == b.storage_offset()
        and a.shape == b.shape
        and a.stride() == b.stride()
    )


def records(columns: list[Column]) -> tuple[InputRange, ...]:
    """The ranges, as they go into the record."""
    return tuple(
        InputRange(
            path=column.path,
            low=column.low,
            high=column.high,
            source="declared" if column.declared else "observed",
        )
        for column in columns
    )


def move_rows(columns: list[Column], seed: int) -> None:
    """Move some rows of each column to an end of its range, or to 0 where that lies inside.

    A quarter of the rows to the lower end, one to the upper end, one to 0; one stays, so that a
    batch in which all is alike, which no data set gives, is not made.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for column in columns:
            rows = column.values.shape[0] if column.values.ndim else 0
            if not rows:
                continue
            choice = torch.randint(0, 4, (rows,), generator=generator).to(column.values.device)
            zero = column.low if column.low > 0 else min(column.high, 0.0)
            for number, value in enumerate((column.low, column.high, zero)):
                column.values[choice == number] = value
