"""Every report over the same recordings, and HTML and Markdown by their own rules."""

import dataclasses
import getpass
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from torch import nn

from icediag.checks import judge
from icediag.instruments.examine import examine
from icediag.instruments.source import with_source
from icediag.recording import Location
from icediag.reports.check import render_check
from icediag.reports.formats import FORMATS, Format
from icediag.reports.html import render_html
from icediag.reports.markdown import render_markdown
from tests.faults.showers import build as showers
from tests.pipelines import odd
from tests.report_cases import NAMES, Case, all_cases, told


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return all_cases()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_every_report_of_every_recording(cases: dict[str, Case], name: str, one: Format) -> None:
    recording, diagnosis = cases[name]
    text = one.render(recording, diagnosis)
    assert text == one.render(recording, diagnosis)
    text.encode("utf-8")
    assert str(Path.home()) + "/" not in text and str(Path.cwd()) not in text
    if one.file is not None:
        assert text.endswith("\n")


def test_no_report_knows_who_ran_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("USER", "LOGNAME", "LNAME", "USERNAME", "HOSTNAME"):
        monkeypatch.setenv(variable, "uncommon-name")
    monkeypatch.setenv("HOME", "/home/uncommon-name")
    monkeypatch.setenv("ICEDIAG_TOKEN", "uncommon-name-too")
    assert getpass.getuser() == "uncommon-name"
    recording = examine(showers(None), needs={"clock", "operations", "projection", "gradients"})
    assert recording.clock is not None and recording.gradients is not None
    diagnosis = judge(recording)
    recording = with_source(recording, diagnosis)
    for text in (recording.to_json(), *(one.render(recording, diagnosis) for one in FORMATS)):
        assert "showers" in text and "uncommon-name" not in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [40, 80, 140])
def test_a_terminal_is_neither_overrun_nor_steered(
    cases: dict[str, Case], name: str, width: int
) -> None:
    recording, diagnosis = cases[name]
    text = render_check(recording, diagnosis, width=width)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert max(map(len, text.splitlines())) <= width


def test_many_codes_do_not_break_the_name_of_a_stage(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["case"]
    found = next(f for f in diagnosis.findings if f.stage == "relative_encoder")
    more = tuple(dataclasses.replace(found, code=f"Z0{i}") for i in range(6))
    many = dataclasses.replace(diagnosis, findings=(*diagnosis.findings, *more))
    text = render_check(recording, many, width=70)
    table = text[text.index("   stage") :]
    assert "relative_encoder" in table[: table.index("error N01")]


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
    text = render_html(*cases[name])
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
    words = " ".join(" ".join(read(render_html(recording, diagnosis)).words).split())
    assert diagnosis.verdict in words
    for finding in diagnosis.findings:
        for said in (finding.message, finding.remedy, finding.stage, finding.name):
            assert " ".join(said.split()) in words
    for stage in recording.stages:
        assert stage.name in words
    assert "def forward(" in words  # the excerpt
    assert "(time - 10000) / 30000" in words
    assert "Six features of a pulse relative to the other pulses" in words


def test_learning_is_told_where_it_was_tried(cases: dict[str, Case]) -> None:
    for name, there in (("timed", True), ("case", False)):
        recording, diagnosis = cases[name]
        words = " ".join(" ".join(read(render_html(recording, diagnosis)).words).split())
        assert ("it learns: loss 1.5 to 0.125 in 3 steps" in words) is there
        text = render_markdown(recording, diagnosis)
        assert ("\n## Does it learn?\n" in text) is there
        assert ("\n## Performance analysis\n" in text) is there
        assert ("learning: " in render_check(recording, diagnosis, width=100)) is there


def test_markdown_tells_all_of_the_case(cases: dict[str, Case]) -> None:
    recording, diagnosis = cases["case"]
    text = render_markdown(recording, diagnosis)
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
    text = render_markdown(*cases["hostile"])
    outside = re.sub(r"`+[^`].*?`+", "", text)
    assert "<img" not in outside and "</script>" not in outside
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) > 5
    for rows in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, rows


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
    assert "nowhere/at_all.py" in render_html(recording, diagnosis)
