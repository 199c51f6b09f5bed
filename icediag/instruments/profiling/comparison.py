"""Comparison: counts of two recordings exactly, their times by paired steps with an interval.

Lines are known again by what stands in them. Times are never those of one run: every step has the
same fixed piece of work next to it, which tells how fast the machine was just then, and steps are
taken in several rounds, of which each is compared with each.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from icediag.matching import match_lines
from icediag.place import Location, Unjudged
from icediag.recording import Recording
from icediag.records.clock import ClockRecord, middle
from icediag.records.comparison import (
    MEASURES,
    ComparisonRecord,
    CountChange,
    LineChange,
    Measure,
    StageTime,
    TimeChange,
)
from icediag.records.source import place_key
from icediag.records.work import PHASES, LinesRecord, OperationsRecord, Phase, WorkRun

#: Of the intervals, and how often is drawn for them.
CONFIDENCE, DRAWS = 0.99, 2000
#: A round of fewer steps says nothing of how they spread.
FEWEST = 3
#: Lines that are named of a count.
MOST_LINES = 8

#: (phase, stage) -> line or None -> count.
Counts = dict[tuple[Phase, str], dict[Location | None, int]]


def compare(old: Recording, new: Recording, *, seed: int = 0) -> ComparisonRecord:
    """Put two recordings of `icediag profile` or `icediag check` side by side.

    Args:
        old: Of the code as it was.
        new: Of the code as it is.
        seed: Of the draws for the intervals.
    """
    missing: list[Unjudged] = []
    lines = _lines_of(old, new)
    counts: list[CountChange] = []
    totals: dict[str, tuple[int, ...]] = {}
    samples = None
    runs = _common(old.operations, new.operations, "operations", missing)
    if runs is not None and old.operations is not None and new.operations is not None:
        samples = old.operations.runs[runs[0]].samples
        for measure in MEASURES[:-1]:
            before = _operations(old.operations, runs[0], measure)
            after = _operations(new.operations, runs[1], measure)
            counts += _changes(measure, before, after, lines, new)
            totals[measure] = _whole(before), _whole(after)
    runs = _common(old.lines, new.lines, "executions", missing)
    if runs is not None and old.lines is not None and new.lines is not None:
        samples = samples or old.lines.runs[runs[0]].samples
        before, after = _executions(old.lines, runs[0]), _executions(new.lines, runs[1])
        wholes = {phase: executed[runs[0]] for phase, executed in old.lines.executed.items()}
        counts += _changes("executions", before, after, lines, new, wholes)
        totals["executions"] = tuple(
            sum(executed[run] for executed in record.executed.values())
            for record, run in ((old.lines, runs[0]), (new.lines, runs[1]))
        )
    fields = {} if old.clock is None or new.clock is None else _clocks(old.clock, new.clock, seed)
    if not fields:
        missing.append(Unjudged(name="times", reason="they were not recorded in both"))
    elif "reason" in fields:
        missing.append(Unjudged(name="times", reason=str(fields.pop("reason"))))
    return ComparisonRecord(
        before=old.pipeline,
        after=new.pipeline,
        samples=samples,
        counts=tuple(counts),
        totals=totals,
        confidence=CONFIDENCE,
        missing=tuple(missing),
        **fields,  # type: ignore[arg-type]
    )


# Counts.


def _common(
    old: OperationsRecord | LinesRecord | None,
    new: OperationsRecord | LinesRecord | None,
    name: str,
    missing: list[Unjudged],
) -> tuple[int, int] | None:
    """Indices of the largest batch that both counted."""
    if old is None or new is None:
        missing.append(Unjudged(name=name, reason="they were not recorded in both"))
        return None
    pairs = [
        (i, j)
        for i, before in enumerate(old.runs)
        for j, after in enumerate(new.runs)
        if _same(before, after)
    ]
    if not pairs:
        reason = "no batch of the same samples was counted in both: the data differ"
        missing.append(Unjudged(name=name, reason=reason))
        return None
    return max(pairs, key=lambda pair: (old.runs[pair[0]].samples, pair))


def _same(before: WorkRun, after: WorkRun) -> bool:
    """Whether two runs are of the same batch, as far as its sizes tell."""
    common = before.axes.keys() & after.axes.keys()
    alike = all(before.axes[name] == after.axes[name] for name in common)
    return before.samples == after.samples and alike


def _operations(record: OperationsRecord, run: int, measure: Measure) -> Counts:
    counts: Counts = defaultdict(lambda: defaultdict(int))
    for operation in record.operations:
        values = {
            "operations": operation.calls,
            "launches": operation.launches,
            "syncs": operation.syncs,
        }.get(measure)
        if values is None:
            n = operation.bytes_read[run] + operation.bytes_written[run]
        else:
            n = values[run]
        counts[operation.phase, operation.stage][operation.location] += n
    return counts


def _executions(record: LinesRecord, run: int) -> Counts:
    """Of lines that grow with the batch, by part of the step."""
    counts: Counts = {(phase, ""): {} for phase in PHASES if phase in record.executed}
    for line in record.lines:
        counts.setdefault((line.phase, ""), {})[line.location] = line.counts[run]
    return counts


def _whole(counts: Counts) -> int:
    return sum(sum(of_line.values()) for of_line in counts.values())


def _lines_of(old: Recording, new: Recording) -> dict[Location, Location]:
    return match_lines(*(_texts(recording) for recording in (old, new)))


def _texts(recording: Recording) -> dict[Location, str]:
    texts = recording.source.texts if recording.source is not None else {}
    places = set()
    if recording.operations is not None:
        places |= {operation.location for operation in recording.operations.operations}
    if recording.lines is not None:
        places |= {line.location for line in recording.lines.lines}
    return {
        place: texts.get(place_key(place.file, place.line), "")
        for place in places
        if place is not None
    }


def _changes(
    measure: Measure,
    before: Counts,
    after: Counts,
    lines: dict[Location, Location],
    new: Recording,
    wholes: dict[str, int] | None = None,
) -> Iterator[CountChange]:
    """By stage what differs; stages that are in one recording alone are taken together."""
    whole = _whole(before)
    texts = _texts(new)
    for phase in PHASES:
        olds = {stage: of_line for (p, stage), of_line in before.items() if p == phase}
        news = {stage: of_line for (p, stage), of_line in after.items() if p == phase}
        pairs = [(stage, olds[stage], news[stage]) for stage in news if stage in olds]
        gone, come = _joined(olds, news), _joined(news, olds)
        if gone or come:
            added = [stage for stage in news if stage not in olds]
            pairs.append((added[0] if len(added) == 1 else "", gone, come))
        for stage, was, now in pairs:
            total, total_now = sum(was.values()), sum(now.values())
            if total == total_now:
                continue
            yield CountChange(
                measure=measure,
                phase=phase,
                stage=stage,
                before=total,
                after=total_now,
                whole=whole if wholes is None else wholes.get(phase, 0),
                lines=tuple(_risen(was, now, lines, texts)) if total_now > total else (),
            )


def _joined(
    some: dict[str, dict[Location | None, int]], others: dict[str, dict[Location | None, int]]
) -> dict[Location | None, int]:
    """Counts by line of the stages that the others do not have."""
    total: dict[Location | None, int] = defaultdict(int)
    for stage, of_line in some.items():
        if stage not in others:
            for place, n in of_line.items():
                total[place] += n
    return dict(total)


def _risen(
    was: dict[Location | None, int],
    now: dict[Location | None, int],
    lines: dict[Location, Location],
    texts: dict[Location, str],
) -> list[LineChange]:
    found = []
    for place, n in now.items():
        if place is None:
            continue
        twin = lines.get(place)
        before = was.get(twin, 0) if twin is not None else 0
        if n > before:
            found.append(
                LineChange(
                    location=place,
                    text=texts.get(place, ""),
                    before=before,
                    after=n,
                    known=twin is not None,
                )
            )
    return sorted(found, key=lambda line: line.before - line.after)[:MOST_LINES]


# Times.


def _clocks(old: ClockRecord, new: ClockRecord, seed: int) -> dict[str, object]:
    """Fields of the comparison that speak of times and memory; `reason` where there are none."""
    fields: dict[str, object] = {}
    if old.batch_size != new.batch_size:
        return {
            "reason": f"steps of {old.batch_size:,} and of {new.batch_size:,} samples were timed"
        }
    if old.memory is not None and new.memory is not None and old.device == new.device:
        fields["memory"] = old.memory.peak_bytes, new.memory.peak_bytes
    if (old.machine, old.device) != (new.machine, new.device):
        return fields | {"reason": f"other machines: {old.machine}; {new.machine}"}
    before, after = list(_rounds(old)), list(_rounds(new))
    if not before or not after:
        return fields | {"reason": f"expected rounds of {FEWEST} steps or more in both"}
    draw = np.random.default_rng(seed)
    times = []
    for (i, a), (j, b) in itertools.product(enumerate(before), enumerate(after)):
        ratio, low, high = _interval(a[0], b[0], draw)
        wall, wall_low, wall_high = _interval(a[1], b[1], draw)
        times.append(
            TimeChange(
                old_round=i,
                new_round=j,
                old_steps=len(a[0]),
                new_steps=len(b[0]),
                ratio=ratio,
                low=low,
                high=high,
                wall_ratio=wall,
                wall_low=wall_low,
                wall_high=wall_high,
            )
        )
    speed = middle(old.yardstick_s) / middle(new.yardstick_s)
    twins = {(stage.name, stage.depth): stage for stage in old.stages}
    stages = [
        StageTime(
            name=stage.name,
            depth=stage.depth,
            before_s=middle(twin.total_s),
            after_s=middle(stage.total_s) * speed,
            location=stage.location,
        )
        for stage in new.stages
        if (twin := twins.get((stage.name, stage.depth))) is not None
    ]
    return fields | {
        "times": tuple(times),
        "before_s": middle(old.step_s),
        "after_s": middle(new.step_s) * speed,
        "stages": tuple(stages),
    }


def _rounds(clock: ClockRecord) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each round long enough, step by yardstick: by processor time, and by the wall's clock.

    On a GPU the processor's time is that of waiting: there the wall's clock stands for both.
    """
    at = 0
    for n in clock.rounds or (len(clock.step_s),):
        part = slice(at, at + n)
        at += n
        wall = np.array(clock.step_s[part]) / np.array(clock.yardstick_s[part])
        used, beside = clock.processor_s[part], clock.yardstick_processor_s[part]
        on_host = clock.timer == "host clock" and min(used, default=0) > 0 < min(beside, default=0)
        if n >= FEWEST:
            yield (np.array(used) / np.array(beside) if on_host else wall), wall


def _interval(
    before: np.ndarray, after: np.ndarray, draw: np.random.Generator
) -> tuple[float, float, float]:
    """Ratio of the medians, and its bootstrap interval by percentiles (Efron 1979)."""
    olds = np.median(draw.choice(before, (DRAWS, len(before))), axis=1)
    news = np.median(draw.choice(after, (DRAWS, len(after))), axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(news / olds, [tail, 1 - tail])
    return float(np.median(after) / np.median(before)), float(low), float(high)
