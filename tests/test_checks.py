"""The checks: each fires where the fault is, stays silent elsewhere, and carries its own page."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import icediag.checks
from icediag.checks import CHECKS, judge, non_finite_value
from icediag.finding import SEVERITIES, Finding
from icediag.icecube import pipeline as icecube
from icediag.instruments.recorder.record import record
from icediag.model.network import NetworkConfig
from icediag.recording import Facts, Recording, StageRecord, TensorRecord, Unjudged
from tests.pipelines import odd

SECTIONS = ("What it looks at", "Why it hurts", "A bad run", "What to do", "Limits")


def test_every_file_of_the_folder_is_a_check() -> None:
    files = {path.stem for path in Path(icediag.checks.__file__).parent.glob("*.py")}
    assert {module.__name__.rpartition(".")[2] for module in CHECKS} == files - {"__init__"}
    assert len({module.CODE for module in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize("module", CHECKS, ids=lambda module: module.CODE)
def test_its_docstring_is_its_page(module: Any) -> None:
    title, blank, *body = module.__doc__.splitlines()
    assert title.endswith(".") and blank == "" and len(title) < 72
    headings = [line.removesuffix(":") for line in body if re.match(r"\S", line)]
    assert headings == list(SECTIONS)
    for heading in SECTIONS:
        after = module.__doc__.split(f"{heading}:\n")[1].splitlines()[0]
        assert after.startswith("    ") and after.strip()
    assert re.fullmatch(r"[A-Z]\d\d", module.CODE)
    assert module.__name__.rpartition(".")[2].replace("_", "-") == module.NAME


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Ratio(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.sum(1, keepdim=True)


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.half() * 60000).float()


class Own(nn.Module):
    """The fault lies in the model's own code, between its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.last = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).mul(0).log())
        return out


class MaskedScores(nn.Module):
    """Scores beside -inf, as before every masked softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(3, 3)
        self.mask = Masked()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mask(self.score(x)).softmax(-1)
        return out


class Masked(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        absent = torch.tensor([False, False, True])
        return scores.masked_fill(absent, -math.inf)


class ZeroRoot(nn.Module):
    """sqrt(0 * w): the value and what comes back to it are finite, the weight's slope is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * torch.zeros(3)).abs().sqrt() + x


def found(model: nn.Module, samples: Tensor, loss: Callable[..., Any] = odd.mean_of) -> Finding:
    recording = record(odd.on_numbers(model, loss, dataset=list(samples)))
    [finding] = judge(recording).findings
    assert (finding.code, finding.name, finding.severity) == ("V01", "non-finite-value", "error")
    return finding


ZEROS = torch.zeros(4, 3)
ONES = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("fault", "samples", "counts"),
    [
        (Log(), ZEROS, (0, 0, 12)),
        (Ratio(), ZEROS, (12, 0, 0)),
        (Half(), 2 * ONES, (0, 12, 0)),
    ],
)
def test_forward_at_the_stage_that_gives_it(
    fault: nn.Module, samples: Tensor, counts: tuple[int, int, int]
) -> None:
    finding = found(nn.Sequential(nn.Identity(), fault, nn.Linear(3, 1)), samples)
    assert finding.stage == "1"
    evidence = finding.evidence
    assert (evidence["nans"], evidence["positive_infs"], evidence["negative_infs"]) == counts
    assert (evidence["values"], evidence["role"]) == (12, "out")
    assert finding.location is not None and finding.location.file == "tests/test_checks.py"
    # The line of the operation itself, with what went into it.
    assert finding.location.line == type(fault).forward.__code__.co_firstlineno + 1
    assert (
        evidence["operation"] == {"Log": "log", "Ratio": "div", "Half": "mul"}[type(fault).__name__]
    )
    assert evidence["inputs"]["self"]["at"] == (0.0 if samples is ZEROS else 2.0)
    assert "The first operation that gives one is " in finding.message
    assert "12 " in finding.message and finding.message.startswith("All that goes in is finite")


def test_forward_in_the_code_between_the_stages() -> None:
    finding = found(Own(), ONES)
    assert finding.stage == "model"
    assert finding.message.startswith("In its own code, before last, arise 12 infinite")
    assert finding.location is not None
    assert finding.location.line == Own.forward.__code__.co_firstlineno + 1
    assert finding.evidence["operation"] == "log"


def test_forward_in_the_data_the_loss_and_outside() -> None:
    nan = ONES.clone()
    nan[2, 1] = math.nan
    finding = found(nn.Linear(3, 1), nan)
    assert finding.stage == "dataset item"
    assert finding.message == "The data set gives samples with 1 NaN of 12 values."
    assert found(nn.Linear(3, 1), ONES, lambda p, _: (p * 0).log().mean()).stage == "loss"

    def outside(model: nn.Module, batch: Tensor) -> Tensor:
        out: Tensor = model(batch)
        return out / 0

    recording = record(odd.on_numbers(nn.Linear(3, 1), forward=outside, stages=("math:sqrt",)))
    [finding] = judge(recording).findings
    assert finding.stage == "loss"
    assert "outside of every stage" in finding.message


def test_backward_at_the_stage_it_comes_back_to() -> None:
    linear = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        linear.weight.fill_(-1.0)
    model = nn.Sequential(linear, nn.ReLU(), Root(), nn.Identity())
    finding = found(model, ONES)
    # sqrt(0) is 0, its slope is infinite: the ReLU before it gets what comes back.
    assert finding.stage == "1"
    assert finding.evidence["role"] == "grad"
    assert finding.message.startswith("Every value is finite, but the gradient")
    # The line whose slope is infinite is that of the root, forward.
    assert finding.evidence["node"] == "SqrtBackward0" and finding.location is not None
    assert finding.location.line == Root.forward.__code__.co_firstlineno + 1


def test_backward_at_the_weights_alone() -> None:
    finding = found(nn.Sequential(nn.Identity(), ZeroRoot()), ONES)
    assert finding.stage == "1"
    assert not math.isfinite(finding.evidence["gradient_norm"])


def test_silent_on_masks_and_on_the_built_in() -> None:
    masked = record(odd.on_numbers(MaskedScores()))
    [out] = [
        tensor
        for stage in masked.stages
        if stage.name == "mask"
        for tensor in stage.tensors
        if tensor.role == "out"
    ]
    assert out.facts is not None and out.facts.negative_infs == 4
    assert judge(masked).findings == ()
    assert masked.births is None  # no second run for a mask
    built = icecube(
        n_events=4, batch_size=4, config=NetworkConfig(d_model=8, n_heads=1, n_layers=1)
    )
    recording = record(built)
    assert judge(recording).findings == ()
    assert judge(recording).not_judged == ()


def test_masked_scores_are_an_alarm_where_the_loss_is_not_finite() -> None:
    finding = found(nn.Sequential(MaskedScores(), Log()), ONES)
    assert finding.stage == "0.mask"


def test_without_values_it_cannot_judge() -> None:
    recording = record(odd.on_numbers(nn.Linear(3, 1)), values=False)
    diagnosis = judge(recording)
    assert diagnosis.findings == ()
    assert diagnosis.not_judged == (
        Unjudged(name="non-finite-value", reason="values were not recorded"),
    )
    answer = non_finite_value.check(Recording(pipeline="empty", batch_size=1))
    assert isinstance(answer, Unjudged)


def test_the_most_severe_come_first() -> None:
    def finding(severity: Any) -> Finding:
        return Finding(
            code="X01",
            name="x",
            severity=severity,
            stage="s",
            message="m",
            evidence={},
            remedy="r",
        )

    class Check:
        NAME = "x"

        @staticmethod
        def check(_: Recording) -> tuple[Finding, ...]:
            return tuple(finding(severity) for severity in reversed(SEVERITIES))

    check: Any = Check
    diagnosis = judge(Recording(pipeline="p", batch_size=1), [check])
    assert tuple(f.severity for f in diagnosis.findings) == SEVERITIES


def test_a_stage_without_facts_is_passed_over() -> None:
    unseen = TensorRecord(path="x", role="out", shape=(2,), unseen="layout torch.sparse_coo")
    good = TensorRecord(
        path="y", role="out", shape=(2,), facts=Facts(count=2, minimum=0, maximum=1)
    )
    recording = Recording(
        pipeline="p",
        batch_size=1,
        stages=(StageRecord(name="s", kind="module", tensors=(unseen, good)),),
    )
    assert judge(recording).findings == ()
