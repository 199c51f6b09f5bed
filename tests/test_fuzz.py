"""Whatever is read, and however it is asked: a result or one clear line, never a traceback or hang.

Each test is there twice: a few inputs always, several hundred among the slow tests.
"""

import json
import os
import pickle
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from icediag.baseline import Baseline
from icediag.checks import judge
from icediag.cli import main as command_line
from icediag.cli.check import check
from icediag.cli.configuration import configured
from icediag.errors import IcediagError
from icediag.finding import Diagnosis
from icediag.instruments.recorder.record import record
from icediag.instruments.running.containment import time_limit
from icediag.instruments.trees.file import load_batch, save_batch
from icediag.model.errors import DataError
from icediag.model.simulate import simulate
from icediag.model.table import write_dataset
from icediag.model.training.checkpoint import read_checkpoint
from icediag.recording import Recording
from icediag.reports.formats import FORMATS
from tests.filled import filled
from tests.pipelines import odd
from tests.test_formats import hostile

#: Seconds after which an input counts as one that hangs; quiet, none takes two.
HANGS = 120
#: Inputs of each test, always and among the slow ones.
FEW, MANY = 10, 150
JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**70, 1e308, 0.5, "nan", "inf", "", "x", [], {}, [1], {"a": 1}),
    *("a" * 1000, "\x00\x1b[31m\u2028", "/etc/passwd", [[[]]]),
)


AMOUNTS = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])


def over(examples: int, body: Callable[[random.Random], None]) -> None:
    """Run a body over a seeded stream of choices, each within the time limit."""

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(seed=st.integers(0, 2**32 - 1))
    def run(seed: int) -> None:
        # Choices of hypothesis' own keep to the edges; a seed makes them even.
        with time_limit(HANGS):
            body(random.Random(seed))

    run()


def ways(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a tree of JSON."""
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list):
        items = enumerate(data)
    for key, value in items:
        yield (*path, key)
        yield from ways(value, (*path, key))


def other_values(text: str, rng: random.Random) -> str:
    """JSON with values replaced, left out, doubled or negated."""
    data = json.loads(text)
    for _ in range(rng.choice((1, 1, 2, 5))):
        paths = list(ways(data))
        *way, last = rng.choice(paths)
        place = data
        for key in way:
            place = place[key]
        kind = rng.random()
        if kind < 0.6:
            place[last] = rng.choice(JUNK)
        elif kind < 0.8:
            del place[last]
        elif isinstance(place, list):
            place.append(place[last])
        elif isinstance(place[last], (int, float)):
            place[last] = -place[last]
    return json.dumps(data)


def other_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, doubled or put in."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.random()
        if kind < 0.5 and at < len(changed):
            changed[at] = rng.randrange(256)
        elif kind < 0.65:
            del changed[at:]
        elif kind < 0.8:
            del changed[at : at + rng.choice((1, 4, 64))]
        else:
            changed[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 64))))
    return bytes(changed)


def one_line(error: Exception) -> None:
    text = str(error)
    assert text.strip() and "\n" not in text and "Traceback" not in text
    assert len(text) < 2000


DOCUMENTS: dict[str, Any] = {"recording": Recording, "diagnosis": Diagnosis, "baseline": Baseline}


@pytest.fixture(scope="module")
def documents() -> dict[str, list[str]]:
    """Files as they are written: of a real run, and with every field set."""
    seen = record(odd.on_numbers(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))))
    recording, diagnosis = hostile()
    whole = json.loads(filled(Recording, 1).to_json()) | {"version": 1}
    return {
        "recording": [seen.to_json(), recording.to_json(), json.dumps(whole)],
        "diagnosis": [diagnosis.to_json(), judge(seen).to_json()],
        "baseline": [Baseline.of(diagnosis).to_json()],
    }


@AMOUNTS
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(examples: int, name: str, documents: dict[str, list[str]]) -> None:
    read = 0

    def body(rng: random.Random) -> None:
        nonlocal read
        text = rng.choice(documents[name])
        if rng.random() < 0.3:
            text = other_bytes(text.encode(), rng).decode(errors="replace")
        else:
            text = other_values(text, rng)
        try:
            found = DOCUMENTS[name].from_json(text)
        except IcediagError as error:
            one_line(error)
            return
        read += 1
        assert DOCUMENTS[name].from_json(found.to_json()).to_json() == found.to_json()
        if name == "recording":
            shown(found, judge(found))
        elif name == "diagnosis":
            shown(Recording(pipeline="p", batch_size=1), found)
            Baseline.of(found).apply(found)

    over(examples, body)
    assert 0 < read < examples


def shown(recording: Recording, diagnosis: Diagnosis) -> None:
    """Every report can be made and written."""
    for item in FORMATS:
        item.render(recording, diagnosis).encode()


TABLE = """[tool.icediag]
pipeline = "mypkg.diag:pipeline"
select = ["N", "B01"]
fail-on = "error"
batch-size = 32
timeout = 20.5
quick = true
baseline = "known.json"
format = "sarif"

[tool.other]
date = 2026-11-25
"""


@AMOUNTS
def test_configuration(examples: int, tmp_path: Path) -> None:
    read = 0

    def body(rng: random.Random) -> None:
        nonlocal read
        (tmp_path / "pyproject.toml").write_bytes(other_bytes(TABLE.encode(), rng))
        try:
            found = configured(check, tmp_path)
        except IcediagError as error:
            one_line(error)
            return
        read += 1
        assert all(isinstance(value, (str, int, float)) for value in found.values.values())

    over(examples, body)
    assert 0 < read < examples


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


READERS: dict[str, Callable[[Path], Any]] = {"batch": load_batch, "checkpoint": read_checkpoint}


@AMOUNTS
@pytest.mark.parametrize("name", READERS)
def test_files_of_torch(examples: int, name: str, tmp_path: Path) -> None:
    """Damaged, foreign or meant to do harm: nothing in them is run."""
    sound, harmed, file = tmp_path / "sound", tmp_path / "harmed", tmp_path / "file"
    save_batch({"x": torch.ones(3), "y": [torch.arange(2)]}, sound)
    torch.save({"format": "icediag checkpoint", "version": 1, "model": {}, "batch": []}, harmed)
    whole = torch.load(sound, weights_only=True)
    for kind, content in (
        ("torch", whole | {"batch": Harm(tmp_path / "torch")}),
        ("alone", Harm(tmp_path / "alone")),
    ):
        torch.save(content, file)
        with pytest.raises((IcediagError, DataError)):
            READERS[name](file)
        file.write_bytes(pickle.dumps(content))
        with pytest.raises((IcediagError, DataError)):
            READERS[name](file)
        assert not (tmp_path / kind).exists()

    def body(rng: random.Random) -> None:
        file.write_bytes(other_bytes(rng.choice((sound, harmed)).read_bytes(), rng))
        try:
            READERS[name](file)
        except (IcediagError, DataError) as error:
            one_line(error)

    over(examples, body)


Run = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `icediag` in a folder of its own: (exit code, standard output, standard error)."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", [*sys.path])

    def call(arguments: list[str]) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
        code = command_line.main()
        out, err = capfd.readouterr()
        assert "not expected" not in err and "Traceback" not in out + err, (arguments, err)
        assert code in (0, 1, 2), arguments
        hidden = [file for file in Path.cwd().rglob(".*") if file.is_file()]
        assert not hidden, "a file that was written in part is left behind"
        return code, out, err

    return call


@AMOUNTS
def test_data_sets(examples: int, run: Run, tmp_path: Path) -> None:
    write_dataset(simulate(6, seed=3), tmp_path / "sound")
    assert run(["prepare", str(tmp_path / "sound"), str(tmp_path / "prepared")])[0] == 0
    asked = ["shapes", "--batch-size", "4", "--depth", "0", "--data"]
    for name in ("sound", "prepared"):
        assert run([*asked, str(tmp_path / name)])[0] == 0
    refused = 0

    def body(rng: random.Random) -> None:
        nonlocal refused
        bad = tmp_path / "bad"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(tmp_path / rng.choice(("sound", "prepared")), bad)
        file = rng.choice(sorted(path for path in bad.rglob("*") if path.is_file()))
        if rng.random() < 0.1:
            file.unlink()
        else:
            file.write_bytes(other_bytes(file.read_bytes(), rng))
        code, out, err = run([*asked, str(bad)])
        # Refused at once, or what cannot be read or worked on is told with what was seen.
        told = err.startswith("icediag: ") and err.count("\n") == 1
        ends = any(
            f"could not see {stage}" in out for stage in ("dataset item", "collate", "model")
        )
        assert (code == 2) == (told or ends), (code, out, err)
        assert told or not err
        refused += code == 2

    over(examples, body)
    assert refused


TINY = """
import torch
from icediag import Domain, Pipeline

def pipeline():
    return Pipeline(
        name="tiny",
        dataset=[torch.ones(2) * i for i in range(4)],
        collate=torch.stack,
        model=torch.nn.Linear(2, 1),
        loss=lambda predictions, batch: predictions.square().mean(),
        outputs={"zenith": Domain(0, 3)},
        batch_size=4,
    )
number = 3
"""
#: Little work for each command; what is drawn comes after it and wins.
LITTLE: dict[str, tuple[list[str], ...]] = {
    "check": (
        ["--pipeline", "tiny_fuzzed:pipeline", "--select", "V01"],
        ["--pipeline", "tiny_fuzzed:pipeline", "--select", "B01"],
        ["--events", "3", "--batch-size", "3", "--select", "N01"],
    ),
    "shapes": (["--pipeline", "tiny_fuzzed:pipeline"], ["--events", "3"]),
    "train": (
        ["--events", "4", "--epochs", "1", "--d-model", "8", "--layers", "1", "--heads", "1"],
    ),
    "simulate": (["made", "--events", "3"],),
    "prepare": (["nowhere", "made"],),
    "bench": (["--events", "3", "--repeats", "1"],),
    "report": (["made"], ["."]),
    "explain": (["N01"], []),
    "schema": (["diagnosis"], []),
    "checks": ([],),
}
VALUES = (
    *("", "0", "-1", "1", "2", "3", "0.5", "nan", "inf", "1e3", "x", "a,b", "V01,B", "N01,,"),
    *("no/such/folder", "known.json", ".", "..", "cpu", "cuda", "meta", "error", "never", "json"),
    *("console,sarif", "tiny_fuzzed:pipeline", "tiny_fuzzed:number", "tiny_fuzzed", "os:getcwd"),
    *(
        "case",
        "packing-loop",
        "angles",
        "native",
        "vmf",
        "cosine",
        "\x00",
        "\udc80",
        "\n",
        "-",
        "--",
    ),
)
#: These take long by their nature.
LONG = {"--compile", "--no-compile", "--help"}


@AMOUNTS
def test_command_lines(examples: int, run: Run) -> None:
    Path("tiny_fuzzed.py").write_text(TINY)
    group: Any = typer.main.get_command(command_line.app)
    codes = set()

    def body(rng: random.Random) -> None:
        name = rng.choice(sorted(LITTLE))
        words = [name, *rng.choice(LITTLE[name])]
        options = [p for p in group.commands[name].params if p.opts[0].startswith("--")]
        for option in rng.choices(options, k=rng.choice((0, 1, 1, 2, 3))) if options else ():
            word = rng.choice([*option.opts, *option.secondary_opts])
            if word not in LONG:
                flag = getattr(option, "is_flag", False)
                words += [word] if flag else [word, rng.choice(VALUES)]
        if rng.random() < 0.15:
            words.insert(rng.randrange(len(words) + 1), rng.choice(VALUES))
        codes.add(run(words)[0])

    over(examples, body)
    assert {0, 2} <= codes
    assert examples == FEW or 1 in codes
