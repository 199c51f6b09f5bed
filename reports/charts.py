"""Small charts, each one element that scales with the page."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from .numbers import number, percent
from .svg import group, line, path, picture, rect, tag, text


def bar(share: float, label: str, kind: str = "") -> Markup:
    """A horizontal bar of a share, 0..1; `label` is what it says to who does not see it."""
    share = min(1.0, max(0.0, share)) if math.isfinite(share) else 0.0
    return tag(
        "svg",
        rect(0, 0, 100, 8, class_="bar-back"),
        rect(0, 0, 100 * share, 8, class_=f"bar {kind}".strip()),
        class_="bar-chart",
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def stacked(parts: Sequence[tuple[str, float, str]], label: str) -> Markup:
    """One bar of several parts: (title, share 0..1, class)."""
    x = 0.0
    drawn = []
    for title, share, kind in parts:
        width = 100 * max(0.0, share)
        drawn.append(
            group(tag("title", f"{title}: {percent(share)}"), rect(x, 0, width, 8), class_=kind)
        )
        x += width
    return tag(
        "svg",
        rect(0, 0, 100, 8, class_="bar-back"),
        *drawn,
        class_="bar-chart stacked",
        viewBox="0 0 100 8",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def swatch(kind: str) -> Markup:
    """A small square in the colour of a kind, for a legend."""
    square = rect(0, 0, 12, 12, rx=3)
    return tag("svg", square, class_=f"swatch {kind}", viewBox="0 0 12 12", aria_hidden="true")


def histogram(counts: Sequence[int], label: str, *, mark: float | None = None) -> Markup:
    """Counts in bins of one width; `mark` is where 0 lies, 0..1 of the range, if it does."""
    width, height = 100.0, 36.0
    most = max(counts, default=0) or 1
    step = width / max(1, len(counts))
    # One path for all: many histograms of many bars make a large file. Few of very many stay
    # visible.
    bars = "".join(
        f"M{i * step + 0.2:.4g} {height:g}v-{size:.3g}h{step - 0.4:.3g}v{size:.3g}z"
        for i, count in enumerate(counts)
        if count
        for size in [max(0.8, (height - 2) * count / most)]
    )
    zero = line(mark * width, 0, mark * width, height, class_="zero") if mark is not None else ""
    return tag(
        "svg",
        zero,
        tag("path", d=bars, class_="counts"),
        class_="histogram",
        viewBox=f"0 0 {width:g} {height:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def interval(
    low: float, high: float, marks: Sequence[tuple[float, float, str]], label: str
) -> Markup:
    """Intervals above each other on one scale from `low` to `high`; ends beyond it are cut."""
    height = 10.0 * len(marks) + 2
    span = high - low

    def at(value: float) -> float:
        if not math.isfinite(span) or span <= 0:
            return 0.0
        return 100 * min(1.0, max(0.0, (value - low) / span)) if not math.isnan(value) else 0.0

    bars = [
        rect(at(a), 10.0 * i + 2, max(at(b) - at(a), 0.6), 6, rx=1, class_=kind)
        for i, (a, b, kind) in enumerate(marks)
    ]
    return tag(
        "svg",
        *bars,
        class_="interval",
        viewBox=f"0 0 100 {height:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def curves(
    lines: Sequence[tuple[str, Sequence[float], str]],
    levels: Sequence[tuple[str, float]],
    label: str,
    *,
    x_title: str = "step",
) -> Markup | None:
    """Curves over whole steps, with horizontal levels; None where nothing is finite.

    Args:
        lines: (name, a value a step, class).
        levels: (name, value) of horizontal lines.
        label: What it says to who does not see it.
        x_title: What the horizontal axis counts.
    """
    width, height, left, bottom = 520.0, 240.0, 58.0, 36.0
    values = [v for _, ys, _ in lines for v in ys if math.isfinite(v)]
    values += [v for _, v in levels if math.isfinite(v)]
    longest = max((len(ys) for _, ys, _ in lines), default=0)
    if not values or longest < 2:
        return None
    low, high = min(*values, 0.0) if min(values) >= 0 else min(values), max(values)
    if high <= low:
        high = low + 1.0
    high += 0.06 * (high - low)

    def point(i: int, value: float) -> tuple[float, float]:
        x = left + (width - left - 12) * i / (longest - 1)
        y = 10 + (height - bottom - 10) * (high - value) / (high - low)
        return x, y

    parts: list[Markup] = []
    for k in range(5):
        value = low + (high - low) * k / 4
        _, y = point(0, value)
        parts.append(line(left, y, width - 12, y, class_="grid"))
        parts.append(text(left - 8, y + 4, number(value), class_="tick", text_anchor="end"))
    for i in (0, (longest - 1) // 2, longest - 1):
        x, _ = point(i, low)
        anchor = "end" if i == longest - 1 else "middle" if i else "start"
        parts.append(text(x, height - bottom + 18, f"{i:,}", class_="tick", text_anchor=anchor))
    parts.append(text((left + width) / 2, height - 2, x_title, class_="tick", text_anchor="middle"))
    for name, value in levels:
        if math.isfinite(value):
            _, y = point(0, value)
            parts.append(line(left, y, width - 12, y, class_="level"))
            parts.append(text(width - 14, y - 5, name, class_="level-words", text_anchor="end"))
    for name, ys, kind in lines:
        points = [point(i, v) for i, v in enumerate(ys) if math.isfinite(v)]
        if points:
            parts.append(
                group(
                    tag("title", name),
                    path(_thinned(points), class_=f"curve {kind}", fill="none"),
                )
            )
    return picture(width, height, label, *parts, class_="curves")


def _thinned(points: list[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """Every n-th point and the last one: more are not seen, and the file stays small."""
    step = -(-len(points) // most)
    kept = points[::step]
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
