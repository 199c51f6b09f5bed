"""The instrument: operations of a training step at several batch sizes."""

from icediag.instruments.naming import Run
from icediag.pipeline import Pipeline
from icediag.place import Unjudged
from icediag.work_record import OperationRecord, OperationsRecord, Repeated, WorkRun

from .counter import Counter, Key
from .fit import growth_of
from .own import Own, location
from .repeats import Repeats
from .sizes import axes_of_all, choices, weight_of
from .step import Study, collated, prepared, run_step

#: The whole batch is counted too where no more than this is expected of it: operations, and bytes.
MOST_CALLS = 20_000
MOST_BYTES = 8 * 10**9
#: Once a batch takes this many operations, and this many batches were counted, no larger one is.
ENOUGH_CALLS = 10_000
ENOUGH_RUNS = 4
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
        return _Counting(study).record()


class _Counting:
    def __init__(self, study: Study) -> None:
        self._study = study
        self._own = Own(study.pipeline)
        self._runs: list[Run] = []
        self._counters: list[Counter] = []
        self._repeated: tuple[Repeated, ...] = ()
        self._notes: list[Unjudged] = [
            note for note in study.not_judged if note.name not in ("batch size", "data order")
        ]

    def record(self) -> OperationsRecord:
        study = self._study
        whole = list(range(len(study.samples)))
        if not whole:
            return OperationsRecord(batch_size=0, not_judged=self._written())
        batches = choices([weight_of(sample) for sample in study.samples])
        for i, indices in enumerate(batches):
            self._count(indices, Repeats())
            if self._enough():
                batches = batches[: i + 1]
                break
        self._whole(whole, batches)
        runs = list(self._runs)
        if not runs:
            return OperationsRecord(batch_size=len(whole), not_judged=self._written())
        axes = [{"batch": len(run.few)} for run in runs]
        diagnosed = {"batch": len(whole)}
        try:
            everything = runs if len(runs[-1].few) == len(whole) else [*runs, self._collated(whole)]
            *axes, diagnosed = axes_of_all([*everything, everything[-1]])
            axes = axes[: len(runs)]
        except Exception as error:  # names are a help; counts stand without them
            self._notes.append(Unjudged(name="symbolic axes", reason=f"{error}"))
        return OperationsRecord(
            batch_size=len(whole),
            axes=diagnosed,
            runs=tuple(
                WorkRun(samples=len(run.few), axes=here)
                for run, here in zip(runs, axes, strict=True)
            ),
            operations=self._operations(axes),
            repeated=self._repeated,
            not_judged=self._written(),
        )

    def _collated(self, whole: list[int]) -> Run:
        run = collated(self._study, whole)
        if run.batch is None:
            raise ValueError("the whole batch cannot be collated")
        return run

    def _written(self) -> tuple[Unjudged, ...]:
        unique = dict.fromkeys((note.name, note.reason) for note in self._notes)
        return tuple(Unjudged(name=name, reason=reason) for name, reason in unique)

    def _count(self, indices: list[int], repeats: Repeats | None = None) -> bool:
        """One batch; whether it came through."""
        counter = Counter(self._own, self._study.pipeline.model, repeats)
        run = run_step(self._study, indices, counter)
        self._notes.extend(run.not_judged)
        if run.batch is None or not run.backward:
            return False
        self._runs.append(run)
        self._counters.append(counter)
        if repeats is not None:
            self._repeated = repeats.records()
        return True

    def _enough(self) -> bool:
        """Whether there are enough runs to tell growth, and more would take long."""
        many = len(self._counters) >= ENOUGH_RUNS
        return many and _totals(self._counters[-1])[0] > ENOUGH_CALLS

    def _whole(self, whole: list[int], batches: list[list[int]]) -> None:
        """Count the whole batch, unless that would take long."""
        if whole in batches:
            return
        if not self._counters:
            # A pipeline that takes only batches of its own size.
            if self._count(whole, Repeats()):
                reason = "only the whole batch came through: how counts grow is not known"
                self._notes.append(Unjudged(name="growth", reason=reason))
            return
        calls, moved = _totals(self._counters[-1])
        # As the square, to be on the safe side of a loop over loops.
        ratio = (len(whole) / len(self._runs[-1].few)) ** 2
        grows = len(self._counters) > 1 and calls > 1.5 * _totals(self._counters[0])[0]
        if moved * ratio <= MOST_BYTES and calls * (ratio if grows else 1) <= MOST_CALLS:
            self._count(whole)

    def _operations(self, axes: list[dict[str, int]]) -> tuple[OperationRecord, ...]:
        keys: dict[Key, None] = {}
        for counter in reversed(self._counters):
            keys.update(dict.fromkeys(counter.counts))
        if len(keys) > MOST_ROWS:
            last = self._counters[-1].counts
            kept = sorted(keys, key=lambda key: -last.get(key, [0])[0])[:MOST_ROWS]
            keys = {key: None for key in keys if key in set(kept)}
            reason = f"only the {MOST_ROWS} rows of most operations are kept"
            self._notes.append(Unjudged(name="operations", reason=reason))
        records = []
        for key in keys:
            phase, stage, op, node, dtype, line = key
            columns = list(zip(*(c.counts.get(key, [0] * 7) for c in self._counters), strict=True))
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
                    growth=growth_of(columns[0], axes),
                )
            )
        return tuple(records)


def _totals(counter: Counter) -> tuple[int, int]:
    counts = counter.counts.values()
    return sum(count[0] for count in counts), sum(count[3] + count[4] for count in counts)
