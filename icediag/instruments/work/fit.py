"""Fit: which axis a count follows, found exactly.

A count that follows an axis is `intercept + slope * axis` in every batch, without a remainder. An
axis that only resembles it leaves one.
"""

from collections.abc import Iterator
from fractions import Fraction

from icediag.records.work import Growth

#: A count that meets no axis exactly is taken to follow one if all runs are within this share.
NEAR = 0.05
#: Such a count must reach this many, and this many times that of the smallest run.
NEAR_COUNT = 24
NEAR_RISE = 2.0


class Laws:
    """How counts may grow, for one set of runs.

    Args:
        axes: By run: symbolic axes and their sizes.
    """

    def __init__(self, axes: list[dict[str, int]]) -> None:
        self._candidates = list(_candidates(axes))
        self._known: dict[tuple[int, ...], Growth | None] = {}

    def growth_of(self, counts: tuple[int, ...]) -> Growth | None:
        """How a count grows.

        Args:
            counts: By run.

        Returns:
            The simplest law that explains all runs: one axis before a product of two. None where
            the count does not grow, grows less than any axis, or follows nothing that is known.
        """
        if counts not in self._known:
            self._known[counts] = self._look(counts)
        return self._known[counts]

    def _look(self, counts: tuple[int, ...]) -> Growth | None:
        # Through two points there is a line for every axis.
        if len(set(counts)) < 3:
            return None
        found: dict[int, list[tuple[str, Fraction, Fraction]]] = {}
        for name, order, sizes in self._candidates:
            law = _exact(counts, sizes)
            if law is not None:
                found.setdefault(order, []).append((name, *law))
        for order in sorted(order for order in found if order):
            (name, slope, intercept), *others = found[order]
            if order == 2 and 0 in found:
                break
            return Growth(
                axis=name,
                order=order,
                slope=float(slope),
                intercept=float(intercept),
                also=tuple(other for other, *_ in others[:4]),
            )
        return None if found else _near(counts, self._candidates)


def _candidates(axes: list[dict[str, int]]) -> Iterator[tuple[str, int, tuple[int, ...]]]:
    """(name, order, sizes by run): single axes first, then products of two.

    Order 0 are counts that grow less than the batch does.
    """
    names = list(axes[-1])
    vectors = {name: tuple(here[name] for here in axes) for name in names}
    plain = [name for name in names if not _is_derived(name)]
    for name in sorted(names, key=_is_derived):
        if name.startswith("distinct "):
            yield name, 0, vectors[name]
        elif "^2" in name:
            yield name, 2, vectors[name]
        else:
            yield name, 1, vectors[name]
    for i, first in enumerate(plain):
        for second in plain[i:]:
            product = tuple(a * b for a, b in zip(vectors[first], vectors[second], strict=True))
            yield f"{first}*{second}", 2, product


def _is_derived(name: str) -> bool:
    """Whether an axis is none of a tensor but says how rows are spread over groups."""
    return name.startswith(("longest ", "distinct ")) or "^2" in name or " with " in name


def _exact(counts: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[Fraction, Fraction] | None:
    """Slope and intercept of the line through all points; None where there is none that rises."""
    low, high = sizes.index(min(sizes)), sizes.index(max(sizes))
    run, rise = sizes[high] - sizes[low], counts[high] - counts[low]
    if run == 0 or rise <= 0:
        return None
    if any(
        rise * (size - sizes[low]) != run * (count - counts[low])
        for size, count in zip(sizes, counts, strict=True)
    ):
        return None
    slope = Fraction(rise, run)
    return slope, counts[low] - slope * sizes[low]


def _near(
    counts: tuple[int, ...], candidates: list[tuple[str, int, tuple[int, ...]]]
) -> Growth | None:
    """The axis that a count follows nearly, as where some rows are passed over."""
    if max(counts) < NEAR_COUNT or max(counts) < NEAR_RISE * max(min(counts), 1):
        return None
    best: tuple[float, Growth] | None = None
    for name, order, sizes in candidates:
        if order == 0 or max(sizes) == min(sizes):
            continue
        n = len(counts)
        mean_s, mean_c = sum(sizes) / n, sum(counts) / n
        spread = sum((s - mean_s) ** 2 for s in sizes)
        slope = sum((s - mean_s) * (c - mean_c) for s, c in zip(sizes, counts, strict=True))
        slope /= spread
        intercept = mean_c - slope * mean_s
        # What does not grow must be little: a count that starts high and rises slowly is none.
        if slope <= 0 or abs(intercept) > 0.2 * max(counts):
            continue
        worst = max(
            abs(intercept + slope * s - c) / max(counts) for s, c in zip(sizes, counts, strict=True)
        )
        if worst <= NEAR and (best is None or worst < best[0]):
            law = Growth(axis=name, order=order, slope=slope, intercept=intercept, exact=False)
            best = worst, law
    return best[1] if best is not None else None
