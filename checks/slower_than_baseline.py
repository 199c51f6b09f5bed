"""The step does more, or takes longer, than it did.

What it looks at:
    A recording beside an older one of the same pipeline (`icediag profile --baseline`, `icediag
    compare`): operations, kernels, syncs and bytes by stage and line, and executions of lines that
    grow with the batch, on the same batch; then steps by time. Counts are exact. Each step that is
    timed has a fixed piece of work next to it, and steps are taken in rounds: it is slower only if
    every round is slower than every round before, by processor time and by the wall's clock, with
    the lower ends of all bootstrap intervals beyond the tolerance.
Why it hurts:
    A loop that was removed once comes back by an innocent edit, and is found weeks later by the
    bill. Counts find it in the first run, on any machine, also on one that is busy.
A bad run:
    A vectorised grouping is replaced by one over DOMs: 4,000 more operations and as many syncs in
    the stage, all in one line.
What to do:
    Look at the lines that are named. If the change is meant, write a new baseline.
Limits:
    Counts are compared on batches of the same sizes only. A count that moved to a stage of another
    name is compared with what left. Waiting that takes no processor time, for a disk say, shows in
    the wall's clock alone and is not judged.
"""

from collections.abc import Iterator
from typing import Any

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.comparison import ComparisonRecord, CountChange, TimeChange
from icediag.records.work import PHASES

CODE = "P24"
NAME = "slower-than-baseline"
NEEDS = ("comparison",)

#: A count may rise by this share of that of the whole step; lines that grow with the batch by the
#: other share of all lines of that part of the step, for every line of a sample's reading is one.
COUNTS, EXECUTIONS = 0.02, 0.25
#: Times may rise by this: a busy machine slows the yardstick down too, but not quite as much.
TIMES = 1.25
#: Rounds that must agree.
ROUNDS = 2


def beyond(change: CountChange) -> bool:
    """Whether a count rose by more than it may; of syncs none may be added."""
    if change.after <= change.before:
        return False
    if change.measure == "syncs":
        return True
    return change.share > (EXECUTIONS if change.measure == "executions" else COUNTS)


def slower(times: tuple[TimeChange, ...]) -> bool:
    """Whether every round is slower than every round before."""
    rounds = {time.new_round for time in times}
    return len(rounds) >= ROUNDS and all(min(time.low, time.wall_low) > TIMES for time in times)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name stages whose counts rose, and a step that got slower."""
    comparison = recording.comparison
    if comparison is None:
        return Unjudged(name=NAME, reason="there is no baseline to compare with")
    if comparison.samples is None and not comparison.times:
        reasons = "; ".join(item.reason for item in comparison.missing)
        return Unjudged(name=NAME, reason=reasons or "nothing is common to both recordings")
    return (*_counts(comparison), *_times(comparison))


def _counts(comparison: ComparisonRecord) -> Iterator[Finding]:
    stages: dict[tuple[str, str], list[CountChange]] = {}
    for change in comparison.counts:
        if beyond(change):
            stages.setdefault((change.phase, change.stage), []).append(change)
    order = list(PHASES)
    for (phase, stage), changes in sorted(
        stages.items(), key=lambda item: (order.index(item[1][0].phase), -item[1][0].share)
    ):
        # Syncs tell a line better than operations do, these better than bytes.
        told = [line for change in changes for line in change.lines]
        top = max(told, key=lambda line: line.after - line.before, default=None)
        for change in changes:
            if change.lines and change.measure in ("syncs", "operations", "executions"):
                top = change.lines[0]
                break
        what = "; ".join(
            f"{change.measure} {change.before:,} -> {change.after:,}" for change in changes
        )
        where = f"{phase}, {stage}" if stage and stage != phase else phase
        line = "" if top is None or not top.text else f"; most of it at `{top.text}`"
        evidence: dict[str, Any] = {
            change.measure: {
                "before": change.before,
                "after": change.after,
                "step_before": change.whole,
            }
            for change in changes
        }
        yield Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=stage or phase,
            message=f"On the same batch of {comparison.samples} samples, {where}: {what}{line}.",
            evidence={"phase": phase, "samples": comparison.samples, **evidence},
            remedy="Undo what was added here; or, if it is meant, write a new baseline.",
            location=top.location if top is not None else None,
        )


def _times(comparison: ComparisonRecord) -> Iterator[Finding]:
    times = comparison.times
    if not slower(times):
        return
    low = min(min(time.low, time.wall_low) for time in times)
    ratio = sorted(time.ratio for time in times)[len(times) // 2]
    worst = max(
        (stage for stage in comparison.stages if stage.depth <= 1),
        key=lambda stage: stage.after_s - stage.before_s,
        default=None,
    )
    most = "" if worst is None else f"; most of it in {worst.name}"
    yield Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=worst.name if worst is not None else "step",
        message=(
            f"A step takes {ratio:.2f} times what it did, beside the same yardstick; at least "
            f"{low:.2f} times in each of {len(times)} pairs of rounds, with "
            f"{100 * comparison.confidence:.0f} % confidence{most}."
        ),
        evidence={
            "ratio": ratio,
            "at_least": low,
            "pairs_of_rounds": len(times),
            "before_s": comparison.before_s,
            "after_s": comparison.after_s,
        },
        remedy="Look at the stages that got slower (icediag compare); or write a new baseline.",
        location=worst.location if worst is not None else None,
    )
