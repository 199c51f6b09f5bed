"""One file of the audit, counted on its own: what is in it, and what is not as it should be."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from icediag.errors import IcediagError
from icediag.model.errors import DataError
from icediag.records.data import DataFault, FileFacts

from .agree import agree
from .blocks import PulseBlock, PulseStream
from .facts import file_faults
from .table import MetaRows
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


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSeen:
    """What a file came to.

    Attributes:
        name: Of the file, from the data set's folder.
        facts: Its size and columns; None where it could not be read to its end.
        tally: What was counted, up to where it could be read.
        of_file: What its events are compared by with those of other files.
        faults: What is not as it should be.
    """

    name: str
    facts: FileFacts | None
    tally: Tally
    of_file: FileTally
    faults: list[DataFault] = field(default_factory=list)


def count_file(
    path: Path, name: str, rows: MetaRows, of_file: FileTally, *, alone: bool, stop: Event
) -> FileSeen:
    """Count a file.

    Args:
        path: The file.
        name: Of it, from the data set's folder.
        rows: Of the table of events, those of this file.
        of_file: Where its events are counted; their angles already are.
        alone: Whether no other file is being counted at this time, so that decoding and DOMs may
            have threads of their own.
        stop: Set if nobody waits for the file any more.
    """
    tally = Tally()
    try:
        facts = _counted(path, name, rows, tally, of_file, alone, stop)
    except (DataError, IcediagError) as error:
        reason = str(error).split(": ", 1)[-1]
        fault = DataFault(fault="file-unreadable", file=name, count=1, of=1, example=reason)
        return FileSeen(name=name, facts=None, tally=tally, of_file=of_file, faults=[fault])
    own = "event_id" in facts.columns
    rows_off = agree(name, of_file, rows, facts.pulses, own=own)
    of_file.runs.clear()
    # Where the table alone says what an event is, and is wrong, its times tell nothing.
    known = own or not rows_off
    faults = [
        fault for fault in file_faults(name, of_file) if known or fault.fault != "times-unsorted"
    ]
    return FileSeen(
        name=name, facts=facts, tally=tally, of_file=of_file, faults=[*faults, *rows_off]
    )


def _counted(
    path: Path,
    name: str,
    rows: MetaRows,
    tally: Tally,
    of_file: FileTally,
    alone: bool,
    stop: Event,
) -> FileFacts:
    """Count all blocks.

    Raises:
        DataError: The file is not what it must be.
        IcediagError: It is damaged.
    """
    stream = PulseStream(path)
    try:
        if "event_id" in stream.columns:
            source = _own_events(stream, alone)
        else:
            source = _meta_events(stream, rows.take(np.argsort(rows.first, kind="stable")), alone)
        with ExitStack() as stack:
            # DOMs, which are sorted, write to fields of their own.
            beside = stack.enter_context(ThreadPoolExecutor(1)) if alone else None
            for block, parts in source:
                if stop.is_set():
                    break
                wait: Callable[[], None] = partial(_doms_of, tally, parts)
                if beside is not None:
                    wait = beside.submit(wait).result
                take_pulses(tally, of_file, block)
                for part, events in parts:
                    of_file.runs.append(replace(events, start=events.start + part.start))
                    take_events(tally, of_file, part, events)
                wait()
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


def _own_events(stream: PulseStream, alone: bool) -> Iterator[tuple[PulseBlock, list[Part]]]:
    """Blocks, and the events that end in each, by the file's own column event_id."""
    held: list[PulseBlock] = []  # of one event, which may end with the last of them
    for block in stream.blocks(ahead=alone):
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


def _meta_events(
    stream: PulseStream, rows: MetaRows, alone: bool
) -> Iterator[tuple[PulseBlock, list[Part]]]:
    """The same by the table of events, whose rows come in the order of their first pulse."""
    fits = (rows.first >= 0) & (rows.last >= rows.first) & (rows.last < stream.n_rows)
    # Events that overlap others cannot be told apart by rows: the later one is passed over.
    rows = rows.take(fits)
    reach = np.maximum.accumulate(np.append(-1, rows.last))[:-1]
    rows = rows.take(rows.first > reach)
    held: list[PulseBlock] = []
    done = 0
    for block in stream.blocks(ahead=alone):
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
