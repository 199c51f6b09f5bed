"""Recognition: is this column a raw column, and by what map?

A map counts as recognised only if every row agrees to what rounding explains. There is no
"nearly": a fit that leaves more is unknown. Columns of fewer than `DISTINCT` values are recognised
as themselves alone, because any column of two values is an affine map of any other.
"""

# N rows, M of them, F things that may be added, G groups

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from icediag.records.provenance import Origin

from .raw_column import DISTINCT, F64, I64, SCREEN, Column, distinct

#: Roundings that a value may have gone through: a subtraction, a division, a logarithm, a cast.
ROUNDINGS = 4.0


def round_off(value: float) -> float:
    """The simplest number within 3 in 10^6: constants are typed by people, fits are not."""
    if value == 0 or not np.isfinite(value):
        return value
    for digits in range(1, 6):
        short = float(f"{value:.{digits}g}")
        if abs(short - value) <= 3e-6 * abs(value):
            return short
    return value


def _tolerance(eps: float, slope: float, fx: F64, offset: float, y: F64) -> float:
    """What rounding explains. The argument of a map is rounded at its own size, not at y's."""
    largest = abs(slope) * float(np.abs(fx).max()) + abs(offset) + float(np.abs(y).max())
    return ROUNDINGS * eps * largest


def _may_be_lines(fx: F64, y: F64, eps: float) -> npt.NDArray[np.bool_]:
    """For each row of fx whether a few values, the ends first, allow y = slope * fx + offset.

    Args:
        fx: `(F, M)` arguments.
        y: `(M,)`.
        eps: Relative spacing of the dtype of y.
    """
    with np.errstate(all="ignore"):
        slope = (y[1] - y[0]) / (fx[:, 1] - fx[:, 0])
        offset = y[0] - slope * fx[:, 0]
        # Only the few are looked at for the tolerance; of all rows y may be larger.
        largest = np.abs(slope) * np.abs(fx).max(1) + np.abs(offset) + np.abs(y).max()
        apart = np.abs(slope[:, None] * fx + offset[:, None] - y).max(1)
        near = apart <= 8 * ROUNDINGS * eps * largest
        allowed: npt.NDArray[np.bool_] = near & np.isfinite(slope) & (slope != 0)
        return allowed


def _line(fx: F64, y: F64, eps: float) -> tuple[float, float, float, float] | None:
    """(slope, offset, residual, tolerance) of y = slope * fx + offset; None if more is left."""
    low, high = int(fx.argmin()), int(fx.argmax())
    if fx[low] == fx[high] or not (np.isfinite(fx[low]) and np.isfinite(fx[high])):
        return None
    slope = (y[high] - y[low]) / (fx[high] - fx[low])
    if slope == 0 or not np.isfinite(slope):
        return None
    offset = y[low] - slope * fx[low]
    few = slice(None, None, max(1, y.size // SCREEN))
    tolerance = _tolerance(eps, slope, fx, offset, y)
    if np.abs(slope * fx[few] + offset - y[few]).max() > 2 * tolerance:
        return None
    # Two points carry their rounding into slope and offset: all rows together know better.
    mean_x, mean_y = fx.mean(), y.mean()
    apart = fx - mean_x
    slope = float(apart @ (y - mean_y) / (apart @ apart))
    offset = float(mean_y - slope * mean_x)
    residual = float(np.abs(slope * fx + offset - y).max())
    return (slope, offset, residual, tolerance) if residual <= tolerance else None


def _tidy(origin: Origin, fx: F64, y: F64) -> Origin:
    """Replace fitted constants by the simple ones that a person typed, if they fit as well."""
    slope = round_off(origin.slope)
    over = round_off(1 / origin.slope)
    for candidate in (1 / over, slope):
        offset = float(np.median(y - candidate * fx))
        shift = round_off(-offset / candidate)
        for simple in (0.0, -shift * candidate, round_off(offset)):
            residual = float(np.abs(candidate * fx + simple - y).max())
            if residual <= origin.tolerance:
                return replace(origin, slope=candidate, offset=simple, residual=residual)
    return origin


def _linear(kind: Origin, fx: F64, y: F64, eps: float) -> Origin | None:
    """`kind` with the constants of y = slope * fx + offset, if rounding explains the rest."""
    line = _line(fx, y, eps)
    if line is None:
        return None
    slope, offset, residual, tolerance = line
    found = replace(
        kind,
        slope=slope,
        offset=offset,
        residual=residual,
        tolerance=tolerance,
        compared=y.size,
    )
    return _tidy(found, fx, y)


def _of_column(name: str, column: Column, seen: Column, eps: float) -> Origin | None:
    """One raw column in the same row order."""
    x, y = column.values, seen.values
    n = y.size
    y_few = y[column.few]
    if np.array_equal(column.few_values[0], y_few) and np.array_equal(x, y):
        return Origin(column=name, map="identity", compared=n)
    if not column.distinct or not seen.distinct:
        return None
    # float32 keeps every raw value of ours; a tensor with fewer bits rounds them.
    if eps > np.finfo(np.float32).eps and np.abs(x - y).max() <= eps * np.abs(x).max():
        apart = np.abs(x - y)
        if bool((apart <= eps * np.abs(x)).all()):
            return Origin(column=name, map="cast", residual=float(apart.max()), compared=n)
    if _may_be_lines(column.few_values, y_few, eps)[0]:
        found = _linear(Origin(column=name, map="affine"), x, y, eps)
        if found is not None:
            return found
    floors, logarithms = column.few_logarithms
    for i in np.flatnonzero(_may_be_lines(logarithms, y_few, eps)) if floors else ():
        logarithm = Origin(column=name, map="logarithm", floor=floors[i])
        found = _linear(logarithm, column.logarithm(floors[i]), y, eps)
        if found is not None:
            return found
    return _clipped(name, x, y, eps)


def _clipped(name: str, x: F64, y: F64, eps: float) -> Origin | None:
    """An affine map whose ends were cut off: flat where the middle is a line."""
    low, high = float(y.min()), float(y.max())
    inside = (y > low) & (y < high)
    cut = int((y == low).sum()) > 1 or int((y == high).sum()) > 1
    if not cut or int(inside.sum()) < max(SCREEN // 8, y.size // 4) or not distinct(x[inside]):
        return None
    line = _line(x[inside], y[inside], eps)
    if line is None:
        return None
    slope, offset, _, tolerance = line
    residual = float(np.abs((slope * x + offset).clip(low, high) - y).max())
    if residual > tolerance:
        return None
    found = Origin(
        column=name,
        map="clipped",
        slope=slope,
        offset=offset,
        low=low,
        high=high,
        residual=residual,
        tolerance=tolerance,
        compared=y.size,
    )
    tidy = _tidy(replace(found, map="affine"), x[inside], y[inside])
    return replace(found, slope=tidy.slope, offset=tidy.offset)


def _by_group(name: str, x: Column, y: Column, eps: float, path: str, group: I64) -> Origin | None:
    """An offset, or an offset and a scale, of each group's own."""
    of_x, of_y = x.grouped(group), y.grouped(group)
    if not of_x.varies:
        return None
    dx, dy = of_x.apart, of_y.apart
    slope = float(dx @ dy / of_x.square)
    if slope and np.isfinite(slope):
        tolerance = 2 * ROUNDINGS * eps * (abs(slope) * x.largest + y.largest)
        few = slice(None, None, max(1, dx.size // SCREEN))
        if np.abs(slope * dx[few] - dy[few]).max() <= tolerance:
            residual = float(np.abs(slope * dx - dy).max())
            if residual <= tolerance and residual < 1e-2 * float(np.abs(dy).max()):
                sums = np.bincount(group, y.values - slope * x.values)
                return Origin(
                    column=name,
                    map="shifted by group",
                    slope=1 / round_off(1 / slope),
                    offset=float(np.median((sums / of_x.counts)[np.unique(group)])),
                    group=path,
                    residual=residual,
                    tolerance=tolerance,
                    compared=dy.size,
                )
    many = of_x.many
    if int(many.sum()) < 3:
        return None
    rows = many[group]
    most = 1e-2 * float(np.abs(dy[rows]).max())
    # What the first groups turn down needs no look at the others.
    if _apart_by_group(dx, dy, group, of_x.first).max() > most:
        return None
    slopes = np.bincount(group, dx * dy) / np.where(of_x.squares > 0, of_x.squares, 1.0)
    residuals = np.abs(slopes[group] * dx - dy)[rows]
    reach = float(np.abs(slopes[many]).max()) * x.largest + y.largest
    tolerance = 2 * ROUNDINGS * eps * reach
    if residuals.size < 4 * DISTINCT or residuals.max() > tolerance:
        return None
    if residuals.max() > most or (slopes[many] <= 0).any():
        return None
    return Origin(
        column=name,
        map="scaled by group",
        slope=float(np.median(slopes[many])),
        group=path,
        residual=float(residuals.max()),
        tolerance=tolerance,
        compared=int(rows.sum()),
    )


def _apart_by_group(dx: F64, dy: F64, group: I64, rows: I64) -> F64:
    """What a scale of each group's own leaves of some rows, all of a group or none of it."""
    dx, dy, group = dx[rows], dy[rows], group[rows]
    slopes = np.bincount(group, dx * dy) / np.bincount(group, dx * dx).clip(min=1e-300)
    residuals: F64 = np.abs(slopes[group] * dx - dy)
    return residuals


def _orders(
    raw: dict[str, Column], indices: dict[str, I64], n: int
) -> Iterator[tuple[str, str | None, Column]]:
    """Raw columns in every row order of n rows that the batch's own index tensors explain."""
    for name, x in raw.items():
        if x.values.size == n:
            yield name, None, x
    for path, index in indices.items():
        if index.size != n:
            continue
        last = int(index.max())
        for name, x in raw.items():
            size = x.values.size
            # A gather by the identity is no gather.
            if size and last < size and not _is_range(index, size):
                yield name, path, x.taken(index)


def _is_range(index: I64, n: int) -> bool:
    return index.size == n and bool((index == np.arange(n)).all())


def recognise(
    y: F64, eps: float, raw: Mapping[str, F64 | Column], indices: dict[str, I64]
) -> Origin | None:
    """Recognise a column.

    Args:
        y: `(N,)` what was seen.
        eps: Relative spacing of the dtype it was seen in.
        raw: Raw columns by name, any length; as `Column` where more is to be recognised.
        indices: Index tensors of the batch by path, whole numbers from 0: they explain other row
            orders, and tell groups apart.

    Returns:
        Where it comes from, or None: unknown.
    """
    seen = Column(y)
    if y.size < DISTINCT or not seen.usable:
        return None
    columns = {name: x if isinstance(x, Column) else Column(x) for name, x in raw.items()}
    candidates = [item for item in _orders(columns, indices, y.size) if item[2].usable]
    for name, rows, x in candidates:
        if (found := _of_column(name, x, seen, eps)) is not None:
            return replace(found, rows=rows)
    # What holds in each event holds in each DOM of it too: the largest groups say most.
    groups = sorted(
        ((path, group) for path, group in indices.items() if group.size == y.size),
        key=lambda item: int(item[1].max()),
    )
    for name, rows, x in candidates:
        if not x.distinct or not seen.distinct:
            continue
        for path, group in groups:
            if path != rows:
                found = _by_group(name, x, seen, eps, path, group)
                if found is not None:
                    return replace(found, rows=rows)
    return None
