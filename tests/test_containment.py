"""Pipelines that hang, exit, print or change settings: a finding or a clear line, and no trace."""

import asyncio
import contextlib
import dataclasses
import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import chosen, judge
from icediag.instruments.examine import examine
from icediag.instruments.running.containment import (
    ExitedError,
    TimedOutError,
    contained,
    time_limit,
)


def forever() -> None:
    while True:
        pass


def stubborn() -> None:
    """Swallows the first time-out, as a retry loop does."""
    with contextlib.suppress(Exception):
        forever()
    forever()


class Net(nn.Module):
    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        self.act()
        out: Tensor = self.linear(x)
        return out


class Samples:
    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        self.act()
        return torch.ones(2) * index


def nothing() -> None:
    pass


def pipeline(
    in_model: Callable[[], Any] = nothing, in_data: Callable[[], Any] = nothing
) -> Pipeline:
    return Pipeline(
        name="wild",
        dataset=Samples(in_data),
        collate=torch.stack,
        model=Net(in_model),
        loss=lambda predictions, batch: predictions.square().mean(),
        batch_size=4,
    )


def stuck() -> None:
    """Waits for itself, in C."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@pytest.mark.parametrize("act", [forever, stubborn, stuck])
def test_what_hangs_is_a_finding_with_its_line(act: Callable[[], None]) -> None:
    recording = examine(pipeline(in_model=act), needs=(), timeout=1)
    [finding] = judge(recording, chosen(["run-fails"])).findings
    assert finding.stage == "model" and "took longer than 1 s" in finding.message
    assert finding.location is not None and finding.location.file.endswith("test_containment.py")


def test_a_data_set_that_hangs() -> None:
    recording = examine(pipeline(in_data=forever), needs=(), timeout=1)
    [finding] = judge(recording, chosen(["run-fails"])).findings
    assert finding.stage == "dataset item" and "took longer" in finding.message


def leave() -> None:
    sys.exit(3)


def test_what_exits_is_a_finding() -> None:
    for made in (pipeline(in_model=leave), pipeline(in_data=leave)):
        [finding] = judge(examine(made, needs=()), chosen(["run-fails"])).findings
        assert "exit" in finding.message.lower()


def test_a_loss_of_another_kind_is_told_how_it_is_called() -> None:
    made = pipeline()
    loss = made.loss
    made = dataclasses.replace(made, loss=lambda p, b: (loss(p, b), {}))  # type: ignore[return-value,arg-type]
    [finding] = judge(examine(made, needs=()), chosen(["run-fails"])).findings
    assert "got tuple" in finding.message and finding.location is None
    assert "loss(predictions, batch)" in finding.remedy


def test_an_optimizer_that_cannot_be_made_is_a_finding() -> None:
    def slow(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, lr=-1.0)

    def beside(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, lr=1.0), None

    for optimizer, words in ((slow, "Invalid learning rate"), (beside, "got tuple")):
        made = dataclasses.replace(pipeline(), optimizer=optimizer)
        recording = examine(made, needs=())
        [finding] = judge(recording, chosen(["run-fails"])).findings
        assert finding.stage == "optimizer" and words in finding.message
        assert recording.came_through
    # What a step of one's own is given may be anything.
    own = dataclasses.replace(pipeline(), optimizer=beside, train_step=lambda m, b, o: m(b).sum())
    assert not judge(examine(own, needs=()), chosen(["run-fails"])).findings


def meddle() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.autograd.set_detect_anomaly(True, check_nan=False)
    torch.set_float32_matmul_precision("medium")
    os.chdir("/")
    os.environ["ICEDIAG_TEST"] = "1"
    sys.path.insert(0, "/nowhere")
    sys.setrecursionlimit(sys.getrecursionlimit() + 1)
    np.seterr(all="ignore")
    warnings.simplefilter("ignore")


def meddle_and_fail() -> None:
    meddle()
    raise ZeroDivisionError


def test_settings_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def settings() -> list[Any]:
        return [
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            torch.is_anomaly_enabled(),
            torch.get_float32_matmul_precision(),
            torch.get_default_device(),
            Path.cwd(),
            np.geterr(),
            list(warnings.filters),
            dict(os.environ),
            list(sys.path),
            sys.getrecursionlimit(),
        ]

    before = settings()
    with contained():
        meddle()
        assert settings() != before
    assert settings() == before
    with pytest.raises(ZeroDivisionError), contained():
        meddle_and_fail()
    assert settings() == before


def test_what_it_prints_does_not_mix_with_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    examine(pipeline(in_model=lambda: print("hello")), needs=())  # noqa: T201
    out, err = capsys.readouterr()
    assert out == "" and "hello" in err


def test_what_it_forks_ends_where_it_comes_back(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    me, log = os.getpid(), tmp_path / "log"

    def fork() -> None:
        if os.fork() == 0:
            log.write_text("a copy was here")

    recording = examine(pipeline(in_model=fork), needs=())
    assert os.getpid() == me  # a copy that went on would run the rest of the tests
    while True:  # the copies are there no more
        try:
            assert os.waitpid(-1, 0)[1] == 0
        except ChildProcessError:
            break
    assert recording.loss is not None and log.read_text()
    [word] = [item for item in recording.not_judged if item.name == "processes"]
    assert "forks" in word.reason
    assert not any(
        item.name == "processes" for item in examine(pipeline(), needs=("clock",)).not_judged
    )


def out_of_memory() -> None:
    raise MemoryError


def too_much() -> None:
    torch.empty(2**60)


def too_deep() -> None:
    too_deep()


def cancelled() -> None:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (out_of_memory, "MemoryError"),
        (too_much, "RuntimeError"),
        (too_deep, "RecursionError"),
        (cancelled, "CancelledError"),
        (input, "EOFError"),
        (leave, "SystemExit"),
    ],
)
@pytest.mark.parametrize("where", ["in_model", "in_data"])
def test_what_else_goes_wrong_is_a_finding(act: Callable[[], Any], word: str, where: str) -> None:
    recording = examine(pipeline(**{where: act}), needs=(), timeout=60)
    [finding] = judge(recording, chosen(["run-fails"])).findings
    assert word in finding.message and finding.severity == "error"
    assert finding.stage == ("model" if where == "in_model" else "dataset item")


def test_what_fails_in_an_experiment_alone_stops_no_other() -> None:
    """The third call and all after it run out of memory: a training experiment meets that."""
    calls = 0

    def later() -> None:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise MemoryError("gone")

    recording = examine(pipeline(in_model=later), needs=("lines", "features", "bounds"))
    assert recording.loss is not None
    assert all("MemoryError" in u.reason for u in recording.not_judged if u.name == "bounds")
    assert judge(recording).not_judged


def test_what_it_prints_from_below_does_not_mix_either(capfd: pytest.CaptureFixture[str]) -> None:
    examine(pipeline(in_model=lambda: os.write(1, b"from below") and None), needs=())
    out, err = capfd.readouterr()
    assert out == "" and "from below" in err


def test_no_path_of_this_machine_is_kept(tmp_path: Path) -> None:
    home = str(Path.home())

    def fail() -> None:
        (tmp_path / "train_meta.parquet").read_bytes()

    def told() -> None:
        raise ValueError(f"see {home}/notes/ice.txt and {tmp_path}/deep/er.csv: bad")

    for act, word in ((fail, "train_meta.parquet"), (told, "er.csv: bad")):
        for where in ("in_model", "in_data"):
            recording = examine(pipeline(**{where: act}), needs=())
            text = recording.to_json() + judge(recording).to_json()
            assert word in text
            assert str(tmp_path) not in text and f"{home}/" not in text and "pytest-of" not in text


def test_limits() -> None:
    with pytest.raises(TimedOutError), time_limit(0.2):
        forever()
    with time_limit(None), time_limit(50):
        pass
    with pytest.raises(ExitedError, match="3"), contained():
        sys.exit(3)
