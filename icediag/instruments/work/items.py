"""Items: the samples of the counted batches, each read once more under the eyes of a probe."""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch.utils.data import IterableDataset

from icediag.instruments.running.kept import read_once
from icediag.instruments.running.modes import seed_all
from icediag.instruments.running.preserve import preserved
from icediag.instruments.running.reasons import reason_of
from icediag.place import Unjudged

from .series import Series
from .step import Study


def read_items(
    study: Study,
    series: Series[Any],
    name: str,
    watching: Callable[[int], AbstractContextManager[Any]],
) -> frozenset[int]:
    """Read samples by themselves, in the way in which a loader without batched fetching does.

    Args:
        study: The pipeline.
        series: Whose batches the samples are of.
        name: What could not be seen, where the user's code fails.
        watching: Index of a sample -> a context in which it is read.

    Returns:
        Indices of the samples that came through.
    """
    dataset = study.pipeline.dataset
    streamed = isinstance(dataset, IterableDataset) or not (
        hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    )
    wanted = sorted({i for batch in series.batches for i in batch})[: 4 * len(series.batches[-1])]
    read: set[int] = set()
    try:
        if streamed and read_once(dataset):
            raise ValueError("a one-shot iterator cannot be read a second time")
        with preserved(study.pipeline.model):
            seed_all(study.seed)
            iterator = iter(dataset) if streamed else None
            for i in itertools.count() if streamed else wanted:
                if i > wanted[-1]:
                    break
                with watching(i):
                    _ = next(iterator) if iterator is not None else dataset[i]
                read.add(i)
    except StopIteration:
        pass
    except Exception as error:  # of the user's code
        reason = str(error) if isinstance(error, ValueError) else reason_of(error, study.pipeline)
        series.notes.append(Unjudged(name=name, reason=reason))
    return frozenset(read)
