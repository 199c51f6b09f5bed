"""Foresight: whether predictions along a sequence read the values that they are to predict.

Where model and loss read one tensor, the loss some places later than the prediction, what is to be
predicted is what comes next; then no prediction may change with the value that it is held against.
"""

# B samples, L places of the tensor, M places of the predictions

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.trees.walk import leaves
from icediag.records.loss import Foresight, Targets

from .probe import Probe, with_targets
from .targets import plain

#: Places that are changed, spread over the samples.
PLACES = 6
#: Of these, so many must show the same lag.
ENOUGH = 3
#: Relative moves above this are no rounding.
MOVED = 1e-4
#: A sequence has at least so many places.
SHORTEST = 4


def foresight(probe: Probe, targets: Targets, predict: Callable[[Any], Any]) -> Foresight | None:
    """Change one value at a time, once for the loss and once for the model.

    Args:
        probe: The loss, and the predictions of its batch.
        targets: What the loss goes by.
        predict: batch -> predictions, in evaluation.

    Returns:
        None where nothing is held against what comes later in the same tensor.

    Raises:
        Exception: Whatever the user's code raises.
    """
    tensors = plain(probe.batch)
    shared = [path for path in targets.shared if path in targets.moving and path in tensors]
    for name in shared:
        tensor = tensors[name]
        if tensor.ndim < 2 or tensor.shape[0] != probe.n or tensor.shape[1] < SHORTEST:
            continue
        if tensor.dtype == torch.bool:
            continue
        for path, value in probe.values.items():
            fits = value.ndim >= 2 and value.shape[0] == probe.n
            if fits and tensor.shape[1] // 2 < value.shape[1] <= tensor.shape[1]:
                found = _look(probe, predict, name, tensor, path)
                if found is not None:
                    return found
    return None


def _look(
    probe: Probe, predict: Callable[[Any], Any], name: str, tensor: Tensor, path: str
) -> Foresight | None:
    _, slopes = probe.slopes(probe.values)
    outputs = _of(predict(probe.batch), path)
    if outputs is None or path not in slopes:
        return None
    lags: list[int] = []
    seen: list[float] = []
    used = False
    for sample, place in _places(tensor):
        changed = tensor.clone()
        other = _other(tensor, sample, place)
        if other is None:
            continue
        changed[sample, place] = other
        batch = with_targets(probe.batch, {name: changed})
        held = _rows_moved(slopes[path], _slopes(probe, batch, path), sample)
        if len(held) != 1:
            continue  # nothing is held against it, or more than one prediction
        after = _of(predict(batch), path)
        if after is None or after.shape != outputs.shape:
            return None
        moved = _sizes(outputs, after, sample)
        lags.append(place - held[0])
        seen.append(float(moved[held[0]]))
        used = used or bool((moved > MOVED).any())
    if len(lags) < ENOUGH or not used or min(lags) != max(lags) or lags[0] < 1:
        return None
    return Foresight(
        tensor=name,
        output=path,
        lag=lags[0],
        tried=len(lags),
        leaking=sum(size > MOVED for size in seen),
        size=max(seen),
    )


def _places(tensor: Tensor) -> list[tuple[int, int]]:
    """Places in the first half of sequences, where they are not padding, and not the first."""
    n, length = tensor.shape[:2]
    return [(k % n, 1 + k % max(1, length // 2 - 1)) for k in range(3 * PLACES)][: 2 * PLACES]


def _other(tensor: Tensor, sample: int, place: int) -> Tensor | None:
    """Another value that stands at this place in another sample."""
    for row in range(1, tensor.shape[0]):
        other = tensor[(sample + row) % tensor.shape[0], place]
        if not torch.equal(other, tensor[sample, place]):
            return other
    return None


def _slopes(probe: Probe, batch: Any, path: str) -> Tensor:
    _, slopes = probe.slopes(probe.values, batch)
    return slopes[path]


def _of(predictions: Any, path: str) -> Tensor | None:
    found = dict(leaves(predictions)).get(path)
    return None if found is None else found.detach()


def _sizes(one: Tensor, other: Tensor, sample: int) -> Tensor:
    """How far the predictions of a sample moved at each place, relative to their size, `(M,)`."""
    a, b = one[sample].double(), other[sample].double()
    apart = (a - b).abs().reshape(len(a), -1).amax(1)
    return apart / a.abs().max().clamp(min=1e-300)


def _rows_moved(one: Tensor, other: Tensor, sample: int) -> list[int]:
    """Places of a sample whose slopes moved."""
    sizes = _sizes(one, other, sample)
    return [int(k) for k in (sizes > MOVED).nonzero()[:, 0]]
