"""Targets: what of the batch the loss goes by, and which row of it moves which prediction."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.trees.outputs import TARGETS
from icediag.instruments.trees.walk import leaves
from icediag.records.loss import Rows, Targets

from .probe import Probe, Values, with_targets

#: Relative moves above this are no rounding: slopes are compared in the precision of training.
MOVED = 1e-4
#: Rows whose target is replaced, at most.
MOST_ROWS = 12


def plain(batch: Any) -> dict[str, Tensor]:
    """Tensors of the batch that hold real numbers, by path."""
    return {
        path: tensor
        for path, tensor in leaves(batch)
        if not tensor.is_complex() and tensor.layout == torch.strided and not tensor.is_nested
    }


def look_at_targets(
    probe: Probe, by_model: set[str], by_loss: set[str], n: int, fewer: dict[str, tuple[int, ...]]
) -> Targets:
    """Change each tensor of the batch in turn, predictions held still.

    Args:
        probe: The loss.
        by_model: Tensors that the model reads.
        by_loss: Tensors that the loss reads.
        n: Samples in the batch.
        fewer: Shapes of the tensors of a batch of one sample less.
    """
    tensors = plain(probe.batch)
    before = probe.slopes(probe.values)
    moving, flags = [], []
    for path, tensor in tensors.items():
        changed = _reordered(tensor)
        # What the model alone reads the loss cannot go by.
        if changed is None or (path in by_model and path not in by_loss):
            continue
        try:
            after = probe.slopes(probe.values, with_targets(probe.batch, {path: changed}))
        except Exception:  # what breaks where this is changed goes by it
            moved = True
        else:
            moved = not same(before, after)
        if moved:
            moving.append(path)
            if tensor.dtype == torch.bool:
                flags.append(path)
    unread = [
        path
        for path, tensor in tensors.items()
        if path not in by_model | by_loss and _of_samples(path, tensor, n, fewer)
    ]
    unread.sort(key=lambda path: path.rpartition(".")[2] not in TARGETS)
    return Targets(
        read=tuple(sorted(by_loss - by_model)),
        shared=tuple(sorted(by_loss & by_model)),
        moving=tuple(moving),
        flags=tuple(flags),
        unread=tuple(unread),
        views=2 if _pairs(probe, n, fewer) else _views(probe),
        coupled=_coupled(probe),
    )


def same(one: tuple[float, Values], other: tuple[float, Values]) -> bool:
    """Whether loss and slopes agree bit for bit."""
    return (
        one[0] == other[0]
        and set(one[1]) == set(other[1])
        and all(torch.equal(slope, other[1][path]) for path, slope in one[1].items())
    )


def _reordered(tensor: Tensor) -> Tensor | None:
    """The same values at other places; None where they are all alike."""
    if tensor.numel() < 2:
        return None
    flat = tensor.reshape(-1)
    if bool((flat == flat[0]).all()):
        return None
    for turned in (tensor.roll(1, 0), tensor.flip(0), flat.roll(1).reshape(tensor.shape)):
        if not torch.equal(turned, tensor):
            return turned
    return None


def _of_samples(path: str, tensor: Tensor, n: int, fewer: dict[str, tuple[int, ...]]) -> bool:
    """Whether a tensor holds one entry a sample that is neither its number nor always the same."""
    if not tensor.ndim or tensor.shape[0] != n or fewer.get(path, (n,))[0] != n - 1:
        return False
    rows = tensor.reshape(n, -1)
    if bool((rows == rows[0]).all()):
        return False
    if tensor.is_floating_point():
        return bool((rows != rows.round()).any())
    return len(rows.unique(dim=0)) < n  # type: ignore[no-untyped-call]


def _table(slopes: Values, paths: list[str]) -> Tensor:
    """Slopes of all rows, `(rows, all else)`."""
    return torch.cat([slopes[path].reshape(slopes[path].shape[0], -1) for path in paths], 1)


def _apart(one: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    """How far each row moved, relative to the slopes, after a factor that `rows` share is gone."""
    a, b = one.double(), other.double()
    ratios = (b[rows] / a[rows])[a[rows] != 0]
    # The median: a row or two that follow the target are not to shift it.
    factor = ratios.median() if ratios.numel() else torch.tensor(1.0, dtype=torch.float64)
    scale = a.abs().max().clamp(min=1e-300)
    return (b - factor * a).abs().amax(1) / scale


def _pairs(probe: Probe, n: int, fewer: dict[str, tuple[int, ...]]) -> bool:
    """Whether predictions hold one number for each pair of samples: they compare them already."""
    return any(
        value.shape[:2] == (n, n) and fewer.get(f"predictions.{path}", ())[:2] == (n - 1, n - 1)
        for path, value in probe.values.items()
    )


def _views(probe: Probe) -> int:
    """Tensors of one shape that the loss compares: of one, other values turn another's slope."""
    before = probe.slopes(probe.values)[1]
    most = 1
    for path, value in probe.every.items():
        changed = _reordered(value)
        if changed is None:
            continue
        after = probe.slopes({**probe.values, path: changed})[1]
        met = [
            other
            for other, slope in before.items()
            if other != path
            and slope.shape == value.shape
            and not torch.equal(slope, after.get(other, slope))
        ]
        most = max(most, 1 + len(met))
    return most


def _coupled(probe: Probe) -> bool | None:
    """Whether rows of predictions move the slopes of other rows."""
    paths = probe.rows
    if not paths:
        return None
    n = probe.values[paths[0]].shape[0]
    if n < 4:
        return None
    before = _table(probe.slopes(probe.values)[1], paths)
    for row in (0, n // 2):
        values = {path: value.clone() for path, value in probe.values.items()}
        for path in paths:
            values[path][row] = probe.values[path][(row + 1) % n]
        after = _table(probe.slopes(values)[1], paths)
        rest = torch.arange(n) != row
        if float(_apart(before, after, rest)[rest].max()) > MOVED:
            return True
    return False


def look_at_rows(
    probe: Probe, targets: Targets, *, by_samples: bool, values: Values | None = None
) -> Rows | None:
    """Give one row the target of another: whose slope moves?

    Args:
        probe: The loss.
        targets: What it goes by.
        by_samples: Whether rows are samples.
        values: Predictions to be held still; None for those of the model.

    Returns:
        None where no tensor of the batch has as many rows as the predictions.
    """
    paths = probe.rows
    if not paths:
        return None
    n = probe.values[paths[0]].shape[0]
    tensors = plain(probe.batch)
    own = set(targets.read) & set(targets.moving) - set(targets.flags)
    shared = set(targets.shared) & set(targets.moving) - set(targets.flags)
    held = {
        path: tensors[path]
        for path in own or shared
        if path in tensors and tensors[path].ndim and tensors[path].shape[0] == n
    }
    if not held or n < 4:
        return None
    values = probe.values if values is None else values
    loss, slopes = probe.slopes(values)
    before = _table(slopes, paths)
    if not bool(before.isfinite().all()) or not bool(before.any()):
        return None
    tried = of_own = of_others = 0
    pair: tuple[int, ...] = ()
    size = 0.0
    step = max(1, n // MOST_ROWS)
    for row in range(0, n, step):
        others = _others(held, row, n)
        if not others or not bool(before[row].any()):
            continue  # without a slope the row is left out of the loss, as by a mask
        rest = torch.arange(n) != row
        moves = torch.zeros(n, dtype=torch.float64)
        for other in others:
            changes = {path: tensor.clone() for path, tensor in held.items()}
            for path, tensor in held.items():
                changes[path][row] = tensor[other]
            _, slopes = probe.slopes(values, with_targets(probe.batch, changes))
            moves = torch.maximum(moves, _apart(before, _table(slopes, paths), rest))
        tried += 1
        of_own += bool(moves[row] > MOVED)
        among = moves.masked_fill(~rest, 0.0)
        if float(among.max()) > MOVED:
            of_others += 1
            if float(among.max()) > size:
                pair, size = (row, int(among.argmax())), float(among.max())
    if not tried:
        return None
    return Rows(
        rows=n,
        by_samples=by_samples,
        tried=tried,
        own=of_own,
        others=of_others,
        pair=pair,
        size=size,
        permuted=_permuted(probe, values, held, n, loss),
    )


def _others(held: dict[str, Tensor], row: int, n: int) -> list[int]:
    """Rows with other targets: the farthest first, since the slope of |p - t| is but a sign."""
    distance = sum(
        (tensor.double() - tensor[row].double()).abs().reshape(n, -1).sum(1)
        for tensor in held.values()
    )
    assert isinstance(distance, Tensor)
    order = distance.argsort(descending=True).tolist()
    return [k for k in (*order[:2], order[n // 2]) if float(distance[k]) > 0]


def _orders(n: int) -> Iterator[Tensor]:
    yield torch.arange(n).flip(0)
    yield torch.arange(n).roll(1)
    yield torch.randperm(n, generator=torch.Generator().manual_seed(0))


def _permuted(probe: Probe, values: Values, held: dict[str, Tensor], n: int, loss: float) -> float:
    """By how much the loss changes where targets change places; relative to its size."""
    largest = 0.0
    for order in _orders(n):
        changes = {path: tensor[order.to(tensor.device)] for path, tensor in held.items()}
        value = probe.value(values, with_targets(probe.batch, changes))
        largest = max(largest, abs(value - loss) / max(abs(loss), 1e-12))
    return largest
