"""Overview: what the clock measured of each stage beside what is projected of it."""

from icediag.place import Location, Unjudged
from icediag.recording import Recording
from icediag.records.clock import ClockRecord, LoaderClock, StageClock, StageMemory, middle, spread
from icediag.records.profile import LoaderRow, LoopRow, Profile, ProfileRow, Projected
from icediag.records.projection import LineProjection, ProjectionRecord, StageProjection
from icediag.records.work import LINE_S, LinesRecord, LoopRecord, at_axes

#: Which parts of a projected step a stage of the clock is, where it is not a stage of the model.
_PHASES = {"loss": ("loss",), "backward": ("backward",), "optimizer": ("optimizer",)}


def summary(recording: Recording) -> Profile:
    """Everything of a recording that `icediag profile` shows."""
    clock, projection = recording.clock, recording.projection
    known: dict[str, str] = {item.name: item.reason for item in recording.not_judged}
    for record in (recording.operations, recording.lines):
        known |= {item.name: item.reason for item in record.not_judged} if record else {}
    profile = Profile(
        pipeline=recording.pipeline,
        batch_size=recording.batch_size,
        projected=_projected(projection, clock) if projection is not None else None,
        loops=tuple(_loops(recording.lines, projection)),
        missing=tuple(Unjudged(name=name, reason=reason) for name, reason in known.items()),
    )
    if clock is None:
        return profile
    known |= clock.missing
    memory = clock.memory
    shown = {
        "timed": clock.batch_size,
        "device": clock.device,
        "machine": clock.machine,
        "timer": clock.timer,
        "repeats": len(clock.step_s),
        "step_s": middle(clock.step_s) if clock.step_s else None,
        "step_spread_s": spread(clock.step_s),
        "overhead": clock.overhead,
        "other_s": middle(clock.other_s),
        "rows": overview(clock, projection),
        "peak_bytes": memory.peak_bytes if memory is not None else None,
        "left_bytes": memory.left_bytes if memory is not None else (),
        "loader": tuple(map(_loader, clock.loader)),
        "missing": tuple(Unjudged(name=name, reason=reason) for name, reason in known.items()),
    }
    return Profile(**{**vars(profile), **shown})


def overview(
    clock: ClockRecord, projection: ProjectionRecord | None = None
) -> tuple[ProfileRow, ...]:
    """One row a stage, in the order of the step."""
    step = sum(middle(s.total_s) for s in clock.stages if s.depth == 0) + middle(clock.other_s)
    memory = iter(clock.memory.stages if clock.memory is not None else ())
    remaining = list(memory)
    rows = []
    for i, stage in enumerate(clock.stages):
        seen = _memory_of(stage, remaining)
        parts = [] if projection is None else _parts(clock.stages, i, projection)
        back = [part for part in parts if part.phase == "backward"]
        ahead = [part for part in parts if part.phase != "backward"]
        known = projection is not None and stage.kind not in ("item", "collate", "transfer")
        moved = sum(part.bytes for part in parts)
        padded = sum(part.padding_bytes for part in parts)
        rows.append(
            ProfileRow(
                name=stage.name,
                kind=stage.kind,
                depth=stage.depth,
                calls=stage.calls,
                median_s=middle(stage.total_s),
                spread_s=spread(stage.total_s),
                self_s=middle(stage.self_s),
                share=middle(stage.total_s) / step if step else 0.0,
                peak_bytes=seen.peak_bytes if seen else None,
                kept_bytes=seen.kept_bytes if seen else None,
                forward_s=sum(part.time_s for part in ahead) if known else None,
                backward_s=sum(part.time_s for part in back) if known else None,
                bound=max(parts, key=lambda part: part.time_s).bound if parts else None,
                operations=sum(part.operations for part in parts) if known else None,
                launches=sum(part.launches for part in parts) if known else None,
                syncs=sum(part.syncs for part in parts) if known else None,
                bytes=moved if known else None,
                padding=padded / moved if padded and moved else None,
                location=stage.location,
            )
        )
    return tuple(rows)


def _memory_of(stage: StageClock, remaining: list[StageMemory]) -> StageMemory | None:
    """The stage of the same name and depth that comes next."""
    for i, seen in enumerate(remaining):
        if (seen.name, seen.depth) == (stage.name, stage.depth):
            return remaining.pop(i)
    return None


def _parts(
    stages: tuple[StageClock, ...], at: int, projection: ProjectionRecord
) -> list[StageProjection]:
    """Parts of the projected step that belong to a stage or to one inside of it."""
    stage = stages[at]
    if stage.kind in ("backward", "optimizer"):
        return [part for part in projection.stages if part.phase in _PHASES[stage.kind]]
    if stage.kind == "loss":
        return [part for part in projection.stages if part.stage == "loss"]
    names = {stage.name}
    for inner in stages[at + 1 :]:
        if inner.depth <= stage.depth:
            break
        names.add(inner.name)
    return [part for part in projection.stages if part.stage in names]


def _projected(projection: ProjectionRecord, clock: ClockRecord | None) -> Projected:
    step = projection.step_s

    def share(seconds: float) -> float:
        return seconds / step if step else 0.0

    fetch = None
    if clock is not None and clock.stages and clock.batch_size:
        fetch = clock.fetch_s * projection.batch_size / clock.batch_size
    padding = projection.lost_padding_s
    return Projected(
        title=projection.title,
        source=projection.source,
        constants=projection.constants,
        rates=projection.rates,
        step_s=step,
        samples_per_s=projection.batch_size / step if step else 0.0,
        busy=share(projection.device_busy_s),
        lost_launches=share(projection.lost_launches_s),
        lost_python=share(projection.lost_python_s),
        lost_syncs=share(projection.lost_syncs_s),
        lost_padding=None if padding is None else share(padding),
        loops=share(projection.loops_s),
        counted_at=projection.counted_at,
        extrapolated=projection.extrapolated,
        unfitted=projection.unfitted,
        fetch_s=fetch,
        workers=fetch / step if fetch is not None and step else None,
    )


def _loader(loader: LoaderClock) -> LoaderRow:
    return LoaderRow(
        workers=loader.workers,
        own=loader.own,
        wait_s=middle(loader.wait_s),
        wait_spread_s=spread(loader.wait_s),
        step_s=middle(loader.step_s),
        waiting=loader.waiting,
        batches=len(loader.wait_s),
    )


# Loops.


def _loops(lines: LinesRecord | None, projection: ProjectionRecord | None) -> list[LoopRow]:
    """Loops with the operations of their lines; then lines that are in no loop. Costliest first."""
    projected = list(projection.lines) if projection is not None else []
    taken: set[Location] = set()
    rows: dict[tuple[object, ...], LoopRow] = {}
    for loop in lines.loops if lines is not None else ():
        assert lines is not None
        on_host = loop.phase in ("dataset item", "collate", "transfer")
        within = [] if on_host else [p for p in projected if _holds(loop, p.location)]
        taken.update(p.location for p in within)
        row = _loop(loop, lines, within, counted=projection is not None and not on_host)
        # What is read sample by sample and what is read at once may both meet the same line.
        rows.setdefault((loop.location, loop.phase), row)
    for line in projected:
        if line.location not in taken:
            rows[line.location, "line"] = _alone(line)
    return sorted(
        rows.values(),
        key=lambda row: (-((row.forward_s or 0.0) + (row.backward_s or 0.0)), -row.rounds),
    )


def _holds(loop: LoopRecord, place: Location) -> bool:
    return any(span.holds(place) for span in loop.spans)


def _loop(
    loop: LoopRecord, lines: LinesRecord, within: list[LineProjection], *, counted: bool
) -> LoopRow:
    rounds = at_axes(loop.growth, lines.axes)
    if rounds is None:  # its axis is not known in the batch: as the samples grow
        rounds = loop.counts[-1] * lines.batch_size / lines.runs[-1].samples
    # With what its lines take themselves, as far as they grow with its rounds.
    own = (loop.lines[-1] if loop.lines else 0) * rounds / max(1, loop.counts[-1]) * LINE_S
    return LoopRow(
        location=loop.location,
        phase=loop.phase,
        stage=loop.stage,
        kind=loop.kind,
        axis=loop.growth.axis,
        order=loop.growth.order,
        rounds=max(0.0, rounds),
        operations=sum(line.operations for line in within) if counted else None,
        syncs=sum(line.syncs for line in within) if counted else None,
        forward_s=own + sum(line.forward_s for line in within) if counted else None,
        backward_s=sum(line.backward_s for line in within) if counted else None,
        inside=loop.inside,
        text=loop.text,
    )


def _alone(line: LineProjection) -> LoopRow:
    return LoopRow(
        location=line.location,
        phase="forward",
        stage=line.stage,
        kind=None,
        axis=line.axis,
        order=line.order,
        rounds=line.operations,
        operations=line.operations,
        syncs=line.syncs,
        forward_s=line.forward_s,
        backward_s=line.backward_s,
    )
