"""The watch on a training that runs: facts of its steps, judged while it goes on."""

from .problem import TrainingStoppedError, WatchWarning
from .watch import Watch, watch

__all__ = ["TrainingStoppedError", "Watch", "WatchWarning", "watch"]
