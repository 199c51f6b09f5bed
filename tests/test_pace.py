"""Pace: no step is begun that may take too long, and what is foreseen is said to be."""

import time
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag.devices import load_device
from icediag.icecube import pipeline as icecube
from icediag.instruments import examine as examining
from icediag.instruments.profiling import run as profiling
from icediag.instruments.profiling.overview import summary
from icediag.instruments.profiling.run import record_profile
from icediag.instruments.recorder.record import record
from icediag.instruments.running import affordable
from icediag.instruments.running.affordable import most_affordable
from icediag.instruments.running.containment import TimedOutError
from icediag.instruments.running.pace import lengths, readable, steppable
from icediag.model.network import NetworkConfig
from icediag.recording import Recording
from icediag.reports.profile import render_profile
from tests import clockwork
from tests.clockwork import HANDS
from tests.pipelines import deepsets, odd


class Hands:
    """Seconds that doing something takes, by its size."""

    def __init__(self, power: float = 1.0, fails: Any = None) -> None:
        self.at, self.power, self.fails = 0.0, power, fails
        self.sizes: list[int] = []

    def __call__(self) -> float:
        return self.at

    def take(self, n: int) -> None:
        self.sizes.append(n)
        if self.fails is not None:
            self.fails(n)
        self.at += n**self.power


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("longest", [1.0, 10.0, 300.0, 1e9])
def test_nothing_takes_longer_than_it_may(power: float, longest: float) -> None:
    hands = Hands(power)
    size = most_affordable(hands.take, 100, longest_s=longest, clock=hands)
    assert size == hands.sizes[-1] and hands.sizes[:2] == [12, 12]
    assert size == 12 or size**power <= longest
    assert size == 100 or 4 * 100**power > longest


def test_a_long_sample_that_comes_late_is_foreseen() -> None:
    hands = Hands(1.0)
    weights = [1] * 20 + [100] + [1] * 43
    arguments: dict[str, Any] = {"longest_s": 1000.0, "clock": hands}
    assert most_affordable(hands.take, 64, **arguments) == 64
    assert most_affordable(hands.take, 64, weights=weights, **arguments) == 16


def test_memory_that_runs_out_ends_it_and_other_errors_do_not() -> None:
    def out_of_memory(n: int) -> None:
        if n > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")

    hands = Hands(fails=out_of_memory)
    assert most_affordable(hands.take, 64, longest_s=1e9, clock=hands) == 16

    def too_few(n: int) -> None:
        if n < 20:
            raise ValueError("more than one row")

    hands = Hands(fails=too_few)
    assert most_affordable(hands.take, 64, longest_s=1e9, clock=hands) == 64
    with pytest.raises(ValueError, match="more than one"):
        most_affordable(Hands(fails=too_few).take, 8, longest_s=1.0)


def test_no_more_memory_is_taken_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(affordable, "peak_bytes", lambda: next(held))
    monkeypatch.setattr(affordable, "left_bytes", lambda: 4001.0)
    assert most_affordable(Hands().take, 64, longest_s=1e9) == 64
    monkeypatch.setattr(affordable, "left_bytes", lambda: 3999.0)
    assert most_affordable(Hands().take, 64, longest_s=1e9) == 8


def test_what_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affordable, "PATIENCE", 1.0)
    monkeypatch.setattr(affordable, "PATIENCE_S", 0.0)

    def hangs(n: int) -> None:
        if n > 2:
            while True:
                time.sleep(0.001)

    assert most_affordable(hangs, 64, longest_s=0.05) == 2
    with pytest.raises(TimedOutError):
        most_affordable(lambda n: hangs(9), 64, longest_s=0.02)


def test_no_more_samples_are_read_than_there_is_time_for() -> None:
    # A sample takes 1 s and a collate a quarter of one.
    made = clockwork.pipeline(64)
    assert readable(made, 64, longest_s=1000.0, clock=HANDS) == 64
    assert readable(made, 64, longest_s=40.0, clock=HANDS) == 16
    assert readable(made, 64, longest_s=0.0, clock=HANDS) == 8
    assert steppable(made, 64, longest_s=1e9, clock=HANDS) == 64
    assert steppable(made, 64, longest_s=1e3, clock=HANDS) < 64


def test_lengths_are_those_of_the_recorder() -> None:
    config = NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    for made in (icecube(n_events=12, batch_size=12, config=config), deepsets.pipeline()):
        known = record(made)
        assert known.ragged and lengths(made, known.batch_size) == known.ragged


class Pairs(nn.Module):
    """Goes row by row, which is never affordable here."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(row) for row in x])


def test_a_step_of_the_whole_batch_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "MOST_CALLS", 100)
    monkeypatch.setattr(profiling, "steppable", partial(steppable, longest_s=0.0))
    made = odd.on_numbers(Pairs(), dataset=list(torch.randn(64, 3)), batch_size=64)
    seen: list[int] = []
    made.model.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    recording = record_profile(made, model=load_device("h100"), repeats=1, budget_s=0.0)
    assert max(seen) == 16
    assert (recording.batch_size, recording.followed) == (64, 8)
    assert recording.operations is not None and recording.projection is not None
    assert recording.operations.axes["batch"] == 64 and recording.projection.extrapolated
    assert [loop.growth.axis for loop in recording.lines.loops][-1] == "batch"  # type: ignore[union-attr]
    assert Recording.from_json(recording.to_json()) == recording
    text = " ".join(render_profile(summary(recording), width=100).split())
    assert "a training step of 64 samples" in text
    assert "samples: what is said of 64 is foreseen from how these counts grow" in text
    assert "on 2 samples, as a step of all takes too long" in text


def _paced(monkeypatch: pytest.MonkeyPatch, n: int, needs: tuple[str, ...]) -> Recording:
    """A recording of n samples of different lengths, where there is time for steps of 8."""
    monkeypatch.setattr(examining, "possible", lambda *_, **__: 8)
    some = deepsets.samples()
    made = replace(deepsets.pipeline(), dataset=[some[i % len(some)] for i in range(n)])
    return examining.examine(made, needs=needs, batch_size=n)


def test_a_check_follows_no_more_samples_than_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examining, "MAY", (0, 0, 0))
    recording = _paced(monkeypatch, 80, ("lines", "histograms"))
    assert (recording.batch_size, recording.followed) == (80, 8)
    assert recording.lines is not None and recording.lines.batch_size == 80
    assert {axis.groups for axis in recording.ragged} == {80}
    [told] = [item for item in recording.not_judged if item.name == "batch size"]
    assert "80 samples takes too long here: shapes and values are of 8" in told.reason


def test_what_was_counted_whole_or_is_small_is_followed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for n, needs in ((80, ("operations",)), (80, ()), (examining.UNASKED, ())):
        recording = _paced(monkeypatch, n, needs)
        assert (recording.batch_size, recording.followed) == (n, None)
        assert "batch size" not in {item.name for item in recording.not_judged}
