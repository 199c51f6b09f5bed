"""Value facts: what the values of a tensor are, without changing or keeping it.

On a GPU every fact stays on the device until `collect`, which reads all of them in one copy; on a
CPU, where a read costs nothing, passes over the tensor that cannot find anything are left out.
"""

# N values

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from icediag.instruments.trees.layouts import stored_values
from icediag.recording import Facts, Number

from .pieces import Pieces

#: Up to this many values the median is that of all of them, beyond of every n-th.
EXACT_MEDIAN = 1 << 14

#: Of how many values about the median of a larger tensor is: its quantile is off by 0.8 % (sd).
SAMPLED = 1 << 12


def _unseen(tensor: Tensor) -> str | None:
    """Why there can be no facts about this tensor, or None."""
    if tensor.is_meta:
        return "meta tensor: it has no values"
    if tensor.is_complex():
        return "complex values have no order"
    if tensor.is_quantized:
        return "quantized values"
    return None


def _sample(tensor: Tensor) -> Tensor:
    """All of a few values, of more about `SAMPLED`, evenly spread, without a copy of the tensor."""
    n = tensor.numel()
    if n <= EXACT_MEDIAN:
        return tensor.reshape(-1)
    step = n // SAMPLED
    # A step that shares a factor with the last axis would look at some columns only.
    while math.gcd(step, max(tensor.shape[-1], 1)) != 1:
        step += 1
    if tensor.is_contiguous():
        return tensor.view(-1)[::step]
    picks = torch.arange(0, n, step, device=tensor.device)
    return tensor[places_of(picks, tensor.shape)]


def places_of(flat: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Positions along each axis of positions in the flattened tensor.

    Example: of 7 in sizes (2, 3, 2) it is (1, 0, 1). `torch.unravel_index` is the same and imports
    torch's symbolic shapes, which takes most of a second.
    """
    places: list[Tensor] = []
    for size in reversed(sizes):
        places.append(flat % size)
        flat = flat // size
    return tuple(reversed(places))


def _median(values: Tensor) -> Tensor:
    """Median, of floats as double; of an even number, the lower of the two in the middle."""
    if not values.is_floating_point():
        return values.to(torch.int64).median()
    wide = torch.where(values.isfinite(), values, torch.nan)
    return wide.nanmedian().double()


class Values:
    """Collects the facts of many tensors; `collect` gives them in the order of `add`."""

    def __init__(self) -> None:
        self._done: list[Facts | str] = []
        # What waits on a device: (index in _done, count, size of the median's sample, facts, and
        # of whole numbers those that a double cannot always hold)
        self._waiting: list[tuple[int, int, int, Tensor, Tensor | None]] = []
        # Zeros that a sparse tensor does not store, by index in _done.
        self._zeros: dict[int, tuple[int, Number]] = {}
        self._pieces = Pieces()

    @torch.no_grad()
    def add(self, tensor: Tensor) -> int:
        """Look at a tensor; returns the number under which `collect` lists its facts."""
        number = len(self._done)
        try:
            tensor, zeros = stored_values(tensor.detach())
            # Of a subclass the values alone: what its author made of our operations is no matter.
            with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - has no public name
                self._look(tensor)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
            # A wrapper of the user's own, a tensor within vmap, a type torch only half knows.
            line = (str(error).splitlines() or [""])[0]
            del self._done[number:]
            self._done.append(f"values cannot be read: {line}")
            return number
        if zeros:
            whole = not tensor.is_floating_point()
            self._zeros[number] = (zeros, 0 if whole else 0.0)
            known = self._done[number]
            if isinstance(known, Facts):
                self._done[number] = with_zeros(known, *self._zeros[number])
        return number

    def _look(self, tensor: Tensor) -> None:
        reason = _unseen(tensor)
        if reason is not None:
            self._done.append(reason)
            return
        if tensor.numel() == 0:
            self._done.append(Facts(count=0))
            return
        if tensor.device.type == "cpu":
            self._done.append(_read_on_cpu(tensor, self._pieces))
            return
        facts, exact = _on_device(tensor)
        n = _sample(tensor).numel()
        self._waiting.append((len(self._done), tensor.numel(), n, facts, exact))
        self._done.append("")

    def known(self, number: int) -> Facts | None:
        """Facts of a tensor that need no wait; None where they lie on a device, or there are none.

        Args:
            number: As `add` gave it.
        """
        found = self._done[number]
        return found if isinstance(found, Facts) else None

    def collect(self) -> list[Facts | str]:
        """Facts of every tensor, or the reason why there are none.

        One device-to-host copy for the facts, and one for the exact facts of integers.
        """
        if self._waiting:
            # Of a model on several devices, those of the others go to the first one's.
            at = self._waiting[0][3].device
            rows = torch.stack([facts.to(at) for *_, facts, _ in self._waiting]).cpu().tolist()
            exact = [bounds.to(at) for *_, bounds in self._waiting if bounds is not None]
            limits = iter(torch.stack(exact).cpu().tolist() if exact else [])
            for (number, count, n, _, bounds), row in zip(self._waiting, rows, strict=True):
                limit = None if bounds is None else next(limits)
                facts = _facts(count, n, row, limit)
                self._done[number] = with_zeros(facts, *self._zeros.get(number, (0, 0)))
            self._waiting.clear()
        self._pieces.close()
        return self._done


def _widened(tensor: Tensor) -> Tensor:
    """Values in a type that the reductions below know and are exact in."""
    if tensor.dtype == torch.bool:
        return tensor.view(torch.uint8)
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        return tensor.float()
    return tensor


def _read_on_cpu(tensor: Tensor, pieces: Pieces) -> Facts:
    """Facts by numpy, which on a CPU takes less than torch does for the same."""
    wide = _widened(tensor).resolve_neg()
    values = _in_memory(wide).numpy()
    sample = _sample(wide).numpy()
    half = (sample.size - 1) // 2
    # A copy, which lies together where the sample does not.
    sample = np.partition(sample, half)
    middle = sample[half]
    # Sums are taken from a point among the values, so that a small spread far from 0 survives.
    shift = float(middle) if math.isfinite(middle) else 0.0
    if values.size > EXACT_MEDIAN and wide.is_floating_point() and abs(shift) <= _spread(sample):
        shift = 0.0  # a walk less, where it makes no difference
    sums = pieces.sums(values, shift)
    if sums is None:
        facts, _ = _on_device(tensor)
        return _facts(tensor.numel(), sample.size, facts.tolist(), None)
    n = values.size
    mean = sums.total / n
    variance = sums.squares / n - mean * mean
    if math.isfinite(variance):
        mean, std = shift + mean, math.sqrt(max(variance, 0.0))
    else:
        mean, std = _mean_and_std_of_huge(values)
    low, high = sums.low.item(), sums.high.item()
    return Facts(
        count=n,
        minimum=low,
        maximum=high,
        median=middle.item(),
        median_of=sample.size,
        # Rounding must not take the mean out of the bounds.
        mean=float(min(max(mean, low), high)),
        std=std,
        zeros=sums.zeros,
    )


def _in_memory(tensor: Tensor) -> Tensor:
    """All values in one row, in any order; without a copy where nothing lies between them."""
    if tensor.is_contiguous():
        return tensor.view(-1)
    # Axes in another order, as a transposed table has them, leave no gaps.
    strides = tensor.stride()
    axes = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
    return tensor.permute(axes).reshape(-1)


def _spread(sample: NDArray[Any]) -> float:
    """Standard deviation of a sample; NaN where it holds what is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(sample.std())


def _mean_and_std_of_huge(values: NDArray[np.float64]) -> tuple[float, float]:
    """Of doubles whose sum or squares are beyond what a double holds."""
    scale = float(np.abs(values).max())
    return scale * float((values / scale).mean()), scale * float((values / scale).std())


def _on_device(tensor: Tensor) -> tuple[Tensor, Tensor | None]:
    """(low, high, median, mean, std, zeros, nans, +infs, -infs, finite) as doubles, without a read.

    Of whole numbers also (low, high, median) exactly, which a double cannot always hold.
    """
    wide = _widened(tensor)
    median = _median(_sample(wide))
    nothing = torch.zeros((), dtype=torch.float64, device=tensor.device)
    if not wide.is_floating_point():
        low, high = torch.aminmax(wide)
        std, mean = torch.std_mean(wide.double(), correction=0)
        zeros = (wide == 0).sum()
        finite = nothing + wide.numel()
        parts = [low, high, median, mean, std, zeros, nothing, nothing, nothing, finite]
        bounds = torch.stack([part.to(torch.int64) for part in (low, high, median)])
        return torch.stack([part.double() for part in parts]), bounds
    is_finite = wide.isfinite()
    finite = is_finite.sum().double()
    low = torch.where(is_finite, wide, torch.inf).amin().double()
    high = torch.where(is_finite, wide, -torch.inf).amax().double()
    # Scaled, so that neither sum nor squares leave what a double holds.
    scale = torch.maximum(low.abs(), high.abs())
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)
    known = torch.where(is_finite, wide, 0).double() / scale
    mean = known.sum() / finite
    spread = torch.where(is_finite, known - mean, 0)
    std = (spread.square().sum() / finite).sqrt()
    parts = [
        low,
        high,
        median,
        mean * scale,
        std * scale,
        (wide == 0).sum(),
        wide.isnan().sum(),
        wide.isposinf().sum(),
        wide.isneginf().sum(),
        finite,
    ]
    return torch.stack([part.double() for part in parts]), None


def _facts(count: int, sampled: int, row: list[float], exact: list[int] | None) -> Facts:
    low, high, median, mean, std, zeros, nans, positive, negative, finite = row
    known: dict[str, Any] = {}
    if finite:
        # The sample may hold no finite value although the tensor does.
        some = not math.isnan(median)
        known = {
            "minimum": low,
            "maximum": high,
            "median": median if some else None,
            "median_of": sampled if some else 0,
            "mean": min(max(mean, low), high),
            "std": std,
        }
    if exact is not None:
        known |= dict(zip(("minimum", "maximum", "median"), exact, strict=True))
    return Facts(
        count=count,
        zeros=int(zeros),
        nans=int(nans),
        positive_infs=int(positive),
        negative_infs=int(negative),
        **known,
    )


def merge(first: Facts, second: Facts) -> Facts:
    """Facts of two tensors together; exact but for the median, which is weighted by count.

    Args:
        first: Of the calls so far.
        second: Of one more.

    Returns:
        The facts of both; `median` is the mean of the two medians by count.
    """
    if second.count == 0 or first.count == 0:
        return first if second.count == 0 else second
    extra = {
        name: getattr(first, name) + getattr(second, name)
        for name in ("count", "zeros", "nans", "positive_infs", "negative_infs", "median_of")
    }
    a, b = (_finite(facts) for facts in (first, second))
    if not a or not b:
        known = first if a else second
        return Facts(
            minimum=known.minimum,
            maximum=known.maximum,
            median=known.median,
            mean=known.mean,
            std=known.std,
            **extra,
        )
    assert first.mean is not None and second.mean is not None
    assert first.std is not None and second.std is not None
    assert first.minimum is not None and second.minimum is not None
    assert first.maximum is not None and second.maximum is not None
    # As weights, and by hypot: sums and squares of huge values would leave what a double holds.
    u, v = a / (a + b), b / (a + b)
    mean = u * first.mean + v * second.mean
    return Facts(
        minimum=min(first.minimum, second.minimum),
        maximum=max(first.maximum, second.maximum),
        median=_between(first.median, second.median, a, b),
        mean=mean,
        std=math.hypot(
            math.sqrt(u) * first.std,
            math.sqrt(u) * (first.mean - mean),
            math.sqrt(v) * second.std,
            math.sqrt(v) * (second.mean - mean),
        ),
        **extra,
    )


def with_zeros(facts: Facts, zeros: int, nothing: Number) -> Facts:
    """Facts of some values and zeros; with a median only where zeros are the greater part.

    Args:
        facts: Of what a sparse tensor stores.
        zeros: How many it does not.
        nothing: 0 or 0.0.
    """
    if not zeros:
        return facts
    empty = Facts(
        count=zeros,
        minimum=nothing,
        maximum=nothing,
        median=nothing,
        median_of=zeros,
        mean=0.0,
        std=0.0,
        zeros=zeros,
    )
    both = merge(facts, empty)
    if zeros > facts.count:
        return replace(both, median=nothing, median_of=both.count)
    return replace(both, median=None, median_of=0)


def _between(first: Number | None, second: Number | None, a: int, b: int) -> Number | None:
    """The mean of two medians by count; where they agree, exactly that."""
    if first is None or second is None or first == second:
        return second if first is None else first
    return first * (a / (a + b)) + second * (b / (a + b))


def _finite(facts: Facts) -> int:
    return facts.count - facts.nans - facts.positive_infs - facts.negative_infs
