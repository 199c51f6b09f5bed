"""Most of what is computed is padding.

What it looks at:
    Tensors that are padded to the longest sample: operations whose size follows samples times the
    longest of them, or its square for pairs, beside the lengths that the samples have; and padding
    masks. What cutting the batch by length would give is worked out from the same lengths.
Why it hurts:
    Padding costs memory and arithmetic like anything else. With a heavy tail one long sample makes
    all others as long; attention pays it twice, by the square of the length.
A bad run:
    256 events of 80 DOMs, one of which has 2,500: 3 % of the slots are used, 0.1 % of the pairs.
What to do:
    Put samples of like length into one batch, cut the batch into buckets by length, or use kernels
    for variable lengths.
Limits:
    One batch and its lengths. Where the step waits for the host anyway, padding costs memory and no
    time: the projected loss of time is given. Padding that no mask and no length tells is not seen.
"""

from dataclasses import dataclass

from icediag.finding import Finding, Severity
from icediag.recording import RaggedRecord, Recording, Unjudged
from icediag.records.work import OperationRecord, OperationsRecord
from icediag.work_reading import duration, of_one, of_the_step

CODE = "P03"
NAME = "padding-waste"
NEEDS = ("operations", "projection")

#: Useful share of the slots from which on padding is worth knowing, and shown to hurt.
KNOWING, USEFUL = 0.5, 0.2
#: Share of the device's work on padded tensors below which it does not matter.
WORK, MUCH = 0.2, 0.4
#: Slots of a sample from which on a size that is the same in all batches is no coincidence.
FIXED = 16
#: Share of the projected step that padding takes, which hurts whatever the share that is used.
LOST = 0.10


@dataclass(frozen=True, kw_only=True)
class _Rectangle:
    """A padded tensor.

    Attributes:
        ragged: The lengths.
        outer: Axis of the samples.
        height: Axis of the longest; None where all batches are padded to the same.
        size: Its size.
        slots: How many there are.
        used: How many hold something.
        pairs: The same, by pairs within a sample.
        pairs_used: How many of these hold something.
        bucketed: Useful share of the slots, cut by length.
        pairs_bucketed: The same of pairs.
    """

    ragged: RaggedRecord
    outer: str
    height: str | None
    size: int
    slots: float
    used: float
    pairs: float
    pairs_used: float
    bucketed: float
    pairs_bucketed: float


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the rectangle that takes most of the step's work."""
    record, projection = recording.operations, recording.projection
    assert record is not None and projection is not None
    if len(record.runs) < 3:
        return Unjudged(name=NAME, reason="too few batches were counted to see what is padded")
    step = of_the_step(record)
    found = []
    for rectangle in _rectangles(recording, record):
        paired = [row for row in step if _follows(row, record, rectangle, 2)]
        flat = [row for row in step if row not in paired and _follows(row, record, rectangle, 1)]
        finding = _finding(rectangle, flat, paired, step, recording)
        if finding is not None:
            found.append(finding)
    found.sort(key=lambda finding: -float(finding.evidence["work_share"]))
    return tuple(found[:1])


def _rectangles(recording: Recording, record: OperationsRecord) -> list[_Rectangle]:
    found = []
    for ragged in recording.ragged:
        groups = ragged.groups
        outer = ragged.outer if ragged.outer in record.axes else _named(groups, record)
        top = ragged.quantiles.get("1", 0.0)
        if outer is None or ragged.mean <= 0 or top <= 1:
            continue
        for height in record.longest:
            more = record.axes.get(height, 0) - top
            # A token more or less for each, or rounded up to a multiple.
            if not -2 <= more <= max(2.0, 0.1 * top, 8.0):
                continue
            shift = more if abs(more) <= 2 else 0.0
            used = groups * (ragged.mean + shift)
            found.append(_rectangle(ragged, outer, height, record.axes[height], used))
        # Masks are those of the samples that went through the model.
        share = recording.batch_size / (recording.followed or recording.batch_size)
        for mask in recording.padding if share == 1 or groups == recording.batch_size else ():
            size, rest = divmod(round(mask.slots * share), groups)
            constant = not rest and size >= FIXED and size not in record.axes.values()
            used = mask.used * share
            if constant and size >= top and used <= groups * (top + 1):
                found.append(_rectangle(ragged, outer, None, size, used))
    return found


def _rectangle(
    ragged: RaggedRecord, outer: str, height: str | None, size: int, used: float
) -> _Rectangle:
    top = ragged.quantiles["1"]
    square = ragged.mean_square or ragged.mean**2
    return _Rectangle(
        ragged=ragged,
        outer=outer,
        height=height,
        size=size,
        slots=float(ragged.groups * size),
        used=used,
        pairs=float(ragged.groups * size**2),
        pairs_used=ragged.groups * square,
        bucketed=ragged.mean / (ragged.cut or top),
        pairs_bucketed=square / (ragged.cut_square or top**2),
    )


def _named(size: int, record: OperationsRecord) -> str | None:
    return next((name for name, value in record.axes.items() if value == size), None)


def _follows(row: OperationRecord, record: OperationsRecord, box: _Rectangle, power: int) -> bool:
    """Whether its elements follow samples times the longest (or its square), in all runs."""
    if len(set(row.elements)) < 2:
        return False
    if box.height is None:
        # As many elements for each sample in all batches, a multiple of its slots or pairs.
        law, each = row.work, box.size**power
        fixed = law is not None and law.exact and law.axis == box.outer and not law.intercept
        return fixed and law is not None and law.slope % each == 0
    sizes = [
        run.axes.get(box.outer, 0) * run.axes.get(box.height, 0) ** power for run in record.runs
    ]
    if not all(sizes) or not all(row.elements):
        return False
    if power == 1 and row.work is not None and row.work.exact:
        return set(row.work.axis.split("*")) == {box.outer, box.height}
    return all(
        n * sizes[0] == row.elements[0] * s for n, s in zip(row.elements, sizes, strict=True)
    )


def _finding(
    box: _Rectangle,
    flat: list[OperationRecord],
    paired: list[OperationRecord],
    step: list[OperationRecord],
    recording: Recording,
) -> Finding | None:
    projection, record = recording.projection, recording.operations
    assert projection is not None and record is not None
    useful, useful_pairs = box.used / box.slots, min(1.0, box.pairs_used / box.pairs)
    rate = projection.rates.get("float32", 67e12)

    def work(rows: list[OperationRecord]) -> float:
        """Seconds that the device would need, without a least time of a kernel."""
        return sum(
            max(
                (row.bytes_read[-1] + row.bytes_written[-1]) / projection.constants["bandwidth"],
                row.flops[-1] / projection.rates.get(row.dtype, rate),
            )
            for row in rows
        )

    whole = max(work(step), 1e-12)
    share = (work(flat) + work(paired)) / whole
    wasted = (work(flat) * (1 - useful) + work(paired) * (1 - useful_pairs)) / whole
    if useful >= KNOWING or share < WORK:
        return None
    lost = max(0.0, wasted * projection.device_busy_s - _idle(recording))
    lost_share = lost / max(projection.step_s, 1e-9)
    bad = (useful <= USEFUL and wasted >= MUCH) or (lost_share >= LOST and useful < 0.5)
    severity: Severity = "warning" if bad else "note"
    first = max(flat + paired, key=lambda row: row.bytes_read[-1] + row.bytes_written[-1])
    pairs = f", and {useful_pairs:.0%} of the pairs that attention forms" if paired else ""
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=first.stage,
        message=(
            f"{useful:.0%} of {box.slots:,.0f} slots hold a {of_one(box.ragged.inner)}{pairs}: all "
            f"samples are padded to {box.size}, at a median of {box.ragged.quantiles['0.5']:g} "
            f"and a longest of {box.ragged.quantiles['1']:g}. {share:.0%} of the step's work is on "
            f"such tensors, {wasted:.0%} for nothing. Cut by length into {box.ragged.parts} "
            f"buckets {box.bucketed:.0%} of the slots would be used."
        ),
        evidence={
            "useful": useful,
            "useful_pairs": useful_pairs if paired else None,
            "slots": box.slots,
            "used": box.used,
            "axis": f"{box.outer}*{box.height or box.size}",
            "padded_to": box.size,
            "work_share": share,
            "wasted_share": wasted,
            "bucketed": box.bucketed,
            "pairs_bucketed": box.pairs_bucketed if paired else None,
            "lengths": dict(box.ragged.quantiles),
            "projected_loss_s": lost,
            "loss": duration(lost),
            "step_s": projection.step_s,
        },
        remedy=(
            "Sort the batch by length and cut it into buckets that are padded by themselves, draw "
            "batches of like length, or use variable-length kernels (nested tensors, "
            "flash attention's varlen)."
        ),
        location=first.location,
    )


def _idle(recording: Recording) -> float:
    """Seconds of the projected step that the device is idle: padding there takes no time."""
    projection = recording.projection
    assert projection is not None
    return max(0.0, projection.step_s - projection.device_busy_s)
