"""Values are carried in a wider type than the network works in.

What it looks at:
    The dtype of every operation of the step and of every tensor of the batch: float64 in a network
    that otherwise works in float32 or less, and whole numbers in 64 bits where they make up much of
    what is moved.
Why it hurts:
    Twice the bytes from data set to device, twice the memory, and half the speed or far less: most
    GPUs do float64 at 1/32 or 1/64 of their float32 rate. One float64 constant makes all that it
    meets float64.
A bad run:
    NumPy's float64 arrays that are cast in the model; `torch.tensor(np.pi)` of a NumPy number.
What to do:
    Cast once, in the data set: `array.astype(np.float32)`; give constants a dtype.
Limits:
    A network that is float64 as a whole is taken to be meant so, and is a note. Indices must be
    int64 for most operations.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Location, Recording, StageRecord, Unjudged
from icediag.records.work import OperationRecord
from icediag.work_reading import amount, moved, of_the_step, share_of

CODE = "P07"
NAME = "wide-dtype"
NEEDS = ("operations",)

#: Share of the bytes of the step in float64 beside narrower types that hurts, or is worth knowing.
SHARE, KNOWING = 0.10, 0.005
#: Share of the step's bytes in narrower types below which the whole network is wide.
NARROW = 0.1
#: Share of the batch's bytes in float64 that is worth knowing.
BATCH = 0.5
#: Share of the step's bytes in int64 that is worth knowing.
WHOLE = 0.25
FLOATS = ("float32", "bfloat16", "float16")


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the first line that works in float64, and what the batch carries."""
    record = recording.operations
    assert record is not None
    if not record.runs:
        return Unjudged(name=NAME, reason="no step was counted")
    step = [row for row in of_the_step(record) if row.phase != "optimizer"]
    wide = [row for row in step if row.dtype in ("float64", "complex128") and moved(row)]
    narrow = [row for row in step if row.dtype in FLOATS]
    share, narrow_share = share_of(wide, step), share_of(narrow, step)
    findings = []
    batch = _batch(recording)
    if wide and share >= KNOWING:
        findings.append(_step(wide, share, narrow_share))
    total = sum(batch.values())
    in_float64 = batch.get("float64", 0)
    weights_wide = narrow_share < NARROW
    if total and in_float64 >= BATCH * total and not weights_wide:
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="note",
                stage="collate",
                message=(
                    f"{in_float64 / total:.0%} of the batch's {amount(total)} are float64, and the "
                    "network works in a narrower type: half of these bytes are read, joined and "
                    "copied to the device for nothing."
                ),
                evidence={"float64_bytes": in_float64, "bytes": total},
                remedy="Cast to float32 in the data set.",
                location=_collate(recording),
            )
        )
    whole = [row for row in step if row.dtype == "int64" and moved(row)]
    if share_of(whole, step) >= WHOLE:
        first = max(whole, key=moved)
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="note",
                stage=first.stage,
                message=(
                    f"{share_of(whole, step):.0%} of what the step moves are whole numbers in 64 "
                    f"bits ({amount(sum(map(moved, whole)))}), most in {first.op}."
                ),
                evidence={"share": share_of(whole, step), "bytes": sum(map(moved, whole))},
                remedy="Keep what is no index in int32 or less, and cast indices last.",
                location=first.location,
            )
        )
    return tuple(findings)


def _step(wide: list[OperationRecord], share: float, narrow_share: float) -> Finding:
    meant = narrow_share < NARROW
    first = next((row for row in wide if row.location is not None), wide[0])
    severity: Severity = "warning" if share >= SHARE and not meant else "note"
    beside = "the whole network" if meant else f"a step that is {narrow_share:.0%} narrower"
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=first.stage,
        message=(
            f"{len(wide)} operations work in float64, the first of them {first.op}: "
            f"{amount(sum(map(moved, wide)))}, {share:.0%} of what the step moves, in {beside}."
        ),
        evidence={
            "share": share,
            "bytes": sum(map(moved, wide)),
            "flops": sum(row.flops[-1] for row in wide),
            "operations": list(dict.fromkeys(row.op for row in wide)),
            "narrow_share": narrow_share,
            "stages": list(dict.fromkeys(row.stage for row in wide))[:8],
        },
        remedy=(
            "Where float32 is enough, model.float() and float32 data halve bytes and time."
            if meant
            else "Give the constant or array that comes in here dtype=torch.float32."
        ),
        location=first.location,
    )


def _collates(recording: Recording) -> list[StageRecord]:
    return [stage for stage in recording.stages if stage.kind == "collate"]


def _batch(recording: Recording) -> dict[str, int]:
    """Bytes of the batch's tensors by dtype."""
    found: dict[str, int] = {}
    for stage in _collates(recording)[:1]:
        for tensor in stage.tensors:
            if tensor.role != "out":
                continue
            count = 1
            for size in tensor.shape:
                count *= size
            bits = "".join(c for c in tensor.dtype if c.isdigit())
            found[tensor.dtype] = found.get(tensor.dtype, 0) + count * max(1, int(bits or 8) // 8)
    return found


def _collate(recording: Recording) -> Location | None:
    stages = _collates(recording)
    return stages[0].location if stages else None
