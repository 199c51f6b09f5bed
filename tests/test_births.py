"""Births: at which operation and line a value first is not finite, and when that is no fault."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag.checks import chosen, judge
from icediag.finding import Finding
from icediag.instruments.recorder.births import MOST_BIRTHS
from icediag.instruments.recorder.record import record
from icediag.recording import Recording
from icediag.records.births import Birth
from tests.pipelines import odd

ROWS = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0]])


class Own(nn.Module):
    """A program between two layers, or before them."""

    def __init__(self, program: Callable[[Tensor], Tensor], *, first: bool = True) -> None:
        super().__init__()
        self.program = program
        self.first = nn.Linear(3, 3) if first else nn.Identity()
        self.last = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.program(self.first(x)))
        return out


def recorded(
    program: Callable[[Tensor], Tensor],
    loss: Callable[[Any, Any], Any] = odd.mean_of,
    rows: Tensor = ROWS,
    *,
    first: bool = False,
) -> Recording:
    return record(odd.on_numbers(Own(program, first=first), loss, dataset=list(rows)))


def births(recording: Recording) -> tuple[Birth, ...]:
    assert recording.births is not None
    return recording.births.births


def first_of(recording: Recording) -> Birth:
    """The one birth; behind it, infinities that meet in the last layer give NaN."""
    first, *others = births(recording)
    assert all(birth.from_infinite and birth.nans for birth in others)
    return first


def line_of(function: Any, below: int = 0) -> int:
    found: int = function.__code__.co_firstlineno + below
    return found


def judged(recording: Recording) -> list[Finding]:
    return list(judge(recording, chosen(["V01"])).findings)


def test_what_went_in_is_told_at_the_place_where_it_came_out() -> None:
    def program(x: Tensor) -> Tensor:
        return x.log()

    birth = first_of(recorded(program))
    assert (birth.op, birth.phase, birth.stage) == ("log", "forward", "model")
    assert (birth.negative_infs, birth.nans, birth.values) == (4, 0, 12)
    assert birth.index == (0, 0)
    [given] = birth.inputs
    assert (given.name, given.shape, given.dtype) == ("self", (4, 3), "float32")
    assert (given.minimum, given.maximum, given.at) == (0.0, 5.0, 0.0)
    assert birth.location is not None and birth.location.line == line_of(program, 1)
    assert birth.location.file == "tests/test_births.py"


def test_what_spreads_is_not_born_again() -> None:
    def program(x: Tensor) -> Tensor:
        ratio = x / x
        views = ratio.view(2, 6).clone().reshape(4, 3)
        return views.exp() + views.sum()

    birth = first_of(recorded(program))
    assert (birth.op, birth.nans) == ("div", 4)
    assert {i.name: i.at for i in birth.inputs} == {"self": 0.0, "other": 0.0}


def test_nan_from_an_infinity_leads_to_the_infinity() -> None:
    def program(x: Tensor) -> Tensor:
        large = (x + 1) * 1e30 * 1e30
        return large - large

    recording = recorded(program)
    first, second, *_ = births(recording)
    assert (first.op, first.positive_infs, second.op, second.from_infinite) == (
        "mul", 12, "sub", True
    )  # fmt: skip
    [finding] = judged(recording)
    assert finding.evidence["operation"] == "mul"


def test_in_place_the_values_before_are_told() -> None:
    def program(x: Tensor) -> Tensor:
        changed = x.clone()
        changed.reciprocal_()
        return changed

    birth = first_of(recorded(program))
    assert (birth.op, birth.positive_infs, birth.inputs[0].at) == ("reciprocal", 4, 0.0)


def test_a_gradient_is_born_at_the_line_forward() -> None:
    def program(x: Tensor) -> Tensor:
        return (x * 0).square().sum(1, keepdim=True).sqrt() + x

    recording = recorded(program, first=True)
    birth = births(recording)[0]
    assert (birth.phase, birth.node) == ("backward", "SqrtBackward0")
    assert birth.location is not None and birth.location.line == line_of(program, 1)
    [finding] = judged(recording)
    assert finding.severity == "error" and finding.evidence["node"] == "SqrtBackward0"


def test_a_loop_is_one_birth_many_times() -> None:
    def program(x: Tensor) -> Tensor:
        for _ in range(MOST_BIRTHS + 6):
            out = x.log()
        return out

    birth = first_of(recorded(program))
    assert birth.times == MOST_BIRTHS + 6


def test_overflow_in_half() -> None:
    def program(x: Tensor) -> Tensor:
        return (x.half() * 60000).float()

    birth = first_of(recorded(program))
    assert (birth.op, birth.positive_infs) == ("mul", 6)
    assert birth.inputs[0].dtype == "float16"


def test_infinities_put_in_by_number_are_no_fault() -> None:
    class Nearest(nn.Module):
        """Distances to others, with infinity on the diagonal."""

        def forward(self, x: Tensor) -> Tensor:
            apart = (x[:, None] - x[None]).abs().sum(-1)
            return apart.masked_fill(torch.eye(len(x), dtype=torch.bool), math.inf)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nearest = Nearest()
            self.last = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.nearest(x).amin(1, keepdim=True))
            return out

    recording = record(odd.on_numbers(Net(), dataset=list(ROWS)))
    facts = [t.facts for s in recording.stages if s.name == "nearest" for t in s.tensors]
    assert any(f is not None and f.positive_infs == 4 for f in facts)
    assert all(birth.constant for birth in births(recording))
    assert judged(recording) == []


def with_gaps() -> Tensor:
    rows = ROWS.clone()
    rows[1, 1] = math.nan
    return rows


def test_missing_values_that_are_filled_in_are_a_note() -> None:
    [finding] = judged(recorded(lambda x: x.nan_to_num(0.5), rows=with_gaps()))
    assert (finding.severity, finding.stage) == ("note", "dataset item")
    assert "are finite" in finding.message
    [finding] = judged(recorded(lambda x: x, rows=with_gaps()))
    assert finding.severity == "error"


@pytest.mark.parametrize("reduction", [torch.nanmean, torch.mean])
def test_predictions_that_the_loss_passes_over_are_an_error(reduction: Any) -> None:
    recording = recorded(lambda x: x, lambda out, _: reduction(out), with_gaps())
    assert recording.loss is not None
    assert math.isfinite(recording.loss) == (reduction is torch.nanmean)
    [finding] = judged(recording)
    assert finding.severity == "error"
