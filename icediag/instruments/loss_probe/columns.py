"""Columns: which columns of the targets the loss goes by, one at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

from icediag.instruments.trees.outputs import TARGETS
from icediag.records.loss import IdleColumn, Targets

from .probe import Probe, Values, with_targets
from .spaces import Space, column_of, width_of
from .targets import plain, same

#: Tables of more columns are images or one-hot labels, in which a column is nothing by itself.
MOST_COLUMNS = 16
#: Sets of predictions at which a column must leave value and slopes alone, bit for bit.
SETS = 3


def idle_columns(
    probe: Probe, targets: Targets, spaces: dict[str, Space], outputs: list[str]
) -> tuple[IdleColumn, ...]:
    """Columns whose values change neither the loss nor its slopes, wherever predictions are.

    Of tables that the loss reads and the model does not, and of tensors that are called as a
    declared output. A column of one value, or of numbers that are all whole and all different (a
    number of the sample, not a truth), says nothing and is passed over.

    Args:
        probe: The loss.
        targets: What of the batch it goes by.
        spaces: What predictions may be.
        outputs: Names that the pipeline declares, in order.
    """
    tensors = plain(probe.batch)
    sets = list(_predictions(probe, spaces))
    before = [probe.slopes(values) for values in sets]
    found = []
    for path, tensor in tensors.items():
        last = path.rpartition(".")[2]
        if last in outputs:
            held = path in targets.unread or path in targets.read
            if held and path not in targets.moving and _speaks(tensor.reshape(-1)):
                found.append(IdleColumn(path=path, column=None, width=1, output=last))
            continue
        if path not in targets.read or path not in targets.moving or tensor.ndim != 2:
            continue
        width = tensor.shape[1]
        if not 2 <= width <= MOST_COLUMNS or tensor.dtype == torch.bool:
            continue
        declared = len(outputs) == width and (last in TARGETS or len(targets.read) == 1)
        for column in range(width):
            if not _speaks(tensor[:, column]):
                continue
            if any(
                _moves(probe, values, one, path, changed)
                for changed in _others(tensor, column)
                for values, one in zip(sets, before, strict=True)
            ):
                continue
            found.append(
                IdleColumn(
                    path=path,
                    column=column,
                    width=width,
                    output=outputs[column] if declared else None,
                    beside=_beside(probe, before, tensor, column),
                )
            )
    # Where no column moves anything the loss goes by the tensor otherwise: by its sum, or its rank.
    whole = {
        path for path in tensors if sum(f.path == path for f in found) == _width(tensors[path])
    }
    return tuple(f for f in found if f.column is None or f.path not in whole)


def _width(tensor: Tensor) -> int:
    return tensor.shape[1] if tensor.ndim == 2 else 1


def _speaks(column: Tensor) -> bool:
    """Whether values differ, and are not simply numbers of rows."""
    if column.numel() < 4 or bool((column == column[0]).all()):
        return False
    values = column.double()
    if not bool(values.isfinite().all()):
        return False
    whole = bool((values == values.round()).all())
    return not (whole and len(values.unique()) == len(values))  # type: ignore[no-untyped-call]


def _predictions(probe: Probe, spaces: dict[str, Space]) -> Iterator[Values]:
    """Those of the model, and others around them, near and far."""
    yield probe.values
    for draw in range(1, SETS):
        generator = torch.Generator().manual_seed(draw)
        moved = {}
        for path, value in probe.values.items():
            noise = torch.randn(value.shape, generator=generator).to(value)
            inner = spaces[path].enter(value)
            size = inner.abs().mean() + 0.1
            moved[path] = spaces[path].leave(
                inner + draw * size * noise.reshape(inner.shape), value.shape
            )
        yield moved


def _others(tensor: Tensor, column: int) -> Iterator[Tensor]:
    """The table with other values in one column: in other orders, and far outside of its range."""
    own = tensor[:, column]
    orders = [own.roll(1), own.flip(0)]
    if tensor.is_floating_point():
        middle = own.mean()
        orders += [middle + 10 * (own - middle), -own]
    for changed in orders:
        if not torch.equal(changed, own):
            table = tensor.clone()
            table[:, column] = changed
            yield table


def _moves(
    probe: Probe, values: Values, before: tuple[float, Values], path: str, changed: Tensor
) -> bool:
    try:
        after = probe.slopes(values, with_targets(probe.batch, {path: changed}))
    except Exception:  # what breaks where this is changed goes by it
        return True
    return not same(before, after)


def _beside(
    probe: Probe, before: list[tuple[float, Values]], tensor: Tensor, column: int
) -> bool | None:
    """Whether predictions of the same shape have a slope in the same column.

    None where there are no predictions of that shape.
    """
    for path, value in probe.values.items():
        if value.shape == tensor.shape and width_of(value) == tensor.shape[1]:
            return any(bool(column_of(slopes[path], column).any()) for _, slopes in before)
    return None
