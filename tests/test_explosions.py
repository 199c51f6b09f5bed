"""Gradients that leap: one set of weights that multiplies all that goes through it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import exploding_gradient, judge, vanishing_gradient
from icediag.instruments.gradient_flow.run import record_gradients
from icediag.recording import Recording
from icediag.records.gradients import GradientsRecord


class Loose(nn.Module):
    """Weights and nothing else, registered last first; what is done with them stands outside."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.last = nn.Parameter(torch.randn(1, 16) / 4)
        self.middle = nn.Parameter(torch.randn(16, 16) / 4 * times)
        self.first = nn.Parameter(torch.randn(16, 5) / 5**0.5)


def loosely(model: Any, x: Tensor) -> Tensor:
    out: Tensor = (x @ model.first.T).relu() @ model.middle.T @ model.last.T
    return out


class Normed(nn.Module):
    """A norm in the middle whose weights are not 1."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 1)
        self.norm = nn.LayerNorm(16)
        nn.init.constant_(self.norm.weight, times)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.norm(self.first(x)))
        return out


def gradients(model: nn.Module, forward: Any = None) -> GradientsRecord:
    torch.manual_seed(0)
    return record_gradients(
        Pipeline(
            name="explosions",
            dataset=list(torch.randn(16, 5)),
            collate=torch.stack,
            model=model,
            forward=forward,
            loss=lambda p, x: (p[:, 0] - x[:, 0]).abs().mean(),
        )
    )


@pytest.mark.parametrize(
    ("make", "forward", "stage", "weight"),
    [(Loose, loosely, "model", "middle"), (Normed, None, "norm", "norm.weight")],
    ids=["functions", "norm"],
)
def test_a_leap_is_found_where_it_is(make: Any, forward: Any, stage: str, weight: str) -> None:
    def judged(times: float) -> Any:
        torch.manual_seed(1)
        record = gradients(make(times), forward)
        assert record.reason is None
        recording = Recording(pipeline="explosions", batch_size=16, gradients=record)
        return judge(recording, [exploding_gradient]).findings

    assert judged(1.0) == () and judged(20.0) == ()
    (finding,) = judged(1e3)
    assert (finding.stage, finding.evidence["weight"]) == (stage, weight)
    assert finding.evidence["times"] > 100
    assert finding.evidence["gain"] == pytest.approx(1e3, rel=0.3)


def test_parameters_come_back_in_the_order_opposite_to_their_use() -> None:
    record = gradients(Loose(1.0), loosely)
    came = {p.name: p.came for p in record.parameters}
    assert came == {"last": 0, "middle": 1, "first": 2}


def test_a_table_of_names_multiplies_nothing() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(5, 5)
            self.table, self.last = nn.Embedding(4, 16), nn.Linear(21, 1)
            nn.init.normal_(self.table.weight, 0.0, 1e3)

        def forward(self, x: Tensor) -> Tensor:
            rows: Tensor = self.table((x[:, 0] > 0).long())
            out: Tensor = self.last(torch.cat([rows, self.before(x)], 1))
            return out

    record = gradients(Named())
    assert next(p for p in record.parameters if p.name == "table.weight").gain is None
    assert exploding_gradient.leaps_of(record) == []


class Branched(nn.Module):
    """Blocks of attention in one head, drawn as in many language models: small."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.lift, self.last = nn.Linear(5, 32), nn.Linear(32, 1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({k: nn.Linear(32, 32, bias=False) for k in ("q", "k", "v", "o")})
            for _ in range(3)
        )
        for p in self.parameters():
            nn.init.normal_(p, std=spread)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lift(x)[None]
        for block in self.blocks:
            assert isinstance(block, nn.ModuleDict)
            q, k, v = (block[name](nn.functional.layer_norm(hidden, (32,))) for name in "qkv")
            hidden = hidden + block["o"]((q @ k.mT / 32**0.5).softmax(-1) @ v)
        out: Tensor = self.last(hidden)[0]
        return out


def test_queries_and_keys_of_even_attention_are_no_depth() -> None:
    for spread in (0.02, 2e-3):
        torch.manual_seed(2)
        recording = Recording(
            pipeline="explosions", batch_size=16, gradients=gradients(Branched(spread))
        )
        assert judge(recording, [exploding_gradient, vanishing_gradient]).findings == ()


def test_a_fall_is_one_that_many_layers_make() -> None:
    assert vanishing_gradient.longest_fall([-9, -7, -5, -2, -3]) == (7, 0, 3)
    assert vanishing_gradient.longest_fall([-9, -3, -2.5, -2]) is None


class Tokened(nn.Module):
    """A weight of its own, added to what comes out of a row of layers, each `times` too large."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 16))
        self.layers = nn.Sequential(*(nn.Linear(16, 16) for _ in range(4)))
        self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 1)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=times / 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = 1e-5 * self.last(self.layers(self.first(x))) + self.token[:, :1]
        return out


def test_a_part_with_weights_of_its_own_gives_its_output_last() -> None:
    def judged(times: float) -> Any:
        torch.manual_seed(1)
        recording = Recording(
            pipeline="explosions", batch_size=16, gradients=gradients(Tokened(times))
        )
        return judge(recording, [exploding_gradient]).findings

    assert judged(2.0) == ()
    (finding,) = judged(30.0)
    assert finding.stage == "first"
    assert f"by a factor of {10 ** finding.evidence['decades']:.1e} over" in finding.message
