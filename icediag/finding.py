"""What was concluded: findings, and what could not be judged."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from icediag.plain import Stored, to_plain
from icediag.recording import Location, Unjudged

Severity = Literal["error", "warning", "note"]
#: Most severe first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
#: Grows when a field changes its meaning or goes; new fields come with a default and leave it.
DIAGNOSIS_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is wrong with a pipeline, with its evidence.

    Attributes:
        code: The check's short code.
        name: The check's file name with hyphens.
        severity: `error` where it is shown to be wrong, `warning` where it is shown to hurt, `note`
            where it is worth knowing.
        stage: Where.
        message: What, in one sentence, with its numbers.
        evidence: The numbers.
        remedy: What to do.
        location: The line, where one is known.
        effect: What it was measured to cost, where that was measured.
        cause: Code and stage of the finding that this one follows from, as its `label` gives it.
    """

    code: str
    name: str
    severity: Severity
    stage: str
    message: str
    evidence: Mapping[str, Any]
    remedy: str
    location: Location | None = None
    effect: Mapping[str, Any] | None = None
    cause: str | None = None

    @property
    def label(self) -> str:
        """Such as "N01 at relative_encoder": what others name as their cause."""
        return f"{self.code} at {self.stage}"


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Stored):
    """What a set of checks concluded from a recording.

    Attributes:
        pipeline: Its name.
        findings: Most severe first, then what costs most; what follows from a finding comes after
            it.
        not_judged: Checks that could not decide, and why.
        checks: Names of the checks that looked, in display order.
        accepted: Findings that a baseline knows; they are not in `findings`.
    """

    kind: ClassVar[str] = "diagnosis"
    newest: ClassVar[int] = DIAGNOSIS_VERSION

    pipeline: str
    findings: tuple[Finding, ...] = ()
    not_judged: tuple[Unjudged, ...] = field(default=())
    checks: tuple[str, ...] = ()
    accepted: tuple[Finding, ...] = ()

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Findings of this severity or a worse one."""
        bar = SEVERITIES.index(severity)
        return tuple(f for f in self.findings if SEVERITIES.index(f.severity) <= bar)

    @property
    def verdict(self) -> str:
        """Such as "2 errors, 1 note", "nothing found", or "nothing new, 3 accepted"."""
        counts = [(self.count(severity), severity) for severity in SEVERITIES]
        parts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts if n]
        if self.accepted:
            parts = [*(parts or ["nothing new"]), f"{len(self.accepted)} accepted"]
        return ", ".join(parts) or "nothing found"

    def to_json(self) -> str:
        """As JSON. NaN and infinity, which JSON has not, are written as the texts "nan", "inf"."""
        values = {"version": DIAGNOSIS_VERSION, "pipeline": self.pipeline, "verdict": self.verdict}
        plain = to_plain(values | {key: v for key, v in asdict(self).items() if key not in values})
        return json.dumps(plain, indent=1, allow_nan=False) + "\n"
