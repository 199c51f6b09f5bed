"""Where a run is, and what it tells its caller on the way."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from icediag.model.errors import DataError


@dataclass(kw_only=True)
class Progress:
    """Where a run is. Part of every checkpoint; holds no time, so it comes out the same every time.

    Attributes:
        step: Optimizer steps done.
        epoch: Epochs done.
        batch: Batches done of the one under way.
        epoch_loss: Sum of the losses of this epoch's events.
        epoch_events: How many those are.
        window_loss: As `epoch_loss`, since the last line of metrics.
        window_events: As `epoch_events`, since the last line of metrics.
        window_norm: Sum of the gradients' norms since the last line of metrics.
        window_steps: How many those are.
        best_mean: Smallest mean angular error scored, rad.
        best_step: The step it was scored after.
        last_mean: Mean angular error last scored, rad.
        last_median: Median angular error last scored, rad.
        lines: Lines of metrics written.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    epoch_loss: float = 0.0
    epoch_events: int = 0
    window_loss: float = 0.0
    window_events: int = 0
    window_norm: float = 0.0
    window_steps: int = 0
    best_mean: float | None = None
    best_step: int | None = None
    last_mean: float | None = None
    last_median: float | None = None
    lines: int = 0

    def to_plain(self) -> dict[str, Any]:
        """As a dictionary of numbers."""
        return asdict(self)

    @classmethod
    def from_plain(cls, path: Path, values: dict[str, Any]) -> "Progress":
        """From `to_plain`.

        Raises:
            DataError: `values`, read from `path`, are not those of a run's progress.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            differ = ", ".join(sorted(names ^ set(values)))
            raise DataError(f"{path}: the checkpoint's progress is not complete ({differ})")
        return cls(**values)

    def count(self, loss: float, norm: float, n_events: int) -> None:
        """Add a step: mean loss of its events, norm of its gradient."""
        self.epoch_loss += loss * n_events
        self.epoch_events += n_events
        self.window_loss += loss * n_events
        self.window_events += n_events
        self.window_norm += norm
        self.window_steps += 1

    def clear_window(self) -> None:
        """A line of metrics was written."""
        self.window_loss = self.window_norm = 0.0
        self.window_events = self.window_steps = 0

    def next_epoch(self) -> None:
        """An epoch is done and scored."""
        self.epoch += 1
        self.batch = 0
        self.epoch_loss, self.epoch_events = 0.0, 0


@dataclass(frozen=True, kw_only=True)
class Started:
    """The run begins, or goes on.

    Attributes:
        step: Steps done before.
        total_steps: Of the whole run.
        steps_per_epoch: Of an epoch.
        train_events: Number of training events.
        scored_events: Number of events that are scored.
        held_out: Whether those are held out; if not, they are training events.
        parameters: Number of trained parameters.
        device: As torch names it.
    """

    step: int
    total_steps: int
    steps_per_epoch: int
    train_events: int
    scored_events: int
    held_out: bool
    parameters: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """A step is done.

    Attributes:
        step: Steps done.
        loss: Mean loss of its events; None where it was not read from the device.
        n_events: Events of the step.
    """

    step: int
    loss: float | None
    n_events: int


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Events were scored.

    Attributes:
        step: Steps done.
        epoch: Epochs done, the one just ended included.
        epochs: Of the whole run.
        held_out: Whether the events are held out; if not, they are training events.
        events: How many.
        train_loss: Mean loss of this epoch's steps, dropout and all.
        loss: Mean loss of the scored events.
        mean: Mean angular error, rad.
        median: Median angular error, rad.
        best: Whether no mean before was smaller.
    """

    step: int
    epoch: int
    epochs: int
    held_out: bool
    events: int
    train_loss: float | None
    loss: float
    mean: float
    median: float
    best: bool


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something the user should know, in one line."""

    text: str


TrainEvent = Started | Stepped | Scored | Note
Stopped = Literal["done", "time", "interrupt"]
OnEvent = Callable[[TrainEvent], None]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        stopped: `done` at its last step, `time` at `max_minutes`, `interrupt` by a signal.
        step: Steps done.
        total_steps: Of the whole run.
        epoch: Epochs done.
        seconds: Wall-clock time since it began or was resumed.
        held_out: Whether the scores are of held-out events; if not, of training events.
        mean: Mean angular error last scored, rad; None before the first scoring.
        median: Median angular error last scored, rad.
        best_mean: Smallest mean angular error scored, rad.
        best_step: The step it was scored after.
        last: Checkpoint of the last step.
        best: Checkpoint of the best score; None before the first scoring.
        metrics: JSON lines.
        curve: Picture of the learning curve; None where it was not drawn.
        tensorboard: Folder of TensorBoard's files; None without TensorBoard.
    """

    stopped: Stopped
    step: int
    total_steps: int
    epoch: int
    seconds: float
    held_out: bool
    mean: float | None
    median: float | None
    best_mean: float | None
    best_step: int | None
    last: Path
    best: Path | None
    metrics: Path
    curve: Path | None
    tensorboard: Path | None
