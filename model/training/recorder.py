"""What a step leaves behind: losses and norms, read from the device seldom, checked and written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from icediag.model.errors import DataError

from .evaluate import name_events
from .metrics import MetricsLog
from .progress import Progress


@dataclass
class Stopwatch:
    """Time spent training since the last line of metrics; scoring and saving do not count.

    Attributes:
        clock: Seconds.
        seconds: In all.
        waiting: Of these, spent waiting for the next batch.
        events: Trained on meanwhile.
    """

    clock: Callable[[], float]
    seconds: float = 0.0
    waiting: float = 0.0
    events: int = 0
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """What happened since the last call of any method does not count."""
        self._last = self.clock()

    def lap(self, *, waiting: bool = False) -> None:
        """What happened since the last call of any method counts."""
        now = self.clock()
        self.seconds += now - self._last
        self.waiting += now - self._last if waiting else 0.0
        self._last = now

    def read(self) -> dict[str, float]:
        """Rates for a line of metrics, none where no time has passed; starts anew."""
        rates = {}
        if self.seconds > 0:
            rates = {
                "events_per_s": self.events / self.seconds,
                "data_wait": self.waiting / self.seconds,
            }
        self.seconds, self.waiting, self.events = 0.0, 0.0, 0
        return rates


@dataclass(frozen=True, eq=False)
class _Pending:
    """A step whose loss and norm still lie on the device."""

    step: int
    loss: Tensor
    norm: Tensor
    event_ids: Tensor


class Recorder:
    """Counts steps into the progress and writes the lines of metrics.

    Args:
        progress: Counted into.
        metrics: Written to.
        clock: Seconds.
    """

    def __init__(self, progress: Progress, metrics: MetricsLog, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._metrics = metrics
        self._pending: list[_Pending] = []
        self.watch = Stopwatch(clock)

    def add(
        self,
        step: int,
        loss: Float[Tensor, ""],
        norm: Float[Tensor, ""],
        event_ids: Int64[Tensor, "events"],
    ) -> None:
        """Note a step; nothing is read from the device.

        Args:
            step: Its number, 1 for the first.
            loss: Mean over its events.
            norm: Of the gradient, before it was clipped.
            event_ids: `(B,)` on the host.
        """
        self._pending.append(_Pending(step, loss.detach(), norm, event_ids))
        self.watch.events += len(event_ids)

    def read(self) -> float | None:
        """Read what was noted since the last call from the device, at one go, and check it.

        Returns:
            The last step's loss; None where nothing was noted.

        Raises:
            DataError: A loss or a norm is not a finite number: its step and events are named, and
                all of them are written to the metrics.
        """
        if not self._pending:
            return None
        pending, self._pending = self._pending, []
        losses = torch.stack([one.loss.double() for one in pending])
        norms = torch.stack([one.norm.double() for one in pending])
        values = torch.stack([losses, norms], dim=1).tolist()
        for one, (loss, norm) in zip(pending, values, strict=True):
            if not (isfinite(loss) and isfinite(norm)):
                self._refuse(one, "loss" if not isfinite(loss) else "gradient")
            self._progress.count(loss, norm, len(one.event_ids))
        return float(values[-1][0])

    def _refuse(self, step: _Pending, what: str) -> None:
        event_ids = step.event_ids.tolist()
        self.write(
            {
                "kind": "non-finite",
                "step": step.step,
                "epoch": self._progress.epoch + 1,
                "what": what,
                "event_ids": event_ids,
            }
        )
        raise DataError(
            f"step {step.step}: the {what} is not finite, in a batch of {name_events(event_ids)}"
        )

    def write_step(self, lr: float) -> None:
        """Write a line on the steps since the last one: mean loss of an event, mean norm, rates."""
        p = self._progress
        line = {
            "kind": "step",
            "step": p.step,
            "epoch": p.epoch + 1,
            "loss": p.window_loss / p.window_events,
            "lr": lr,
            "grad_norm": p.window_norm / p.window_steps,
            **self.watch.read(),
        }
        p.clear_window()
        self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line."""
        self._metrics.write(line)
        self._progress.lines = self._metrics.lines
