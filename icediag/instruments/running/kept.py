"""Kept: samples of a data set that can be read once, for those who read it a second time."""

from collections.abc import Iterator
from typing import Any


class Kept:
    """What an iterator gives, from its beginning, as often as it is asked for.

    No more is taken from it than somebody has asked for: it may have no end.

    Args:
        once: The iterator.
    """

    def __init__(self, once: Iterator[Any]) -> None:
        self.once = once
        self._samples: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        i = 0
        while True:
            while i < len(self._samples):
                yield self._samples[i]
                i += 1
            try:
                self._samples.append(next(self.once))
            except StopIteration:
                return


def read_once(dataset: Any) -> bool:
    """Whether a data set that is iterated is used up by that, or was before it was kept."""
    return isinstance(dataset, Kept) or iter(dataset) is dataset
