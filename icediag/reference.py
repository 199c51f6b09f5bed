"""The reference: how a network that learns gets better with the events it has seen.

A loss that is flat in the beginning need not be that of a network that cannot learn. What tells is
how many events the training had seen, beside what the built-in network needed.
"""

import json
import math
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from icediag.errors import IcediagError

#: The curve that comes with icediag; `tools/reference_curve.py` writes it.
FILE = Path(__file__).with_name("reference_curve.toml")
#: Below the baseline by this share of it, a loss has left it.
LEFT = 0.05


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A learning curve.

    Attributes:
        command: What made it.
        baseline: What knowing nothing scores.
        points: (events seen, mean loss on events that had not been seen), events ascending.
    """

    command: str
    baseline: float
    points: tuple[tuple[int, float], ...]

    def at(self, events: int) -> float:
        """The loss after so many events, between points by the logarithm of their numbers."""
        if events <= 0:
            return self.baseline
        before = (1, self.baseline)
        for seen, loss in self.points:
            if events <= seen:
                low, high = math.log(before[0]), math.log(seen)
                share = (math.log(events) - low) / (high - low) if high > low else 1.0
                return before[1] + share * (loss - before[1])
            before = (seen, loss)
        return before[1]

    @property
    def bar(self) -> float:
        """Below this a loss has left the baseline."""
        return (1 - LEFT) * self.baseline

    @property
    def left(self) -> int | None:
        """Events after which it stayed below the baseline by `LEFT`; None where it never did."""
        above = [i for i, (_, loss) in enumerate(self.points) if loss >= self.bar]
        first = above[-1] + 1 if above else 0
        return self.points[first][0] if first < len(self.points) else None


@cache
def reference() -> Reference:
    """The curve that comes with icediag."""
    read = tomllib.loads(FILE.read_text(encoding="utf-8"))
    points = tuple((int(seen), float(loss)) for seen, loss in read["points"])
    return Reference(command=read["command"], baseline=read["baseline"], points=points)


@dataclass(frozen=True, kw_only=True)
class Early:
    """A training that had seen so many events, beside the reference.

    Attributes:
        events: Events that it had seen; None where nobody said.
        loss: Its loss there; None where nobody said.
        same_events: Whether its events are those of the reference; otherwise the reference says
            how many events such a task takes, and no more.
        reference: The reference's loss after as many events; None where `events` is.
        last: Events of the reference's last point.
        last_loss: Its loss there.
        left: Events after which the reference had left its baseline; None where it had not.
        command: What made the reference.
        baseline: What knowing nothing scores, of the reference.
        bar: Below this a loss has left it.
    """

    events: int | None
    loss: float | None
    same_events: bool
    reference: float | None
    last: int
    last_loss: float
    left: int | None
    command: str
    baseline: float
    bar: float

    @property
    def too_early(self) -> bool:
        """Whether the reference had not left its baseline either."""
        return self.reference is not None and self.reference >= self.bar


def early(
    *,
    same_events: bool,
    baseline: float | None,
    events: int | None = None,
    loss: float | None = None,
) -> Early | None:
    """Set a training beside the reference; None where it scores something else.

    Args:
        same_events: Whether its events are those of the reference.
        baseline: The declared `Pipeline.baseline_loss`.
        events: Events that the training had seen.
        loss: Its loss there.
    """
    known = reference()
    if baseline is None or not math.isclose(baseline, known.baseline, rel_tol=1e-3):
        return None
    if not same_events and events is None:
        return None
    return Early(
        events=events,
        loss=loss,
        same_events=same_events,
        reference=None if events is None else known.at(events),
        last=known.points[-1][0],
        last_loss=known.points[-1][1],
        left=known.left,
        command=known.command,
        baseline=known.baseline,
        bar=known.bar,
    )


def seen_by(run: Path) -> tuple[int, float]:
    """Events that a run of `icediag train` has seen, and its loss over the last steps.

    Raises:
        IcediagError: The folder holds no such run.
    """
    try:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        start = next(line for line in lines if line["kind"] == "start")
        last = [line for line in lines if line["kind"] == "step"][-1]
        epochs, within = divmod(int(last["step"]), int(start["steps_per_epoch"]))
        each = int(start["train_events"])
        events = epochs * each + min(each, round(within * each / int(start["steps_per_epoch"])))
        return events, float(last["loss"])
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        kind = type(error).__name__
        raise IcediagError(
            f"--run: expected the folder of a run of icediag train, got {run} ({kind})"
        ) from None
