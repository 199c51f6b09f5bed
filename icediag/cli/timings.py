"""Seconds of each instrument, for `icediag check --timings`."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


class Timings:
    """Told what runs next, remembers how long each took.

    Args:
        tell: Told the same.
        clock: Seconds; passed in for tests.
        work: Seconds of processor time: what a busy machine does besides is not in it.
    """

    def __init__(
        self,
        tell: Callable[[str], None],
        clock: Clock = time.perf_counter,
        work: Clock = time.process_time,
    ) -> None:
        self._tell = tell
        self._clock, self._work = clock, work
        self._open: tuple[str, float, float] | None = None
        #: Title -> seconds and seconds of processor time, in the order in which they ran.
        self.seconds: dict[str, tuple[float, float]] = {}

    def __call__(self, title: str) -> None:
        """Something begins."""
        self.end()
        self._open = (title, self._clock(), self._work())
        self._tell(title)

    def end(self) -> None:
        """What began last has ended."""
        if self._open is not None:
            title, began, worked = self._open
            wall, work = self.seconds.get(title, (0.0, 0.0))
            now = (wall + self._clock() - began, work + self._work() - worked)
            self.seconds[title] = now
            self._open = None

    def lines(self) -> list[str]:
        """One line each, and their sums."""
        whole = tuple(sum(both) for both in zip(*self.seconds.values(), strict=True)) or (0.0, 0.0)
        rows = [("", "by the wall", "of processor time")]
        rows += [
            (title, f"{wall:.2f} s", f"{work:.2f} s")
            for title, (wall, work) in [*self.seconds.items(), ("in all", whole)]
        ]
        return [f"{wall:>11}  {work:>17}  {title}".rstrip() for title, wall, work in rows]
