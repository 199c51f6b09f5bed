"""Sweeps: one column of the predictions over a range, for overflow, jumps and seams."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from icediag.pipeline import Domain
from icediag.records.loss import Seam, Sweep

from .points import away, first_birth
from .probe import Probe, Values
from .spaces import Space, column_of, width_of

#: How far, relative to their size, other predictions are from the best while one is swept.
ERRORS = (0.1, 0.03)
#: Ranges: of what is above 0, of what is free, of the size of a whole tensor.
POSITIVE, FREE, SIZE = (1e-4, 1e5), (-30.0, 30.0), (1e-3, 1e4)
#: Values along a range; of a costly loss fewer.
VALUES, FEW = 49, 25
#: Columns of a wider tensor are not swept one by one.
WIDEST = 8
#: Intervals in which a jump is looked for: those whose ends differ most from what slopes say.
SUSPECTS = 2
#: A jump counts from this share of the span of the loss on.
JUMP = 1e-3


def sweeps(
    probe: Probe, best: Values, spaces: Mapping[str, Space], *, few: bool
) -> Iterator[Sweep]:
    """Sweep each column, and the size of each tensor, near the best predictions."""
    n = FEW if few else VALUES
    for error in ERRORS[:1] if few else ERRORS:
        base = away(best, error, spaces)
        for path, space in spaces.items():
            if path not in best or space.kind in ("unit", "shares", "log shares"):
                continue
            width = width_of(best[path])
            for column in range(width) if width <= WIDEST else ():
                if column in space.domains or column in space.bounds:
                    continue
                grid = _grid(POSITIVE, n) if column in space.positive else _line(FREE, n)
                yield _sweep(probe, base, path, column, grid, error)
            if not space.domains and not space.bounds and width > 1:
                yield _sweep(probe, base, path, None, _grid(SIZE, n), error)


def _grid(ends: tuple[float, float], n: int) -> list[float]:
    low, high = torch.tensor(ends, dtype=torch.float64).log().tolist()
    grid: list[float] = torch.linspace(low, high, n, dtype=torch.float64).exp().tolist()
    return grid


def _line(ends: tuple[float, float], n: int) -> list[float]:
    line: list[float] = torch.linspace(*ends, n, dtype=torch.float64).tolist()
    return line


def _put(values: Values, path: str, column: int | None, to: float) -> Values:
    changed = values[path].clone()
    if column is None:
        changed = changed * to
    else:
        column_of(changed, column).fill_(to)
    return {**values, path: changed}


class _Way:
    """The loss along a range of one column, or of the size of a tensor."""

    def __init__(self, probe: Probe, base: Values, path: str, column: int | None) -> None:
        self.probe, self.base, self.path, self.column = probe, base, path, column

    def put(self, to: float) -> Values:
        """The predictions there."""
        return _put(self.base, self.path, self.column, to)

    def at(self, to: float) -> tuple[float, float, bool]:
        """Loss, its slope along the way, and whether it and all slopes are finite."""
        values = self.put(to)
        loss, slopes = self.probe.slopes(values)
        fine = abs(loss) < float("inf") and all(bool(s.isfinite().all()) for s in slopes.values())
        slope = slopes.get(self.path)
        if slope is None:
            return loss, 0.0, fine
        if self.column is None:
            return loss, float((slope * self.base[self.path]).sum()), fine
        return loss, float(column_of(slope, self.column).sum()), fine


def _sweep(
    probe: Probe, base: Values, path: str, column: int | None, grid: list[float], error: float
) -> Sweep:
    way = _Way(probe, base, path, column)
    seen = [way.at(to) for to in grid]
    losses, good = [loss for loss, _, _ in seen], [fine for _, _, fine in seen]
    start = probe.value(probe.values)
    # Where the loss is larger than it is now, no training goes.
    reached = [loss for loss, fine in zip(losses, good, strict=True) if fine and loss <= start]
    sweep = Sweep(
        output=path,
        column=column,
        error=error,
        low=grid[0],
        high=grid[-1],
        smallest=min(reached, default=start),
        span=max(reached) - min(reached) if reached else 0.0,
    )
    stop = _stop(losses, good)
    if stop is not None:
        birth = first_birth(probe, way.put(grid[stop]))
        return replace(
            sweep,
            stops_at=grid[stop],
            operation=None if birth is None else birth.op,
            location=None if birth is None else birth.location,
        )
    if sweep.span <= JUMP * abs(start):
        return sweep  # it does not go by this, but for rounding
    jump = _jump(way, grid, seen, start, sweep.span)
    return sweep if jump is None else replace(sweep, jump_at=jump[0], jump=jump[1])


def _stop(losses: list[float], good: list[bool]) -> int | None:
    """Where the loss, still falling, ceases to be finite; to either side of the range."""
    if not any(good):
        return None
    least = min((k for k, ok in enumerate(good) if ok), key=lambda k: losses[k])
    for neighbour in (least + 1, least - 1):
        if 0 <= neighbour < len(good) and not good[neighbour]:
            # Falling: the value on its other side is larger.
            beyond = 2 * least - neighbour
            if 0 <= beyond < len(good) and good[beyond] and losses[beyond] > losses[least]:
                return neighbour
    return None


Seen = tuple[float, float, bool]


def _unexplained(low: float, high: float, one: Seen, other: Seen) -> float:
    """How much of the difference of two losses the slopes at both ends do not explain."""
    return abs(other[0] - one[0] - (one[1] + other[1]) / 2 * (high - low))


def _jump(
    way: _Way, grid: list[float], seen: list[Seen], start: float, span: float
) -> tuple[float, float] | None:
    """The largest jump between neighbouring values, and where."""
    suspects = [
        (_unexplained(grid[k], grid[k + 1], seen[k], seen[k + 1]), k)
        for k in range(len(grid) - 1)
        if seen[k][2] and seen[k + 1][2] and max(seen[k][0], seen[k + 1][0]) <= start
    ]
    eps = torch.finfo(way.base[way.path].dtype).eps
    best: tuple[float, float] | None = None
    for amount, k in sorted(suspects, reverse=True)[:SUSPECTS]:
        if amount <= JUMP * span:
            break
        low, high, one, other = grid[k], grid[k + 1], seen[k], seen[k + 1]
        while high - low > 4 * eps * max(abs(low), abs(high)):
            middle = (low + high) / 2
            between = way.at(middle)
            if not between[2]:
                break
            first = _unexplained(low, middle, one, between)
            if first >= _unexplained(middle, high, between, other):
                high, other = middle, between
            else:
                low, one = middle, between
        size = abs(other[0] - one[0])
        rounding = 64 * eps * max(abs(one[0]), abs(other[0]))
        if size > max(JUMP * span, rounding) and (best is None or size > best[1]):
            best = (high, size)
    return best


def seams(
    probe: Probe, best: Values, spaces: Mapping[str, Space], names: Mapping[tuple[str, int], str]
) -> Iterator[Seam]:
    """Hold the loss just behind 0 against that just before 2 pi, of each periodic output."""
    for path, space in spaces.items():
        for column, domain in space.domains.items():
            if domain.periodic and path in best:
                yield _seam(probe, path, column, domain, names[path, column])


def _seam(probe: Probe, path: str, column: int, domain: Domain, name: str) -> Seam:
    period = domain.high - domain.low
    base = probe.values
    losses = [
        probe.value(_put(base, path, column, domain.low + period * (k + 0.5) / 16))
        for k in range(16)
    ]
    near = 1e-4 * period
    slopes = []
    for inside in (domain.low + near, domain.high - near):
        loss, slope = probe.slopes(_put(base, path, column, inside))
        losses.append(loss)
        slopes.append((loss, column_of(slope[path], column) if path in slope else torch.zeros(1)))
    (first, rising), (last, falling) = slopes
    return Seam(
        output=name,
        low=domain.low,
        high=domain.high,
        difference=abs(first - last),
        span=max(losses) - min(losses),
        # Of most rows: a truth that lies on the seam itself gives a kink there.
        slope=float((rising - falling).abs().median()),
        slope_span=float(torch.maximum(rising.abs(), falling.abs()).max()),
    )
