"""What is known of simulated events beyond their direction, in a file beside the data set's own.

    DIR/train_truth.parquet     event_id, kind, energy (GeV), x, y, z (m), time (ns), length (m)

The competition has no such file; a data set without it is none the worse.
"""

# N events

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .parquet import FLOAT, INTEGER, data_error, open_parquet
from .population import KINDS
from .simulate import Truth

#: Its name, in the data set's folder.
FILE: Final = "train_truth.parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class EventTruth:
    """Kind and energy of events, by which errors are broken down.

    Attributes:
        kind: `(N,)` names.
        energy: `(N,)` GeV.
    """

    kind: NDArray[np.str_]
    energy: NDArray[np.float64]

    def take(self, rows: NDArray[np.int64]) -> "EventTruth":
        """That of some of them."""
        return EventTruth(kind=self.kind[rows], energy=self.energy[rows])


def truth_table(event_id: NDArray[np.int64], truth: Truth) -> pa.Table:
    """The columns of the file, one row an event."""
    x, y, z = truth.vertex.T
    columns = {
        "event_id": event_id,
        "kind": np.array(KINDS)[truth.kind],
        "energy": truth.energy,
        "x": x,
        "y": y,
        "z": z,
        "time": truth.vertex_time,
        "length": truth.length,
    }
    return pa.table({name: pa.array(column) for name, column in columns.items()})


def event_truth(truth: Truth) -> EventTruth:
    """That of events in memory."""
    return EventTruth(kind=np.array(KINDS)[truth.kind], energy=truth.energy)


def read_truth(root: Path, event_ids: NDArray[np.int64]) -> EventTruth | None:
    """Read kind and energy of some events.

    Args:
        root: The data set's folder.
        event_ids: `(N,)` which.

    Returns:
        In the order asked for; None where there is no such file.

    Raises:
        DataError: The file is damaged, or an event is not in it.
    """
    path = root / FILE
    if not path.exists():
        return None
    with open_parquet(path, {"event_id": INTEGER, "energy": FLOAT}):
        pass
    try:
        table = pq.read_table(path, columns=["event_id", "kind", "energy"])
    except (pa.ArrowException, OSError) as error:
        raise data_error(path, f"expected readable columns, got: {error}") from error
    ids = table.column("event_id").to_numpy()
    order = np.argsort(ids, kind="stable")
    at = np.searchsorted(ids, event_ids, sorter=order).clip(max=max(len(ids) - 1, 0))
    rows = order[at] if len(ids) else at
    if len(event_ids) and (not len(ids) or (ids[rows] != event_ids).any()):
        lost = event_ids[ids[rows] != event_ids][0] if len(ids) else event_ids[0]
        raise data_error(path, f"column 'event_id': expected {lost}, which the meta table has")
    return EventTruth(
        kind=np.array(table.column("kind").to_pylist(), dtype=np.str_)[rows],
        energy=table.column("energy").to_numpy()[rows],
    )
