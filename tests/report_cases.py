"""Recordings and diagnoses that every report is to render: ours, failed, empty and hostile ones."""

from icediag.checks import judge
from icediag.finding import Diagnosis, Finding, Severity
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.instruments.source import with_source
from icediag.model.network import NetworkConfig
from icediag.recording import Facts, Location, Recording, StageRecord, TensorRecord, Unjudged
from tests.pipelines import odd

Case = tuple[Recording, Diagnosis]
HOSTILE = (
    '</script><img src=x onerror=alert(1)> | `a` *b* ]]> %0A::error:: "q" \x1b[31m \u2028\ud800'
)
NEEDS = ("provenance", "bounds", "histograms")
NAMES = ("clean", "case", "failed", "empty", "hostile")


def told(recording: Recording) -> Case:
    diagnosis = judge(recording)
    return with_source(recording, diagnosis), diagnosis


def all_cases() -> dict[str, Case]:
    small = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    fault = icecube(n_events=8, batch_size=8, config=small, faults=("case",))
    clean = icecube(n_events=8, batch_size=8, config=small)
    found = {
        "clean": told(examine(clean, needs=NEEDS, batch_size=8)),
        "case": told(examine(fault, needs=NEEDS, batch_size=8)),
        "failed": told(examine(odd.on_numbers(odd.RaisesMidway()), needs=NEEDS)),
        "empty": (Recording(pipeline="", batch_size=1), Diagnosis(pipeline="")),
        "hostile": hostile(),
    }
    # Reports are of what was saved.
    return {
        name: (Recording.from_json(r.to_json()), Diagnosis.from_json(d.to_json()))
        for name, (r, d) in found.items()
    }


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
    )
    diagnosis = Diagnosis(
        pipeline=bad,
        findings=tuple(findings),
        not_judged=recording.not_judged,
        checks=(bad,),
        accepted=tuple(findings[:1]),
    )
    return recording, diagnosis
