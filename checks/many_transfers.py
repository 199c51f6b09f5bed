"""Many small tensors are copied from the host to the device.

What it looks at:
    How many tensors a batch is made of, at different batch sizes, and how often forward pass and
    loss make a tensor from Python numbers, which is a copy from the host on a GPU.
Why it hurts:
    Each copy costs the host some microseconds whatever its size, and one from ordinary memory makes
    it wait. Thousands of small copies take longer than one of the same bytes.
A bad run:
    A batch that is a list of one tensor a sample; `torch.tensor(x)` for every event, or for each
    of many constants in every step.
What to do:
    Join samples in collate, and move the batch once; keep constants in buffers.
Limits:
    Counted on the host, where nothing is copied. Worth knowing at most, save where the copies take
    a tenth of the projected step. A number that is written into a tensor is no copy.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, StageRecord, Unjudged
from icediag.records.work import OperationRecord
from icediag.work_reading import at_line, degree, duration, of_the_step, tally

CODE = "P09"
NAME = "many-transfers"
NEEDS = ("operations", "projection")

#: Tensors of a batch below which nothing is said, and tensors a step that are made of numbers.
TENSORS, MADE = 16, 8
#: Tensors of a batch from which on they are shown to hurt.
MANY = 64
#: What a number is written into a tensor by.
WRITES = frozenset({"copy", "fill", "index_put", "masked_fill"})
#: Share of the projected step that is shown to hurt.
SHARE = 0.10


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name a batch in pieces, and lines that make tensors from numbers."""
    record = recording.operations
    assert record is not None
    if not record.runs:
        return Unjudged(name=NAME, reason="no step was counted")
    findings = []
    for stage in recording.stages:
        if stage.kind == "collate" and (finding := _pieces(stage, recording)) is not None:
            findings.append(finding)
            break
    step = [row for row in of_the_step(record) if row.phase != "optimizer"]
    written = {row.location for row in step if row.op in WRITES and row.location is not None}
    made = [row for row in step if row.op == "lift_fresh" and row.location not in written]
    if tally(made, record).operations >= MADE:
        findings.append(_made(made, recording))
    return tuple(findings)


def _pieces(stage: StageRecord, recording: Recording) -> Finding | None:
    tensors = [tensor for tensor in stage.tensors if tensor.role == "out"]
    projection = recording.projection
    assert projection is not None
    if len(tensors) < TENSORS or len(tensors) < recording.batch_size:
        return None
    seconds = len(tensors) * (projection.constants["launch_s"] + projection.constants["sync_s"])
    share = seconds / max(projection.step_s, 1e-9)
    bad = share >= SHARE and len(tensors) >= MANY
    severity: Severity = "warning" if bad else "note"
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=stage.name,
        message=(
            f"The batch of {recording.batch_size} samples is made of {len(tensors)} tensors, each "
            f"of which is copied to the device by itself. Projected to {projection.title}, that "
            f"takes {duration(seconds)} beside a step of {duration(projection.step_s)}."
        ),
        evidence={
            "tensors": len(tensors),
            "samples": recording.batch_size,
            "projected_s": seconds,
            "step_s": projection.step_s,
        },
        remedy="Join the samples' tensors in collate (torch.cat with lengths, or padding).",
        location=stage.location,
    )


def _made(rows: list[OperationRecord], recording: Recording) -> Finding:
    record, projection = recording.operations, recording.projection
    assert record is not None and projection is not None
    count = tally(rows, record).operations
    worst = max(rows, key=lambda row: row.calls[-1])
    grows = any(degree(row.growth, record.longest) > 0 for row in rows)
    seconds = count * projection.constants["launch_s"]
    return Finding(
        code=CODE,
        name=NAME,
        severity="note",
        stage=worst.stage,
        message=(
            f"{count:,.0f} times a step a tensor is made from Python numbers"
            f"{', more in a larger batch' if grows else ''}; on a GPU each is a copy from the host."
        ),
        evidence={
            "made": count,
            "lines": {at_line(row.location): row.calls[-1] for row in rows},
            "projected_s": seconds,
            "step_s": projection.step_s,
        },
        remedy="Make constants once (register_buffer), and the rest in collate or by arithmetic "
        "on tensors of the device.",
        location=worst.location,
    )
