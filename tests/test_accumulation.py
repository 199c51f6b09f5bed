"""Loops that add up gradients over several calls, and step their optimizer once in so many."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import accumulating_gradients, clipping_always_on, judge, no_optimizer_step
from icediag.instruments.gradient_flow.run import record_gradients
from icediag.recording import Recording

CHECKS = [accumulating_gradients, clipping_always_on, no_optimizer_step]


def judged(
    every: int, *, clears: bool = True, steps: bool = True, clips: float | None = None
) -> tuple[list[tuple[str, str]], int]:
    """What is found of a loop that steps once in `every` calls, and how many calls were followed.

    Args:
        every: Calls between two steps.
        clears: Whether gradients are cleared after a step.
        steps: Whether the optimizer steps at all; otherwise gradients are cleared in each call.
        clips: Norm to which gradients are clipped before a step.
    """
    torch.manual_seed(0)
    calls = 0

    def step(model: Any, batch: Tensor, optimizer: Any) -> Tensor:
        nonlocal calls
        if not steps:
            optimizer.zero_grad()
        loss: Tensor = (model(batch)[:, 0] - batch[:, 0]).square().mean() / every
        loss.backward()  # type: ignore[no-untyped-call]
        calls += 1
        if steps and calls % every == 0:
            if clips is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clips)
            optimizer.step()
            if clears:
                optimizer.zero_grad()
        return loss

    pipeline = Pipeline(
        name="accumulates",
        dataset=list(torch.randn(40, 5)),
        collate=torch.stack,
        model=nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1)),
        loss=lambda p, x: (p[:, 0] - x[:, 0]).square().mean(),
        train_step=step,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.05),
    )
    record = record_gradients(pipeline)
    assert record.reason is None
    diagnosis = judge(Recording(pipeline="p", batch_size=8, gradients=record), CHECKS)
    return [(f.name, f.severity) for f in diagnosis.findings], len(record.steps)


@pytest.mark.parametrize(("every", "calls"), [(1, 4), (2, 6), (4, 12), (16, 48)])
def test_what_steps_now_and_then_steps(every: int, calls: int) -> None:
    assert judged(every) == ([], calls)


@pytest.mark.parametrize("every", [1, 4, 8])
def test_gradients_that_are_never_cleared_are_found(every: int) -> None:
    assert judged(every, clears=False)[0] == [("accumulating-gradients", "error")]


def test_what_clears_gradients_and_never_steps_is_not_waited_for() -> None:
    assert judged(1, steps=False) == ([("no-optimizer-step", "error")], 4)


def test_of_clipping_only_calls_that_step_count() -> None:
    assert judged(4, clips=1e-5)[0] == [("clipping-always-on", "warning")]
    assert judged(4, clips=1e5)[0] == []


def test_what_does_not_step_in_very_many_calls_is_named() -> None:
    assert judged(1000) == ([("no-optimizer-step", "error")], 64)
