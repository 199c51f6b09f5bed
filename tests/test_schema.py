"""The published schemas take what is really written, and nothing that could not be read again."""

import json
import sys
from typing import Any

import pytest

from icediag.baseline import Baseline
from icediag.cli import main as command_line
from icediag.cli.schema import schema_of_document
from icediag.errors import IcediagError
from icediag.finding import Diagnosis, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.examine import examine
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from tests.filled import filled

DOCUMENTS: dict[str, Any] = {"diagnosis": Diagnosis, "recording": Recording, "baseline": Baseline}


def validator_of(document: Any) -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    schema = schema_of_document(document)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def written(document: str) -> Any:
    """A file with every field set, as JSON."""
    if document == "recording":
        return json.loads(filled(Recording, 1).to_json())
    values: dict[str, Any] = {"stage": "s", "message": "m", "remedy": "r", "name": "n"}
    finding = Finding(
        code="N01", severity="note", evidence={"a": float("nan"), "b": (1, "c")}, **values
    )
    diagnosis = Diagnosis(pipeline="p", findings=(finding,), accepted=(finding,), checks=("n",))
    return json.loads((diagnosis if document == "diagnosis" else Baseline.of(diagnosis)).to_json())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_takes_what_is_written(document: str) -> None:
    validator = validator_of(document)
    data = written(document) | ({"version": 1} if document == "recording" else {})
    validator.validate(data)
    assert set(validator.schema["properties"]) == set(data)
    for entry in validator.schema["properties"].values():
        assert entry["description"]


def test_a_real_recording() -> None:
    small = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    seen = examine(icecube(n_events=8, config=small), needs=["provenance", "contracts"])
    validator_of("recording").validate(json.loads(seen.to_json()))


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    found = []
    for key, value in items if isinstance(data, (dict, list)) else ():
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*path, key))
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_it_refuses_cannot_be_read(document: str) -> None:
    validator = validator_of(document)
    text = json.dumps(written(document) | {"version": 1})
    refused = 0
    ways = places(json.loads(text))
    ways = ways[:: 1 + len(ways) // 60]
    for path in ways:
        data = json.loads(text)
        place = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = {"no": ["such"]}
        if validator.is_valid(data):
            DOCUMENTS[document].from_json(json.dumps(data))
        elif path != ("verdict",):  # that is written, and read by others alone
            refused += 1
            with pytest.raises(IcediagError):
                DOCUMENTS[document].from_json(json.dumps(data))
    assert refused > len(ways) / 2


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for document in DOCUMENTS:
        monkeypatch.setattr(sys, "argv", ["icediag", "schema", document])
        assert command_line.main() == 0
        assert json.loads(capsys.readouterr().out)["title"].lower().startswith(document)
    monkeypatch.setattr(sys, "argv", ["icediag", "schema", "nothing"])
    assert command_line.main() == 2
