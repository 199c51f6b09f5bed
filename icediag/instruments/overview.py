"""Overview: what the clock measured of each stage beside what is projected of it."""

from icediag.clock_record import ClockRecord, StageClock, StageMemory, middle, spread
from icediag.profile_record import ProfileRow
from icediag.projection_record import ProjectionRecord, StageProjection

#: Which parts of a projected step a stage of the clock is, where it is not a stage of the model.
_PHASES = {"loss": ("loss",), "backward": ("backward",), "optimizer": ("optimizer",)}


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
                syncs=sum(part.syncs for part in parts) if known else None,
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
