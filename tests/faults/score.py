"""The score: every fault and every healthy variant through `icediag check`, and what came of it.

`python -m tests.faults.score` prints detected / total, right stage, false alarms and time, and
leaves with 1 where a goal is missed.
"""

import argparse
import sys
import time
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from icediag.checks import CHECKS, judge, needs_of
from icediag.finding import SEVERITIES, Diagnosis, Finding
from icediag.instruments.examine import examine

from . import clouds, events, graphs, pictures, series, showers, text, tracks
from .case import Fault, Patient

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
    """

    patient: str
    name: str | None
    fault: Fault | None
    diagnosis: Diagnosis
    seconds: float

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


def run(patient: Patient, name: str | None, fault: Fault | None, *, quick: bool) -> Outcome:
    """Build, examine and judge."""
    began = time.perf_counter()
    recording = examine(patient.build(name), needs=needs_of(CHECKS), experiments=not quick)
    diagnosis = judge(recording)
    return Outcome(
        patient=patient.name,
        name=name,
        fault=fault,
        diagnosis=diagnosis,
        seconds=time.perf_counter() - began,
    )


def render(outcomes: list[Outcome]) -> Table:
    """A row a build."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for title in ("pipeline", "fault", "found", "stage", "s", "findings (errors, warnings)"):
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
        table.add_row(outcome.patient, name, found, stage, f"{outcome.seconds:.0f}", said)
    return table


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
    lines.append(f"{sum(o.seconds for o in outcomes):.0f} s in all")
    return "; ".join(lines), met


def main() -> int:
    """Run what is asked for, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patient", action="append", help="only this pipeline; may be repeated")
    parser.add_argument("--fault", action="append", help="only these faults or variants")
    parser.add_argument("--quick", action="store_true", help="without experiments that train")
    parser.add_argument("--clean", action="store_true", help="healthy variants alone")
    options = parser.parse_args()
    console = Console()
    outcomes = []
    for patient in PATIENTS:
        if options.patient and patient.name not in options.patient:
            continue
        builds: list[tuple[str | None, Fault | None]] = [(None, None)]
        builds += [(name, None) for name in patient.variants]
        builds += [] if options.clean else [(fault.name, fault) for fault in patient.faults]
        for name, fault in builds:
            if options.fault and name not in options.fault:
                continue
            with Console(stderr=True).status(f"{patient.name}: {name or 'as it is'}"):
                outcomes.append(run(patient, name, fault, quick=options.quick))
    console.print(render(outcomes))
    text_of, met = summary(outcomes)
    console.print(text_of)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
