"""Order: which samples a loader takes in an epoch, and whether the next is another."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

from icediag.instruments.running.random_state import kept
from icediag.instruments.trees.walk import leaves
from icediag.records.training import Order

from .content import key_of, one_shot

#: Epochs that are looked at: what is drawn with replacement misses a twentieth of the samples in
#: all of them by chance, what is left out on purpose all of it.
EPOCHS = 4
#: Batches whose content is looked at, where indices are not to be had.
BATCHES = 24
#: Indices that are taken of an epoch, at most.
MOST = 2_000_000


def batch_sampler_of(loader: Any) -> Any:
    """What gives the lists of indices; None where a loader has none."""
    for name in ("batch_sampler", "sampler"):
        sampler = getattr(loader, name, None)
        dataset = getattr(loader, "dataset", None)
        if sampler is not None and hasattr(dataset, "__getitem__") and not _endless(sampler):
            return sampler
    return None


def _endless(sampler: Any) -> bool:
    """Torch gives the loader of an iterable data set a sampler that yields None for ever."""
    return type(sampler).__name__ == "_InfiniteConstantSampler" or (
        type(getattr(sampler, "sampler", None)).__name__ == "_InfiniteConstantSampler"
    )


def order_of(loader: Any) -> Order | None:
    """Look at some epochs of a loader, without reading samples where indices can be had.

    Returns:
        None for a loader that gives its batches only once.

    Raises:
        Exception: Whatever the user's code raises.
    """
    sampler = batch_sampler_of(loader)
    inner = getattr(sampler, "sampler", None)
    with kept(loader, sampler, inner, *_held(sampler), *_held(inner)):
        if sampler is not None:
            return _by_indices(loader, sampler, inner)
        return None if one_shot(loader) else _by_content(loader)


def _held(thing: Any) -> list[Any]:
    """Samplers within samplers."""
    values = vars(thing).values() if hasattr(thing, "__dict__") else ()
    return [value for value in values if hasattr(value, "__iter__") and hasattr(value, "__dict__")]


def _epoch(sampler: Any) -> list[list[int]]:
    batches: list[list[int]] = []
    taken = 0
    for given in sampler:
        batch = [int(i) for i in given] if isinstance(given, (list, tuple)) else [int(given)]
        batches.append(batch)
        taken += len(batch)
        if taken >= MOST:
            break
    return batches


def _by_indices(loader: Any, sampler: Any, inner: Any) -> Order:
    epochs: list[list[list[int]]] = []
    for number in range(EPOCHS):
        for thing in (sampler, inner):
            if callable(getattr(thing, "set_epoch", None)):
                thing.set_epoch(number)  # as the loop has to, where a sampler shares out
        epochs.append(_epoch(sampler))
    flat = [[i for batch in epoch for i in batch] for epoch in epochs]
    n = len(loader.dataset)
    counts = [Counter(order) for order in flat]
    every = set().union(*counts)
    again = [{i for i, times in count.items() if times > 1} for count in counts]
    named = inner if inner is not None else sampler
    return Order(
        kind="indices",
        sampler=type(named).__name__,
        samples=n,
        epochs=len(epochs),
        batches=len(epochs[0]),
        taken=len(flat[0]),
        same=all(order == flat[0] for order in flat[1:]),
        ascending=flat[0] == sorted(flat[0]),
        distinct=len(counts[0]),
        never=n - len(every),
        missed=n - len(counts[0]),
        repeated=len(again[0]),
        same_repeated=len(set.intersection(*again)),
        replicas=int(getattr(named, "num_replicas", 1) or 1),
    )


def _keys(loader: Any) -> list[bytes]:
    return [
        key_of(tensor for _, tensor in leaves(batch))
        for batch in itertools.islice(iter(loader), BATCHES)
    ]


def _by_content(loader: Any) -> Order:
    epochs: Sequence[list[bytes]] = [_keys(loader) for _ in range(2)]
    first, workers = epochs[0], int(getattr(loader, "num_workers", 0) or 0)
    # Workers give their batches in turn.
    before = [first[max(0, k - workers + 1) : k] if workers > 1 else [] for k in range(len(first))]
    return Order(
        kind="content",
        sampler=type(loader).__name__,
        samples=len(epochs[0]),
        epochs=2,
        batches=len(epochs[0]),
        taken=len(epochs[0]),
        same=epochs[0] == epochs[1],
        distinct=len(set(epochs[0])),
        workers=workers,
        doubled=sum(key in others for key, others in zip(first, before, strict=True)),
    )
