"""The instrument: operations of a training step at several batch sizes."""

from icediag.pipeline import Pipeline
from icediag.place import Unjudged
from icediag.work_record import OperationRecord, OperationsRecord, Repeated, WorkRun

from .counter import Counter, Key
from .fit import Laws
from .own import Own, location
from .repeats import Repeats
from .series import Series
from .step import Study, prepared

#: The whole batch is counted too where no more than this is expected of it: operations, and bytes.
MOST_CALLS = 20_000
MOST_BYTES = 8 * 10**9
#: Rows that are kept, most operations first.
MOST_ROWS = 5000


def record_operations(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> OperationsRecord:
    """Count the operations of training steps.

    The model, its gradients, flags and all random generators are left as they were found. What
    fails in the user's code is noted, and what was counted until then is kept.

    Args:
        pipeline: What to count.
        batch_size: Samples of the batch that is diagnosed; without, that of the pipeline.
        device: Where the model is and the batch is to go.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    with prepared(pipeline, batch_size=batch_size, device=device, seed=seed) as study:
        return _count(study)


def _count(study: Study) -> OperationsRecord:
    own = Own(study.pipeline)
    series = Series(
        study,
        make=lambda: Counter(own, study.pipeline.model, Repeats()),
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
    if _affordable(series):
        series.count(series.whole)
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


def _affordable(series: Series[Counter]) -> bool:
    """Whether counting the whole batch takes little, and was not done yet."""
    if series.whole in series.batches:
        return False
    calls, moved = _totals(series.probes[-1])
    grows = calls > 1.5 * _totals(series.probes[0])[0]
    # As the square, to be on the safe side of a loop over loops.
    ratio = (len(series.whole) / len(series.runs[-1].few)) ** 2
    return moved * ratio <= MOST_BYTES and calls * (ratio if grows else 1) <= MOST_CALLS


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
