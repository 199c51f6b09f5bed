"""Scores that are sure before anything was learnt, and such as are not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline
from icediag.checks import judge, overconfident_start
from icediag.finding import Finding
from icediag.instruments.squashing import record_squashing
from icediag.recording import Recording, Unjudged

K = 5


def findings(loss: Callable[[Tensor, Any], Tensor], times: float) -> list[Finding]:
    torch.manual_seed(0)
    pipeline = Pipeline(
        name="scores",
        dataset=[(torch.randn(6), torch.tensor(i % K)) for i in range(40)],
        collate=torch.utils.data.default_collate,
        model=nn.Linear(6, K),
        forward=lambda model, batch: times * model(batch[0]),
        loss=loss,
    )
    recording = Recording(pipeline="p", batch_size=8, squashing=record_squashing(pipeline))
    return list(judge(Recording.from_json(recording.to_json()), [overconfident_start]).findings)


def entropy(p: Tensor, b: Any) -> Tensor:
    return functional.cross_entropy(p, b[1])


def binary(p: Tensor, b: Any) -> Tensor:
    return functional.binary_cross_entropy_with_logits(p, functional.one_hot(b[1], K).float())


def masked(p: Tensor, b: Any) -> Tensor:
    """Two scores are never allowed, and every third row does not count."""
    p = p.masked_fill((torch.arange(K) - b[1][:, None]) % K > 2, -torch.inf)
    labels = torch.where(torch.arange(len(p)) % 9 == 8, -100, b[1])
    return functional.cross_entropy(p, labels)


@pytest.mark.parametrize("loss", [entropy, binary, masked])
def test_scores_that_are_far_too_large_are_named(loss: Any) -> None:
    assert findings(loss, 1.0) == []
    [finding] = findings(loss, 300.0)
    assert finding.severity == "warning"
    assert finding.evidence["loss"] > 10 * finding.evidence["uninformed"]
    assert finding.location is not None and finding.location.file.endswith("overconfident_start.py")
    assert finding.location.line > loss.__code__.co_firstlineno
    text = f"{finding.evidence['uninformed']:.3g} of knowing nothing"
    assert text in finding.message


def test_what_knowing_nothing_scores_is_that_of_the_classes_allowed() -> None:
    [finding] = findings(masked, 300.0)
    assert finding.evidence["uninformed"] == pytest.approx(1.0986, abs=1e-3)


def test_scores_that_are_sure_and_right_are_not_named() -> None:
    def right(p: Tensor, b: Any) -> Tensor:
        return functional.cross_entropy(100.0 * functional.one_hot(b[1], K) + 0.0 * p, b[1])

    assert findings(right, 1.0) == []


def test_it_says_what_it_cannot_judge() -> None:
    answer = overconfident_start.check(Recording(pipeline="empty", batch_size=1))
    assert isinstance(answer, Unjudged) and answer.name == overconfident_start.NAME
