"""The instrument: operations of a training step at several batch sizes."""

from contextlib import AbstractContextManager
from dataclasses import replace

from icediag.pipeline import Pipeline
from icediag.place import Unjudged
from icediag.records.work import OperationRecord, OperationsRecord, Repeated, WorkRun

from .counter import Counter, Key
from .fit import Laws
from .foresee import Load, limits, next_size
from .items import read_items
from .own import Own, location
from .repeats import Repeats
from .series import Series
from .step import LightFlow, Study, prepared

#: The whole batch is counted too where no more than this is expected of it: operations, and bytes.
MOST_CALLS = 20_000
MOST_BYTES = 8 * 10**9
#: Rows that are kept, most operations first.
MOST_ROWS = 5000


def record_operations(
    pipeline: Pipeline,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    most_calls: int = MOST_CALLS,
    most_bytes: int = MOST_BYTES,
) -> OperationsRecord:
    """Count the operations of training steps.

    The model, its gradients, flags and all random generators are left as they were found. What
    fails in the user's code is noted, and what was counted until then is kept.

    Args:
        pipeline: What to count.
        batch_size: Samples of the batch that is diagnosed; without, that of the pipeline.
        device: Where the model is and the batch is to go.
        seed: Of the random generators.
        most_calls: The whole batch is counted too where no more operations are expected of it.
        most_bytes: The same of what they read and write.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    with prepared(pipeline, batch_size=batch_size, device=device, seed=seed) as study:
        return _count(study, most_calls, most_bytes)


def _count(study: Study, most_calls: int, most_bytes: int) -> OperationsRecord:
    own = Own(study.pipeline)
    series = Series(
        study,
        # Of the largest small batch alone: to tell values apart takes a third of the time.
        make=lambda: Counter(own, study.pipeline.model, Repeats() if series.at_last else None),
        load=lambda counter: counter.calls,
    )
    series.count_small()
    if not series.probes:
        return OperationsRecord(batch_size=len(series.whole), not_judged=series.written())
    # Of the largest small batch: values of the whole one need not be kept to find them.
    repeats = series.probes[-1].repeats
    repeated: tuple[Repeated, ...] = repeats.records() if repeats is not None else ()
    for counter in series.probes:
        counter.repeats = None
    series.at_last = False
    _count_larger(series, limits(most_calls, most_bytes))
    _count_items(study, own, series)
    return replace(_record(series), repeated=repeated, not_judged=series.written())


def _count_larger(series: Series[Counter], most: Load) -> None:
    """Count the whole batch too where that takes little, by way of one between where need be."""
    while series.whole not in series.batches:
        size = next_size(_record(series), most)
        if size is None or not series.count(series.of_size(size)):
            return


def _record(series: Series[Counter]) -> OperationsRecord:
    axes, diagnosed = series.axes()
    return OperationsRecord(
        batch_size=len(series.whole),
        axes=diagnosed,
        longest=series.longest,
        runs=tuple(
            WorkRun(samples=len(run.few), axes=here)
            for run, here in zip(series.runs, axes, strict=True)
        ),
        operations=_operations(series, axes),
    )


def _count_items(study: Study, own: Own, series: Series[Counter]) -> None:
    """Add what reading the samples of each batch takes."""
    by_sample: dict[int, Counter] = {}

    def watching(i: int) -> AbstractContextManager[None]:
        counter = by_sample[i] = Counter(own, None)
        counter.phase = "dataset item"
        return counter.watching(LightFlow())

    read = read_items(study, series, "operations of dataset items", watching)
    if not all(read.issuperset(batch) for batch in series.batches):
        return
    for batch, probe in zip(series.batches, series.probes, strict=True):
        for i in batch:
            probe.add(by_sample[i])


def _operations(series: Series[Counter], axes: list[dict[str, int]]) -> tuple[OperationRecord, ...]:
    counters = series.probes
    keys: dict[Key, None] = {}
    for counter in reversed(counters):
        keys.update(dict.fromkeys(counter.counts))
    if len(keys) > MOST_ROWS:
        last = counters[-1].counts
        kept = set(sorted(keys, key=lambda key: -last.get(key, [0])[0])[:MOST_ROWS])
        keys = {key: None for key in keys if key in kept}
        reason = f"only the {MOST_ROWS} rows of most operations are kept"
        series.notes.append(Unjudged(name="operations", reason=reason))
    laws = Laws(axes)
    records = []
    for key in keys:
        phase, stage, op, node, dtype, line = key
        columns = list(zip(*(c.counts.get(key, [0] * 7) for c in counters), strict=True))
        records.append(
            OperationRecord(
                phase=phase,
                stage=stage,
                op=op,
                node=node,
                dtype=dtype,
                location=location(line),
                calls=columns[0],
                launches=columns[1],
                elements=columns[2],
                bytes_read=columns[3],
                bytes_written=columns[4],
                flops=columns[5],
                syncs=columns[6],
                growth=laws.growth_of(columns[0]),
                work=laws.growth_of(columns[2]),
            )
        )
    return tuple(records)
