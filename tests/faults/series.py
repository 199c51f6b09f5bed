"""An LSTM on ragged time series: named tuples, packed sequences, regression of two numbers."""

# ruff: noqa: NPY002 - what users write draws from the global generator
# B series, L longest series, F features

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from icediag import Domain, Pipeline

from .case import Fault, Patient

N_SERIES = 96


class Batch(NamedTuple):
    values: Tensor
    lengths: Tensor
    targets: Tensor


class Series(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Damped oscillations; the targets are frequency and damping, standardised."""

    def __init__(self, fault: str | None) -> None:
        generator = torch.Generator().manual_seed(9)
        self.items = []
        for _ in range(N_SERIES):
            n = int(torch.randint(12, 60, (), generator=generator))
            frequency, damping = torch.randn(2, generator=generator)
            time = torch.arange(n) * 0.25
            wave = torch.sin(time * (1.2 + 0.3 * frequency)) * torch.exp(-0.1 * (1 + 0.3 * damping))
            noise = 0.05 * torch.randn(n, generator=generator)
            values = torch.stack([(wave + noise) / 0.65, (time - 4.0) / 3.6], 1)
            if fault == "scales-apart":
                values[:, 1] = values[:, 1] * 5e4
            if fault == "off-centre":
                values = values + 60.0
            self.items.append((values, torch.stack([frequency, damping])))

    def __len__(self) -> int:
        return N_SERIES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.items[index]


def collate(samples: list[tuple[Tensor, Tensor]]) -> Batch:
    return Batch(
        values=pad_sequence([values for values, _ in samples], batch_first=True),
        lengths=torch.tensor([len(values) for values, _ in samples]),
        targets=torch.stack([target for _, target in samples]),
    )


def collate_without_last(samples: list[tuple[Tensor, Tensor]]) -> Batch:
    """Drops short series, and says nothing."""
    return collate([sample for sample in samples if len(sample[0]) >= 24] or samples)


class Net(nn.Module):
    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.lstm = (nn.GRU if fault == "gru" else nn.LSTM)(2, 32, batch_first=True)
        self.last = nn.Linear(32, 2)
        self.head = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), self.last)
        self.carried: Any = None

    def forward(self, batch: Batch) -> Tensor:
        if self.fault == "reads-padding":
            states, (_, _) = self.lstm(batch.values)
            last = states[:, -1]
        elif self.fault == "carries-state":
            state = self.carried
            if state is None or state[0].shape[1] != len(batch.lengths):
                state = None
            states, state = self.lstm(batch.values, state)
            self.carried = tuple(part.detach() for part in state)
            last = states[torch.arange(len(states)), batch.lengths - 1]
        else:
            packed = pack_padded_sequence(
                batch.values, batch.lengths, batch_first=True, enforce_sorted=False
            )
            states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            last = states[torch.arange(len(states)), batch.lengths - 1]
        if self.fault == "row-by-row":
            last = torch.stack([states[i, int(n) - 1] for i, n in enumerate(batch.lengths)])
        out: Tensor = self.head(last)
        if self.fault == "half-out-of-reach":
            out = out.tanh() * torch.tensor([1.0, 0.4])
        if self.fault == "saturated":
            out = (out * 1e4 + 500).tanh() * 4
        if self.fault == "constant":
            out = out * 0.0 + self.last.bias
        return out


def loss(predictions: Tensor, batch: Batch) -> Tensor:
    return (predictions - batch.targets).square().mean()


def loss_broadcast(predictions: Tensor, batch: Batch) -> Tensor:
    """(B, 1) minus (B,) is (B, B)."""
    frequency = predictions[:, :1] - batch.targets[:, 0]
    damping = predictions[:, 1:] - batch.targets[:, 1]
    return frequency.square().mean() + damping.square().mean()


def loss_with_pole(predictions: Tensor, batch: Batch) -> Tensor:
    """The root of a square has no slope at 0."""
    return (predictions - batch.targets).square().sum(1).sqrt().mean()


class Jittered(Series):
    """Noise is added where a series is read, by numpy's generator."""

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        values, target = self.items[index]
        noise = torch.from_numpy(np.random.normal(0, 0.01, values.shape)).float()
        return values + noise, target


def same_for_all(_: int) -> None:
    np.random.seed(42)


class AlwaysTheSame(torch.utils.data.Sampler[int]):
    """Shuffled once, when it was made."""

    def __init__(self, n: int) -> None:
        self.order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).tolist()

    def __iter__(self) -> Any:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


def build(fault: str | None) -> Pipeline:
    torch.manual_seed(0)
    jitters = fault in ("jittered", "workers-alike")
    dataset = Jittered(fault) if jitters else Series(fault)
    made = collate_without_last if fault == "drops-short" else collate

    def loader() -> Any:
        sampler: Any = None
        if fault == "shuffled-once":
            sampler = AlwaysTheSame(len(dataset))
        if fault == "repeats-events":
            sampler = torch.utils.data.SubsetRandomSampler([i // 2 for i in range(N_SERIES)])
        shuffle = sampler is None and fault != "never-shuffled"
        return torch.utils.data.DataLoader(
            dataset,
            24,
            shuffle=shuffle,
            sampler=sampler,
            collate_fn=made,
            num_workers=2 if jitters else 0,
            worker_init_fn=same_for_all if fault == "workers-alike" else None,
        )

    losses = {"broadcast": loss_broadcast, "root": loss_with_pole}
    domains = {"frequency": Domain(-4, 4), "damping": Domain(-4, 4)}
    return Pipeline(
        name="series",
        dataset=dataset,
        collate=made,
        model=Net(fault),
        loss=losses.get(fault or "", loss),
        optimizer=lambda parameters: torch.optim.Adam(parameters, 3e-3),
        batch_size=24,
        baseline_loss=1.0,
        outputs=domains if fault in ("half-out-of-reach", "saturated") else {},
        loader=loader,
        sources=("tests.faults.series",),
    )


PATIENT = Patient(
    name="series",
    build=build,
    variants=("gru", "jittered"),
    faults=(
        Fault(
            name="scales-apart",
            checks=("uneven-scales", "unnormalized-input", "over-scaled-feature"),
        ),
        Fault(name="off-centre", checks=("off-centre-feature", "unnormalized-input")),
        Fault(name="drops-short", checks=("events-lost",), stages=("collate",)),
        Fault(name="reads-padding", checks=("padding-leak",)),
        Fault(name="carries-state", checks=("not-deterministic", "batch-leak")),
        Fault(name="row-by-row", checks=("python-loop", "host-sync"), stages=("model",)),
        Fault(name="half-out-of-reach", checks=("unreachable-range",)),
        Fault(name="saturated", checks=("saturated-output",)),
        Fault(name="constant", checks=("constant-prediction", "no-gradient")),
        Fault(name="broadcast", checks=("loss-mixes-samples",), stages=("loss",)),
        Fault(name="root", checks=("singular-loss",), stages=("loss",)),
        Fault(name="shuffled-once", checks=("never-shuffled",)),
        Fault(name="never-shuffled", checks=("never-shuffled",)),
        Fault(name="workers-alike", checks=("workers-share-seed",)),
        Fault(name="repeats-events", checks=("epoch-misses-events",)),
    ),
)
