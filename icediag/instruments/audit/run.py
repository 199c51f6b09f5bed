"""The audit: all files of a data set once, in memory that does not grow with it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from icediag.data_record import DataFault, DataRecord, FileFacts
from icediag.errors import IcediagError
from icediag.model.errors import DataError
from icediag.model.layout import chosen_batches, geometry_path, meta_path
from icediag.model.memory import keep_freed_memory
from icediag.model.tables import read_geometry
from icediag.place import Unjudged

from .agree import agree, angles
from .blocks import PulseBlock, PulseStream
from .facts import distributions, drifts, file_faults, multiplicities, normalization
from .idset import IdSet
from .overlap import overlap
from .published import compare
from .table import MetaReader, MetaRows
from .tally import (
    EventColumns,
    FileTally,
    Tally,
    count_waiting,
    take_doms,
    take_events,
    take_pulses,
)

I64 = npt.NDArray[np.int64]

#: Rows, and the whole events that lie in them. An event that reaches over the end of a block is
#: held and put together, however long it is; all others stay where they are.
Part = tuple[PulseBlock, EventColumns]


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
    with MetaReader(meta_path(root)) as meta:
        for number, batch in enumerate(chosen):
            name = f"train/batch_{batch}.parquet"
            rows = meta.rows_of(batch)
            events += len(rows)
            of_file = FileTally()
            faults.extend(_twice(rows, ids, meta.n_rows))
            faults.extend(angles(rows, tally, of_file))
            try:
                facts.append(_file(root / name, name, rows, tally, of_file))
            except (DataError, IcediagError) as error:
                reason = str(error).split(": ", 1)[-1]
                faults.append(
                    DataFault(fault="file-unreadable", file=name, count=1, of=1, example=reason)
                )
            else:
                tallies[name] = of_file
                seen = facts[-1]
                own = "event_id" in seen.columns
                rows_off = agree(name, of_file, rows, seen.pulses, own=own)
                # Where the table alone says what an event is, and is wrong, its times tell nothing.
                known = own or not rows_off
                faults.extend(
                    fault
                    for fault in file_faults(name, of_file)
                    if known or fault.fault != "times-unsorted"
                )
                faults.extend(rows_off)
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


def _spread(there: tuple[int, ...], sample: int) -> tuple[int, ...]:
    at = np.unique(np.linspace(0, len(there) - 1, min(sample, len(there))).round().astype(int))
    return tuple(there[i] for i in at)


def _twice(rows: MetaRows, ids: IdSet, n_rows: int) -> list[DataFault]:
    """Events that the table names twice."""
    unique, first, count = np.unique(rows.event_id, return_index=True, return_counts=True)
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


def _file(path: Path, name: str, rows: MetaRows, tally: Tally, of_file: FileTally) -> FileFacts:
    """Count one file.

    Raises:
        DataError: It is not what it must be.
        IcediagError: It is damaged.
    """
    stream = PulseStream(path)
    try:
        if "event_id" in stream.columns:
            source = _own_events(stream)
        else:
            source = _meta_events(stream, rows.take(np.argsort(rows.first, kind="stable")))
        # Blocks are decoded in a thread of their own meanwhile, and their DOMs, which are sorted,
        # counted in another: each writes to fields of its own.
        with ThreadPoolExecutor(1) as beside:
            for block, parts in source:
                doms = beside.submit(_doms_of, tally, parts)
                take_pulses(tally, of_file, block)
                for part, events in parts:
                    of_file.runs.append(replace(events, start=events.start + part.start))
                    take_events(tally, of_file, part, events)
                doms.result()
        count_waiting(tally, of_file)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise IcediagError(f"{name}: not readable: {reason}") from error
    finally:
        stream.close()
    return FileFacts(file=name, events=len(rows), pulses=stream.n_rows, columns=stream.columns)


def _doms_of(tally: Tally, parts: list[Part]) -> None:
    for part, events in parts:
        take_doms(tally, part, events)


def _own_events(stream: PulseStream) -> Iterator[tuple[PulseBlock, list[Part]]]:
    """Blocks, and the events that end in each, by the file's own column event_id."""
    held: list[PulseBlock] = []  # of one event, which may end with the last of them
    for block in stream.blocks():
        event_id = block.event_id
        assert event_id is not None
        parts: list[Part] = []
        cuts = np.flatnonzero(event_id[1:] != event_id[:-1]) + 1
        edges = np.concatenate([[0], cuts, [len(block)]])
        start, stop = edges[:-1], edges[1:]
        ends = block.start + len(block) == stream.n_rows
        if held:
            before = held[0].event_id
            assert before is not None
            if before[0] != event_id[0]:
                parts.append(_one(_joined(held)))
            elif len(start) > 1 or ends:
                parts.append(_one(_joined([*held, _rows(block, 0, int(stop[0]))])))
                start, stop = start[1:], stop[1:]
            else:
                held.append(block)
                yield block, []
                continue
        held = []
        if not ends:
            held = [_rows(block, int(start[-1]), len(block))]
            start, stop = start[:-1], stop[:-1]
        events = EventColumns(event_id=event_id[start], start=start, length=stop - start)
        yield block, [*parts, (block, events)]


def _one(block: PulseBlock) -> Part:
    """All rows as one event."""
    assert block.event_id is not None
    return block, EventColumns(
        event_id=block.event_id[:1], start=np.zeros(1, np.int64), length=np.array([len(block)])
    )


def _meta_events(stream: PulseStream, rows: MetaRows) -> Iterator[tuple[PulseBlock, list[Part]]]:
    """The same by the table of events, whose rows come in the order of their first pulse."""
    fits = (rows.first >= 0) & (rows.last >= rows.first) & (rows.last < stream.n_rows)
    # Events that overlap others cannot be told apart by rows: the later one is passed over.
    rows = rows.take(fits)
    reach = np.maximum.accumulate(np.append(-1, rows.last))[:-1]
    rows = rows.take(rows.first > reach)
    held: list[PulseBlock] = []
    done = 0
    for block in stream.blocks():
        end = block.start + len(block)
        upto = int(np.searchsorted(rows.last, end, side="left"))
        parts: list[Part] = []
        if held:
            held.append(block)
            if upto > done:
                whole = _joined(held)
                whole = _rows(whole, 0, int(rows.last[done]) + 1 - whole.start)
                parts.append((whole, _columns(rows.take(slice(done, done + 1)), whole.start)))
                held = []
                done += 1
        parts.append((block, _columns(rows.take(slice(done, upto)), block.start)))
        done = max(done, upto)
        if not held and done < len(rows) and rows.first[done] < end:
            held = [_rows(block, int(rows.first[done]) - block.start, len(block))]
        yield block, parts


def _columns(rows: MetaRows, start: int) -> EventColumns:
    return EventColumns(
        event_id=rows.event_id, start=rows.first - start, length=rows.last - rows.first + 1
    )


def _joined(blocks: list[PulseBlock]) -> PulseBlock:
    """Blocks that follow each other as one."""
    if len(blocks) == 1:
        return blocks[0]

    def column(name: str) -> Any:
        return np.concatenate([getattr(block, name) for block in blocks])

    return PulseBlock(
        start=blocks[0].start,
        time=column("time"),
        charge=column("charge"),
        sensor_id=column("sensor_id"),
        auxiliary=column("auxiliary"),
        event_id=None if blocks[0].event_id is None else column("event_id"),
    )


def _rows(block: PulseBlock, low: int, high: int) -> PulseBlock:
    return PulseBlock(
        start=block.start + low,
        time=block.time[low:high],
        charge=block.charge[low:high],
        sensor_id=block.sensor_id[low:high],
        auxiliary=block.auxiliary[low:high],
        event_id=None if block.event_id is None else block.event_id[low:high],
    )


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
