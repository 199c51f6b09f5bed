"""The judgement: facts to findings. One rule, one file, named after the fault.

A check never measures and never prints. `CHECKS` is their order on display.
"""

from collections.abc import Callable
from types import ModuleType

from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.recording import Recording, Unjudged

from . import (
    azimuth_seam,
    non_finite_value,
    normalized_relative,
    normalized_weights,
    numerical_pole,
    saturated_output,
    unbounded_output,
    unreachable_range,
)

#: Every check: a module with `CODE` and `check(recording)`, which gives its findings (none: clean),
#: or an `Unjudged` that says why it cannot tell.
CHECKS: tuple[ModuleType, ...] = (
    non_finite_value,
    normalized_relative,
    normalized_weights,
    unbounded_output,
    saturated_output,
    azimuth_seam,
    unreachable_range,
    numerical_pole,
)


def judge(recording: Recording) -> Diagnosis:
    """Let every check look at a recording.

    Checks whose facts (`NEEDS`, a field of the recording) were not asked for are passed over.
    """
    findings: list[Finding] = []
    not_judged: list[Unjudged] = []
    for module in CHECKS:
        if getattr(recording, getattr(module, "NEEDS", "stages")) is None:
            continue
        check: Callable[[Recording], tuple[Finding, ...] | Unjudged] = module.check
        answer = check(recording)
        if isinstance(answer, Unjudged):
            not_judged.append(answer)
        else:
            findings.extend(answer)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(
        pipeline=recording.pipeline, findings=tuple(findings), not_judged=tuple(not_judged)
    )
