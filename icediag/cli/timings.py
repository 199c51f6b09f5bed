"""Seconds of each instrument, for `icediag check --timings`."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Timings:
    """Told what runs next, remembers how long each took.

    Args:
        tell: Told the same.
        clock: Seconds; passed in for tests.
    """

    def __init__(self, tell: Callable[[str], None], clock: Clock = time.perf_counter) -> None:
        self._tell = tell
        self._clock = clock
        self._open: tuple[str, float] | None = None
        #: Title -> seconds, in the order in which they ran.
        self.seconds: dict[str, float] = {}

    def __call__(self, title: str) -> None:
        """Something begins."""
        self.end()
        self._open = (title, self._clock())
        self._tell(title)

    def end(self) -> None:
        """What began last has ended."""
        if self._open is not None:
            title, began = self._open
            self.seconds[title] = self.seconds.get(title, 0.0) + self._clock() - began
            self._open = None

    def lines(self) -> list[str]:
        """One line each, and their sum."""
        rows = [*self.seconds.items(), ("in all", sum(self.seconds.values()))]
        return [f"{seconds:8.2f} s  {title}" for title, seconds in rows]
