"""Samples on their way to the training, and its step: each fault is named, healthy ways are not."""

# ruff: noqa: NPY002 - what users write draws from the global generator

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from icediag import Pipeline
from icediag.checks import CHECKS, judge, never_shuffled
from icediag.finding import Finding
from icediag.instruments.training_flow import record_training_flow
from icediag.recording import Recording
from icediag.records.training import TrainingRecord

N = 60
Step = Callable[[Any, Any, Any], Tensor]


def table(n: int = N, seed: int = 0) -> TensorDataset:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, x[:, 0])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, batch: Any) -> Tensor:
        out: Tensor = self.layers(batch[0])[:, 0]
        return out


def loss(predictions: Tensor, batch: Any) -> Tensor:
    value: Tensor = (predictions - batch[1]).square().mean()
    return value


def pipeline(**more: Any) -> Pipeline:
    torch.manual_seed(0)
    parts: dict[str, Any] = {
        "dataset": table(),
        "model": Net(),
        "optimizer": lambda p: torch.optim.SGD(p, 0.1),
        "batch_size": 10,
    }
    return Pipeline(
        name="table",
        collate=torch.utils.data.default_collate,
        loss=loss,
        **(parts | more),
    )


def judged(whole: Pipeline) -> tuple[TrainingRecord, tuple[Finding, ...], dict[str, str]]:
    record = record_training_flow(whole)
    recording = Recording(pipeline="p", batch_size=1, training_flow=record)
    checks = [check for check in CHECKS if check.CODE.startswith("T0")]
    diagnosis = judge(Recording.from_json(recording.to_json()), checks)
    return record, diagnosis.findings, {u.name: u.reason for u in diagnosis.not_judged}


def named(whole: Pipeline) -> list[tuple[str, str]]:
    return [(finding.name, finding.severity) for finding in judged(whole)[1]]


# ---- validation


def test_nothing_is_stated() -> None:
    _, findings, reasons = judged(pipeline())
    assert findings == ()
    assert len(reasons) == 9 and all("states no" in reason for reason in reasons.values())


def test_overlap_by_content_and_by_index() -> None:
    assert named(pipeline(validation=table(20, seed=1))) == []
    record, [finding], _ = judged(pipeline(validation=TensorDataset(*table()[:20])))
    assert (finding.name, finding.severity) == ("validation-overlap", "error")
    assert record.overlap is not None and record.overlap.whole
    assert (finding.evidence["shared"], finding.evidence["validation"]) == (20, 20)
    whole = table()
    parts = torch.utils.data.random_split(whole, [50, 10])
    assert named(pipeline(dataset=parts[0], validation=parts[1])) == []
    part = torch.utils.data.Subset(whole, range(45, 60))
    record, [finding], _ = judged(pipeline(dataset=parts[0], validation=part))
    held = set(parts[0].indices) & set(range(45, 60))
    assert finding.evidence["by_index"] is True and finding.evidence["shared"] == len(held)


class Counting:
    """So large that not all is read; an event is its number."""

    def __init__(self, first: int, n: int) -> None:
        self.first, self.n, self.read = first, n, 0

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Tensor:
        self.read += 1
        return torch.arange(6.0) + (self.first + index) * 0.37


def test_of_large_sets_some_is_read_and_said() -> None:
    train = Counting(0, 100_000)
    record, [finding, *_], _ = judged(pipeline(dataset=train, validation=Counting(95_000, 5_000)))
    assert finding.severity == "error" and record.overlap is not None
    assert not record.overlap.whole and train.read < 2000
    assert f"{record.overlap.training_read:,} looked at of the 100,000" in finding.message
    _, findings, reasons = judged(pipeline(dataset=train, validation=Counting(200_000, 5_000)))
    assert [f.name for f in findings] in ([], ["validation-drift"])
    assert "not all were compared" in reasons["validation-overlap"]


def test_samples_that_repeat_by_nature_are_a_note() -> None:
    coarse = TensorDataset(torch.randn(N, 5, generator=torch.Generator().manual_seed(0)).sign())
    assert named(pipeline(dataset=coarse, validation=coarse)) == [("validation-overlap", "error")]
    two = [torch.ones(5) * (i % 2) for i in range(N)]
    assert named(pipeline(dataset=two, validation=two[:10])) == [("validation-overlap", "note")]


class Noisy(TensorDataset):
    def __getitem__(self, index: int) -> Any:
        x, y = (tensor[index] for tensor in self.tensors)
        return x + 0.1 * torch.randn(x.shape), y


def test_augmentation_on_validation() -> None:
    held_out = Noisy(*table(20, seed=1).tensors)
    _, [finding], reasons = judged(pipeline(validation=held_out))
    assert (finding.name, finding.severity) == ("augmented-validation", "warning")
    assert finding.evidence["differ"] == finding.evidence["read"] == 12
    # Of the training set it is in order.
    _, findings, reasons = judged(
        pipeline(dataset=Noisy(*table().tensors), validation=table(20, seed=1))
    )
    assert findings == () and "when it is read again" in reasons["validation-overlap"]


def test_drift_is_a_note() -> None:
    x, y = table(40, seed=1).tensors
    assert named(pipeline(validation=TensorDataset(x, y + 8))) == [("validation-drift", "note")]


@pytest.mark.parametrize(
    "change",
    [lambda y: y * 57.3 + 90, lambda y: (y + 8) * 1e-6, lambda y: y * 1e-9],
    ids=["degrees", "seconds", "nothing-left"],
)
def test_what_is_in_another_unit_is_a_warning(change: Callable[[Tensor], Tensor]) -> None:
    (x, y), (far, truth) = table().tensors, table(60, seed=1).tensors
    training = TensorDataset(x, y + 8)
    validation = TensorDataset(far, change(truth))
    _, findings, _ = judged(pipeline(dataset=training, validation=validation))
    assert [(f.name, f.severity) for f in findings] == [("validation-drift", "warning")]
    assert "in validation" in findings[0].message


def test_each_value_of_a_row_is_a_column() -> None:
    """Of which one is spread otherwise about the same mean."""
    (x, y), (far, truth) = table(200).tensors, table(60, seed=1).tensors
    far = far.clone()
    assert named(pipeline(dataset=TensorDataset(x, y), validation=TensorDataset(far, truth))) == []
    far[:, 2] *= 5
    _, [finding], _ = judged(
        pipeline(dataset=TensorDataset(x, y), validation=TensorDataset(far, truth))
    )
    assert (finding.severity, finding.evidence["column"]) == ("note", "0[2]")
    assert "times as widely spread in validation" in finding.message


# ---- loader


class Fixed(Sampler[int]):
    def __init__(self, order: list[int]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class Stream(IterableDataset[Any]):
    def __init__(self, shuffles: bool) -> None:
        self.shuffles = shuffles

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(N) if self.shuffles else torch.arange(N)
        return iter([table()[int(i)] for i in order])


PERMUTED = torch.randperm(N, generator=torch.Generator().manual_seed(4)).tolist()
LOADERS: dict[str, tuple[Callable[[], Any], list[tuple[str, str]]]] = {
    "shuffle": (lambda: DataLoader(table(), 10, shuffle=True), []),
    "own-generator": (
        lambda: DataLoader(
            table(), 10, shuffle=True, generator=torch.Generator().manual_seed(3), drop_last=True
        ),
        [],
    ),
    "drop-last": (lambda: DataLoader(table(), 7, shuffle=True, drop_last=True), []),
    "in-order": (lambda: DataLoader(table(), 10), [("never-shuffled", "warning")]),
    "once": (
        lambda: DataLoader(table(), 10, sampler=Fixed(PERMUTED)),
        [("never-shuffled", "warning")],
    ),
    "one-batch": (lambda: DataLoader(table(), N), []),
    "replacement": (
        lambda: DataLoader(table(), 10, sampler=RandomSampler(table(), replacement=True)),
        [("epoch-misses-events", "note")],
    ),
    "weighted": (
        lambda: DataLoader(table(), 10, sampler=WeightedRandomSampler([1.0] * N, N)),
        [("epoch-misses-events", "note")],
    ),
    "a-part": (
        lambda: DataLoader(table(), 10, sampler=SubsetRandomSampler(range(40))),
        [("epoch-misses-events", "note")],
    ),
    "halved": (
        lambda: DataLoader(table(), 10, sampler=SubsetRandomSampler([i // 2 for i in range(N)])),
        [("epoch-misses-events", "warning")],
    ),
    "stream": (lambda: DataLoader(Stream(True), 10), []),
    "still-stream": (lambda: DataLoader(Stream(False), 10), [("never-shuffled", "warning")]),
    "list-of-batches": (
        lambda: list(DataLoader(table(), 10)),
        [("never-shuffled", "warning")],
    ),
    "generator": (lambda: iter(DataLoader(table(), 10)), []),
}


@pytest.mark.parametrize("name", LOADERS)
def test_order_of_loaders(name: str) -> None:
    make, expected = LOADERS[name]
    assert named(pipeline(loader=make)) == expected


class Shared(torch.utils.data.IterableDataset[Tensor]):
    """Each worker reads its own share, or all of it."""

    def __init__(self, shares: bool, shuffles: bool = False) -> None:
        super().__init__()
        self.shares, self.shuffles = shares, shuffles

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, step = (info.id, info.num_workers) if info and self.shares else (0, 1)
        data = table()
        samples: list[Any] = [data[k] for k in range(first, len(data), step)]
        order = torch.randperm(len(samples)) if self.shuffles else torch.arange(len(samples))
        return iter([samples[int(i)] for i in order])


def test_workers_that_each_read_all_of_a_stream_are_named() -> None:
    def found(workers: int, *how: bool) -> list[str]:
        loader = DataLoader(Shared(*how), 10, num_workers=workers)
        return [name for name, _ in named(pipeline(loader=lambda: loader))]

    assert found(2, False) == ["never-shuffled", "epoch-misses-events"]
    assert found(2, True) == found(0, False) == ["never-shuffled"]
    assert found(2, True, True) == []


def test_a_stream_is_not_told_to_take_what_torch_refuses() -> None:
    remedies = {}
    for name in ("in-order", "still-stream"):
        record = record_training_flow(pipeline(loader=LOADERS[name][0]))
        recording = Recording(pipeline="p", batch_size=10, training_flow=record)
        [finding] = judge(recording, [never_shuffled]).findings
        remedies[name] = finding.remedy
    assert remedies["in-order"].startswith("shuffle=True")
    assert remedies["still-stream"].startswith("Draw a new order where the samples come from")


def test_a_loader_that_the_user_holds_is_left_as_it_was() -> None:
    generator = torch.Generator().manual_seed(3)
    held = DataLoader(table(), 10, shuffle=True, generator=generator)
    before = generator.get_state()
    whole = pipeline(loader=lambda: held)
    state, python, numeric = torch.get_rng_state(), random.getstate(), np.random.get_state()
    record_training_flow(whole)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numeric, strict=True))


class Augmented:
    """Noise from a generator of the caller's choice."""

    def __init__(self, draw: Callable[["Augmented"], Any], own: Any = None) -> None:
        self.draw, self.own = draw, own

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return torch.full((4,), float(index)) + torch.as_tensor(self.draw(self))


def seeds_numpy(_: int) -> None:
    np.random.seed(1)


def seeds_by_number(worker: int) -> None:
    np.random.seed(worker)


WORKERS: dict[str, tuple[Any, Any, int, int]] = {
    "torch": (Augmented(lambda _: torch.rand(())), None, 0, 0),
    "numpy": (Augmented(lambda _: np.random.rand()), None, 0, 0),
    "by-index": (Augmented(lambda _: 0.5), seeds_numpy, 0, 0),
    "alike": (Augmented(lambda _: np.random.rand()), seeds_numpy, 8, 8),
    "each-epoch": (Augmented(lambda _: np.random.rand()), seeds_by_number, 0, 8),
    "inherited": (
        Augmented(lambda self: self.own.normal(), np.random.default_rng(0)),
        None,
        *(8, 8),
    ),
}


@pytest.mark.parametrize("name", WORKERS)
def test_random_numbers_of_workers(name: str) -> None:
    dataset, init, alike, again = WORKERS[name]
    own = copy.deepcopy(dataset.own)

    def loader() -> Any:
        return DataLoader(dataset, 10, shuffle=True, num_workers=3, worker_init_fn=init)

    record, findings, _ = judged(pipeline(dataset=dataset, loader=loader))
    assert record.workers is not None
    assert (record.workers.alike, record.workers.again) == (alike, again)
    assert [f.name for f in findings] == (["workers-share-seed"] if again else [])
    if own is not None:
        assert own.bit_generator.state == dataset.own.bit_generator.state
    assert torch.utils.data.get_worker_info() is None


# ---- step


def good(model: Any, batch: Any, optimizer: Any) -> Tensor:
    optimizer.zero_grad()
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()
    return value


def zeroes_late(model: Any, batch: Any, optimizer: Any) -> Tensor:
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.zero_grad()
    optimizer.step()
    return value


def clips_late(model: Any, batch: Any, optimizer: Any) -> Tensor:
    optimizer.zero_grad()
    value = loss(model(batch), batch)
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    return value


def forgets(model: Any, batch: Any, optimizer: Any) -> Tensor:
    model.eval()
    return good(model, batch, optimizer)


def validates(model: Any, batch: Any, optimizer: Any) -> Tensor:
    """A look at another batch on the way, which comes back."""
    value = good(model, batch, optimizer)
    model.eval()
    with torch.no_grad():
        model(batch)
    model.train()
    return value


class Accumulates:
    """Steps at every second call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model: Any, batch: Any, optimizer: Any) -> Tensor:
        value = loss(model(batch), batch)
        value.backward()  # type: ignore[no-untyped-call]
        self.calls += 1
        if self.calls % 2 == 0:
            optimizer.step()
            optimizer.zero_grad()
        return value


STEPS: dict[str, tuple[Step, list[tuple[str, str]]]] = {
    "good": (good, []),
    "accumulates": (Accumulates(), []),
    "zeroes-late": (zeroes_late, [("step-order", "error")]),
    "clips-late": (clips_late, [("step-order", "warning")]),
    "forgets": (forgets, [("wrong-mode", "error")]),
}


@pytest.mark.parametrize("name", STEPS)
def test_order_of_a_step(name: str) -> None:
    step, expected = STEPS[name]
    assert named(pipeline(train_step=step)) == expected


def test_a_closure_is_in_order() -> None:
    def step(model: Any, batch: Any, optimizer: Any) -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(model(batch), batch)
            value.backward()  # type: ignore[no-untyped-call]
            return value

        value: Tensor = optimizer.step(closure)
        return value

    whole = pipeline(train_step=step, optimizer=lambda p: torch.optim.LBFGS(p, max_iter=2))
    assert named(whole) == []


def scheduled(make: Callable[[Any], Any], *, first: bool = False) -> tuple[Pipeline, Any, Any]:
    whole = pipeline(loader=lambda: DataLoader(table(), 2, shuffle=True))
    own = torch.optim.SGD(whole.model.parameters(), 0.1)
    schedule = make(own)

    def step(model: Any, batch: Any, _: Any) -> Tensor:
        if first:
            schedule.step()
        value = good(model, batch, own)
        if not first:
            schedule.step()
        return value

    return Pipeline(**{**vars(whole), "train_step": step}), own, schedule


def test_schedules() -> None:
    kinds = torch.optim.lr_scheduler
    whole, own, schedule = scheduled(lambda o: kinds.StepLR(o, 1, gamma=0.5))
    state, count = copy.deepcopy(schedule.state_dict()), schedule._step_count
    weights = [weight.clone() for weight in whole.model.parameters()]
    record, [finding], _ = judged(whole)
    assert (finding.name, finding.severity) == ("schedule-ends-early", "warning")
    [seen] = record.schedules
    assert (seen.per_call, seen.calls, seen.highest) == (1, 30, 0.1)
    assert seen.half == pytest.approx(0.1 * 0.5**15)
    # The user's own optimizer and schedule stand where they stood.
    assert own.param_groups[0]["lr"] == 0.1 and not own.state
    assert schedule.state_dict() == state and schedule._step_count == count
    for weight, was in zip(whole.model.parameters(), weights, strict=True):
        assert torch.equal(weight, was) and weight.grad is None
    assert named(scheduled(lambda o: kinds.OneCycleLR(o, 0.1, total_steps=300))[0]) == []
    assert named(scheduled(lambda o: kinds.CosineAnnealingLR(o, 30))[0]) == []
    assert named(scheduled(lambda o: kinds.CosineAnnealingLR(o, 300), first=True)[0]) == [
        ("step-order", "warning")
    ]


def test_what_fails_is_said() -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such thing")

    class Unreadable(Counting):
        def __getitem__(self, index: int) -> Tensor:
            raise OSError("no such file")

    _, findings, reasons = judged(
        pipeline(loader=broken, train_step=broken, validation=Unreadable(0, 5))
    )
    assert findings == () and len(reasons) == 9
    assert all("no such" in reason for reason in reasons.values())
