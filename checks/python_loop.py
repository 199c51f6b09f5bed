"""A loop in Python does one by one what grows with the batch.

What it looks at:
    Every loop of the user's own code, counted at several batch sizes: statements, comprehensions,
    recursion, and functions that `map`, `numpy.vectorize` or `DataFrame.apply` call. Of those that
    take more rounds in a larger batch: the operations, launches and reads from the device that a
    round costs, whether a round itself grows with the batch, and what share of the step that is,
    projected to a GPU.
Why it hurts:
    A GPU does in one kernel what a loop issues as thousands of small ones, each of which takes the
    host some microseconds and leaves the device idle. What is done for every pulse or event grows
    with the batch, so no larger batch and no faster device helps.
A bad run:
    `for i in range(num_doms)` that writes row by row into a padded tensor; `x[group == g].mean()`
    for every group g; a loss that is summed event by event.
What to do:
    Do all rows in one operation: index with whole tensors, reduce by group index, mask.
Limits:
    Only rounds that follow the batch are judged: a loop over layers, heads or epochs is not.
    Collate has to touch every sample once, and is named only where it does more. A loop without
    operations in data set or collate is a warning from half the step on, which workers may hide,
    and from a tenth on where the pipeline's own loader has none. Rounds along the
    longest sample may each need the one before, as in a recurrence; they are noted. Loops inside
    of libraries are not seen.
"""

from icediag.finding import Finding, Severity
from icediag.loop_reading import LoopNest, joins_again, look, nests
from icediag.recording import Recording, Unjudged
from icediag.records.work import LINE_S
from icediag.work_reading import (
    HOST_PHASES,
    Tally,
    duration,
    of_one,
    projected_in,
    tally,
)

CODE = "P01"
NAME = "python-loop"
NEEDS = ("lines", "operations", "projection")

#: Share of the projected step from which on a loop is shown to hurt, and is worth knowing.
SHARE, KNOWING = 0.10, 0.01
#: The same of a loop in data set or collate that calls no operation: workers may hide it, unless
#: the pipeline's own loader has none.
PLAIN_SHARE, PLAIN_KNOWING = 0.5, 0.05
#: Rounds below which no loop is more than worth knowing.
ROUNDS = 8
#: Operations a sample that a collate may take without being named.
NATURAL = 20
#: Seconds that a library takes beside the lines it calls, for each round. Measured on pandas 2 and
#: NumPy 2: a Series is made for every row, or a scalar for every element.
ROUND_S = {".iterrows(": 2e-5, ".apply(": 4e-6, ".itertuples(": 1e-6, "vectorize(": 2e-7}

KINDS = {
    "for": "The loop",
    "while": "The loop",
    "comprehension": "The comprehension",
    "call": "The line that has a function called again and again",
    "recursion": "The recursion",
    "backward": "The function that the backward pass calls",
}
_PRODUCTS = frozenset({"addmm", "mm", "bmm", "baddbmm", "matmul", "convolution", "mv", "addmv"})
_WRITES = frozenset({"copy", "index_put", "fill", "zero", "index_copy", "scatter", "index_fill"})


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each nest of loops at the loop that costs most."""
    lines, operations = recording.lines, recording.operations
    assert lines is not None and operations is not None
    if len(lines.runs) < 3:
        reasons = [item.reason for item in lines.not_judged]
        why = reasons[0] if reasons else "too few samples for batches of different sizes"
        return Unjudged(name=NAME, reason=f"no growth can be seen: {why}")
    found = []
    for nest in nests(lines.loops):
        finding = _finding(look(nest, lines, operations), recording)
        if finding is not None:
            found.append(finding)
    return tuple(sorted(found, key=lambda f: -float(f.evidence["projected_s"])))


def _severity(seen: LoopNest, host: bool, share: float, workers: int | None) -> Severity | None:
    """How bad it is; None where it is in order."""
    plain = _plain(seen)
    if host:
        if seen.by_sample and seen.order < 2:
            many = seen.cost.operations > NATURAL * seen.rounds
            return "note" if many and share >= SHARE else None
        hidden = plain and workers != 0
        bad, knowing = PLAIN_SHARE if hidden else SHARE, PLAIN_KNOWING
    else:
        bad, knowing = SHARE, KNOWING
    if share < knowing:
        return None
    return "warning" if share >= bad and seen.rounds >= ROUNDS and not seen.sequence else "note"


def _finding(seen: LoopNest, recording: Recording) -> Finding | None:
    projection, operations = recording.projection, recording.operations
    assert projection is not None and operations is not None and recording.lines is not None
    workers = recording.lines.workers
    loop, cost = seen.loop, seen.cost
    host = loop.phase in HOST_PHASES
    launch_s, sync_s = projection.constants["launch_s"], projection.constants["sync_s"]
    issued = cost.operations * launch_s + cost.syncs * sync_s + _python_s(seen)
    spans = [span for one in (loop, *seen.others) for span in one.spans]
    projected = issued if host else max(issued, projected_in(spans, projection))
    # Bytes that a single kernel would move just the same are not lost to the loop.
    needed = [row for row in seen.rows if row.phase != "backward"]
    at_once = tally(needed, operations).bytes / projection.constants["bandwidth"]
    flops = sum(row.flops[-1] for row in needed) / projection.rates.get("float32", 67e12)
    useful = 0.0 if host or seen.order > 1 else 3 * max(at_once, flops)
    lost = max(0.0, projected - useful - issued / max(1.0, seen.rounds))
    step = max(projection.step_s, 1e-9)
    severity = _severity(seen, host, lost / step, workers)
    if severity is None:
        return None
    total = tally(
        (row for row in operations.operations if row.phase not in HOST_PHASES), operations
    )
    here = [span for span in spans if span.file == loop.location.file]
    around = max(here, key=lambda span: span.last - span.first) if here else None
    evidence = {
        "axis": loop.growth.axis,
        "order": seen.order,
        "slope": loop.growth.slope,
        "rounds": seen.rounds,
        "counted": list(loop.counts),
        "operations": cost.operations,
        "operations_per_round": cost.operations / max(1.0, seen.rounds),
        "launches": cost.launches,
        "syncs": cost.syncs,
        "step_operations": total.operations,
        "projected_s": projected,
        "projected_share": min(1.0, projected / step),
        "lost_s": lost,
        "step_s": projection.step_s,
        "device": projection.title,
        "work_axis": seen.axis,
        "also": list(loop.growth.also),
        "nest": [f"{other.location.file}:{other.location.line}" for other in seen.others],
        "source": loop.text,
        "first_line": around.first if around else loop.location.line,
        "last_line": around.last if around else loop.location.line,
    }
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=loop.stage,
        message=_message(seen, host, projected, total, recording),
        evidence=evidence,
        remedy=_remedy(seen, host, recording),
        location=loop.location,
        effect=_measured(seen, recording),
    )


def _plain(seen: LoopNest) -> bool:
    """Whether its rounds call no operation."""
    return seen.cost.operations < seen.rounds / 2


def _python_s(seen: LoopNest) -> float:
    """Seconds that Python takes for the rounds themselves."""
    made = max((cost for name, cost in ROUND_S.items() if name in seen.loop.text), default=0.0)
    return seen.lines * LINE_S + seen.rounds * made


def _message(
    seen: LoopNest, host: bool, projected: float, total: Tally, recording: Recording
) -> str:
    loop, cost, projection = seen.loop, seen.cost, recording.projection
    assert projection is not None
    around = [other for other in seen.others if other.location == loop.inside]
    nested = f", inside of the one at line {around[0].location.line}," if around else ""
    what = (
        f"{KINDS[loop.kind]} at line {loop.location.line}{nested} takes "
        f"{_times(loop.growth.slope)} for every {of_one(loop.growth.axis)}: "
        f"{seen.rounds:,.0f} in this batch"
    )
    if not _plain(seen):
        what += f", with {cost.operations / max(1.0, seen.rounds):.3g} operations each"
        if cost.syncs and not host:
            what += f", and {cost.syncs:,.0f} waits for the device"
    said = [what]
    if seen.order > 1:
        power = "the square" if seen.order == 2 else f"the power {seen.order}"
        follows = f"follows {seen.axis}: it " if seen.axis else ""
        said.append(f"Its work {follows}grows with {power} of the batch")
    if not host and cost.operations:
        share = cost.operations / max(1.0, total.operations)
        said.append(
            f"That is {cost.operations:,.0f} of the step's {total.operations:,.0f} operations "
            f"({share:.0%})"
        )
    step = f"a step of {duration(projection.step_s)}, projected to {projection.title}"
    if host:
        waits = "without worker processes every step waits for it"
        if recording.lines is not None and recording.lines.workers == 0:
            waits = "the pipeline's loader has no worker processes, so that every step waits for it"
        said.append(f"It takes the host about {duration(projected)}, beside {step}; {waits}")
    else:
        said.append(f"It takes {duration(projected)} of {step}")
    return ". ".join(said) + "."


def _times(slope: float) -> str:
    return "a round" if slope == 1 else f"{slope:.3g} rounds"


def _measured(seen: LoopNest, recording: Recording) -> dict[str, float] | None:
    """Seconds of the stage it stands in by the clock, where that ran."""
    clock = recording.clock
    if clock is None or not clock.step_s:
        return None
    for stage in clock.stages:
        if stage.name == seen.loop.stage and stage.total_s:
            seconds = {"stage_s": min(stage.total_s), "step_s": min(clock.step_s)}
            return {**seconds, "samples": clock.batch_size}
    return None


def _remedy(seen: LoopNest, host: bool, recording: Recording) -> str:
    """The idiom that does it at once, by what the loop's rounds do."""
    forward = [row for row in seen.rows if row.phase != "backward"]
    names = {row.op for row in forward}
    each = of_one(seen.loop.growth.axis)
    waiting = {row.op for row in forward if row.syncs[-1]}
    masks = bool(waiting & {"index", "masked_select", "nonzero"})
    reads = bool(waiting & {"_local_scalar_dense", "tolist", "numpy"}) and not host
    if seen.sequence:
        said = (
            "Do all positions at once; where a round needs the one before it, use a fused "
            "recurrence (nn.LSTM, nn.GRU) or a scan."
        )
    elif _plain(seen):
        said = f"Work on whole arrays (NumPy or torch) in place of one {each} at a time."
    elif any("attention" in name for name in names):
        said = "Attend once: pad the groups with a mask, or use a variable-length kernel."
    elif masks:
        said = (
            "Reduce by group index in one operation: index_add or scatter_reduce over the index "
            "that the mask compares with; or sort by it once and work on segments."
        )
    elif recording.lines and any(joins_again(row, recording.lines) for row in forward):
        said = (
            "Collect the parts in a list and join them once, after the loop: each join copies all."
        )
    elif names & _PRODUCTS:
        said = f"Apply the layer once to all of them; it needs no round a {each}."
    elif names & {"sort", "unique", "_unique2", "argsort", "topk"}:
        said = "Sort once by (group, key) and work on segments of the sorted rows."
    elif names & _WRITES:
        said = (
            "Write all rows at once by advanced indexing, out[group, place] = rows; the place of a "
            "row in its group is its number minus the group's first, from a cumulative sum."
        )
    elif reads:
        said = "Keep the values on the device and index with whole tensors."
    else:
        said = f"Do it for every {each} at once, on the whole tensor: gather, mask, index_add."
    if reads and not seen.sequence:
        said += " No .item(), int() or `if` on a tensor inside: each waits for the device."
    return said
