"""The audit: all files of a data set once, in memory that does not grow with it."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Final

import numpy as np
import numpy.typing as npt

from icediag.model.errors import DataError
from icediag.model.layout import chosen_batches, geometry_path, meta_path
from icediag.model.memory import keep_freed_memory
from icediag.model.tables import read_geometry
from icediag.place import Unjudged
from icediag.records.data import DataFault, DataRecord, FileFacts

from .agree import angles
from .facts import distributions, drifts, multiplicities, normalization
from .files import FileSeen, count_file
from .idset import IdSet
from .overlap import overlap
from .published import compare
from .table import MetaReader, MetaRows
from .tally import FileTally, Tally

I64 = npt.NDArray[np.int64]

#: Files that are counted at a time, at most: what is not set free of Python's lock, about a tenth,
#: leaves more threads than this nothing to do.
_THREADS: Final = 4
#: Files that are begun before the first of them is needed.
_AHEAD: Final = _THREADS + 1

Begin = Callable[[int, Path, str, MetaRows, FileTally], Future[FileSeen]]


def audit(
    root: Path,
    *,
    files: int | None = None,
    sample: int | None = None,
    validation: Path | None = None,
    competition: bool = False,
    progress: Callable[[int, int, int], None] = lambda done, of, pulses: None,  # noqa: ARG005
) -> DataRecord:
    """Look at a data set in the competition's layout.

    Args:
        root: Its folder.
        files: Only the first so many files.
        sample: Only so many files, spread evenly over those that are there.
        validation: A second data set, that should share no event with the first.
        competition: Whether to compare with the published figures.
        progress: Told the files that are done, of how many, and the pulses seen.

    Raises:
        DataError: There is no such data set, or its table of events cannot be read.
        IcediagError: The table of events is damaged.
    """
    keep_freed_memory()
    there = chosen_batches(root, None)
    chosen = _spread(there, sample) if sample else there[:files]
    faults: list[DataFault] = []
    facts: list[FileFacts] = []
    tallies: dict[str, FileTally] = {}
    tally, ids = Tally(), IdSet()
    events = 0
    with MetaReader(meta_path(root)) as meta, _threads(len(chosen)) as begin:

        def looked_at(number: int) -> tuple[list[DataFault], Future[FileSeen]]:
            """Files wait for their turn here; the table is read in their order."""
            nonlocal events
            rows = meta.rows_of(chosen[number])
            events += len(rows)
            of_file = FileTally()
            of_table = [*_twice(rows, ids, meta.n_rows), *angles(rows, tally, of_file)]
            name = f"train/batch_{chosen[number]}.parquet"
            return of_table, begin(number, root / name, name, rows, of_file)

        coming = deque(looked_at(number) for number in range(min(_AHEAD, len(chosen))))
        for number in range(len(chosen)):
            of_table, future = coming.popleft()
            seen = future.result()
            if number + _AHEAD < len(chosen):
                coming.append(looked_at(number + _AHEAD))
            # In the order of the files: nothing hangs on which of them is done first.
            tally.merge(seen.tally)
            faults += [*of_table, *seen.faults]
            if seen.facts is not None:
                facts.append(seen.facts)
                tallies[seen.name] = seen.of_file
            progress(number + 1, len(chosen), tally.pulses)
        lost = sorted(set(meta.batches) - set(there)) if len(chosen) == len(there) else []
        if lost:
            missing = sum(high - low for b in lost for low, high in meta.batches[b])
            faults.append(
                DataFault(
                    fault="file-missing",
                    file=f"train/batch_{lost[0]}.parquet",
                    count=len(lost),
                    of=len(meta.batches),
                    example=f"{missing:,} events of the table lie in files that are not there",
                )
            )
    not_judged = []
    if ids.full:
        not_judged.append(
            Unjudged(name="repeated-event", reason="event ids lie too far apart to be kept in bits")
        )
    xyz = None
    try:
        xyz = read_geometry(geometry_path(root))
    except DataError as error:
        reason = str(error).split(": ", 1)[-1]
        faults.append(
            DataFault(
                fault="file-unreadable", file="sensor_geometry.csv", count=1, of=1, example=reason
            )
        )
    record = DataRecord(
        name=root.resolve().name,
        files_there=len(there),
        files=tuple(facts),
        events=events,
        pulses=tally.pulses,
        distributions=distributions(tally),
        pulses_per_dom=multiplicities(tally),
        auxiliary=tally.auxiliary / tally.pulses if tally.pulses else None,
        auxiliary_small=(
            tally.small_auxiliary / tally.small_pulses if tally.small_pulses else None
        ),
        faults=(*_schemas(facts), *faults),
        drifts=drifts(tallies),
        normalization=normalization(tally, xyz),
        not_judged=tuple(not_judged),
    )
    if validation is not None:
        record = replace(record, overlaps=(overlap(root, chosen, ids, validation),))
    return replace(record, comparison=compare(record)) if competition else record


@contextmanager
def _threads(n_files: int) -> Iterator[Begin]:
    """Threads that count files, each a file of its own, as many as there are cores to use."""
    cores = _cores()
    n = min(cores, _THREADS, max(n_files, 1))
    stop = Event()
    with ThreadPoolExecutor(n) as pool:

        def begin(
            number: int, path: Path, name: str, rows: MetaRows, of_file: FileTally
        ) -> Future[FileSeen]:
            # Of five files and two threads the last one would leave a core idle.
            alone = cores > 1 and (n == 1 or number >= n_files - n_files % n)
            return pool.submit(count_file, path, name, rows, of_file, alone=alone, stop=stop)

        try:
            yield begin
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _spread(there: tuple[int, ...], sample: int) -> tuple[int, ...]:
    at = np.unique(np.linspace(0, len(there) - 1, min(sample, len(there))).round().astype(int))
    return tuple(there[i] for i in at)


def _twice(rows: MetaRows, ids: IdSet, n_rows: int) -> list[DataFault]:
    """Events that the table names twice."""
    # What np.unique gives, whose first call imports numpy.ma, for 0.1 s.
    order = np.argsort(rows.event_id, kind="stable")
    rising = rows.event_id[order]
    starts = np.flatnonzero(np.append(True, rising[1:] != rising[:-1])[: len(rising)])
    unique, first = rising[starts], order[starts]
    count = np.diff(starts, append=len(rising))
    again = count > 1
    known = ids.contains(unique)
    ids.add(unique)
    if not (again | known).any():
        return []
    which = int(np.argmax(again | known))
    return [
        DataFault(
            fault="event-twice",
            file="train_meta.parquet",
            column="event_id",
            count=int((count[again] - 1).sum() + known.sum()),
            of=n_rows,
            row=int(rows.row[first[which]]),
            example=str(int(unique[which])),
            expected="every event_id once",
        )
    ]


def _schemas(facts: list[FileFacts]) -> list[DataFault]:
    """Files whose columns are not those of most files."""
    known: dict[tuple[tuple[str, str], ...], int] = {}
    for file in facts:
        key = tuple(file.columns.items())
        known[key] = known.get(key, 0) + 1
    if len(known) < 2:
        return []
    usual = dict(max(known.items(), key=lambda item: item[1])[0])
    found = []
    for file in facts:
        if tuple(file.columns.items()) == tuple(usual.items()):
            continue
        other = {
            name: f"{name} {file.columns.get(name, 'missing')}"
            for name in {**usual, **file.columns}
            if file.columns.get(name) != usual.get(name)
        }
        found.append(
            DataFault(
                fault="schema-differs",
                file=file.file,
                column=next(iter(other), ""),
                count=1,
                of=len(facts),
                example=", ".join(other.values()) or "columns in another order",
                expected=", ".join(f"{n} {usual.get(n, 'not there')}" for n in other)
                or ", ".join(usual),
            )
        )
    return found
