"""Content: samples by what they hold, so that the same event is known wherever it comes from."""

import hashlib
import itertools
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from icediag.instruments.running.kept import read_once
from icediag.instruments.trees.walk import leaves
from icediag.records.training import Drift, Overlap, Rereading

#: Data sets up to this size are compared as a whole.
WHOLE = 2048
#: Of larger ones so many samples are read of each.
READ = 512
#: Seconds after which no more is read of a data set that is slow: what was read is counted.
LIMIT_S = 8.0
#: Samples that are read twice.
TWICE = 12
#: Fewer numbers than this may agree by chance.
FEWEST_VALUES = 4
#: Pairs that are written down.
EXAMPLES = 3
#: Samples whose columns are averaged.
AVERAGED = 256
#: Means that differ by more standard errors than this, and by more than this share of the spread.
DEVIATIONS, APART = 6.0, 0.5
#: A spread that is so many times the other, in so many samples of each at least.
WIDER, ENOUGH = 3.0, 48
#: Values of a sample that is one row, up to which each is a column of its own.
WIDEST = 64


def sized(dataset: Any) -> bool:
    """Whether samples are taken by index."""
    if isinstance(dataset, IterableDataset):
        return False
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def one_shot(dataset: Any) -> bool:
    """Whether it gives its samples once and never again."""
    return not sized(dataset) and read_once(dataset)


def _seed(seed: int) -> None:
    """Seed what a data set may draw from; much cheaper than to seed every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the user's code may use the global generator
    torch.default_generator.manual_seed(seed)


class Reader:
    """Reads samples of one data set, each from the same random numbers.

    Args:
        dataset: The data set.
        seed: Of the random generators, before each sample.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset, self._seed = dataset, seed
        self.size: int | None = len(dataset) if sized(dataset) else None

    def at(self, index: int, *, turn: int = 0) -> Any:
        """A sample by its index."""
        # At the first turn all from the same, so that one event gives one content wherever it is.
        _seed(self._seed + (7919 * turn + index if turn else 0))
        return self.dataset[index]

    def first(self, n: int, *, turn: int = 0) -> list[Any]:
        """The first samples."""
        if self.size is not None:
            return [self.at(i, turn=turn) for i in range(min(n, self.size))]
        _seed(self._seed + 7919 * turn)
        return list(itertools.islice(iter(self.dataset), n))

    def some(self, n: int) -> list[Any]:
        """Samples from all over the data set, where they are taken by index."""
        if self.size is None or self.size <= n:
            return self.first(n)
        return [self.at(i) for i in spread(self.size, n)]


def spread(size: int, n: int) -> list[int]:
    """`n` indices from the first to the last."""
    if n >= size:
        return list(range(size))
    return sorted({round(k * (size - 1) / (n - 1)) for k in range(n)})


def reread(reader: Reader) -> tuple[Rereading, set[str]]:
    """Read some samples twice from other random numbers.

    Returns:
        What differs, and the tensors that are the same both times.
    """
    one, other = (_several(reader, turn) for turn in (1, 2))
    differ, worst, stable = 0, ("", 0.0), set[str]()
    changing: set[str] = set()
    for a, b in zip(one, other, strict=False):
        first, second = dict(leaves(a)), dict(leaves(b))
        moved = False
        for path, tensor in first.items():
            if path in second and _equal(tensor, second[path]):
                stable.add(path)
                continue
            changing.add(path)
            moved = True
            size = _apart(tensor, second.get(path))
            if size >= worst[1]:
                worst = (path, size)
        differ += moved
    path, size = worst
    return Rereading(read=len(one), differ=differ, path=path, size=size), stable - changing


def _several(reader: Reader, turn: int) -> list[Any]:
    if reader.size is None:
        return reader.first(TWICE, turn=turn)
    return [reader.at(i, turn=turn) for i in spread(reader.size, min(TWICE, reader.size))]


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and key_of([one]) == key_of([other])


def _apart(one: Tensor, other: Tensor | None) -> float:
    """Largest difference, relative to the largest value; infinite where shapes differ."""
    if other is None or other.shape != one.shape or not one.numel():
        return float("inf")
    a, b = one.double(), other.double()
    size = float(a.abs().max())
    return float((a - b).abs().max()) / size if size else float("inf")


def key_of(tensors: Iterable[Tensor]) -> bytes:
    """A digest of shapes, types and values."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        whole = tensor.detach().cpu().contiguous()
        digest.update(f"{whole.dtype}{tuple(whole.shape)}".encode())
        if whole.dtype == torch.bfloat16:
            whole = whole.float()
        digest.update(whole.reshape(-1).numpy().tobytes())
    return digest.digest()


def content_of(sample: Any, paths: set[str]) -> tuple[bytes | None, int]:
    """A digest of what a sample measures, and how many numbers that are.

    Of floating-point numbers where there are some: whole ones beside them may be its number in the
    data set. None for a sample with too few to be told from another.
    """
    tensors = {path: t for path, t in leaves(sample) if path in paths and _plain(t)}
    real = [tensors[path] for path in sorted(tensors) if tensors[path].is_floating_point()]
    chosen = real or [tensors[path] for path in sorted(tensors)]
    values = sum(tensor.numel() for tensor in chosen)
    return (key_of(chosen), values) if values >= FEWEST_VALUES else (None, values)


def _plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_nested


def _parts(dataset: Any) -> tuple[Any, Sequence[int]] | None:
    """The data set that a subset is of, and its indices in it."""
    indices: Sequence[int] | None = None
    while isinstance(dataset, Subset):
        own = [int(i) for i in dataset.indices]
        indices = own if indices is None else [own[i] for i in indices]
        dataset = dataset.dataset
    if indices is None:
        return None if not sized(dataset) else (dataset, range(len(dataset)))
    return dataset, indices


def by_index(training: Any, validation: Any) -> Overlap | None:
    """Compare two parts of one data set; None where they are not."""
    one, other = _parts(training), _parts(validation)
    if one is None or other is None or one[0] is not other[0]:
        return None
    places = {index: k for k, index in enumerate(one[1])}
    shared = [(k, places[index]) for k, index in enumerate(other[1]) if index in places]
    return Overlap(
        training=len(one[1]),
        validation=len(other[1]),
        training_read=len(one[1]),
        validation_read=len(other[1]),
        shared=len(shared),
        by_index=True,
        examples=tuple(number for pair in shared[:EXAMPLES] for number in pair),
        whole=True,
    )


def overlap(training: Reader, validation: Reader, paths: set[str]) -> Overlap:
    """Compare samples by content.

    Of large data sets, validation samples from all over it are looked for among training samples at
    the same distance from the beginning and from the end, and from all over: a set that was copied,
    or cut off at either end, is found for certain, one that was drawn at random by chance.

    Args:
        training: Reads the training set.
        validation: Reads the validation set.
        paths: Tensors of a sample that do not differ when read again.

    Raises:
        Exception: Whatever the user's code raises.
    """
    n, m = training.size, validation.size
    known: dict[bytes, int] = {}
    repeated = read = least = 0
    for index, sample in _training(training, m):
        key, values = content_of(sample, paths)
        read += 1
        if key is None:
            continue
        repeated += key in known
        known.setdefault(key, index)
        least = values if not least else min(least, values)
    shared, looked = [], 0
    for index, sample in _validation(validation):
        key, _ = content_of(sample, paths)
        looked += 1
        if key is not None and key in known:
            shared.append((index, known[key]))
    return Overlap(
        training=n if n is not None else read,
        validation=m if m is not None else looked,
        training_read=read,
        validation_read=looked,
        shared=len(shared),
        repeated=repeated,
        values=least,
        examples=tuple(number for pair in shared[:EXAMPLES] for number in pair),
        whole=n is not None and m is not None and read >= n and looked >= m,
    )


def _training(reader: Reader, other: int | None) -> Iterable[tuple[int, Any]]:
    n = reader.size
    if n is None:
        return enumerate(reader.first(READ))
    if n <= WHOLE:
        chosen = set(range(n))
    else:
        chosen = set(spread(n, READ))
        places = spread(other, READ // 4) if other else []
        chosen |= {i for i in places if i < n}
        chosen |= {n - (other or 0) + i for i in places if 0 <= n - (other or 0) + i < n}
    return _within(reader, sorted(chosen))


def _validation(reader: Reader) -> Iterable[tuple[int, Any]]:
    if reader.size is None:
        return enumerate(reader.first(READ))
    count = reader.size if reader.size <= WHOLE else READ // 4
    return _within(reader, spread(reader.size, count))


def _within(reader: Reader, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
    began = time.perf_counter()
    for index in indices:
        if time.perf_counter() - began > LIMIT_S:
            return
        yield index, reader.at(index)


def drift(training: Reader, validation: Reader) -> list[Drift]:
    """Columns of the samples whose mean over samples differs, or how widely it is spread.

    Raises:
        Exception: Whatever the user's code raises.
    """
    one, other = _means(training), _means(validation)
    found = []
    for key, rows in one.items():
        if key not in other or len(rows) < 16 or len(other[key]) < 16:
            continue
        a, b = torch.tensor(rows).double(), torch.tensor(other[key]).double()
        spread_of = float(a.std())
        error = float((a.var() / len(a) + b.var() / len(b)).sqrt())
        apart = abs(float(a.mean() - b.mean()))
        moved = error > 0 and apart > DEVIATIONS * error and apart > APART * spread_of
        if moved or _wider(a, b):
            found.append(
                Drift(
                    path=key[0],
                    column=key[1],
                    training=float(a.mean()),
                    validation=float(b.mean()),
                    spread=spread_of,
                    validation_spread=float(b.std()),
                    deviations=apart / error if error > 0 else 0.0,
                    moved=moved,
                )
            )
    return found


def _wider(one: Tensor, other: Tensor) -> bool:
    """Whether one spreads several times as widely as the other, by what tails cannot move."""
    if min(len(one), len(other)) < ENOUGH:
        return False
    ends = torch.tensor([0.1, 0.9], dtype=torch.float64)
    (low, high), (least, most) = one.quantile(ends).tolist(), other.quantile(ends).tolist()
    widths = sorted((high - low, most - least))
    return bool(widths[0] > 0 and widths[1] > WIDER * widths[0])


def _means(reader: Reader) -> dict[tuple[str, int], list[float]]:
    """Mean of each column of each sample; of a sample that is one row, each of its values."""
    found: dict[tuple[str, int], list[float]] = {}
    samples = reader.some(AVERAGED)
    lengths: dict[str, set[int]] = {}
    for sample in samples:
        for path, tensor in leaves(sample):
            lengths.setdefault(path, set()).add(tensor.numel())
    for sample in samples:
        for path, tensor in leaves(sample):
            if not tensor.is_floating_point() or not tensor.numel() or not _plain(tensor):
                continue
            row = tensor.ndim == 1 and len(lengths[path]) == 1 and tensor.numel() <= WIDEST
            table = tensor.reshape(-1, tensor.shape[-1]) if tensor.ndim == 2 or row else None
            columns = [tensor]
            if table is not None and (row or table.shape[1] <= 16):
                columns = list(table.unbind(1))
            for k, column in enumerate(columns):
                mean = float(column.double().mean())
                if abs(mean) < float("inf"):
                    found.setdefault((path, k), []).append(mean)
    return found
