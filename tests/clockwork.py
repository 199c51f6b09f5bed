"""A clock that moves only when it is told to, and a pipeline whose parts take known times by it."""

from typing import Any

import torch
from torch import Tensor, nn

from icediag import Pipeline


class Hands:
    """The time, in seconds."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


HANDS = Hands()


class Samples:
    """Each takes 1 s to read."""

    def __init__(self, n: int = 8) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Tensor:
        if i >= self.n:
            raise IndexError(i)
        HANDS.advance(1)
        return torch.full((3,), float(i))


class Part(nn.Module):
    """A layer that takes some seconds a row, more where asked."""

    def __init__(self, seconds: float, power: int = 1) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.seconds, self.power = seconds, power

    def forward(self, x: Tensor) -> Tensor:
        HANDS.advance(self.seconds * len(x) ** self.power)
        out: Tensor = self.layer(x)
        return out


class Slow(torch.autograd.Function):
    """Takes 64 s on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        HANDS.advance(64)
        return gradients[0]


def bounded(x: Tensor) -> Tensor:
    """A function of the user's: 16 s."""
    HANDS.advance(16)
    return x.tanh()


class Clockwork(nn.Module):
    """2 s a row in the first part, 4 in the second, 16 s in a function, 32 s of its own."""

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.first = Part(2, power)
        self.second = Part(4)

    def forward(self, x: Tensor) -> Tensor:
        HANDS.advance(32)
        out: Tensor = Slow.apply(bounded(self.second(self.first(x))))  # type: ignore[no-untyped-call]
        return out


def collate(samples: list[Tensor]) -> Tensor:
    """0.25 s."""
    HANDS.advance(0.25)
    return torch.stack(samples)


def mean(predicted: Tensor, _: Tensor) -> Tensor:
    """0.5 s."""
    HANDS.advance(0.5)
    return predicted.mean()


class Momentum(torch.optim.SGD):
    """128 s a step."""

    def step(self, closure: Any = None) -> Any:
        HANDS.advance(128)
        return super().step(closure)


def take_step(model: nn.Module, batch: Tensor, optimizer: Any) -> Tensor:
    """The user's own: 256 s of other things, clipping, and a function as its loss."""
    HANDS.advance(256)
    optimizer.zero_grad()
    loss = mean(model(batch), batch)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss


def pipeline(n: int = 8, power: int = 1, **more: Any) -> Pipeline:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "dataset": Samples(n),
        "collate": collate,
        "model": Clockwork(power),
        "loss": mean,
        "optimizer": lambda parameters: Momentum(parameters, 0.1, momentum=0.9),
        "batch_size": n,
        "stages": ("tests.clockwork:bounded",),
    }
    return Pipeline(name="clockwork", **(arguments | more))
