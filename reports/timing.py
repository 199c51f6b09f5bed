"""Where the time of a training step goes, as reports tell it: measured, and projected.

Measured and projected never stand in one number: each strip, column and sentence says which it is.
"""

from dataclasses import dataclass

from icediag.instruments.profiling.overview import overview
from icediag.recording import Recording
from icediag.records.clock import middle, spread
from icediag.records.profile import ProfileRow
from icediag.records.projection import LineProjection

from .numbers import counted, duration, percent

#: A part of the strip that is shorter than this share of it has no room for its name.
NAMED = 0.045
#: What a step does after the flow of the batch.
AFTER = ("backward", "optimizer")
#: Stages of the flow's outermost kinds, as people call them.
NAMES = {"item": "reading samples", "collate": "collate", "transfer": "copy to the device"}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of a step.

    Attributes:
        name: Of the stage, or of what the step does.
        seconds: How long.
        share: Of the whole step, 0..1.
        kind: Such as "module" or "backward", for its colour.
        stage: Stage of the recording that it is, None for what is none, such as the optimizer.
    """

    name: str
    seconds: float
    share: float
    kind: str
    stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A step from its beginning to its end.

    Attributes:
        kind: "measured" or "projected".
        title: Such as "measured on cpu".
        total_s: Seconds of the whole step.
        remark: Of how many samples, and how it was found.
        slices: Its parts, in their order.
    """

    kind: str
    title: str
    total_s: float
    remark: str
    slices: tuple[Slice, ...]


def rows_of(recording: Recording) -> tuple[ProfileRow, ...]:
    """The table of the step; nothing where no clock ran."""
    return overview(recording.clock, recording.projection) if recording.clock is not None else ()


def strips_of(recording: Recording) -> tuple[Strip, ...]:
    """The step as it was measured and as it is projected, as far as either is known."""
    return tuple(one for one in (_measured(recording), _projected(recording)) if one is not None)


def shares_of(recording: Recording) -> dict[str, dict[str, float]]:
    """Kind of strip -> stage, or "backward" and "optimizer" -> its share of the step."""
    return {
        strip.kind: {
            one.stage or one.kind: one.share
            for one in strip.slices
            if one.stage is not None or one.kind in AFTER
        }
        for strip in strips_of(recording)
    }


def _measured(recording: Recording) -> Strip | None:
    clock = recording.clock
    if clock is None or not clock.stages:
        return None
    parts: list[tuple[str, float, str, str | None]] = []
    rows = overview(clock)
    for i, row in enumerate(rows):
        inner = i + 1 < len(rows) and rows[i + 1].depth > row.depth
        stage = row.name if row.kind in ("item", "collate", "module", "function", "loss") else None
        if row.depth == 0 and inner:
            parts.append((f"{row.name}, its own lines", row.self_s, row.kind, stage))
        elif row.depth <= 1:
            parts.append((NAMES.get(row.kind, row.name), row.median_s, row.kind, stage))
    parts.append(("between stages", middle(clock.other_s), "other", None))
    total = sum(seconds for _, seconds, _, _ in parts)
    few = "" if clock.batch_size == clock.wanted else f" of {clock.wanted:,} asked for"
    n = f"{counted(clock.batch_size, 'sample')}{few}"
    remark = (
        f"{n}; median of {counted(len(clock.step_s), 'step')}, ± {duration(spread(clock.step_s))}; "
        f"{clock.timer}; {clock.machine}"
    )
    return _strip("measured", f"Measured on {clock.device}", total, remark, parts)


def _projected(recording: Recording) -> Strip | None:
    projection = recording.projection
    if projection is None or not projection.stages:
        return None
    outer = outer_stages(recording)
    parts: dict[tuple[str, str], float] = {}
    for part in projection.stages:
        name = outer.get(part.stage, part.stage)
        key = (part.phase, "") if part.phase in ("backward", "optimizer") else (part.phase, name)
        parts[key] = parts.get(key, 0.0) + part.time_s
    known = {stage.name: stage.kind for stage in reversed(recording.stages)}
    rows = []
    for (phase, name), seconds in parts.items():
        stage = name if name in known else None
        kind: str = known[name] if stage is not None else phase
        rows.append((name or phase, seconds, kind, stage))
    counts = ", ".join(map(str, sorted(set(projection.counted_at))))
    remark = f"{counted(projection.batch_size, 'sample')}; from operations that were counted"
    if projection.extrapolated:
        remark += f" at {counts} samples and extended"
    remark += "; reading samples, collate and the copy to the device are not part of it"
    return _strip("projected", f"Projected on {projection.title}", projection.step_s, remark, rows)


def _strip(
    kind: str,
    title: str,
    total: float,
    remark: str,
    parts: list[tuple[str, float, str, str | None]],
) -> Strip:
    slices = tuple(
        Slice(
            name=name,
            seconds=seconds,
            share=seconds / total if total > 0 else 0.0,
            kind=kind_of,
            stage=stage,
        )
        for name, seconds, kind_of, stage in parts
        if seconds > 0
    )
    return Strip(kind=kind, title=title, total_s=total, remark=remark, slices=slices)


def outer_stages(recording: Recording) -> dict[str, str]:
    """Stage -> the stage right below the model that it runs in; itself where it is that."""
    found: dict[str, str] = {}
    outer = ""
    for stage in recording.stages:
        if stage.depth <= 1:
            outer = stage.name
        found.setdefault(stage.name, outer)
    return found


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What the projected step would be shorter by.

    Attributes:
        what: Without what.
        seconds: By how long.
        share: Of the step, 0..1.
        why: What it means.
        avoidable: Whether a step of any size does without it.
    """

    what: str
    seconds: float
    share: float
    why: str
    avoidable: bool = False


def losses_of(recording: Recording) -> tuple[Loss, ...]:
    """What the projected step loses, largest first; the parts overlap."""
    projection = recording.projection
    if projection is None or not projection.step_s > 0:
        return ()
    each = "operations issued once for every event, row or sample, forward and back"
    rows = (
        ("loops that grow with the batch", projection.loops_s, each, True),
        ("issuing operations", projection.lost_launches_s, "the device waits for the host", False),
        ("syncs", projection.lost_syncs_s, "the host waits for the device", False),
        ("padding", projection.lost_padding_s, "slots that hold nothing are computed", True),
    )
    found = [
        Loss(what=what, seconds=s, share=s / projection.step_s, why=why, avoidable=avoidable)
        for what, s, why, avoidable in rows
        if s is not None and s > 0
    ]
    return tuple(sorted(found, key=lambda row: -row.seconds))


def growth_of(line: LineProjection) -> str:
    """Such as "doms" or "doms squared"."""
    return line.axis + ("" if line.order == 1 else " squared")


def without_loops(recording: Recording) -> str:
    """What the projected step would be without its loops, "" where there are none to speak of."""
    projection = recording.projection
    if projection is None or projection.loops_s < 0.05 * projection.step_s:
        return ""
    rest = max(0.0, projection.step_s - projection.loops_s)
    saved = percent(projection.loops_s / projection.step_s)
    return f"{duration(rest)} without loops that grow with the batch ({saved} less)"
