"""Other tools in the score: what counts as found, and what is said where one is not there."""

from collections.abc import Callable

import pytest

from icediag import Pipeline
from icediag.finding import Diagnosis
from tests.faults import peers, score
from tests.faults.case import Fault
from tests.faults.score import PATIENTS, Outcome, amiss, peer_summary, render, with_peers

PATIENT = next(patient for patient in PATIENTS if patient.name == "tracks")
FAULT = next(fault for fault in PATIENT.faults if fault.name == "bare-head")


def outcome(name: str | None, fault: Fault | None, diagnosis: Diagnosis | None = None) -> Outcome:
    found = diagnosis or Diagnosis(pipeline="tracks")
    return Outcome(patient="tracks", name=name, fault=fault, diagnosis=found, seconds=1.0)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tool that raises what the list says; it is asked of a real build."""
    says = ["often"]

    def ask(pipeline: Pipeline) -> frozenset[str]:
        assert peers.batch_of(pipeline) is not None
        if "raise" in says:
            raise RuntimeError
        return frozenset(says)

    monkeypatch.setattr(peers, "PEERS", {"tool": ("json", ask)})
    monkeypatch.setattr(score, "_twin", lambda *_: frozenset({"often"}))
    return says


def test_found_is_what_the_healthy_twin_has_not(tool: list[str]) -> None:
    def asked(name: str | None, fault: Fault | None) -> str:
        return with_peers(PATIENT, outcome(name, fault), ["tool"]).others["tool"]

    assert asked(None, None) == "often"
    assert asked(FAULT.name, FAULT) == "no"
    tool.append("more")
    assert asked(FAULT.name, FAULT) == "yes"
    tool.append("raise")
    assert asked(FAULT.name, FAULT) == asked(None, None) == "fails"


def test_figures_and_rows(tool: list[str]) -> None:
    told = [(None, None), ("variant", None), (FAULT.name, FAULT)]
    outcomes = [with_peers(PATIENT, outcome(name, fault), ["tool"]) for name, fault in told]
    tool.clear()
    outcomes.append(with_peers(PATIENT, outcome("quiet", None), ["tool"]))
    text = peer_summary("tool", outcomes)
    assert text.startswith("tool: 0 of 1 faults") and "2 of 3 healthy pipelines" in text
    table = render(outcomes, ["tool", "absent"])
    assert list(table.columns[6].cells) == ["not installed"] * 4


def test_installed() -> None:
    assert set(peers.installed()) == {"torchtest2", "torch-audit"}


@pytest.mark.parametrize("name", peers.PEERS)
def test_the_tool_itself(name: str, request: pytest.FixtureRequest) -> None:
    if not peers.installed()[name]:
        pytest.skip(f"{name} is not installed: it is no dependency, and compared where it is")
    build: Callable[[], Pipeline] = lambda: PATIENT.build(None)  # noqa: E731
    assert peers.alarms(name, build) is not None


def test_what_went_amiss_is_told_line_by_line() -> None:
    [line] = amiss([outcome(FAULT.name, FAULT), outcome(None, None)])
    assert line.startswith("tracks: bare-head: missed, wants unbounded-output at head")
