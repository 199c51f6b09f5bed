"""Training and validation events, never overlapping: by a hash of their ids, or by whole files."""

import numpy as np
import numpy.typing as npt

from .errors import DataError

_MASK = 2**64 - 1
# Events hashed at a time: all 132 million at once would need gigabytes of temporaries.
_BLOCK = 2**20

Indices = npt.NDArray[np.int64]


def _splitmix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The output function of SplitMix64, with its increment: a bijection of 64-bit integers.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 17;
    constants are those of Vigna's public-domain https://prng.di.unimi.it/splitmix64.c, whose first
    output from state 0 is `_splitmix64(0)` = 0xE220A8397B1DCDAF.
    """
    z = x + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def split_by_hash(
    event_ids: npt.NDArray[np.integer], *, validation: float, seed: int = 0
) -> tuple[Indices, Indices]:
    """Splits events by a hash of their ids.

    Where an event goes depends on its id, `validation` and `seed` alone: not on which other events
    are present, nor on their order. A larger `validation` only moves events to the validation side.

    Args:
        event_ids: `(events,)` integer.
        validation: Expected share of validation events, 0 <= share < 1. The share reached differs
            as coin tosses do: a handful of events may all fall on one side.
        seed: 0 <= seed < 2**64; another seed is another, independent split.

    Returns:
        Positions in `event_ids` of the training and of the validation events, each `(n,)` int64
        ascending; together they are every position, once.

    Raises:
        ValueError: An argument is not what it must be.
    """
    ids = np.asarray(event_ids)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(
            f"event_ids: expected a 1-d array of integers, got {ids.ndim}-d {ids.dtype}"
        )
    if not 0 <= validation < 1:
        raise ValueError(f"validation: expected a share with 0 <= share < 1, got {validation}")
    if not 0 <= seed <= _MASK:
        raise ValueError(f"seed: expected an integer with 0 <= seed < 2**64, got {seed}")
    # Mixed before it meets the id: else seeds 0 and 1 would swap the hashes of ids 2k and 2k + 1.
    salt = _splitmix64(np.array([seed], np.uint64))
    threshold = np.uint64(int(validation * 2**64))
    held_out = np.empty(len(ids), np.bool_)
    for start in range(0, len(ids), _BLOCK):
        block = slice(start, start + _BLOCK)
        held_out[block] = _splitmix64(ids[block].astype(np.uint64) ^ salt) < threshold
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def split_by_file(
    file_of: npt.NDArray[np.integer], *, validation: float
) -> tuple[Indices, Indices]:
    """Splits events by whole files: the last ones are for validation, at least one on each side.

    Args:
        file_of: `(events,)` integer, the file of each event (`IceCubeDataset.file_of`).
        validation: Share of validation events, 0 < share < 1. As many files are held out as come
            closest to it.

    Returns:
        Positions in `file_of` of the training and of the validation events, each `(n,)` int64
        ascending; together they are every position, once.

    Raises:
        DataError: All events lie in one file.
        ValueError: An argument is not what it must be.
    """
    files = np.asarray(file_of)
    if files.ndim != 1 or not np.issubdtype(files.dtype, np.integer):
        raise ValueError(
            f"file_of: expected a 1-d array of integers, got {files.ndim}-d {files.dtype}"
        )
    if not 0 < validation < 1:
        raise ValueError(f"validation: expected a share with 0 < share < 1, got {validation}")
    numbers, events = np.unique(files, return_counts=True)
    if len(numbers) < 2:
        raise DataError(
            f"split by file: expected events of 2 files or more, got {len(numbers)} "
            "(split by hash instead)"
        )
    # For files of 4, 3, 2 and 1 events, held out from file 1, 2 or 3 on are 6, 3 or 1 of the 10.
    shares = np.cumsum(events[::-1])[::-1][1:] / len(files)
    first_held_out = numbers[1 + int(np.argmin(abs(shares - validation)))]
    return np.flatnonzero(files < first_held_out), np.flatnonzero(files >= first_held_out)
