"""Models as they are met in the wild, all on the same four samples of three numbers."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from icediag import Pipeline


def mean_of(predicted: Tensor, batch: Tensor) -> Tensor:
    return predicted.mean()


def on_numbers(model: Any, loss: Callable[[Any, Any], Any] = mean_of, **more: Any) -> Pipeline:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "dataset": list(torch.randn(4, 3)),
        "collate": torch.stack,
        "batch_size": 4,
    }
    return Pipeline(name="odd", model=model, loss=loss, **(arguments | more))


class Twice(nn.Module):
    """One module called twice, and one that stands under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(3, 3)
        self.first = nn.Linear(3, 3)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(self.step(self.step(x))))
        return out


class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class OwnTrain(nn.Module):
    """`train` of another meaning: a whole training loop."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.trained = 0

    def train(self, epochs: Any = 10) -> "OwnTrain":
        self.trained += 1
        raise RuntimeError("a training loop was started")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class FrozenNorm(nn.Module):
    """`train` of the same meaning, which keeps a frozen part in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.layer = nn.Linear(3, 1)

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self.norm.training = False
        self.norm.weight.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.norm(x))
        return out


class RaisesMidway(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(3, 5)
        self.after = nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.before(x)
        if hidden.shape[1] == 5:
            raise ValueError("no light\n  in this batch")
        out: Tensor = self.after(hidden)
        return out


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(checkpoint(self.inner, x, use_reentrant=False))
        return out


class InPlace(nn.Module):
    """Changes its hidden values after a stage gave them: they have two gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.scale = Triple()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale(self.layer(x))
        return out


class Triple(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(3)


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)
        self.norm = nn.LazyBatchNorm1d()
        self.unused = nn.LazyLinear(1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.layer(x))
        return out


class Stateful(nn.Module):
    """Keeps attributes, a history and a buffer that is assigned anew."""

    running: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer("running", torch.zeros(1))
        self.calls = 0
        self.history: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        self.running = 0.9 * self.running + out.detach().mean()
        self.calls += 1
        self.last = out
        self.history.append(float(out.detach().mean()))
        return out


class Forces(nn.Module):
    """Takes a gradient on its way forward."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        energy = self.energy(x).square().sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


class ManyCalls(nn.Module):
    """A cell called more often than values are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(12):
            x = self.cell(x)
        return x


class OtherWidths(nn.Module):
    """A module without weights on tables of 2 and of 3 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.Identity()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.same(x)) + self.same(x[:, :2]).sum()
        return out


class OwnParameter(nn.Module):
    """Gives its parameter itself: a hook on it would outlive the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.same(self.weight) * x
        return out


def of_a_class() -> Pipeline:
    """The class of a model where the model belongs."""
    return on_numbers(OwnTrain)


def of_a_generator() -> Pipeline:
    """A generator for a data set: it can be read once."""
    made = on_numbers(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    return dataclasses.replace(made, dataset=(sample for sample in made.dataset))
