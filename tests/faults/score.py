"""The score: every fault and every healthy variant through `icediag check`, and what came of it.

`python -m tests.faults.score` prints detected / total, right stage, false alarms and time, and what
went amiss line by line; it leaves with 1 where a goal is missed. With `--peers` other tools are
asked of the same builds. With `--learning` the faults are those that keep a model from learning,
the same ones in the built-in pipeline and in others.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from types import ModuleType

from rich.console import Console
from rich.table import Table

from icediag.checks import CHECKS, FAILED, judge, needs_of, wishes_of
from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.instruments.examine import examine

from . import clouds, events, graphs, pictures, series, showers, text, tracks
from .case import Fault, Patient
from .learning import LEARNING, LOOKED
from .peers import alarms, installed, verdict

PATIENTS: tuple[Patient, ...] = tuple(
    module.PATIENT for module in (events, clouds, pictures, text, series, graphs, tracks, showers)
)
#: Goals of the project: share of faults found, share of those at the right stage, and healthy
#: variants with a false error or a false warning.
DETECTED, RIGHT_STAGE, FALSE_ERRORS, FALSE_WARNINGS = 0.95, 0.90, 0.0, 0.02


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one build.

    Attributes:
        patient: Its pipeline.
        name: Fault or variant, None for the pipeline as it is.
        fault: The fault, None for a healthy variant.
        diagnosis: What was concluded.
        seconds: How long it took.
        others: Name of another tool -> its verdict, and for a healthy build what it raises.
    """

    patient: str
    name: str | None
    fault: Fault | None
    diagnosis: Diagnosis
    seconds: float
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def hits(self) -> list[Finding]:
        """Findings by the right checks, severe enough."""
        if self.fault is None:
            return []
        bar = SEVERITIES.index(self.fault.lowest)
        return [
            finding
            for finding in self.diagnosis.findings
            if finding.name in self.fault.checks and SEVERITIES.index(finding.severity) <= bar
        ]

    @property
    def at_stage(self) -> bool:
        """Whether one of the hits is at the right stage."""
        if self.fault is None or not self.fault.stages:
            return bool(self.hits)
        return any(hit.stage.startswith(self.fault.stages) for hit in self.hits)

    @property
    def line(self) -> str:
        """The outcome in a line, as it comes."""
        if self.fault is None:
            word = "alarm" if self.diagnosis.at_least("warning") else "clean"
        else:
            word = "found" if self.hits else "missed"
            word += "" if self.at_stage or not self.hits else ", elsewhere"
        return f"{self.patient}: {self.name or 'as it is'}: {word}, {self.seconds:.1f} s"


def run(
    patient: Patient,
    name: str | None,
    fault: Fault | None,
    *,
    quick: bool,
    checks: Sequence[ModuleType] = CHECKS,
) -> Outcome:
    """Build, examine and judge, by checks of the fault's own where it names some."""
    began = time.perf_counter()
    checks = (fault.looked if fault is not None else ()) or checks
    needs = needs_of(checks) | (wishes_of(checks) if checks is CHECKS else frozenset())
    recording = examine(patient.build(name), needs=needs, experiments=not quick)
    diagnosis = judge(recording, checks)
    return Outcome(
        patient=patient.name,
        name=name,
        fault=fault,
        diagnosis=diagnosis,
        seconds=time.perf_counter() - began,
    )


def render(outcomes: list[Outcome], tools: Sequence[str] = ()) -> Table:
    """A row a build; a column each for other tools."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    titles = ("pipeline", "fault", "found", "stage", "s", *tools, "findings (errors, warnings)")
    for title in titles:
        table.add_column(title, overflow="fold")
    for outcome in outcomes:
        severe = outcome.diagnosis.at_least("warning")
        said = ", ".join(f"{f.code} {f.name}@{f.stage}" for f in severe[:6])
        if outcome.fault is None:
            found = "clean" if not severe else "[red]alarm[/]"
            stage = ""
        else:
            found = "yes" if outcome.hits else "[red]no[/]"
            stage = "yes" if outcome.at_stage else "[red]no[/]"
        name = outcome.name or "(as it is)"
        others = [outcome.others.get(tool, "not installed") for tool in tools]
        seconds = f"{outcome.seconds:.0f}"
        table.add_row(outcome.patient, name, found, stage, seconds, *others, said)
    return table


def amiss(outcomes: list[Outcome]) -> list[str]:
    """A line for each fault missed or misplaced, each false alarm, each check that failed."""
    lines = []
    for outcome in outcomes:
        at = f"{outcome.patient}: {outcome.name or 'as it is'}"
        said = sorted({f"{f.name}@{f.stage}" for f in outcome.diagnosis.at_least("warning")})
        if outcome.fault is None and said:
            lines.append(f"{at}: false alarm, {', '.join(said)}")
        elif outcome.fault is not None and not (outcome.hits and outcome.at_stage):
            wanted = " or ".join(outcome.fault.checks)
            place = f" at {' or '.join(outcome.fault.stages)}" if outcome.fault.stages else ""
            word = "misplaced" if outcome.hits else "missed"
            heard = ", ".join(said) or "nothing"
            lines.append(f"{at}: {word}, wants {wanted}{place}; says {heard}")
        lines += [
            f"{at}: {item.name}: {item.reason}"
            for item in outcome.diagnosis.not_judged
            if item.reason.startswith(FAILED)
        ]
    return lines


def summary(outcomes: list[Outcome]) -> tuple[str, bool]:
    """The figures, and whether all goals are met."""
    faults = [o for o in outcomes if o.fault is not None]
    clean = [o for o in outcomes if o.fault is None]
    found = [o for o in faults if o.hits]
    placed = [o for o in found if o.at_stage]
    errors = sum(o.diagnosis.count("error") > 0 for o in clean)
    warnings = sum(o.diagnosis.count("warning") > 0 for o in clean)
    lines = []
    met = True
    if faults:
        met = len(found) >= DETECTED * len(faults) and len(placed) >= RIGHT_STAGE * len(found)
        lines.append(
            f"{len(found)} of {len(faults)} faults found, {len(placed)} at the right stage"
        )
    if clean:
        met = (
            met and errors <= FALSE_ERRORS * len(clean) and warnings <= FALSE_WARNINGS * len(clean)
        )
        lines.append(
            f"{len(clean)} healthy pipelines: {errors} with a false error, {warnings} with a false "
            "warning"
        )
    failed = sum(
        item.reason.startswith(FAILED) for o in outcomes for item in o.diagnosis.not_judged
    )
    if failed:
        met = False
        lines.append(f"{failed} times a check failed")
    lines.append(f"{sum(o.seconds for o in outcomes):.0f} s in all")
    return "; ".join(lines), met


def by_patient(outcomes: list[Outcome]) -> list[str]:
    """A line a pipeline: how many of its faults were found, how many at the right stage."""
    lines = []
    for name in dict.fromkeys(o.patient for o in outcomes if o.fault is not None):
        of = [o for o in outcomes if o.patient == name and o.fault is not None]
        found, placed = sum(bool(o.hits) for o in of), sum(o.at_stage for o in of)
        lines.append(f"{name}: {found} of {len(of)} faults found, {placed} at the right stage")
    return lines


def builds_of(patient: Patient, *, clean: bool) -> list[tuple[str | None, Fault | None]]:
    """(name, fault) of all that is built of a patient, the healthy one first."""
    builds: list[tuple[str | None, Fault | None]] = [(None, None)]
    builds += [(name, None) for name in patient.variants]
    return builds if clean else [*builds, *((fault.name, fault) for fault in patient.faults)]


def with_peers(patient: Patient, outcome: Outcome, tools: Sequence[str]) -> Outcome:
    """The outcome with what other tools say of the same build."""
    said = {}
    for tool in tools:
        found = alarms(tool, lambda: patient.build(outcome.name))
        if outcome.fault is None:
            said[tool] = "fails" if found is None else ", ".join(sorted(found)) or "clean"
        else:
            said[tool] = verdict(found, _twin(tool, patient))
    return replace(outcome, others=said)


@cache
def _twin(tool: str, patient: Patient) -> frozenset[str] | None:
    return alarms(tool, lambda: patient.build(None))


def peer_summary(tool: str, outcomes: list[Outcome]) -> str:
    """The figures of another tool."""
    told = [outcome.others[tool] for outcome in outcomes if outcome.fault is not None]
    healthy = [outcome.others[tool] for outcome in outcomes if outcome.fault is None]
    false = sum(word not in ("clean", "fails") for word in healthy)
    failed = [*told, *healthy].count("fails")
    return (
        f"{tool}: {told.count('yes')} of {len(told)} faults give an alarm that the healthy twin "
        f"does not; {false} of {len(healthy)} healthy pipelines give one; it fails on {failed}"
    )


def main() -> int:
    """Run what is asked for, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patient", action="append", help="only this pipeline; may be repeated")
    parser.add_argument("--fault", action="append", help="only these faults or variants")
    parser.add_argument("--quick", action="store_true", help="without experiments that train")
    parser.add_argument("--clean", action="store_true", help="healthy variants alone")
    parser.add_argument(
        "--peers", action="store_true", help="torchtest2 and torch-audit too, where installed"
    )
    parser.add_argument(
        "--learning",
        action="store_true",
        help="faults of model, loss, optimizer, loop, batches and data flow, the same ones in "
        "several pipelines",
    )
    options = parser.parse_args()
    console, progress = Console(), Console(stderr=True)
    there = installed()
    tools = tuple(there) if options.peers else ()
    outcomes: list[Outcome] = []
    for patient in LEARNING if options.learning else PATIENTS:
        if options.patient and patient.name not in options.patient:
            continue
        for name, fault in builds_of(patient, clean=options.clean):
            if options.fault and name not in options.fault:
                continue
            checks = LOOKED if options.learning else CHECKS
            outcome = run(patient, name, fault, quick=options.quick, checks=checks)
            outcome = with_peers(patient, outcome, [tool for tool in tools if there[tool]])
            progress.print(outcome.line, markup=False, highlight=False, soft_wrap=True)
            outcomes.append(outcome)
    console.print(render(outcomes, tools))
    for line in amiss(outcomes):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in by_patient(outcomes):
        console.print(line)
    text_of, met = summary(outcomes)
    console.print(text_of)
    for tool in tools:
        console.print(peer_summary(tool, outcomes) if there[tool] else f"{tool}: not installed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
