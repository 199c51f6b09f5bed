"""Recordings and diagnoses that every report is to render: ours, failed, empty and hostile ones."""

import dataclasses
from functools import cache
from typing import Any, TypeVar, cast

from icediag.checks import judge
from icediag.finding import Diagnosis, Finding, Severity
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.instruments.source import with_source
from icediag.model.network import NetworkConfig
from icediag.recording import Facts, Location, Recording, StageRecord, TensorRecord, Unjudged
from icediag.records.effects import EffectsRecord
from icediag.records.gradients import GradientsRecord
from icediag.records.histograms import HistogramsRecord
from icediag.records.overfit import Attempts, OverfitRecord, Trial
from tests.clock_sample import sample_clock, sample_projection
from tests.filled import filled
from tests.pipelines import odd

Case = tuple[Recording, Diagnosis]
HOSTILE = (
    '</script><img src=x onerror=alert(1)> | `a` *b* ]]> %0A::error:: "q" \x1b[31m \u2028\ud800'
)
NEEDS = ("provenance", "weighing", "bounds", "histograms")
NAMES = ("clean", "case", "timed", "failed", "empty", "hostile")


def told(recording: Recording) -> Case:
    diagnosis = judge(recording)
    return with_source(recording, diagnosis), diagnosis


@cache
def all_cases() -> dict[str, Case]:
    """Made once in a process: two files of tests look at them."""
    small = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    fault = icecube(n_events=8, batch_size=8, config=small, faults=("case",))
    clean = icecube(n_events=8, batch_size=8, config=small)
    found = {
        "clean": told(examine(clean, needs=NEEDS, batch_size=8)),
        "case": told(examine(fault, needs=NEEDS, batch_size=8)),
        "timed": told(timed(examine(fault, needs=("lines",), batch_size=8))),
        "failed": told(examine(odd.on_numbers(odd.RaisesMidway()), needs=NEEDS)),
        "empty": (Recording(pipeline="", batch_size=1), Diagnosis(pipeline="")),
        "hostile": hostile(),
    }
    # Reports are of what was saved.
    return {
        name: (Recording.from_json(r.to_json()), Diagnosis.from_json(d.to_json()))
        for name, (r, d) in found.items()
    }


def timed(recording: Recording) -> Recording:
    """With a clock and a projection of stages that it has, and one that it has not."""
    return dataclasses.replace(
        recording,
        clock=sample_clock(),
        projection=sample_projection(),
        overfit=OverfitRecord(trials=(learnt(),), attempts=filled(Attempts)),
        gradients=filled(GradientsRecord),
        effects=filled(EffectsRecord),
    )


def learnt() -> Trial:
    losses = (1.5, 0.5, 0.125, 0.125)
    return Trial(name="batch", events=8, losses=losses, baseline=1.5, floor=0.0, optimizer="Adam")


Spoilt = TypeVar("Spoilt")


def spoilt(value: Spoilt, bad: str) -> Spoilt:
    """The same with every text that may be any text replaced, and every number by one to avoid."""
    if isinstance(value, tuple):
        return cast("Spoilt", tuple(spoilt(item, bad) for item in value))
    if isinstance(value, dict):
        return cast("Spoilt", {f"{bad}{key}": spoilt(item, bad) for key, item in value.items()})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        free = (
            "name",
            "stage",
            "machine",
            "device",
            "title",
            "source",
            "axis",
            "path",
            "file",
            "repair",
        )
        fields = {
            f.name: bad if f.name in free else spoilt(getattr(value, f.name), bad)
            for f in dataclasses.fields(value)
        }
        return cast("Spoilt", dataclasses.replace(cast("Any", value), **fields))
    if isinstance(value, float):
        return cast("Spoilt", float("nan"))
    return value


def hostile() -> Case:
    """Names that would do harm in every format, and values that no chart likes."""
    bad = HOSTILE.encode("utf-8", "replace").decode()
    facts = Facts(count=3, minimum=-1e308, maximum=1e308, mean=0.0, std=float("inf"), nans=1)
    tensors = tuple(
        TensorRecord(
            path=bad,
            role=role,
            shape=(3, 1),
            axes=(bad, None),
            varies=(True, False),
            dtype=bad,
            device=bad,
            facts=facts,
            columns=(facts,),
            column_names=(bad,),
        )
        for role in ("in", "out", "grad")
    )
    stages = [
        StageRecord(
            name=f"{bad}{i}",
            kind="module",
            type=bad,
            depth=min(i, 5),
            location=Location(file=f"{bad}.py", line=0),
            tensors=tensors,
        )
        for i in range(9)
    ]
    wrong: tuple[tuple[Severity, str, str | None], ...] = (
        ("error", f"{bad}3", None),
        ("error", f"{bad}3", f"X99 at {bad}3"),
        ("warning", bad, None),
        ("note", "", f"X99 at {bad}"),
    )
    findings = [
        Finding(
            code="X99",
            name=bad,
            severity=severity,
            stage=stage,
            message=bad,
            evidence={bad: bad, "list": (1, 2.5, bad), "map": {bad: None}, "nan": float("nan")},
            remedy=bad,
            location=Location(file=f"{bad}.py", line=7),
            effect={bad: 1},
            cause=cause,
        )
        for severity, stage, cause in wrong
    ]
    recording = Recording(
        pipeline=bad,
        batch_size=3,
        loss=float("nan"),
        axes={bad: 3},
        axis_notes={bad: bad},
        stages=tuple(stages),
        not_judged=(Unjudged(name=bad, reason=bad), Unjudged(name="model", reason=bad)),
        versions={bad: bad},
        clock=spoilt(sample_clock(), bad),
        projection=spoilt(sample_projection(), bad),
        histograms=spoilt(filled(HistogramsRecord), bad),
        overfit=OverfitRecord(
            trials=(dataclasses.replace(spoilt(learnt(), bad), name="batch"),),
            attempts=spoilt(filled(Attempts), bad),
            baseline_from=bad,
        ),
        gradients=spoilt(filled(GradientsRecord), bad),
        effects=spoilt(filled(EffectsRecord), bad),
    )
    diagnosis = Diagnosis(
        pipeline=bad,
        findings=tuple(findings),
        not_judged=recording.not_judged,
        checks=(bad,),
        accepted=tuple(findings[:1]),
    )
    return recording, diagnosis
