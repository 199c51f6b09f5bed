"""What a training run can be told."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

ScheduleName = Literal["cosine", "one-cycle", "constant"]
DeviceName = Literal["auto", "cpu", "cuda"]

#: Shares of all steps that the learning rate rises for, where `warmup` is not given.
WARMUP_SHARE = {"cosine": 0.05, "one-cycle": 0.3, "constant": 0.05}
#: At most this many steps of it, but for one-cycle, whose long rise is its point.
WARMUP_MOST = 1000


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: Passes over the training events, >= 1.
        max_minutes: Stop after this time, > 0, wherever it is; a resumed run gets it anew. The
            learning rate does not fall faster for it.
        batch_size: Events a step, >= 1; the last batch of an epoch may be smaller, nothing is
            dropped.
        lr: Peak learning rate, > 0.
        weight_decay: Of weight matrices alone, >= 0.
        warmup: Steps of rising learning rate, >= 0; None takes `WARMUP_SHARE` of all steps.
        schedule: What follows the rise: see `schedule.learning_rate`.
        clip: Largest norm of the gradient, > 0; None does not clip.
        log_every: Steps between two lines of metrics, >= 1. On a GPU also how often loss and norm
            are read from it.
        save_every: Steps between two checkpoints within an epoch, >= 1.
        score_every: Epochs between two scorings, >= 1; None scores about twenty times a run.
        max_scored: Most events that are scored, >= 1: the first ones, which lie in few files.
        workers: Processes that load, >= 0; 0 loads in this one.
        device: `auto` takes the GPU if there is one.
        compile: Compile the token-wise parts with `torch.compile`.
        seed: Of weights that are still to be drawn, dropout and the order of events, >= 0.

    Raises:
        ValueError: An argument is out of range; the message begins with its name.
    """

    epochs: int = 5
    max_minutes: float | None = None
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: int | None = None
    schedule: ScheduleName = "cosine"
    clip: float | None = 1.0
    log_every: int = 10
    save_every: int = 1000
    score_every: int | None = None
    max_scored: int = 20_000
    workers: int = 0
    device: DeviceName = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "log_every", "save_every", "max_scored"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("workers", "seed"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("lr", 0 < self.lr < math.inf, "a number above 0")
        self._check("weight_decay", 0 <= self.weight_decay < math.inf, "a number, 0 or more")
        for name in ("max_minutes", "clip"):
            value = getattr(self, name)
            self._check(name, value is None or value > 0, "a number above 0")
        self._check("warmup", self.warmup is None or self.warmup >= 0, "0 or more")
        self._check("score_every", self.score_every is None or self.score_every >= 1, "1 or more")
        for name, choices in (("schedule", ScheduleName), ("device", DeviceName)):
            allowed = get_args(choices)
            self._check(name, getattr(self, name) in allowed, f"one of {', '.join(allowed)}")

    def _check(self, name: str, right: bool, expected: str) -> None:
        if not right:
            raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    @property
    def epochs_between_scores(self) -> int:
        """`score_every`, or one twentieth of the epochs, rounded up."""
        return self.score_every or math.ceil(self.epochs / 20)

    def warmup_steps(self, total_steps: int) -> int:
        """Steps of rising learning rate in a run of `total_steps`."""
        if self.warmup is not None:
            return min(self.warmup, total_steps)
        steps = round(WARMUP_SHARE[self.schedule] * total_steps)
        return steps if self.schedule == "one-cycle" else min(steps, WARMUP_MOST)

    def torch_device(self) -> torch.device:
        """The device to train on.

        Raises:
            ValueError: `device` is `cuda` and there is none.
        """
        cuda = torch.cuda.is_available()
        if self.device == "cuda" and not cuda:
            raise ValueError("device: expected a CUDA device that torch can use, found none")
        return torch.device("cuda" if cuda and self.device != "cpu" else "cpu")
