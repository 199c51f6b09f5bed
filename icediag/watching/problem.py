"""What a watch says: a problem, as a warning or as an error."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal[
    "non-finite", "flat", "collapse", "dead-units", "clipping-always-on", "weights-do-not-move"
]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that went wrong in a training.

    Attributes:
        kind: What.
        step: The step it was seen at, 1 for the first.
        message: In one sentence, with its numbers.
        evidence: The numbers.
    """

    kind: Kind
    step: int
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def line(self) -> dict[str, Any]:
        """As a line of the watch's log."""
        return {"event": "problem", **asdict(self)}


class WatchWarning(UserWarning):
    """A training that goes on, and had better not."""


class TrainingStoppedError(RuntimeError):
    """A training that a watch has stopped.

    Attributes:
        problem: Why.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem
