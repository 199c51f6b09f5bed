"""Weighted means, recognised in whatever way they are written, and what their weights are like."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from icediag import Pipeline
from icediag.checks import judge, normalized_weights
from icediag.instruments.examine import examine
from icediag.instruments.weighing import record_weighing
from icediag.records.weighing import WeighedMean

# B samples, L slots, N rows

Batch = tuple[Tensor, Tensor, Tensor]


def by_index_add(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    above = torch.zeros(n, x.shape[1]).index_add(0, group, x * w[:, None])
    return above / torch.zeros(n).index_add(0, group, w)[:, None]


def by_writing(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    above, below = torch.zeros(n, x.shape[1]), torch.zeros(n, 1)
    above.index_add_(0, group, w.unsqueeze(1) * x)
    below.index_put_((group,), w.unsqueeze(1), accumulate=True)
    return above / (below + 1e-12)


def by_fractions(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    total = torch.zeros(n).scatter_add(0, group, w)
    share = w / torch.where(total == 0, 1.0, total)[group]
    return torch.zeros(n, x.shape[1]).index_add(0, group, x * share[:, None])


def by_loop(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    means = []
    for i in range(n):
        own = group == i
        these = w[own]
        means.append((x[own] * these[:, None]).sum(0) / these.sum())
    return torch.stack(means)


def by_slots(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    """Padded, masked."""
    counts = torch.bincount(group, minlength=n)
    slot = torch.arange(len(group)) - (counts.cumsum(0) - counts)[group]
    padded = torch.zeros(n, int(counts.max()), x.shape[1])
    weights, mask = torch.zeros(padded.shape[:2]), torch.zeros(padded.shape[:2])
    padded[group, slot], weights[group, slot], mask[group, slot] = x, w, 1.0
    weights = weights * mask
    return (padded * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


def by_matrix(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    table = (torch.arange(n)[:, None] == group) * w
    return (table / table.sum(1, keepdim=True)) @ x


FORMS = (by_index_add, by_writing, by_fractions, by_loop, by_slots, by_matrix)
Form = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class Pooled(nn.Module):
    """Weighs rows by one of their columns, and reads the mean."""

    def __init__(self, form: Form, of: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.form, self.of = form, of
        self.encode, self.read = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, batch: Batch) -> Tensor:
        rows, group, y = batch
        pooled = self.form(self.encode(rows).tanh(), self.of(rows[:, 2]), group, len(y))
        return self.read(pooled).squeeze(1)  # type: ignore[no-any-return]


def collate(samples: list[Tensor]) -> Batch:
    rows = torch.cat(samples)
    group = torch.repeat_interleave(torch.tensor([len(sample) for sample in samples]))
    return rows, group, torch.stack([sample[0, 0] for sample in samples])


def made(form: Form, of: Callable[[Tensor], Tensor]) -> Pipeline:
    generator = torch.Generator().manual_seed(3)
    dataset = []
    for i in range(12):
        rows = torch.rand(3 + i, 3, generator=generator)
        rows[:, 2] = rows[:, 2] * 4 + 0.1
        # Two whose logarithms cancel but for one part in ten thousand.
        rows[:2, 2] = torch.tensor([2.0, 0.5001])
        dataset.append(rows if i else rows[:2].clone())
    torch.manual_seed(0)
    return Pipeline(
        name="pooled",
        dataset=dataset,
        collate=collate,
        model=Pooled(form, of),
        loss=lambda out, batch: ((out - batch[2]) ** 2).mean(),
        batch_size=12,
    )


def only(pipeline: Pipeline) -> WeighedMean:
    (mean,) = record_weighing(pipeline).means
    return mean


@pytest.mark.parametrize("form", FORMS)
def test_the_mean_is_recognised_however_it_is_written(form: Form) -> None:
    pipeline = made(form, torch.log)
    mean = only(pipeline)
    assert mean.file == "tests/test_weighing.py"
    if form is by_loop:
        # One call a group: the groups of the line are told together.
        assert mean.groups >= 1
        return
    logs = [sample[:, 2].log() for sample in pipeline.dataset]
    share = [float(log.sum().abs() / log.abs().sum()) for log in logs]
    assert mean.groups == 12
    assert mean.cancelled == pytest.approx(min(share), rel=1e-3)
    assert mean.smallest_sum == pytest.approx(min(float(log.sum().abs()) for log in logs), rel=1e-3)
    assert mean.cancelled_groups == sum(one <= 0.1 for one in share)


@pytest.mark.parametrize("form", FORMS)
def test_raw_weights_and_a_softmax_are_in_order(form: Form) -> None:
    for of in (lambda q: q, torch.exp, nn.functional.softplus):
        pipeline = made(form, of)
        mean = only(pipeline)
        assert mean.negative == 0.0
        assert mean.cancelled == pytest.approx(1.0)
        recording = examine(pipeline, needs=normalized_weights.NEEDS)
        assert judge(recording, [normalized_weights]).findings == ()


def test_weights_that_cancel_are_a_warning_and_others_a_note() -> None:
    recording = examine(made(by_index_add, torch.log), needs=normalized_weights.NEEDS)
    (finding,) = judge(recording, [normalized_weights]).findings
    assert (finding.severity, finding.name) == ("warning", "normalized-weights")
    assert finding.evidence["cancelled_groups"] >= 1
    assert finding.location is not None
    assert finding.location.file == "tests/test_weighing.py"

    # Three of four tenths of the magnitudes are left.
    recording = examine(
        made(by_index_add, lambda q: torch.where(q < 0.3, -0.1, q)), needs=normalized_weights.NEEDS
    )
    (finding,) = judge(recording, [normalized_weights]).findings
    assert finding.severity == "note"


def no_mean(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    """A product, a sum and a division that are not of one another."""
    gated = x * w[:, None]
    summed = torch.zeros(n, x.shape[1]).index_add(0, group, gated)
    return summed / (torch.bincount(group, minlength=n)[:, None] + x.sum().abs())


def standardised(x: Tensor, w: Tensor, group: Tensor, n: int) -> Tensor:
    """Values divided by their own mean and summed, with nothing that they weigh."""
    scaled = w / w.mean()
    return torch.zeros(n, 4).index_add(0, group, scaled[:, None].expand(-1, 4))


@pytest.mark.parametrize("form", [no_mean, standardised])
def test_what_is_no_weighted_mean_is_none(form: Form) -> None:
    assert record_weighing(made(form, torch.log)).means == ()


def test_a_model_that_raises_is_not_judged() -> None:
    def raising(*_: Any) -> Tensor:
        raise ValueError("no such pooling")

    record = record_weighing(made(raising, torch.log))
    assert record.means == ()
    assert any("no such pooling" in item.reason for item in record.not_judged)
