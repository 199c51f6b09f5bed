"""What `icediag train` shows while it runs, and what it says at the end."""

import math
import time
from collections import deque
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from icediag.model.training.progress import Note, Scored, Started, Stepped, Summary, TrainEvent

#: Without a terminal, seconds between two lines while an epoch lasts.
QUIET = 30.0


class Screen:
    """Shows a run: a bar where there is a terminal, a line now and then where there is none.

    Args:
        console: Where to.
        clock: Seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque(maxlen=30)
        self._loss = math.nan
        self._total = 0
        self._last_line = clock()
        self._headed = False
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Screen":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, event: TrainEvent) -> None:
        """Show what a run tells."""
        match event:
            case Started():
                self._start(event)
            case Stepped():
                self._step(event)
            case Scored():
                self._score(event)
            case Note():
                self._console.print(f"note: {event.text}")

    def _start(self, event: Started) -> None:
        scored = f"{event.scored_events:,} held out" if event.held_out else "none held out"
        self._console.print(
            f"training on {event.train_events:,} events, {scored}; {event.parameters:,} parameters "
            f"on {event.device}"
        )
        if event.step:
            self._console.print(f"going on from step {event.step} of {event.total_steps}")
        self._total = event.total_steps
        self._task = self._bar.add_task(
            "train", total=event.total_steps, completed=event.step, state=""
        )
        self._recent.append((self._clock(), 0))

    def _step(self, event: Stepped) -> None:
        now = self._clock()
        self._recent.append((now, event.n_events))
        if event.loss is not None:
            self._loss = event.loss
        seconds = now - self._recent[0][0]
        n_events = sum(n for _, n in list(self._recent)[1:])
        state = f"loss {self._loss:.4f}"
        if seconds > 0:
            state += f"  {n_events / seconds:,.0f} events/s"
        if self._task is not None:
            self._bar.update(self._task, completed=event.step, state=state)
        if not self._console.is_terminal and now - self._last_line >= QUIET:
            self._last_line = now
            left = (self._total - event.step) * seconds / (len(self._recent) - 1)
            self._console.print(f"step {event.step}/{self._total}  {state}  {left:.0f} s left")

    def _score(self, event: Scored) -> None:
        if not self._headed:
            of = "held-out" if event.held_out else "training"
            self._console.print(
                f"{'epoch':>9}  {'train loss':>10}  {of + ' mean':>13}  {'median':>10}"
                "  knowing nothing"
            )
            self._headed = True
        train_loss = "-" if event.train_loss is None else f"{event.train_loss:.4f}"
        self._console.print(
            f"{f'{event.epoch}/{event.epochs}':>9}  {train_loss:>10}  {event.mean:>9.4f} rad"
            f"  {event.median:>6.4f} rad  pi/2 = {math.pi / 2:.4f} rad{'  best' * event.best}"
        )
        self._recent.clear()
        self._recent.append((self._clock(), 0))
        self._last_line = self._clock()


def closing_lines(summary: Summary) -> list[str]:
    """What is said at the end: how well it does, where everything is, how to go on."""
    lines = []
    if summary.stopped != "done":
        why = {"time": "the time is up", "interrupt": "interrupted"}[summary.stopped]
        lines.append(f"{why} at step {summary.step} of {summary.total_steps}")
    if summary.mean is not None and summary.median is not None:
        of = "held-out" if summary.held_out else "training"
        lines.append(
            f"{of} mean angular error {summary.mean:.4f} rad, median {summary.median:.4f} rad; "
            f"pi/2 = {math.pi / 2:.4f} is knowing nothing"
        )
    if summary.best_mean is not None and summary.best_step is not None:
        lines.append(f"best mean {summary.best_mean:.4f} rad, after step {summary.best_step}")
    paths = {
        "checkpoint": summary.last,
        "best": summary.best,
        "metrics": summary.metrics,
        "curve": summary.curve,
        "tensorboard": summary.tensorboard,
    }
    lines += [f"{name:<11} {path}" for name, path in paths.items() if path is not None]
    if summary.stopped != "done":
        lines.append(f"go on with: icediag train --resume --out {summary.last.parent}")
    return lines
