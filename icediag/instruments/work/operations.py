"""The instrument: operations of a training step at several batch sizes."""

from contextlib import AbstractContextManager

from icediag.pipeline import Pipeline
from icediag.place import Unjudged
from icediag.work_record import OperationRecord, OperationsRecord, Repeated, WorkRun

from .counter import Counter, Key
from .fit import Laws
from .items import read_items
from .own import Own, location
from .repeats import Repeats
from .series import Series
from .step import LightFlow, Study, prepared

#: The whole batch is counted too where no more than this is expected of it: operations, and bytes.
MOST_CALLS = 20_000
MOST_BYTES = 8 * 10**9
#: What is so much steeper at its end than at its begin is taken to grow as the square.
BENT = 1.5
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
        load=lambda counter: _totals(counter)[0],
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
    if _affordable(series, most_calls, most_bytes):
        series.count(series.whole)
    _count_items(study, own, series)
    axes, diagnosed = series.axes()
    operations = _operations(series, axes)
    return OperationsRecord(
        batch_size=len(series.whole),
        axes=diagnosed,
        longest=series.longest,
        runs=tuple(
            WorkRun(samples=len(run.few), axes=here)
            for run, here in zip(series.runs, axes, strict=True)
        ),
        operations=operations,
        repeated=repeated,
        not_judged=series.written(),
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


def _affordable(series: Series[Counter], most_calls: int, most_bytes: int) -> bool:
    """Whether counting the whole batch takes little, and was not done yet."""
    if series.whole in series.batches:
        return False
    weights = [series.weight(batch) for batch in (*series.batches, series.whole)]
    calls, moved = zip(*map(_totals, series.probes), strict=True)
    return (
        expected(weights, list(calls)) <= most_calls
        and expected(weights, list(moved)) <= most_bytes
    )


def expected(weights: list[int], totals: list[int]) -> float:
    """What the whole batch takes at most, about.

    Along the line through the smallest and the largest batch; as the square of the weight where the
    second half of it is steeper than the first.

    Args:
        weights: Of the counted batches, and of the whole one, which is the last.
        totals: Of the counted batches.
    """
    *counted, whole = weights
    pairs = sorted(zip(counted, totals, strict=True))
    (low, least), (middle, between), (high, most) = pairs[0], pairs[len(pairs) // 2], pairs[-1]
    if not low < middle < high:
        return most * (whole / max(1, high)) ** 2
    # Of what is there whatever the batch, nothing more.
    square = (most - least) * (whole**2 - high**2) / (high**2 - low**2)
    early, late = (between - least) / (middle - low), (most - between) / (high - middle)
    if late > BENT * max(early, 0.0):
        return most + max(0.0, square)
    return most + max(early, late, 0.0) * (whole - high)


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


def _totals(counter: Counter) -> tuple[int, int]:
    counts = counter.counts.values()
    return sum(count[0] for count in counts), sum(count[3] + count[4] for count in counts)
