"""The collection of faults: every build runs, no name is there twice, and the score counts."""

from collections import Counter

import pytest

from icediag import Pipeline
from icediag.checks import CHECKS, judge
from icediag.finding import SEVERITIES
from icediag.instruments.examine import examine
from icediag.instruments.recorder.record import record
from tests.faults.case import Patient
from tests.faults.score import PATIENTS, Outcome, render, run, summary

#: Values that are not finite are the fault itself.
NOT_FINITE = {"log-of-negative", "nan-in-data"}


#: What arrives where: of each kind of check one fault, in each of four pipelines.
KINDS = {
    "clouds": {
        "N": "norm-over-padding",
        "F": "millimetres",
        "C": "centimetres",
        "B": "root-of-padding",
        "V": "log-of-negative",
    },
    "pictures": {
        "N": "normalised-twice",
        "F": "bytes",
        "C": "forgets-relu",
        "B": "share-of-channel",
        "V": "plain-tensor",
    },
    "text": {
        "N": "mean-over-padding",
        "F": "number-tokens",
        "C": "narrow-tokens",
        "B": "root-of-padding",
        "V": "wrapping-key",
    },
    "graphs": {
        "N": "scaled-again",
        "F": "kind-as-number",
        "C": "edges-turned",
        "B": "self-distance",
        "V": "small-hash",
    },
}


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


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_what_arrives_where_is_found_at_its_stage(name: str) -> None:
    patient = next(p for p in PATIENTS if p.name == name)
    code_of = {check.NAME: check.CODE for check in CHECKS}
    needs = ("features", "provenance", "bounds", "weighing")
    for built in (None, *patient.variants):
        assert judge(examine(patient.build(built), needs=needs)).at_least("warning") == ()
    for kind, fault_name in KINDS[name].items():
        fault = next(f for f in patient.faults if f.name == fault_name)
        assert kind in {code_of[check][0] for check in fault.checks}
        diagnosis = judge(examine(patient.build(fault_name), needs=needs))
        outcome = Outcome(
            patient=name, name=fault_name, fault=fault, diagnosis=diagnosis, seconds=0.0
        )
        hits = [hit for hit in outcome.hits if hit.code.startswith(kind)]
        assert any(hit.stage.startswith(fault.stages) for hit in hits), (fault_name, hits)


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
