"""An order of reading that is shuffled, and yet reads a large data set nearly file by file."""

import operator
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler


class FileShuffleSampler(Sampler[int]):
    """Yields dataset positions, each once an epoch: chunks in random order, shuffled in windows.

    A full shuffle of 100 GB decodes a row group of a million pulses for every event. Here the
    events of each file are cut into chunks of neighbours; the chunks are put in random order; a
    window of some of them is shuffled event by event, and used up before the next one is filled.
    Only the row groups of one window are needed at a time.

        sampler = FileShuffleSampler(train_indices, dataset.file_of, seed=1)
        loader = DataLoader(dataset, batch_size=256, sampler=sampler, collate_fn=collate)
        for epoch in range(10):
            sampler.set_epoch(epoch)
            for batch in loader: ...

    What it yields are the given `indices` themselves, that is positions in the dataset: it goes
    with the whole dataset, not with a `Subset`. The order depends on the arguments and the epoch
    alone (on the set of indices, not on their order), not on any global random state, nor on how
    many workers there are.

    Choosing sizes: a window should fit in `IceCubeDataset(cache_bytes=...)`, where a pulse takes 19
    bytes: 4 chunks of 20,000 events of 164 pulses are 250 MB and parts of row groups beside. Chunks
    should be larger than a row group; where a whole file is one row group (600 MB), use chunks of a
    file (200,000 events) and a window of 1, or it is decoded anew for each chunk.

    Args:
        indices: `(n,)` integer, positions in the dataset to visit, each once, in any order.
        file_of: `(events,)` integer, the file of every event of the dataset
            (`IceCubeDataset.file_of`).
        seed: >= 0.
        chunk_size: Largest number of events in a chunk, >= 1.
        window: Number of chunks shuffled together, >= 1.
        skip: Events at the start of the epoch that are not yielded, as they were before an
            interruption; until `set_epoch` says otherwise.

    Raises:
        ValueError: An argument is not what it must be.
    """

    def __init__(
        self,
        indices: npt.NDArray[np.integer],
        file_of: npt.NDArray[np.integer],
        *,
        seed: int = 0,
        chunk_size: int = 20_000,
        window: int = 4,
        skip: int = 0,
    ) -> None:
        positions, files = np.asarray(indices), np.asarray(file_of)
        for name, array in (("indices", positions), ("file_of", files)):
            # An empty list of Python's comes as float64; it holds no wrong number.
            if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
                raise ValueError(
                    f"{name}: expected a 1-d array of integers, got {array.ndim}-d {array.dtype}"
                )
        positions = np.sort(positions.astype(np.int64))
        if positions.size and not (positions[0] >= 0 and positions[-1] < len(files)):
            raise ValueError(
                f"indices: expected positions 0..{len(files) - 1} in file_of, got "
                f"{positions[0]}..{positions[-1]}"
            )
        if (positions[1:] == positions[:-1]).any():
            twice = positions[1:][positions[1:] == positions[:-1]][0]
            raise ValueError(f"indices: expected each position once, got {twice} more than once")
        for name, value, least in (
            ("seed", seed, 0),
            ("chunk_size", chunk_size, 1),
            ("window", window, 1),
        ):
            if operator.index(value) < least:
                raise ValueError(f"{name}: expected an integer >= {least}, got {value}")
        files = files[positions]
        if (files[1:] < files[:-1]).any():
            # The files' events alternate in the meta table: bring those of a file together.
            order = np.argsort(files, kind="stable")
            positions, files = positions[order], files[order]
        self._indices = positions
        self._chunks = _chunks(files, chunk_size)
        self._seed = seed
        self._window = window
        self.set_epoch(0, skip=skip)

    def set_epoch(self, epoch: int, *, skip: int = 0) -> None:
        """Chooses the order of the next iterations.

        Args:
            epoch: >= 0; each epoch has an order of its own.
            skip: Events at its start that are not yielded, 0..n.

        Raises:
            ValueError: An argument is out of range.
        """
        if operator.index(epoch) < 0:
            raise ValueError(f"epoch: expected an integer >= 0, got {epoch}")
        if not 0 <= operator.index(skip) <= len(self._indices):
            raise ValueError(f"skip: expected 0..{len(self._indices)}, got {skip}")
        self._epoch = epoch
        self._skip = skip

    def __len__(self) -> int:
        """Number of events that an iteration yields: those given, less those skipped."""
        return len(self._indices) - self._skip

    def __iter__(self) -> Iterator[int]:
        skip = self._skip
        # A generator for each window: to skip one costs nothing, as none depends on those before.
        seed = [self._seed, self._epoch]
        chunks = np.random.default_rng([*seed, 0]).permutation(len(self._chunks))
        for start in range(0, len(chunks), self._window):
            taken = self._chunks[chunks[start : start + self._window]]
            size = int((taken[:, 1] - taken[:, 0]).sum())
            if skip >= size:
                skip -= size
                continue
            events = np.concatenate([self._indices[first:stop] for first, stop in taken])
            np.random.default_rng([*seed, 1, start]).shuffle(events)
            yield from events[skip:].tolist()
            skip = 0


def _chunks(files: npt.NDArray[np.integer], size: int) -> npt.NDArray[np.int64]:
    """Cuts each run of one file into chunks of nearly equal size.

    For files [0, 0, 0, 0, 0, 1] and size 2 they are [[0, 1], [1, 3], [3, 5], [5, 6]].

    Returns:
        `(chunks, 2)` int64: first position of each chunk, and the one after its last.
    """
    ends = np.flatnonzero(files[1:] != files[:-1]) + 1
    chunks = [np.empty((0, 2), np.int64)]
    for start, stop in pairwise([0, *ends.tolist(), len(files)]):
        n = stop - start
        parts = -(-n // size)
        if parts:
            cuts = start + n * np.arange(parts + 1) // parts
            chunks.append(np.stack([cuts[:-1], cuts[1:]], axis=1))
    return np.concatenate(chunks)
