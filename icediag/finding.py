"""What was concluded: findings, and what could not be judged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from icediag.recording import Location, Unjudged

Severity = Literal["error", "warning", "note"]
#: Most severe first.
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


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


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a set of checks concluded from a recording.

    Attributes:
        pipeline: Its name.
        findings: Most severe first.
        not_judged: Checks that could not decide, and why.
    """

    pipeline: str
    findings: tuple[Finding, ...] = ()
    not_judged: tuple[Unjudged, ...] = field(default=())
