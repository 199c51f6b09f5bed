"""Numbers: whole numbers that leave their type, and values in too narrow a floating type.

What an operation should have given is computed again in int64 and held against what it gave.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icediag.records.features import Overflow, Rounding

from .labels import Line

#: Types of whole numbers that are met as ids and sums; uint8 holds pictures.
NARROW = {torch.int8, torch.int16, torch.int32}
WHOLE = NARROW | {torch.int64, torch.uint8}
#: A factor above this is that of a hash that is meant to wrap around.
HASH = 1 << 20
#: At most so many values are looked at for differences.
SAMPLE = 1 << 15
#: Fewer different values say nothing.
FEW = 8
#: Values on a grid of their own have lost resolution where at most this share of them is left, and
#: the type's steps are so many times those of the grid.
LEFT = 0.8
COARSER = 2.0


@dataclass(eq=False)
class Expected:
    """What an operation should give.

    Attributes:
        values: In int64; None where a cast is to be looked at.
        written: What is written into; None where something new is given.
        source: What is cast.
        projected: Values at the pipeline's batch size.
    """

    values: Tensor | None = None
    written: Tensor | None = None
    source: Tensor | None = None
    projected: tuple[int, int, int] | None = None


def exact_to(dtype: torch.dtype) -> float:
    """Up to this magnitude a floating type holds every whole number: 256 in bfloat16."""
    return 2 / torch.finfo(dtype).eps


class Numbers:
    """Watches arithmetic of whole numbers and casts.

    Args:
        line: Gives the place of the operation that runs.
        n_samples: Samples in the batch.
        batch_size: That of the pipeline.
    """

    def __init__(self, line: Callable[[], Line], n_samples: int, batch_size: int) -> None:
        self.overflows: dict[tuple[Any, ...], Overflow] = {}
        self.roundings: dict[tuple[Any, ...], Rounding] = {}
        # Whole numbers of which few are beyond the limit: they matter if they are names.
        self._mild: dict[tuple[Any, ...], Rounding] = {}
        #: Values before they were rounded, by the same key, to be told from names.
        self.before_rounding: dict[tuple[Any, ...], Tensor] = {}
        self._line = line
        #: Samples in the batch.
        self.n_samples = n_samples
        self._batch_size = batch_size

    def before(self, name: str, args: Any, kwargs: Any) -> Expected | None:
        """What an operation should give, where that is to be compared."""
        if name in ("add", "sub", "mul") and isinstance(args[0], Tensor):
            a, b = args[0], args[1]
            other = b.dtype if isinstance(b, Tensor) else torch.int8
            if a.dtype not in NARROW or other not in WHOLE or isinstance(b, float):
                return None
            if name == "mul" and isinstance(b, int) and abs(b) > HASH:
                return None
            return self._exact(name, a, b, kwargs.get("alpha", 1))
        if name == "_to_copy" and kwargs.get("dtype") not in (None, args[0].dtype):
            return Expected(source=args[0])
        if name == "copy" and args[0].dtype != args[1].dtype and isinstance(args[1], Tensor):
            return Expected(source=args[1], written=args[0])
        return None

    def _exact(self, name: str, a: Tensor, b: Any, alpha: Any) -> Expected:
        wide = a.to(torch.int64)
        other = b.to(torch.int64) if isinstance(b, Tensor) else int(b)
        if name == "mul":
            values = wide * other
        else:
            values = wide + (alpha if name == "add" else -alpha) * other
        projected = None
        larger = self._batch_size > self.n_samples > 2
        # A running number of the samples grows with the batch, and its product with it.
        if name == "mul" and larger and a.numel() and isinstance(other, int):
            low, high = int(wide.min()), int(wide.max())
            if low == 0 and high == self.n_samples - 1 and values.numel() >= self.n_samples:
                top = (self._batch_size - 1) * other
                projected = (min(top, 0), max(top, 0), self._batch_size)
        return Expected(values=values, projected=projected)

    def after(self, name: str, expected: Expected, out: Any) -> None:
        """Hold what was given against what should have been."""
        if not isinstance(out, Tensor) or not out.numel():
            return
        if expected.source is not None:
            self._cast(name, expected.source, out)
            return
        values = expected.values
        if values is None or out.dtype not in NARROW or values.shape != out.shape:
            return
        wrong = int((out.to(torch.int64) != values).sum())
        limits = torch.iinfo(out.dtype)
        low, high, at = int(values.min()), int(values.max()), None
        if not wrong and expected.projected is not None:
            low, high, at = expected.projected
            wrong = int(low < limits.min or high > limits.max)
            if not wrong:
                return
        if wrong:
            self._overflow(name, out.dtype, low, high, 0 if at else wrong, out.numel(), at)

    def _overflow(
        self,
        name: str,
        dtype: torch.dtype,
        low: int,
        high: int,
        wrapped: int,
        entries: int,
        at: int | None = None,
    ) -> None:
        line = self._line()
        text = str(dtype).removeprefix("torch.")
        self.overflows.setdefault(
            (line.stage, line.file, line.line, name, text),
            Overflow(
                stage=line.stage,
                op=name.strip("_"),
                dtype=text,
                low=low,
                high=high,
                wrapped=wrapped,
                entries=entries,
                at_batch_size=at,
                file=line.file,
                line=line.line,
            ),
        )

    def _cast(self, name: str, source: Tensor, out: Tensor) -> None:
        """A cast: out of range, or onto a grid that is coarser than the values."""
        if source.is_complex() or out.is_complex() or torch.bool in (source.dtype, out.dtype):
            return
        if out.dtype in WHOLE and out.dtype != torch.uint8:
            self._to_whole(name, source, out)
        elif out.is_floating_point():
            narrower = not source.is_floating_point() or (
                torch.finfo(source.dtype).eps < torch.finfo(out.dtype).eps
            )
            # Under autocast the layers themselves ask for fewer bits, on purpose.
            if narrower and not _autocast():
                self._to_fewer_bits(source, out)

    def _to_whole(self, name: str, source: Tensor, out: Tensor) -> None:
        values = source.detach()
        limits = torch.iinfo(out.dtype)
        if source.is_floating_point():
            values = values[values.isfinite()]
            if not values.numel():
                return
            low, high = float(values.min()), float(values.max())
            limit = exact_to(source.dtype)
            whole = bool((values == values.trunc()).all())
            if whole and max(abs(low), abs(high)) > limit:
                line = self._line()
                self._rounding(line, f"cast to {_text(out)}", values, None, source.dtype, True)
        else:
            low, high = int(values.min()), int(values.max())
        if low < limits.min or high > limits.max:
            outside = int(((values < limits.min) | (values > limits.max)).sum())
            self._overflow(name, out.dtype, int(low), int(high), outside, values.numel())

    def _to_fewer_bits(self, source: Tensor, out: Tensor) -> None:
        for before, after in zip(_columns(source), _columns(out), strict=True):
            line = self._line()
            self._rounding(line, f"cast from {_text(source)}", after, before, out.dtype, False)

    def hold(self, path: str, tensor: Tensor, line: Line) -> None:
        """A tensor as it is in the batch or in a sample, in a type that may be too narrow."""
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_nested:
            return
        if tensor.dtype == torch.float64 or not tensor.numel() or tensor.is_meta:
            return
        limit = exact_to(tensor.dtype)
        if not float(tensor.detach().abs().amax()) > limit:
            return
        with torch.no_grad():
            for i, column in enumerate(_columns(tensor)):
                what = f"{path}[{i}]" if tensor.ndim > 1 and path else path or "the batch"
                self._rounding(line, what, column, None, tensor.dtype, False)

    def _rounding(
        self,
        line: Line,
        what: str,
        after: Tensor,
        before: Tensor | None,
        dtype: torch.dtype,
        named: bool,
    ) -> None:
        """Note values beyond what a type holds in steps of 1, or in steps of their own."""
        values = _few(after)
        ok = values.isfinite()
        values = values[ok]
        if values.numel() < FEW or values.dtype == torch.bool:
            return
        limit = exact_to(dtype)
        middle = float(values.abs().median())
        largest = float(values.abs().max())
        # Names above the limit collide however few they are; of measures, most must be above.
        beyond = largest > limit and (middle > limit or named)
        if not beyond and before is None:
            return
        distinct = torch.unique(values)
        if distinct.numel() < FEW:
            return
        text = str(dtype).removeprefix("torch.")
        key = (line.stage, line.file, line.line, what, text)
        if key in self.roundings:
            return
        info = torch.finfo(dtype)
        at = max(largest if named or not middle else middle, info.smallest_normal)
        gap = 2.0 ** math.floor(math.log2(at)) * info.eps
        n_before, step, grid, noted = None, None, None, self.roundings
        if before is not None:
            exact = torch.unique(_few(before)[ok])
            n_before = exact.numel()
            step = float(exact.diff().min()) if exact.numel() > 1 else None
            if n_before == distinct.numel():
                return
            if not beyond:
                grid = grid_of(exact, before.dtype)
                if grid is None:
                    return
                if gap < COARSER * grid or distinct.numel() > LEFT * n_before:
                    if largest <= limit or grid % 1:
                        return
                    noted = self._mild
            self.before_rounding[key] = exact
        noted[key] = Rounding(
            stage=line.stage,
            what=what,
            dtype=text,
            named=named,
            largest=largest,
            middle=middle,
            gap=gap,
            step=step,
            spread=float(values.std()),
            before=n_before,
            after=distinct.numel(),
            grid=grid,
            file=line.file,
            line=line.line,
        )

    def collected(self, is_name: Callable[[Tensor], bool]) -> tuple[Rounding, ...]:
        """What was noted; values that are also used as names are names."""
        found = [
            replace(rounding, named=True)
            if key in self.before_rounding and is_name(self.before_rounding[key])
            else rounding
            for key, rounding in {**self._mild, **self.roundings}.items()
        ]
        mild = {id(rounding) for rounding in self._mild.values()}
        return tuple(rounding for rounding in found if id(rounding) not in mild)


def grid_of(values: Tensor, dtype: torch.dtype) -> float | None:
    """What the differences of values are multiples of, as those of a clock or a counter are.

    Args:
        values: Different values in rising order, as doubles.
        dtype: The type that they come from: its rounding hides a finer grid.

    Returns:
        None where there is none: differences of measured values are multiples of nothing.
    """
    if values.numel() < FEW:
        return None
    apart = values.diff()
    step = float(apart.min())
    eps = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    noise = 2 * eps * float(values.abs().max())
    if step < 8 * noise:
        return None
    # From the short ones to the long ones, of which each tells the step better.
    for reach in (8.0, 64.0, math.inf):
        near = apart[apart <= reach * step]
        count = (near / step).round()
        if float((near - count * step).abs().max()) > 2 * noise + 0.02 * step:
            return None
        step = float(near.sum() / count.sum())
    return step


def _autocast() -> bool:
    """Whether autocast is on around; while it casts, torch says that it is not."""
    inside = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    return inside


def _text(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _columns(tensor: Tensor) -> tuple[Tensor, ...]:
    """The columns of a table of a few; else all of it as one."""
    few = tensor.ndim == 2 and tensor.shape[1] <= 16
    return tensor.detach().unbind(1) if few else (tensor.detach(),)


def _few(tensor: Tensor) -> Tensor:
    """At most `SAMPLE` of the values, in double precision."""
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, flat.numel() // SAMPLE)].double()
