"""Work or memory grows with the square of the batch.

What it looks at:
    Elements and floating point operations of every operation of forward pass and loss, counted at
    several batch sizes: those that follow the product of two axes of which each grows with the
    number of samples.
Why it hurts:
    Twice the batch takes four times the work and memory. What is cheap at 32 samples does not fit
    at 512, and most of it pairs rows of different samples that have nothing to do with each other.
A bad run:
    Attention or `torch.cdist` over the rows of all events, with a mask for pairs across events.
What to do:
    Form pairs within each sample alone: pad or bucket by sample, or use neighbours.
Limits:
    Pairs of whole samples are meant in a contrastive loss, and are a note. What a loop does round
    by round is named by P01. Squares of the length within one sample are not named here.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Location, Recording, Unjudged
from icediag.records.work import OperationRecord, OperationsRecord
from icediag.work_reading import amount, degree, moved, of_one, of_the_step, share_of

CODE = "P05"
NAME = "superlinear-growth"
NEEDS = ("operations",)

#: Share of the bytes or operations of a step that is shown to hurt, and that is worth knowing.
SHARE, KNOWING = 0.10, 0.01


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each stage whose work follows pairs across the batch, at its costliest line."""
    record = recording.operations
    assert record is not None
    if len(record.runs) < 3:
        return Unjudged(name=NAME, reason="too few batches were counted to see what grows")
    step = of_the_step(record)
    lines: dict[Location | None, list[tuple[OperationRecord, str]]] = {}
    for row in step:
        if row.phase in ("forward", "loss", "step") and len(set(row.calls)) == 1:
            axis = squared(row, record)
            if axis is not None:
                lines.setdefault(row.location, []).append((row, axis))
    flops = max(1, sum(row.flops[-1] for row in step))
    found = []
    for place, pairs in lines.items():
        rows = [row for row, _ in pairs]
        by_flops = sum(row.flops[-1] for row in rows) / flops
        share = max(share_of(rows, step), by_flops)
        if share >= KNOWING:
            found.append((share, place, pairs))
    findings = [_finding(*entry, record) for entry in sorted(found, key=lambda e: -e[0])]
    # Pairs of whole samples are told of once.
    meant = [finding for finding in findings if finding.evidence["samples"]]
    return tuple(finding for finding in findings if finding not in meant[1:])


def squared(row: OperationRecord, record: OperationsRecord) -> str | None:
    """The product of two axes that its elements or its operations follow."""
    if row.work is not None and row.work.exact and degree(row.work, record.longest) >= 2:
        return row.work.axis
    if len(set(row.flops)) < 3:
        return None
    longest = record.longest
    for order in (1, 2):
        names = [name for name in record.axes if _sums(name, longest)]
        for i, first in enumerate(names):
            for second in names[i:] if order == 2 else [""]:
                sizes = [
                    run.axes.get(first, 0) * (run.axes.get(second, 0) if second else 1)
                    for run in record.runs
                ]
                if all(sizes) and _proportional(row.flops, sizes):
                    return f"{first}*{second}" if second else None
    return None


def _sums(name: str, longest: tuple[str, ...]) -> bool:
    derived = name.startswith(("longest", "distinct")) or "^2" in name or " with " in name
    return not derived and name not in longest


def _proportional(counts: tuple[int, ...], sizes: list[int]) -> bool:
    return all(n * sizes[0] == counts[0] * size for n, size in zip(counts, sizes, strict=True))


def _finding(
    share: float,
    place: Location | None,
    pairs: list[tuple[OperationRecord, str]],
    record: OperationsRecord,
) -> Finding:
    worst, axis = max(pairs, key=lambda pair: (pair[0].flops[-1], moved(pair[0])))
    first, _, second = axis.partition("*")
    samples = all(
        run.axes.get(name) == run.samples
        for run in record.runs
        for name in (first, second or first)
    )
    severity: Severity = "warning" if share >= SHARE and not samples else "note"
    elements = max(row.elements[-1] for row, _ in pairs)
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=worst.stage,
        message=(
            f"{pairs[0][0].op} works on every {of_one(axis)}, over the whole batch: it follows "
            f"{axis}, the square of the batch. In the largest batch that was counted "
            f"({record.runs[-1].samples} samples) that is {elements:,} elements at once, and "
            f"{share:.0%} of the step's work."
        ),
        evidence={
            "axis": axis,
            "samples": samples,
            "share": share,
            "elements": elements,
            "bytes": sum(moved(row) for row, _ in pairs),
            "moves": amount(sum(moved(row) for row, _ in pairs)),
            "flops": sum(row.flops[-1] for row, _ in pairs),
            "counted": [list(worst.elements), [run.samples for run in record.runs]],
            "operations": list(dict.fromkeys(row.op for row, _ in pairs)),
        },
        remedy=(
            "Where pairs of samples are not meant, reduce by sample first."
            if samples
            else "Form pairs within each sample alone: pad by sample with a mask, bucket by "
            "length, or find neighbours by sample in one batched operation."
        ),
        location=place,
    )
