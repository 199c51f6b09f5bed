"""Pieces: ends, zeros and sums of many values on a CPU, in one walk through the memory.

Each piece stays in the cache while it is looked at. Long rows are shared among as many threads as
torch works with: these wait for the pipeline, which waits for the facts.
"""

# N values

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

#: Values that are looked at together: 512 KiB of float32, about what a core's own cache holds.
PIECE = 1 << 17
#: Values that are added in float32: their sum is off by less than this many roundings.
ADDED = 64
#: Values from which on another thread is worth waking.
SHARED = 1 << 18


#: Of a piece: low, high, zeros, total, squares, as in `Sums`.
Part = tuple[Any, Any, int, float, float]


@dataclass(frozen=True, kw_only=True)
class Sums:
    """What was counted and added.

    Attributes:
        low: Smallest value.
        high: Largest value.
        zeros: How many are 0.
        total: Sum of value - shift; not finite where that is beyond what a double holds.
        squares: Sum of (value - shift)^2.
    """

    low: Any
    high: Any
    zeros: int
    total: float
    squares: float


class Pieces:
    """Adds up rows of values, one after the other, in memory that it keeps."""

    def __init__(self) -> None:
        self._desks = [_Desk()]
        self._threads: ThreadPoolExecutor | None = None

    def sums(self, values: NDArray[Any], shift: float) -> Sums | None:
        """Add up a row.

        Args:
            values: `(N,)`, N at least 1; truth values as uint8, halves as float32.
            shift: A point among the values: sums taken from there keep a small spread far from 0.

        Returns:
            None where not all values are finite.
        """
        n = min(torch.get_num_threads(), values.size // SHARED)
        if n <= 1:
            return _together(self._desks[0].sums(values, shift))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(n - 1)
        self._desks += [_Desk() for _ in range(n - len(self._desks))]
        # In whole pieces, and together in their order: on any number of threads it is the same.
        n_pieces = -(-values.size // PIECE)
        cuts = [n_pieces * i // n * PIECE for i in range(n + 1)]
        shares = [values[start:end] for start, end in itertools.pairwise(cuts)]
        others = [
            self._threads.submit(desk.sums, share, shift)
            for desk, share in zip(self._desks[1:], shares[1:], strict=False)
        ]
        first = self._desks[0].sums(shares[0], shift)
        return _together([*first, *(one for other in others for one in other.result())])

    def close(self) -> None:
        """Let the threads go."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None


def _together(parts: list[Part | None]) -> Sums | None:
    if parts[-1] is None or None in parts:
        return None
    lows, highs, zeros, totals, squares = zip(*parts, strict=True)
    return Sums(
        low=min(lows), high=max(highs), zeros=sum(zeros), total=sum(totals), squares=sum(squares)
    )


class _Desk:
    """Where one thread works: memory for what is made of a piece, used again for the next."""

    def __init__(self) -> None:
        self._flags = np.empty(0, bool)
        self._apart: dict[Any, NDArray[Any]] = {}

    def sums(self, values: NDArray[Any], shift: float) -> list[Part | None]:
        """Add up each piece; None in the place of the first that is not finite, and no more.

        A call takes a microsecond and what it does to a piece about five, so there are as few as
        can be.
        """
        parts: list[Part | None] = []
        floating, nothing = values.dtype.kind == "f", values.dtype.type(0)
        if self._flags.size < min(values.size, PIECE):
            self._flags = np.empty(PIECE, bool)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, values.size, PIECE):
                piece = values[start : start + PIECE]
                low, high = np.minimum.reduce(piece), np.maximum.reduce(piece)
                first, last = float(low), float(high)
                if not (math.isfinite(first) and math.isfinite(last)):
                    return [*parts, None]
                zeros = 0
                if first <= 0 <= last:
                    flags = np.equal(piece, nothing, out=self._flags[: piece.size])
                    zeros = int(np.count_nonzero(flags))
                # float32 could neither hold the squares of these nor, of integers, all digits.
                wide = not (floating and 1e-12 < max(-first, last, abs(shift)) < 1e15)
                apart = piece.astype(np.float64) if wide else piece
                if shift:
                    apart = self._minus(apart, shift)
                parts.append((low, high, zeros, _sum(apart), float(np.dot(apart, apart))))
        return parts

    def _minus(self, piece: NDArray[Any], shift: float) -> NDArray[Any]:
        held = self._apart.get(piece.dtype)
        if held is None or held.size < piece.size:
            held = self._apart[piece.dtype] = np.empty(piece.size, piece.dtype)
        shifted: NDArray[Any] = np.subtract(piece, piece.dtype.type(shift), out=held[: piece.size])
        return shifted


def _sum(values: NDArray[Any]) -> float:
    """Sum: short columns as they are, which is fast, and then as doubles, which is exact enough."""
    rows = values.size // ADDED
    if rows == 0:
        return float(np.add.reduce(values, dtype=np.float64))
    columns = np.add.reduce(values[: rows * ADDED].reshape(ADDED, rows), axis=0)
    total = float(np.add.reduce(columns, dtype=np.float64))
    if rows * ADDED < values.size:
        total += float(np.add.reduce(values[rows * ADDED :], dtype=np.float64))
    return total
