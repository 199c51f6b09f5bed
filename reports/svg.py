"""SVG as text, with everything that is put into it escaped. No style attributes: see `html.py`."""

from markupsafe import Markup, escape

Child = str | Markup


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """An element. `class_` is `class`, other underscores are hyphens; None leaves one out."""
    text = Markup("").join(
        Markup(' {}="{}"').format(_attribute(key), _value(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(map(escape, children))
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), text, inside)  # noqa: S704 - ours


def _attribute(key: str) -> Markup:
    return Markup("class" if key == "class_" else key.replace("_", "-"))  # noqa: S704 - ours


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def group(*children: Child, **attributes: object) -> Markup:
    """A `g`."""
    return tag("g", *children, **attributes)


def text(x: float, y: float, words: str, **attributes: object) -> Markup:
    """Text at a point."""
    return tag("text", words, x=float(x), y=float(y), **attributes)


def rect(x: float, y: float, width: float, height: float, **attributes: object) -> Markup:
    """A rectangle; a negative size is none."""
    return tag(
        "rect",
        x=float(x),
        y=float(y),
        width=float(max(0, width)),
        height=float(max(0, height)),
        **attributes,
    )


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """A line."""
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), **attributes)


def path(
    points: list[tuple[float, float]], *, closed: bool = False, **attributes: object
) -> Markup:
    """A line through points."""
    steps = " ".join(f"{'M' if i == 0 else 'L'}{x:.2f} {y:.2f}" for i, (x, y) in enumerate(points))
    return tag("path", d=steps + (" Z" if closed else ""), **attributes)


def picture(
    width: float, height: float, label: str, *children: Child, **attributes: object
) -> Markup:
    """A picture with a label for who does not see it."""
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role=attributes.pop("role", "img"),
        aria_label=label,
        **attributes,
    )


def cut(words: str, most: int) -> str:
    """Text of at most so many characters; where it is longer, its ends with an ellipsis between."""
    if len(words) <= most:
        return words
    tail = (most - 1) // 3
    return f"{words[: most - 1 - tail]}…{words[len(words) - tail :]}"
