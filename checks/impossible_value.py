"""A charge or a time in the data cannot be.

What it looks at:
    Every charge and every time of a data set: NaN, infinities, and charges of 0 or below.
Why it hurts:
    A logarithm makes an infinity or NaN of them, and one NaN in a batch spoils the gradient of
    all weights.
A bad run:
    A file in which -1 stands for a charge that is not known.
What to do:
    Drop such pulses where the data are made, or mend them; do not clip them in the network.
Limits:
    A charge that is positive and wrong is not found.
"""

from collections.abc import Mapping

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.data import DataRecord, Fault

CODE = "D01"
NAME = "impossible-value"
NEEDS = ("data",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name charges and times that cannot be."""
    if recording.data is None:
        return Unjudged(name=NAME, reason="the data set was not audited")
    return of_faults(
        recording.data,
        code=CODE,
        name=NAME,
        kinds={
            "charge-not-finite": "charges are not finite",
            "charge-not-positive": "charges are 0 or below",
            "time-not-finite": "times are not finite",
        },
        remedy="Drop such pulses where the data are made, or mend them there.",
    )


def of_faults(
    data: DataRecord,
    *,
    code: str,
    name: str,
    kinds: Mapping[Fault, str],
    remedy: str,
    severity: Severity = "error",
) -> tuple[Finding, ...]:
    """One finding for each kind of fault that an audit counted, over all files.

    Args:
        data: What was seen.
        code: Of the check.
        name: Of the check.
        kinds: Fault -> what is said of it after its number.
        remedy: What to do.
        severity: Of the findings.
    """
    findings = []
    for kind, words in kinds.items():
        seen = [fault for fault in data.faults if fault.fault == kind]
        if not seen:
            continue
        first = seen[0]
        count, of = sum(fault.count for fault in seen), sum(fault.of for fault in seen)
        row = "" if first.row is None else f", row {first.row:,}"
        column = f", column {first.column}" if first.column else ""
        came = f": {first.example}" if first.example else ""
        expected = f"; expected {first.expected}" if first.expected else ""
        files = "" if len(seen) == 1 else f", in {len(seen):,} places"
        findings.append(
            Finding(
                code=code,
                name=name,
                severity=severity,
                stage="data",
                message=(
                    f"{count:,} of {of:,} {words}{files}; the first in {first.file}{column}{row}"
                    f"{came}{expected}."
                ),
                evidence={
                    "count": count,
                    "of": of,
                    "files": sorted({fault.file for fault in seen})[:20],
                    "row": first.row,
                    "example": first.example,
                },
                remedy=remedy,
            )
        )
    return tuple(findings)
