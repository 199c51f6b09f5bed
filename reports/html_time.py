"""The section of the HTML report on time: the step as a strip, and the table under it."""

from markupsafe import Markup

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.profile import ProfileRow

from . import charts
from .html_part import Part
from .numbers import counted, duration, percent
from .timing import Strip, growth_of, losses_of, rows_of, strips_of, without_loops

#: Parts of a step that are named beside their strip, and the least share that has a colour.
MOST_NAMED, COLOURED = 9, 0.01
HUES = 9
#: Lines whose operations grow with the batch that are listed.
MOST_LINES = 12


def time(recording: Recording, _: Diagnosis) -> Part | None:
    """Where the time of a step goes, measured and projected."""
    strips = strips_of(recording)
    if not strips:
        return None
    hues = _hues(strips)
    loader = recording.clock.loader if recording.clock is not None else ()
    return Part(
        id="time",
        title="Where the time of a step goes",
        short="Time",
        template="part_time.html",
        values={
            "strips": [(strip, _strip(strip, hues), _legend(strip, hues)) for strip in strips],
            "losses": [
                (row, charts.bar(row.share, percent(row.share), "lost"))
                for row in losses_of(recording)
            ],
            "without": without_loops(recording),
            "lines": _lines(recording),
            "rows": [_row(row) for row in rows_of(recording) if _counts(row, strips)],
            "projected": next((s.title for s in strips if s.kind == "projected"), ""),
            "measured": next((s.title for s in strips if s.kind == "measured"), ""),
            "loader": [
                (
                    counted(one.workers, "worker") + (", the pipeline's own" if one.own else ""),
                    percent(one.waiting),
                    charts.bar(one.waiting, f"{percent(one.waiting)} waiting", "lost"),
                )
                for one in loader
            ],
            "missing": recording.clock.missing if recording.clock is not None else {},
        },
    )


def _hues(strips: tuple[Strip, ...]) -> dict[str, int]:
    """Part of a step -> its colour, the same in every strip; small parts have none."""
    names: dict[str, float] = {}
    for strip in strips:
        for one in strip.slices:
            names[one.name] = max(names.get(one.name, 0.0), one.share)
    big = sorted((name for name in names if names[name] >= COLOURED), key=lambda name: -names[name])
    return {name: i for i, name in enumerate(big[:HUES])}


def _kind(name: str, hues: dict[str, int]) -> str:
    return f"hue-{hues[name]}" if name in hues else "hue-none"


def _strip(strip: Strip, hues: dict[str, int]) -> Markup:
    parts = [(one.name, one.share, _kind(one.name, hues)) for one in strip.slices]
    return charts.stacked(parts, f"{strip.title}: {duration(strip.total_s)}")


def _legend(strip: Strip, hues: dict[str, int]) -> list[tuple[Markup, str, str, str]]:
    """(swatch, name, time, share) of the largest parts, in the order of the step."""
    biggest = sorted(strip.slices, key=lambda one: -one.share)[:MOST_NAMED]
    shown = [one for one in strip.slices if one in biggest and one.share >= COLOURED / 2]
    rows = [
        (charts.swatch(_kind(one.name, hues)), one.name, duration(one.seconds), percent(one.share))
        for one in shown
    ]
    rest = [one for one in strip.slices if one not in shown]
    if rest:
        rows.append(
            (
                charts.swatch("hue-none"),
                f"{counted(len(rest), 'other part')}",
                duration(sum(one.seconds for one in rest)),
                percent(sum(one.share for one in rest)),
            )
        )
    return rows


def _lines(recording: Recording) -> list[tuple[str, str, str, str, str, str, str]]:
    """(place, stage, grows with, operations, syncs, forward, backward) of the costliest lines."""
    if recording.projection is None:
        return []
    return [
        (
            f"{line.location.file}:{line.location.line}",
            line.stage,
            growth_of(line),
            f"{line.operations:,.0f}",
            f"{line.syncs:,.0f}" if line.syncs else "",
            duration(line.forward_s),
            duration(line.backward_s) if line.backward_s else "",
        )
        for line in recording.projection.lines[:MOST_LINES]
    ]


def _counts(row: ProfileRow, strips: tuple[Strip, ...]) -> bool:
    """Whether a stage is told: what is in the model itself, and what is larger inside of it."""
    whole = next((s.total_s for s in strips if s.kind == "projected"), 0.0)
    both = (row.forward_s or 0.0) + (row.backward_s or 0.0)
    large = row.share >= COLOURED or (whole > 0 and both >= COLOURED * whole)
    return large or (row.depth <= 1 and row.share >= COLOURED / 10)


def _row(row: ProfileRow) -> dict[str, object]:
    return {
        "name": row.name,
        "depth": min(row.depth, 4),
        "calls": row.calls,
        "measured": duration(row.median_s),
        "spread": duration(row.spread_s),
        "share": percent(row.share),
        "bar": charts.bar(row.share, f"{percent(row.share)} of the measured step"),
        "forward": "" if row.forward_s is None else duration(row.forward_s),
        "backward": "" if not row.backward_s else duration(row.backward_s),
        "bound": row.bound or "",
        "operations": "" if row.operations is None else f"{row.operations:,.0f}",
        "syncs": "" if not row.syncs else f"{row.syncs:,.0f}",
    }
