"""Memory that is asked for again and again, kept instead of handed back to the system each time."""

from typing import Final

import numpy as np

#: Bytes, just below the 32 MiB up to which glibc adapts [mallopt(3), M_MMAP_THRESHOLD].
_PIECE: Final = 30 * 2**20


def keep_freed_memory() -> None:
    """Ask for a large piece and let it go, unused.

    glibc hands a freed piece of some 100 kB back to the system, to be cleared and mapped anew for
    the next one, until it has seen a larger one freed [mallopt(3), M_MMAP_THRESHOLD]. Work that
    makes many arrays of a megabyte loses a tenth of its time to that. Elsewhere this does nothing.
    """
    np.empty(_PIECE, np.uint8)
