"""The drawing of the data flow: stages as boxes, and between them a stream as wide as its rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from icediag.finding import SEVERITIES, Severity
from icediag.recording import Recording, TensorRecord

from .numbers import counted, number
from .svg import cut, group, path, picture, rect, tag, text
from .views import StageView, place_of, range_of, shape_of, title_of, walk

#: Units of the drawing; it is shown at its size and scaled down on a narrow screen.
WIDTH, BOX, HEIGHT, GAP = 420.0, 352.0, 54.0, 34.0
#: Narrowest and widest stream.
THIN, WIDE = 10.0, 190.0
#: Beyond this many stages only the first and last, and those with findings, are drawn.
MOST = 60
#: A sign beside the colour, for who does not see colours.
SIGNS: Mapping[Severity, str] = {"error": "✕", "warning": "!", "note": "i"}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A stage as it is drawn: how deep, and how much of the time it takes."""

    view: StageView
    depth: int
    share: float | None = None


def drawn_stages(views: tuple[StageView, ...], shares: Mapping[str, float]) -> list[Drawn]:
    """The stages to draw: the outermost, what runs in the model, and deeper ones with findings."""
    rows: list[Drawn] = []
    for view in views:
        rows.append(Drawn(view=view, depth=0, share=shares.get(view.record.name)))
        for inner in view.inner:
            rows.append(Drawn(view=inner, depth=1, share=shares.get(inner.record.name)))
            rows.extend(
                Drawn(view=deep, depth=1, share=shares.get(deep.record.name))
                for deep in walk(inner.inner)
                if deep.findings
            )
    if len(rows) <= MOST:
        return rows
    ends = {id(row) for row in (*rows[: MOST // 2], *rows[-MOST // 2 :])}
    return [row for row in rows if id(row) in ends or row.view.findings]


def draw_flow(
    recording: Recording, views: tuple[StageView, ...], shares: Mapping[str, float]
) -> Markup:
    """Draw.

    Args:
        recording: What was seen.
        views: Its stages.
        shares: Stage -> its share of the time of a step, 0..1, where that is known.

    Returns:
        An SVG element; each stage is a link to its details, `#stage-3`.
    """
    rows = drawn_stages(views, shares)
    most = max((_rows(t) for row in rows for t in row.view.outputs), default=1)
    parts: list[Markup] = []
    frames: list[Markup] = []
    y, previous, frame_top = 8.0, None, 0.0
    for i, row in enumerate(rows):
        holds = row.depth == 0 and i + 1 < len(rows) and rows[i + 1].depth > 0
        if previous is not None:
            parts.append(_stream(previous, row, y, recording, most))
            y += GAP
        if holds:
            frame_top = y
            parts.append(_box(row, y, frame=True))
            y += HEIGHT
        else:
            parts.append(_box(row, y))
            y += HEIGHT
        last_inside = row.depth > 0 and (i + 1 == len(rows) or rows[i + 1].depth == 0)
        if last_inside:
            y += 10
            frames.append(
                rect(14, frame_top - 6, WIDTH - 28, y - frame_top + 6, rx=16, class_="frame")
            )
        previous = row if not holds else None
        if holds:
            y += 6
            # Into the first stage inside goes what went into the frame.
            y += 4
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


def _box(row: Drawn, y: float, *, frame: bool = False) -> Markup:
    view, record = row.view, row.view.record
    x = (WIDTH - BOX) / 2
    # What is wrong inside a frame is marked at the stages inside.
    found = view.findings if frame or row.depth == 0 else view.all_findings
    worst = min((f.severity for f in found), key=SEVERITIES.index, default=None)
    output = view.main_output
    title = record.name + (f" · {record.type}" if record.type else "")
    badge = Markup("")
    room = 44
    if worst is not None:
        room = 36
        count = str(len(found)) if len(found) > 1 else ""
        badge = group(
            rect(x + BOX - 46, y + 9, 36, 20, rx=10, class_=f"badge {worst}"),
            text(
                x + BOX - 28,
                y + 23.5,
                f"{SIGNS[worst]} {count}".strip(),
                class_=f"badge-words {worst}",
                text_anchor="middle",
            ),
        )
    words = " · ".join(
        part
        for part in (
            f"{title_of(output)}: {shape_of(output)}"
            if output is not None and frame is False
            else "",
            range_of(output),
        )
        if part
    )
    if frame:
        words = place_of(record.location)
    time = Markup("")
    if row.share is not None:
        time = group(
            rect(x + 14, y + HEIGHT - 7, BOX - 28, 3, rx=1.5, class_="time-back"),
            rect(x + 14, y + HEIGHT - 7, (BOX - 28) * row.share, 3, rx=1.5, class_="time-bar"),
        )
    said = [title, words]
    if found:
        kinds = [f for s in SEVERITIES for f in found if f.severity == s]
        said.append(", ".join(f"{f.severity} {f.name}" for f in kinds))
    if row.share is not None:
        said.append(f"{number(100 * row.share)} % of the step")
    return tag(
        "a",
        tag("title", " — ".join(part for part in said if part)),
        rect(
            x, y, BOX, HEIGHT, rx=10, class_=f"box {record.kind}" + (f" {worst}" if worst else "")
        ),
        rect(x, y + 8, 4, HEIGHT - 16, rx=2, class_=f"stripe {record.kind}"),
        text(x + 14, y + 22, cut(title, room), class_="box-title"),
        text(x + 14, y + 40, cut(words, 52), class_="box-words"),
        badge,
        time,
        href=f"#{view.id}",
        class_="stage",
        aria_label=". ".join(part for part in said if part),
    )
