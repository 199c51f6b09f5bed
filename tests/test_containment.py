"""Pipelines that hang, exit, print or change settings: a finding or a clear line, and no trace."""

import contextlib
import os
import sys
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
from icediag.instruments.containment import ExitedError, TimedOutError, contained, time_limit
from icediag.instruments.examine import examine


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


@pytest.mark.parametrize("act", [forever, stubborn])
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


def meddle() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(True)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.autograd.set_detect_anomaly(True, check_nan=False)
    torch.set_float32_matmul_precision("medium")
    os.chdir("/")
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


def test_limits() -> None:
    with pytest.raises(TimedOutError), time_limit(0.2):
        forever()
    with time_limit(None), time_limit(50):
        pass
    with pytest.raises(ExitedError, match="3"), contained():
        sys.exit(3)
