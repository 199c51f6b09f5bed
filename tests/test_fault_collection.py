"""The collection of faults: every build runs, no name is there twice, and the score counts."""

from collections import Counter

import pytest

from icediag import Pipeline
from icediag.finding import SEVERITIES
from icediag.instruments.record import record
from tests.faults.case import Patient
from tests.faults.score import PATIENTS, Outcome, render, run, summary

#: Values that are not finite are the fault itself.
NOT_FINITE = {"log-of-negative", "nan-in-data"}


def test_it_is_large_enough() -> None:
    assert len(PATIENTS) >= 5
    assert sum(len(patient.faults) for patient in PATIENTS) >= 50
    assert sum(1 + len(patient.variants) for patient in PATIENTS) >= 25
    for patient in PATIENTS:
        names = [*patient.variants, *(fault.name for fault in patient.faults)]
        assert max(Counter(names).values()) == 1
        assert all(fault.checks and fault.lowest in SEVERITIES for fault in patient.faults)


@pytest.mark.parametrize("patient", PATIENTS, ids=lambda patient: patient.name)
def test_every_build_runs(patient: Patient) -> None:
    healthy = record(patient.build(None), batch_size=6, values=False)
    assert healthy.loss is not None and not healthy.not_judged
    for name in (*patient.variants, *(fault.name for fault in patient.faults)):
        made = patient.build(name)
        assert isinstance(made, Pipeline)
        seen = record(made, batch_size=6, values=False)
        assert seen.loss is not None, (name, seen.not_judged)
        assert (seen.loss != seen.loss) == (name in NOT_FINITE), name


def test_the_score_counts() -> None:
    patient = next(p for p in PATIENTS if p.name == "tracks")
    fault = next(f for f in patient.faults if f.name == "bare-head")
    healthy = run(patient, None, None, quick=True)
    found = run(patient, fault.name, fault, quick=True)
    assert not healthy.diagnosis.at_least("warning")
    assert found.hits and found.at_stage
    missed = Outcome(
        patient="tracks", name="bare-head", fault=fault, diagnosis=healthy.diagnosis, seconds=0.0
    )
    assert summary([healthy, found])[1] and not summary([healthy, missed])[1]
    false = Outcome(patient="tracks", name=None, fault=None, diagnosis=found.diagnosis, seconds=0.0)
    assert not summary([false])[1]
    assert render([healthy, found, missed]).row_count == 3
