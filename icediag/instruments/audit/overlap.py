"""Events that a second data set has too."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from icediag.model.layout import chosen_batches, meta_path
from icediag.records.data import Overlap

from .idset import IdSet
from .table import MetaReader, MetaRows

#: Shared ids that are looked at closely, at most.
_MOST = 2**20


def overlap(root: Path, batches: tuple[int, ...], ids: IdSet, validation: Path) -> Overlap:
    """Compare the tables of two data sets: ids first, then lengths and truth.

    Args:
        root: The first.
        batches: Of the first, those that were looked at.
        ids: Their event ids.
        validation: The second.

    Raises:
        DataError: There is no such data set.
    """
    events = 0
    shared: list[MetaRows] = []
    held = 0
    with MetaReader(meta_path(validation)) as meta:
        for batch in chosen_batches(validation, None):
            rows = meta.rows_of(batch)
            events += len(rows)
            order = np.argsort(rows.event_id, kind="stable")
            rows = rows.take(order)
            rows = rows.take(np.unique(rows.event_id, return_index=True)[1])
            rows = rows.take(ids.contains(rows.event_id))
            if len(rows) and held < _MOST:
                shared.append(rows)
                held += len(rows)
    if not shared:
        return Overlap(against=validation.name, shared=0, same_truth=0, events=events, example=None)
    theirs = {name: np.concatenate([getattr(r, name) for r in shared]) for name in _COLUMNS}
    order = np.argsort(theirs["event_id"], kind="stable")
    theirs = {name: column[order] for name, column in theirs.items()}
    same = np.zeros(len(order), np.bool_)
    length = theirs["last"] - theirs["first"]
    equal_length = np.zeros(len(order), np.bool_)
    with MetaReader(meta_path(root)) as meta:
        for batch in batches:
            rows = meta.rows_of(batch)
            at = np.searchsorted(theirs["event_id"], rows.event_id).clip(max=len(order) - 1)
            mine = theirs["event_id"][at] == rows.event_id
            at, rows = at[mine], rows.take(mine)
            long = rows.last - rows.first == length[at]
            truth = (rows.azimuth == theirs["azimuth"][at]) & (rows.zenith == theirs["zenith"][at])
            equal_length[at[long]] = True
            same[at[long & truth]] = True
    return _counted(theirs["event_id"], equal_length, same, validation.name, events)


_COLUMNS = ("event_id", "first", "last", "azimuth", "zenith")


def _counted(
    ids: npt.NDArray[np.int64],
    equal_length: npt.NDArray[np.bool_],
    same: npt.NDArray[np.bool_],
    name: str,
    events: int,
) -> Overlap:
    shown = same if same.any() else equal_length
    return Overlap(
        against=name,
        shared=int(equal_length.sum()),
        same_truth=int(same.sum()),
        events=events,
        example=int(ids[np.argmax(shown)]) if shown.any() else None,
    )
