"""The drawing of the data flow: stages as boxes, and between them a stream as wide as its rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from icediag.finding import SEVERITIES, Finding, Severity
from icediag.recording import Recording, TensorRecord

from .numbers import counted, percent
from .svg import cut, group, path, picture, rect, tag, text
from .views import StageView, place_of, range_of, shape_of, title_of, walk

#: Units of the drawing; it is shown at its size and scaled down on a narrow screen.
WIDTH, BOX, HEIGHT, GAP = 420.0, 352.0, 54.0, 34.0
#: A box of a stage inside of another: how far to the right, how high, and its distance.
INSET, LOW, NEAR = 26.0, 46.0, 7.0
#: What a box is higher by where the time of its stage is known.
TIMED = 16.0
#: Narrowest and widest stream.
THIN, WIDE = 10.0, 190.0
#: Beyond this many stages only the first and last, and those with findings, are drawn.
MOST = 60
#: A sign beside the colour, for who does not see colours.
SIGNS: Mapping[Severity, str] = {"error": "✕", "warning": "!", "note": "i"}
#: Kind of strip -> stage -> its share of the step, see `timing.shares_of`.
Shares = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A stage as it is drawn: 0 outermost, 1 in the model, 2 inside of such a one."""

    view: StageView
    depth: int


def drawn_stages(views: tuple[StageView, ...]) -> list[Drawn]:
    """The stages to draw: the outermost, what runs in the model, and deeper ones with findings."""
    rows: list[Drawn] = []
    for view in views:
        rows.append(Drawn(view=view, depth=0))
        for inner in view.inner:
            rows.append(Drawn(view=inner, depth=1))
            deeper = (deep for deep in walk(inner.inner) if deep.findings)
            rows.extend(Drawn(view=deep, depth=2) for deep in deeper)
    if len(rows) <= MOST:
        return rows
    ends = {id(row) for row in (*rows[: MOST // 2], *rows[-MOST // 2 :])}
    return [row for row in rows if id(row) in ends or row.view.findings]


@dataclass(frozen=True, kw_only=True)
class After:
    """What a step does after the flow: it has a time or findings, and no values to show.

    Attributes:
        name: Such as "optimizer".
        link: Where more is told of it.
        findings: Those at it.
    """

    name: str
    link: str
    findings: tuple[Finding, ...] = ()


def draw_flow(
    recording: Recording,
    views: tuple[StageView, ...],
    shares: Shares,
    after: tuple[After, ...] = (),
) -> Markup:
    """Draw.

    Args:
        recording: What was seen.
        views: Its stages.
        shares: What is known of the time that they take.
        after: What comes after them.

    Returns:
        An SVG element; each stage is a link to its details, `#stage-3`.
    """
    rows = drawn_stages(views)
    most = max((_rows(t) for row in rows for t in row.view.outputs), default=1)
    parts: list[Markup] = []
    frames: list[Markup] = []
    y, previous, frame_top = 8.0, None, 0.0
    for i, row in enumerate(rows):
        following = rows[i + 1].depth if i + 1 < len(rows) else 0
        holds = row.depth == 0 and following > 0
        if row.depth == 2:
            y += NEAR
        elif previous is not None:
            parts.append(_stream(previous, row, y, recording, most))
            y += GAP
        if holds:
            frame_top = y
        box, height = _box(row, y, shares, frame=holds)
        parts.append(box)
        y += height
        if row.depth > 0 and following == 0:
            y += 10
            frames.append(
                rect(14, frame_top - 6, WIDTH - 28, y - frame_top + 6, rx=16, class_="frame")
            )
        if row.depth < 2:
            # Into the first stage inside goes what went into the frame.
            previous = None if holds else row
        if holds:
            y += 10
    for one in after:
        y += NEAR
        box, height = _after(one, y, shares)
        parts.append(box)
        y += height
    label = f"Flow of {recording.pipeline}: {counted(len(rows), 'stage')}"
    return picture(WIDTH, y + 8, label, group(*frames), group(*parts), class_="flow", role="group")


def _rows(tensor: TensorRecord) -> int:
    return tensor.shape[0] if tensor.shape else 1


def _span(rows: int, most: int) -> float:
    """Width of a stream, by the logarithm of its rows."""
    return THIN + (WIDE - THIN) * math.log1p(rows) / math.log1p(max(most, 1))


def _axis(tensor: TensorRecord | None) -> str:
    if tensor is None or not tensor.shape or not tensor.axes:
        return ""
    return tensor.axes[0] or ""


def _stream(before: Drawn, after: Drawn, y: float, recording: Recording, most: int) -> Markup:
    given = before.view.main_output
    taken = next(
        (t for t in after.view.record.tensors if t.role == "in" and "float" in t.dtype), given
    )
    if before.view.record.kind == "item":
        taken = given
    first = _span(_rows(given), most) if given is not None else THIN
    second = _span(_rows(taken), most) if taken is not None else first
    middle = WIDTH / 2
    corners = [
        (middle - first / 2, y + 1),
        (middle + first / 2, y + 1),
        (middle + second / 2, y + GAP - 1),
        (middle - second / 2, y + GAP - 1),
    ]
    words = shape_of(given) if given is not None else ""
    names = list(recording.axes)
    axis = _axis(given).split("/")[0]
    hue = names.index(axis) % 6 if axis in names else 6
    return group(
        path(corners, closed=True, class_=f"stream hue-{hue}"),
        text(middle, y + GAP / 2 + 4, cut(words, 40), class_="stream-words", text_anchor="middle"),
        aria_hidden="true",
    )


def _box(row: Drawn, y: float, shares: Shares, *, frame: bool) -> tuple[Markup, float]:
    """A stage, and how high it is."""
    view, record = row.view, row.view.record
    inset = INSET if row.depth == 2 else 0.0
    x, width = (WIDTH - BOX) / 2 + inset, BOX - inset
    times = _times(record.name, shares)
    height = (LOW if row.depth == 2 else HEIGHT) + (TIMED if times else 0.0)
    # What is wrong inside of a stage is marked at the stages inside that are drawn.
    found = view.findings
    worst = _worst(found)
    output = view.main_output
    title = record.name + (f" · {record.type}" if record.type else "")
    badge = _badge(worst, len(found), x + width - 46, y + 9) if worst is not None else Markup("")
    letters = int((width - 28 - (48 if worst is not None else 0)) / 7.4)
    words = place_of(record.location) if frame else _words(output)
    said = [title, words, *_said(found, times)]
    kind = f"{record.kind} {worst}" if worst else record.kind
    drawn = _link(
        said,
        rect(x, y, width, height, rx=10, class_=f"box {kind}"),
        rect(x, y + 8, 4, height - 16, rx=2, class_=f"stripe {record.kind}"),
        text(x + 14, y + (20 if inset else 22), cut(title, letters), class_="box-title"),
        text(
            x + 14, y + (36 if inset else 40), cut(words, int((width - 28) / 6)), class_="box-words"
        ),
        badge,
        *_bars(times, x + 14, y + height - TIMED, width - 28),
        href=f"#{view.id}",
        class_="stage",
    )
    return drawn, height


def _link(said: list[str], *children: Markup, href: str, class_: str) -> Markup:
    """What is drawn as a link; who does not see it hears what is said instead."""
    words = [part for part in said if part]
    return tag(
        "a",
        tag("title", ". ".join(words)),
        group(*children, aria_hidden="true"),
        href=href,
        class_=class_,
        aria_label=". ".join(words),
    )


def _after(one: After, y: float, shares: Shares) -> tuple[Markup, float]:
    x = (WIDTH - BOX) / 2
    times = _times(one.name, shares)
    height = 36.0 + (TIMED - 4 if times else 0.0)
    worst = _worst(one.findings)
    said = [one.name, *_said(one.findings, times)]
    drawn = _link(
        said,
        rect(x, y, BOX, height, rx=10, class_=f"box after {worst or ''}".strip()),
        text(x + 14, y + 23, cut(one.name, 36), class_="box-title"),
        _badge(worst, len(one.findings), x + BOX - 46, y + 8) if worst else Markup(""),
        *_bars(times, x + 14, y + height - TIMED + 2, BOX - 28),
        href=one.link,
        class_="after",
    )
    return drawn, height


def _times(name: str, shares: Shares) -> list[tuple[str, float]]:
    return [(kind, known[name]) for kind, known in shares.items() if name in known]


def _worst(found: tuple[Finding, ...]) -> Severity | None:
    return min((f.severity for f in found), key=SEVERITIES.index, default=None)


def _said(found: tuple[Finding, ...], times: list[tuple[str, float]]) -> list[str]:
    """Findings and times in words."""
    kinds = [f for s in SEVERITIES for f in found if f.severity == s]
    said = [", ".join(f"{f.severity} {f.name}" for f in kinds)] if kinds else []
    return said + [f"{kind}: {percent(share)} of the step" for kind, share in times]


def _words(output: TensorRecord | None) -> str:
    """What a stage gives, in a line."""
    if output is None:
        return ""
    parts = (f"{title_of(output)}: {shape_of(output)}", range_of(output))
    return " · ".join(part for part in parts if part)


def _badge(worst: Severity, count: int, x: float, y: float) -> Markup:
    words = f"{SIGNS[worst]} {count}" if count > 1 else SIGNS[worst]
    return group(
        rect(x, y, 36, 20, rx=10, class_=f"badge {worst}"),
        text(x + 18, y + 14.5, words, class_=f"badge-words {worst}", text_anchor="middle"),
    )


def _bars(times: list[tuple[str, float]], x: float, y: float, width: float) -> list[Markup]:
    """Bars as wide as the share of the step, one above the other, and the shares in words."""
    room = width - 84
    drawn = []
    for i, (kind, share) in enumerate(times):
        top = y + 5 * i + (0 if len(times) > 1 else 2)
        drawn.append(rect(x, top, room, 4, rx=2, class_="time-back"))
        drawn.append(rect(x, top, room * min(1.0, share), 4, rx=2, class_=f"time {kind}"))
    places = {1: (width,), 2: (width - 40, width)}
    for (kind, share), right in zip(times, places.get(len(times), ()), strict=False):
        words = percent(share)
        drawn.append(text(x + right, y + 8, words, class_=f"time-words {kind}", text_anchor="end"))
    return drawn
