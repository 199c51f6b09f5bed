"""A run under way: epochs, steps, scores and checkpoints, in the order that they come."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from icediag.model.collate import Batch
from icediag.model.errors import DataError
from icediag.model.losses import Loss

from .checkpoint import Checkpoint, config_of
from .config import TrainConfig
from .evaluate import autocast, score
from .files import BEST, CURVE, LAST, METRICS
from .interrupts import Interrupts
from .loader import TrainLoader
from .progress import OnEvent, Progress, Scored, Stepped, Stopped, Summary
from .recorder import Recorder
from .schedule import learning_rate
from .seeds import rng_state


class Guard(Protocol):
    """What looks on while a network is trained."""

    def step(self, loss: Tensor, batch: Batch) -> None:
        """A step of the optimizer is done."""


#: (network, optimizer) -> a guard for the length of a `with`.
Watching = Callable[[nn.Module, torch.optim.Optimizer], AbstractContextManager[Guard]]


@dataclass(kw_only=True)
class Run:
    """A run under way: `train` made all of it fit together."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    parameters: list[Tensor]
    loader: TrainLoader
    scored: Callable[[], Iterable[Batch]]
    held_out: bool
    loss: Loss
    config: TrainConfig
    total_steps: int
    device: torch.device
    progress: Progress
    recorder: Recorder
    guard: Guard | None
    interrupts: Interrupts
    identity: dict[str, Any]
    out: Path
    on_event: OnEvent
    clock: Callable[[], float]
    began: float
    tensorboard: Path | None

    def to_end(self) -> Stopped:
        """Train until the last epoch, the time limit or an interrupt.

        The position in the epoch is all that says what comes next: a run that was interrupted while
        it scored is at the end of its epoch, and scores when it is resumed.
        """
        p, config = self.progress, self.config
        self.network.train()
        while p.epoch < config.epochs:
            stopped = self._steps()
            if stopped == "interrupt":
                return stopped
            ended = p.batch == self.loader.steps_per_epoch
            number = p.epoch + 1
            due = number % config.epochs_between_scores == 0 or number == config.epochs
            if stopped is None and not due:
                p.next_epoch()
                continue
            best = self._score()
            if best is None:
                return "interrupt"
            if ended:
                p.next_epoch()
            self.save(best=best)
            if stopped is not None and p.epoch < config.epochs:
                return stopped
        return "done"

    def _steps(self) -> Stopped | None:
        """Train to the end of the epoch; None where it was reached."""
        p, config, watch = self.progress, self.config, self.recorder.watch
        watch.restart()
        if p.batch == self.loader.steps_per_epoch:
            return None
        for batch in self.loader.epoch(p.epoch, skip=p.batch):
            watch.lap(waiting=True)
            self._step(batch)
            watch.lap()
            if self.interrupts.asked():
                return "interrupt"
            if config.max_minutes is not None and self._seconds() >= 60 * config.max_minutes:
                return "time"
            if p.step % config.save_every == 0:
                self.save()
                watch.restart()
        return None

    def _step(self, host_batch: Batch) -> None:
        """One step of the optimizer."""
        p, config = self.progress, self.config
        batch = host_batch.to(self.device, non_blocking=True)
        lr = learning_rate(p.step, self.total_steps, config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device):
            prediction = self.network(batch)
        loss = self.loss(prediction, batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = get_total_norm([x.grad for x in self.parameters if x.grad is not None])
        if config.clip is not None:
            clip_grads_with_norm_(self.parameters, config.clip, norm)
        self.recorder.add(p.step + 1, loss, norm, host_batch.event_ids)
        # On a CPU reading is free, and a bad step is refused before it is taken. A GPU would have
        # to wait for it each time: there it is found at the next line of metrics or checkpoint.
        value = self.recorder.read() if self.device.type == "cpu" else None
        self.optimizer.step()
        if self.guard is not None:
            self.guard.step(loss, batch)
        p.step += 1
        p.batch += 1
        if p.step % config.log_every == 0:
            value = self.recorder.read() if value is None else value
            self.recorder.watch.lap()
            self.recorder.write_step(lr)
        self.on_event(Stepped(step=p.step, loss=value, n_events=batch.batch_size))

    def _score(self) -> bool | None:
        """Score, and write and tell the result; whether it is the best, None where interrupted."""
        p = self.progress
        self.recorder.read()
        try:
            found = score(
                self.network, self.scored(), self.loss, self.device, stop=self.interrupts.asked
            )
        except DataError as error:
            raise DataError(f"step {p.step}: {error}") from error
        if found is None:
            return None
        best = p.best_mean is None or found.mean < p.best_mean
        if best:
            p.best_mean, p.best_step = found.mean, p.step
        p.last_mean, p.last_median = found.mean, found.median
        scored = Scored(
            step=p.step,
            epoch=p.epoch + 1,
            epochs=self.config.epochs,
            held_out=self.held_out,
            events=found.events,
            train_loss=p.epoch_loss / p.epoch_events if p.epoch_events else None,
            loss=found.loss,
            mean=found.mean,
            median=found.median,
            best=best,
        )
        kind = "validation" if self.held_out else "training"
        line = {name: value for name, value in vars(scored).items() if name != "held_out"}
        self.recorder.write({"kind": kind, **line, "seconds": self._seconds()})
        self.on_event(scored)
        return best

    def save(self, *, best: bool = False) -> None:
        """Write `last.pt`, and `best.pt` before it where this is the best."""
        self.recorder.read()
        Checkpoint(
            network=self.network.state_dict(),
            network_config=config_of(self.network),
            optimizer=self.optimizer.state_dict(),
            progress=self.progress.to_plain(),
            rng=rng_state(),
            run=self.identity,
        ).write(*([self.out / BEST] if best else []), self.out / LAST)

    def _seconds(self) -> float:
        return self.clock() - self.began

    def summary(self, stopped: Stopped) -> Summary:
        """How it ended."""
        p = self.progress

        def if_there(name: str) -> Path | None:
            return self.out / name if (self.out / name).exists() else None

        return Summary(
            stopped=stopped,
            step=p.step,
            total_steps=self.total_steps,
            epoch=p.epoch,
            seconds=self._seconds(),
            held_out=self.held_out,
            mean=p.last_mean,
            median=p.last_median,
            best_mean=p.best_mean,
            best_step=p.best_step,
            last=self.out / LAST,
            best=if_there(BEST),
            metrics=self.out / METRICS,
            curve=if_there(CURVE),
            tensorboard=self.tensorboard,
        )
