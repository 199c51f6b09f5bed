"""A baseline: findings that are known and accepted, in a file that is kept beside the code.

It says what each finding is about, never its line, so that it holds while code moves.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from icediag.finding import Diagnosis, Finding, Severity
from icediag.matching import match
from icediag.place import Location
from icediag.plain import Stored

#: Grows when a field changes its meaning or goes; new fields come with a default and leave it.
BASELINE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One finding that is accepted, as far as it is compared, and its message for the reader.

    Attributes:
        code: The check's code.
        name: The check's name.
        severity: How severe it was: a worse one is another finding.
        stage: Where.
        file: Of its line, None where none was known.
        evidence: The words of its evidence; numbers are not compared.
        message: What was said; not compared.
    """

    code: str
    name: str
    severity: Severity
    stage: str
    file: str | None = None
    evidence: dict[str, str]
    message: str = ""

    @classmethod
    def of(cls, finding: Finding) -> "Accepted":
        """A finding without its numbers and line."""
        words = {key: item for key, item in finding.evidence.items() if isinstance(item, str)}
        return cls(
            code=finding.code,
            name=finding.name,
            severity=finding.severity,
            stage=finding.stage,
            file=finding.location.file if finding.location is not None else None,
            evidence=words,
            message=finding.message,
        )

    @property
    def finding(self) -> Finding:
        """The finding again, as far as it is compared."""
        evidence: dict[str, Any] = dict(self.evidence)
        return Finding(
            code=self.code,
            name=self.name,
            severity=self.severity,
            stage=self.stage,
            message=self.message,
            evidence=evidence,
            remedy="",
            location=Location(file=self.file, line=0) if self.file is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class Baseline(Stored):
    """Findings that were known when it was written.

    Attributes:
        pipeline: Whose; not compared.
        accepted: The findings. Of several that are alike, as many are accepted as stand here.
        version: Of this format.
    """

    kind: ClassVar[str] = "baseline"
    newest: ClassVar[int] = BASELINE_VERSION

    pipeline: str
    accepted: tuple[Accepted, ...] = ()
    version: int = BASELINE_VERSION

    @classmethod
    def of(cls, diagnosis: Diagnosis) -> "Baseline":
        """All findings of a diagnosis, those that were accepted before included."""
        findings = sorted((*diagnosis.findings, *diagnosis.accepted), key=_order)
        return cls(pipeline=diagnosis.pipeline, accepted=tuple(map(Accepted.of, findings)))

    def apply(self, diagnosis: Diagnosis) -> Diagnosis:
        """The diagnosis with the known findings in `accepted`; one that got worse is not known."""
        matched = match((item.finding for item in self.accepted), diagnosis.findings)
        worse = {id(new) for _, new in matched.worse}
        known = {id(new) for _, new in matched.same} - worse
        return replace(
            diagnosis,
            findings=tuple(f for f in diagnosis.findings if id(f) not in known),
            accepted=(*diagnosis.accepted, *(f for f in diagnosis.findings if id(f) in known)),
        )

    def gone(self, findings: Iterable[Finding]) -> tuple[Accepted, ...]:
        """What is accepted and not among these findings any more."""
        left = match((item.finding for item in self.accepted), findings).gone
        return tuple(map(Accepted.of, left))


def _order(finding: Finding) -> tuple[str, str, str, int]:
    """By check, stage and place, so that a baseline that is written anew changes little."""
    place = finding.location
    file, line = (place.file, place.line) if place is not None else ("", 0)
    return finding.code, finding.stage, file, line
