"""`icediag shapes` from the outside: real events, users' folders, and one line where it fails."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from icediag.cli import main as command_line
from icediag.model.errors import DataError
from icediag.recording import Recording

OSCNEXT = Path(__file__).parents[2] / "shared" / "data" / "oscnext5"
SMALL = ("--events", "8", "--batch-size", "8")
PROGRAM = "import sys; from icediag.cli.main import main; sys.exit(main())"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `icediag` in this process: (exit code, standard output, standard error)."""

    def call(*arguments: str, width: int = 140) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
        monkeypatch.setenv("COLUMNS", str(width))
        for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, out, err = result
    assert (code, out) == (2, "")
    assert err.startswith("icediag: ") and err.count("\n") == 1
    assert "Traceback" not in err
    for word in words:
        assert word in err, err


def test_origins_name_what_is_normalised(run: Run) -> None:
    faults = ("--fault", "normalized-relative", "--fault", "normalized-charge-weights")
    code, out, err = run("shapes", *SMALL, "--origins", *faults)
    assert (code, err) == (0, "")
    assert out.count("error N01 normalized-relative at relative_encoder") == 2
    assert out.count("error N02 normalized-weights at dom_encoder") == 1
    code, out, err = run("shapes", *SMALL, "--origins")
    assert code == 0 and "N01" not in out and "N02" not in out


@pytest.mark.skipif(not OSCNEXT.is_dir(), reason="the real events are not at ../shared/data")
@pytest.mark.parametrize("width", [80, 140])
def test_the_five_real_events(run: Run, width: int) -> None:
    code, out, err = run("shapes", "--data", str(OSCNEXT), width=width)
    assert (code, err) == (0, "")
    assert "one batch of 5 samples" in out
    assert "axes: pulses 56 · doms 38 · events 5" in out
    names = [*("dataset item", "collate", "normalizer", "relative_encoder", "dom_encoder")]
    names += [*("DomEncoder.pool", "pack_batch", "transformer", "loss")]
    places = [out.index(f"{name} ") for name in names]
    assert places == sorted(places)
    assert "∂" in out and "NaN " not in out.replace("NaN, inf", "")
    assert max(map(len, out.splitlines())) <= width


def test_json_is_a_recording(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "shapes.json"
    code, out, _ = run("shapes", *SMALL, "--json", str(path))
    recording = Recording.load(path)
    assert code == 0 and recording.pipeline == "icecube"
    assert recording.batch_size == recording.axes["events"] == 8
    assert all(stage.name in out for stage in recording.stages if stage.depth <= 2)
    assert json.loads(path.read_text())["version"] == 1


def test_a_fault_is_named(run: Run) -> None:
    code, out, _ = run("shapes", *SMALL, "--fault", "packing-loop")
    assert code == 0
    assert out.startswith("icecube with packing-loop: one batch of 8 samples")
    assert "pack_one_by_one" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--json", "/no/such/folder/x.json"), ("--json", "/no/such/folder")),
        (("--data", "/no/such/data"), ("/no/such/data",)),
        (("--files", "2"), ("--files", "--data")),
        (("--fault", "no-such-fault"), ("no-such-fault",)),
        (("--head", "round"), ("head", "round")),
        (("--device", "abacus"), ("--device", "abacus")),
        (("--device", "meta"), ("--device", "meta")),
        (("--pipeline", "nothing"), ("module:factory", "'nothing'")),
        (("--pipeline", "no_such_module_at_all:f"), ("no_such_module_at_all",)),
        (("--pipeline", "math:nothing"), ("'math' has no 'nothing'",)),
        (("--pipeline", "math:pi"), ("expected math:pi to give an icediag.Pipeline, got float",)),
        (("--pipeline", "math:sqrt"), ("math:sqrt is called without arguments and needs x",)),
        (("--pipeline", "math:pi", "--fault", "case"), ("belong to the built-in pipeline",)),
    ],
)
def test_bad_options_are_one_line(run: Run, arguments: tuple[str, ...], words: list[str]) -> None:
    refused(run("shapes", *SMALL, *arguments), *words)


@pytest.mark.parametrize("arguments", [("--no-such",), ("--events", "0"), ("--depth", "x")])
def test_bad_usage_is_told_by_typer(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run("shapes", *arguments)
    assert (code, out) == (2, "")
    assert arguments[0] in err and "Traceback" not in err


USER = {
    "model.py": """
from torch import nn

WHO = "the user's model"

class Net(nn.Linear):
    def forward(self, x):
        return super().forward(scaled(x))

def scaled(x):
    return x / 10
""",
    "checks.py": 'WHO = "the user\'s checks"\n',
    "reports.py": 'WHO = "the user\'s reports"\n',
    "diag.py": """
import sys
import torch
import model, checks, reports
from icediag import Pipeline

assert [m.WHO[:10] for m in (model, checks, reports)] == ["the user's"] * 3

def make(**more):
    arguments = dict(
        name="[bold]mine", dataset=list(torch.ones(8, 3)), collate=torch.stack,
        model=model.Net(3, 1), loss=lambda p, b: p.mean(), batch_size=8,
    )
    return Pipeline(**(arguments | more))

def raising():
    raise RuntimeError("two\\nlines")

def leaving():
    sys.exit("bye")

def fails(batch):
    raise ValueError("in the middle")

def failing():
    return make(model=fails)

def empty():
    return make(dataset=[])

def unknown_stage():
    return make(stages=("model:Net.nothing",))

def wrong():
    return make(loss=3)
""",
    "leaves.py": "raise SystemExit(0)\n",
    "syntax.py": "def f(:\n",
}


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    for name, text in USER.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def icediag(folder: Path, *arguments: str, **more: str) -> tuple[int, str, str]:
    """Run `icediag` in a process of its own."""
    environment = {**os.environ, "COLUMNS": "100", **more}
    for name in ("FORCE_COLOR", "PYTHONPATH"):
        environment.pop(name, None)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


def test_a_users_folder_with_modules_of_our_names(user_folder: Path) -> None:
    # And in a terminal that knows neither arrows nor points.
    arguments = ("shapes", "--pipeline", "diag:make", "--json", "r.json")
    code, out, err = icediag(user_folder, *arguments, PYTHONIOENCODING="ascii")
    assert (code, err) == (0, "")
    assert out.startswith("[bold]mine: one batch of 8 samples")
    # Discovered without being named.
    assert "scaled ? model.py:10" in out
    assert Recording.load(user_folder / "r.json").pipeline == "[bold]mine"


def test_a_users_pipeline_that_fails(
    user_folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user_folder)
    monkeypatch.setattr(sys, "path", [str(user_folder), *sys.path])
    before = set(sys.modules)
    try:
        refused(run("shapes", "--pipeline", "diag:raising"), "diag:raising failed: RuntimeError")
        refused(
            run("shapes", "--pipeline", "diag:leaving"), "diag:leaving failed: SystemExit", "bye"
        )
        refused(run("shapes", "--pipeline", "diag:wrong"), "Pipeline.loss", "callable")
        refused(run("shapes", "--pipeline", "diag:empty"), "at least one sample")
        refused(run("shapes", "--pipeline", "diag:unknown_stage"), "'model:Net.nothing'")
        refused(run("shapes", "--pipeline", "diag:nothing"), "'diag' has no 'nothing'")
        refused(run("shapes", "--pipeline", "leaves:f"), "SystemExit")
        refused(run("shapes", "--pipeline", "syntax:f"), "SyntaxError")
        code, out, err = run("shapes", "--pipeline", "diag:failing", "--batch-size", "4")
    finally:
        for name in set(sys.modules) - before:
            del sys.modules[name]
    # What was seen until then is shown, but the batch did not come through.
    assert (code, err) == (2, "")
    assert "collate" in out and "could not see model: ValueError at diag.py:" in out


class InWorkerError(DataError):
    """As torch's loader raises it again: the message is a whole traceback."""


def test_an_error_of_a_worker_is_its_last_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    message = (
        "Caught DataError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n"
        '  File "x.py", line 3, in fetch\n'
        "    return dataset[i]\n"
        f"{InWorkerError.__module__}.InWorkerError: batch_1.parquet: no [a] column\n"
    )

    def fail() -> int:
        raise InWorkerError(message)

    monkeypatch.setattr(command_line, "app", lambda standalone_mode, default_map: fail())
    code, out, err = run("shapes")
    assert (code, out) == (2, "")
    assert err == "icediag: batch_1.parquet: no [a] column\n"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "icediag: stopped by Ctrl-C\n"),
        (KeyError("x"), 2, "icediag: KeyError: 'x' (not expected; `icediag --traceback ...` "),
    ],
)
def test_other_errors(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(command_line, "app", lambda standalone_mode, default_map: fail())
    got, out, err = run("shapes")
    assert (got, out) == (code, "")
    assert err.startswith(message) and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["shapes", "--help"]])
def test_help_and_version_do_not_import_torch(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys; from icediag.cli.main import main; code = main(); "
        "heavy = {'torch', 'numpy', 'pandas', 'pyarrow', 'matplotlib'} & set(sys.modules); "
        "sys.stderr.write(' '.join(sorted(heavy))); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage" in result.stdout or result.stdout.startswith("icediag ")
