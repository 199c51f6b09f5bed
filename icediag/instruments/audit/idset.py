"""A set of event ids in bits: exact, and 16 MB for each 132 million ids that lie side by side."""

from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

#: Ids of a page, and pages at most: 512 MiB in all.
_PAGE_BITS: Final = 20
_MOST_PAGES: Final = 4096


class IdSet:
    """Ids seen so far.

    Attributes:
        full: Whether ids lay too far apart for the memory that is allowed; what came after that is
            not in the set.
    """

    def __init__(self) -> None:
        self._pages: dict[int, npt.NDArray[np.uint8]] = {}
        self.full = False

    def _parts(self, ids: I64) -> list[tuple[int, I64]]:
        """Unique ids, cut by page; the loop of a caller is over pages."""
        pages = ids >> _PAGE_BITS
        cuts = np.flatnonzero(pages[1:] != pages[:-1]) + 1
        starts = [0, *cuts.tolist(), len(ids)]
        return [
            (int(pages[low]), ids[low:high] & ((1 << _PAGE_BITS) - 1))
            for low, high in pairwise(starts)
            if high > low
        ]

    def contains(self, ids: I64) -> npt.NDArray[np.bool_]:
        """Which of some ids, ascending and each once, are in the set."""
        found = []
        for page, offset in self._parts(ids):
            bits = self._pages.get(page)
            if bits is None:
                found.append(np.zeros(len(offset), np.bool_))
            else:
                found.append((bits[offset >> 3] >> (offset & 7).astype(np.uint8) & 1).astype(bool))
        return np.concatenate(found) if found else np.zeros(0, np.bool_)

    def add(self, ids: I64) -> None:
        """Put ids, ascending and each once, into the set."""
        for page, offset in self._parts(ids):
            if page not in self._pages:
                if len(self._pages) >= _MOST_PAGES:
                    self.full = True
                    continue
                self._pages[page] = np.zeros((1 << _PAGE_BITS) // 8, np.uint8)
            at = offset >> 3
            first = np.flatnonzero(np.diff(at, prepend=-1))
            bits = np.bitwise_or.reduceat(np.uint8(1) << (offset & 7).astype(np.uint8), first)
            self._pages[page][at[first]] |= bits
