"""`icediag overfit` and `icediag gradients` from the outside."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icediag.checks import judge
from icediag.cli import main as command_line
from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.reports.curve import drawn_curve
from icediag.reports.figures import gradients_figure, overfit_figure
from icediag.reports.gradients import render_gradients
from icediag.reports.overfit import render_overfit

Run = Callable[..., tuple[int, str, str]]
PNG = b"\x89PNG\r\n"

USER = """
import torch
from torch import nn
from icediag import Pipeline

def samples():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, generator=generator), torch.randn(1, generator=generator))
            for _ in range(8)]

def collate(batch):
    return torch.stack([x for x, _ in batch]), torch.stack([y for _, y in batch])

def make(model, loss=lambda p, b: nn.functional.mse_loss(p, b[1])):
    torch.manual_seed(0)
    return Pipeline(name="[red]mine", dataset=samples(), collate=collate, model=model(),
                    forward=lambda m, b: m(b[0]), loss=loss, batch_size=8,
                    optimizer=lambda p: torch.optim.Adam(p, 1e-2))

def net():
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))

class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.head = nn.Linear(4, 32), nn.Linear(32, 1)
    def forward(self, x):
        return self.head(self.encoder(x).detach())

class Blank(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)

class Blind(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 32), Blank())
        self.head = nn.Linear(32, 1)
    def forward(self, x):
        return self.head(self.encoder(x))

class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)
    def forward(self, x):
        raise ValueError("never")

def healthy(): return make(net)
def cut(): return make(Cut)
def blind(): return make(Blind)
def raises(): return make(Raises)
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `icediag` in a folder with a pipeline: (exit code, standard output, standard error)."""
    (tmp_path / "mine.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def call(*arguments: str, width: int = 80) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["icediag", *arguments])
        monkeypatch.setenv("COLUMNS", str(width))
        for name in ("FORCE_COLOR", "NO_COLOR", "TERM", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        code = command_line.main()
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("command", ["overfit", "gradients"])
def test_a_healthy_pipeline_passes(run: Run, tmp_path: Path, command: str, width: int) -> None:
    plot, folder = tmp_path / "curve.png", tmp_path / "out"
    options = ("--pipeline", "mine:healthy", "--plot", str(plot), "--out", str(folder))
    code, out, _ = run(command, *options, width=width)
    assert code == 0, out
    assert out.startswith("[red]mine: ") and max(map(len, out.splitlines())) <= width
    assert plot.read_bytes().startswith(PNG)
    recording = Recording.load(folder / "recording.json")
    assert getattr(recording, "overfit" if command == "overfit" else "gradients") is not None
    diagnosis = Diagnosis.load(folder / "diagnosis.json")
    letter = command[0].upper() if command == "gradients" else "L"
    assert diagnosis.checks and not diagnosis.at_least("warning")
    assert all(f.code.startswith(letter) for f in diagnosis.findings)
    words = ("learns after", "baseline", "floor") if command == "overfit" else ("0.weight", "Adam")
    assert all(word in out for word in words)


@pytest.mark.parametrize(
    ("command", "fault", "name"),
    [("overfit", "blind", "constant-prediction"), ("gradients", "cut", "no-gradient")],
)
def test_a_fault_leaves_1_and_an_exception_2(
    run: Run, tmp_path: Path, command: str, fault: str, name: str
) -> None:
    folder = ("--out", str(tmp_path / "out"))
    code, out, _ = run(command, "--pipeline", f"mine:{fault}", *folder)
    assert code == 1, out
    found = Diagnosis.load(tmp_path / "out" / "diagnosis.json").at_least("warning")
    assert any(f.name == name and f.stage.startswith("encoder") for f in found), found
    assert "encoder" in out and "->" in out
    code, out, _ = run(command, "--pipeline", "mine:raises", *folder)
    assert code == 2 and "Traceback" not in out


def test_options_that_are_off_are_one_line(run: Run, tmp_path: Path) -> None:
    for arguments in (
        ("overfit", "--plot", str(tmp_path / "none" / "x.png")),
        ("gradients", "--plot", str(tmp_path)),
        ("overfit", "--pipeline", "mine:nothing"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and err.startswith("icediag: ") and "Traceback" not in err


@pytest.mark.parametrize("command", ["overfit", "gradients"])
def test_help_does_not_import_torch(command: str) -> None:
    program = (
        "import sys\nfrom icediag.cli.main import main\n"
        f"sys.argv = ['icediag', '{command}', '--help']\ncode = main()\n"
        "heavy = {'torch', 'numpy', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--plot" in done.stdout


@pytest.mark.parametrize(
    ("render", "draw"),
    [(render_overfit, overfit_figure), (render_gradients, gradients_figure)],
)
def test_letters_of_what_could_not_be_seen(
    render: Callable[..., str], draw: Callable[..., bytes], filled_recording: Any
) -> None:
    empty = Recording(pipeline="none", batch_size=0)
    assert "none" in render(empty, judge(empty, []))
    for recording in filled_recording:
        for width in (40, 80, 140):
            text = render(recording, judge(recording, []), width=width, color=width == 140)
            assert text.endswith("\n")
        record = recording.overfit if render is render_overfit else recording.gradients
        assert draw(record, "a $ title").startswith(PNG)


def test_noise_that_hides_the_mean_is_said_to_be_more_than_can_be_told() -> None:
    from icediag.records.gradients import GradientsRecord, ParameterFlow

    def text(noise: float) -> str:
        flow = ParameterFlow(name="w", stage="model", axes=2, gradient=1.0, noise=noise)
        record = GradientsRecord(parameters=(flow,), micro_batches=4, events=8, noise=noise)
        recording = Recording(pipeline="p", batch_size=8, gradients=record)
        return render_gradients(recording, judge(recording, []), width=80)

    assert text(math.inf).count(">4") == 2 and "inf" not in text(math.inf)
    assert text(2.5).count("2.5") == 2


@pytest.fixture
def filled_recording() -> list[Recording]:
    from icediag.records.gradients import GradientsRecord
    from icediag.records.overfit import OverfitRecord, Trial
    from tests.filled import filled

    bare = Trial(name="batch", events=2, losses=(1.0, float("nan")))
    return [
        Recording(
            pipeline="x",
            batch_size=2,
            overfit=filled(OverfitRecord),
            gradients=filled(GradientsRecord),
        ),
        Recording(
            pipeline="x",
            batch_size=2,
            overfit=OverfitRecord(trials=(bare,)),
            gradients=GradientsRecord(),
        ),
    ]


def test_a_curve_has_the_shape_of_its_values() -> None:
    falling = drawn_curve([4.0, 3.0, 2.0, 1.0], {"baseline": 4.0}, width=40, height=4)
    assert falling is not None
    lines = falling.plain.splitlines()[:4]
    assert all(len(line) <= 40 for line in lines)

    def dotted(line: str) -> list[int]:
        return [i for i, c in enumerate(line) if 0x2800 < ord(c) < 0x2900]

    # One after the other from the upper left to the lower right.
    starts = [dotted(line)[0] for line in lines]
    assert starts == sorted(starts) and len(set(starts)) == 4
    assert "baseline 4" in falling.plain and "3 steps" in falling.plain
    assert drawn_curve([float("nan")], {}, width=40) is None
    one = drawn_curve([2.0], {}, width=40)
    assert one is not None and dotted(one.plain)
