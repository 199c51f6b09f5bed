"""The host waits for the device in the middle of a step.

What it looks at:
    Every place of forward pass, loss, backward pass and optimizer where the host needs a value, or
    the number of values, of a tensor: `.item()`, `float()`, `if` on a tensor, `.tolist()`,
    `.cpu()`, printing, `nonzero`, `unique`, indexing by a mask, `bincount`, `repeat_interleave`
    without `output_size`. Counted at several batch sizes, by line.
Why it hurts:
    A GPU works off what the host has issued. Where the host must wait for it, the queue runs dry,
    and what is issued next finds an idle device: tens of microseconds each time, whatever the
    device.
A bad run:
    `lengths[i].item()` for every event; `float(loss)` for every event in a log.
What to do:
    Keep numbers on the device; read what is logged once a step or less, after the step; give sizes
    that are known beforehand (`output_size`, `minlength`, a length from collate).
Limits:
    Counted on the host, where nothing waits; what a GPU would wait is projected. A few reads a step
    whose number does not grow are a note at most. Collate works on the host anyway and is not
    looked at.
"""

from collections.abc import Iterable

from icediag.finding import Finding, Severity
from icediag.recording import Location, Recording, Unjudged
from icediag.records.work import OperationRecord
from icediag.work_reading import HOST_PHASES, degree, duration, of_one, tally

CODE = "P02"
NAME = "host-sync"
NEEDS = ("operations", "projection")

#: Waits that follow the batch: how many, and what share of the projected step, are shown to hurt.
GROWING, GROWING_SHARE = 16, 0.01
#: The same of waits that do not follow it, of all lines together.
STEADY, STEADY_SHARE = 32, 0.10
#: Share from which on these are worth knowing.
KNOWING = 0.01

READS = {
    "_local_scalar_dense": ".item(), int(), float() or `if` on a tensor",
    "tolist": ".tolist()",
    "cpu": ".cpu()",
    "numpy": ".numpy()",
    "__array__": "NumPy on a tensor",
    "repr": "printing",
    "format": "printing",
    "index": "indexing by a mask",
    "index_put": "writing by a mask",
    "masked_select": "masked_select",
    "nonzero": "nonzero or where",
    "_unique2": "unique",
    "bincount": "bincount",
    "repeat_interleave": "repeat_interleave without output_size",
    "_to_copy": "a copy to the host",
    "copy": "a copy to the host",
    "equal": "comparing tensors as a whole",
}
CURES = {
    "_local_scalar_dense": "keep the number as a tensor; read what is logged once, after the step",
    "tolist": "read it once, or have collate pass it as numbers",
    "index": "use torch.where or multiply by the mask, or pass indices that collate has found",
    "index_put": "use torch.where, or masked_fill with one value",
    "nonzero": "use torch.where with three arguments, or indices that collate has found",
    "_unique2": "have collate find the groups",
    "bincount": "use index_add of ones into a tensor whose size is known, or lengths from collate",
    "repeat_interleave": "pass output_size, which is the number of rows",
}


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name lines whose waits follow the batch, and tell of the others together."""
    operations = recording.operations
    assert operations is not None
    if not operations.runs:
        reasons = [item.reason for item in operations.not_judged]
        return Unjudged(name=NAME, reason=reasons[0] if reasons else "no step was counted")
    lines: dict[tuple[Location | None, str], list[OperationRecord]] = {}
    for row in operations.operations:
        if row.syncs[-1] and row.phase not in HOST_PHASES:
            key = row.location, "" if row.location is not None else row.stage
            lines.setdefault(key, []).append(row)
    findings: list[Finding] = []
    steady: list[OperationRecord] = []
    for rows in lines.values():
        grows = [row for row in rows if _grows(row, recording)]
        if grows and (finding := _growing(grows, recording)) is not None:
            findings.append(finding)
        steady.extend(row for row in rows if row not in grows)
    findings.sort(key=lambda finding: -float(finding.evidence["syncs"]))
    if steady and (told := _steady(steady, recording)) is not None:
        findings.append(told)
    return tuple(findings)


def _grows(row: OperationRecord, recording: Recording) -> bool:
    operations = recording.operations
    assert operations is not None
    return degree(row.growth, operations.longest) > 0 and len(set(row.syncs)) > 1


def _cost(rows: Iterable[OperationRecord], recording: Recording) -> tuple[float, float, float]:
    """Waits a step, what they take, and the share of the projected step."""
    operations, projection = recording.operations, recording.projection
    assert operations is not None and projection is not None
    syncs = tally(rows, operations).syncs
    seconds = syncs * projection.constants["sync_s"]
    return syncs, seconds, seconds / max(projection.step_s, 1e-9)


def _named(rows: Iterable[OperationRecord]) -> str:
    """What they do, each once."""
    return ", ".join(dict.fromkeys(READS.get(row.op, row.op) for row in rows))


def _cured(rows: Iterable[OperationRecord]) -> str:
    cures = dict.fromkeys(CURES[row.op] for row in rows if row.op in CURES)
    said = "; ".join(cures) or "keep the values on the device"
    return f"{said[:1].upper()}{said[1:]}."


def _growing(rows: list[OperationRecord], recording: Recording) -> Finding | None:
    projection = recording.projection
    assert projection is not None
    syncs, seconds, share = _cost(rows, recording)
    first = max(rows, key=lambda row: row.syncs[-1])
    growth = first.growth
    assert growth is not None
    severity: Severity = "warning" if syncs >= GROWING and share >= GROWING_SHARE else "note"
    loop = _loop_of(first, recording)
    back = sum(row.syncs[-1] for row in rows if row.phase == "backward")
    both = ", on the way back too" if back and back < sum(row.syncs[-1] for row in rows) else ""
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=first.stage,
        message=(
            f"The host waits for the device for every {of_one(growth.axis)}{both}: {syncs:,.0f} "
            f"times in this batch ({_named(rows)}). Projected to {projection.title}, that is "
            f"{duration(seconds)} of waiting beside a step of {duration(projection.step_s)}, and "
            "the device idle after each."
        ),
        evidence={
            "syncs": syncs,
            "axis": growth.axis,
            "order": growth.order,
            "slope": growth.slope,
            "counted": list(first.syncs),
            "operations": list(dict.fromkeys(row.op for row in rows)),
            "phases": list(dict.fromkeys(row.phase for row in rows)),
            "projected_s": seconds,
            "projected_share": min(1.0, share),
            "step_s": projection.step_s,
            "device": projection.title,
            "in_loop": loop,
        },
        remedy=_cured(rows),
        location=first.location,
    )


def _loop_of(row: OperationRecord, recording: Recording) -> str | None:
    """The innermost loop in which it stands."""
    loops = recording.lines.loops if recording.lines is not None else ()
    around = [loop for loop in loops if any(span.holds(row.location) for span in loop.spans)]
    if not around:
        return None
    inner = max(around, key=lambda loop: loop.counts[-1])
    return f"{inner.location.file}:{inner.location.line}"


def _steady(rows: list[OperationRecord], recording: Recording) -> Finding | None:
    projection = recording.projection
    assert projection is not None
    syncs, seconds, share = _cost(rows, recording)
    if share < KNOWING:
        return None
    rows = sorted(rows, key=lambda row: -row.syncs[-1])
    first = next((row for row in rows if row.location is not None), rows[0])
    places = {
        f"{row.location.file}:{row.location.line}" if row.location else row.stage: row.syncs[-1]
        for row in reversed(rows)
    }
    bad = syncs >= STEADY and share >= STEADY_SHARE
    often = "once" if syncs == 1 else f"{syncs:,.0f} times"
    n = "one line" if len(places) == 1 else f"{len(places)} lines"
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning" if bad else "note",
        stage=first.stage,
        message=(
            f"The host waits for the device {often} a step, at {n}, however many samples "
            f"({_named(rows)}). Projected to {projection.title}, that is {duration(seconds)} of "
            f"waiting beside a step of {duration(projection.step_s)}."
        ),
        evidence={
            "syncs": syncs,
            "lines": places,
            "operations": list(dict.fromkeys(row.op for row in rows)),
            "projected_s": seconds,
            "projected_share": min(1.0, share),
            "step_s": projection.step_s,
            "device": projection.title,
        },
        remedy=_cured(rows),
        location=first.location,
    )
