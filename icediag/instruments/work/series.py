"""Series: the same step with several batches, each under the eyes of a probe of its own."""

import bisect
from collections.abc import Callable
from typing import Generic, TypeVar

from icediag.instruments.shapes.naming import Run
from icediag.place import Unjudged

from .sizes import axes_of_all, choices, spread_over, twins, weight_of
from .step import Probe, Study, collated, run_step

#: Once a batch takes this much, and this many batches were counted, no larger one is.
ENOUGH_LOAD = 10_000
ENOUGH_RUNS = 4

P = TypeVar("P", bound=Probe)


class Series(Generic[P]):
    """Counts steps with batches of different make-up.

    Args:
        study: The pipeline.
        make: Makes a probe.
        load: What a batch took, by its probe, against `ENOUGH_LOAD`.
    """

    def __init__(self, study: Study, make: Callable[[], P], load: Callable[[P], int]) -> None:
        self.runs: list[Run] = []
        self.probes: list[P] = []
        #: Indices of the samples of each run.
        self.batches: list[list[int]] = []
        self.whole = list(range(len(study.samples)))
        #: Axes that follow the longest group alone; known once `axes` were asked for.
        self.longest: tuple[str, ...] = ()
        self.notes: list[Unjudged] = [
            note for note in study.not_judged if note.name not in ("batch size", "data order")
        ]
        #: Whether the small batch that is counted next may be the last.
        self.at_last = False
        self._study = study
        self._make = make
        self._load = load

    def count_small(self) -> None:
        """Count the small batches; where none comes through, the whole one."""
        if not self.whole:
            return
        batches = choices([weight_of(sample) for sample in self._study.samples])
        for i, indices in enumerate(batches):
            self.at_last = i >= min(ENOUGH_RUNS, len(batches)) - 1
            self.count(indices)
            many = len(self.probes) >= ENOUGH_RUNS
            if many and self._load(self.probes[-1]) > ENOUGH_LOAD:
                break
        self.at_last = True
        # A pipeline that takes only batches of its own size.
        if not self.probes and self.count(self.whole):
            reason = "only the whole batch came through: how counts grow is not known"
            self.notes.append(Unjudged(name="growth", reason=reason))

    def of_size(self, n: int) -> list[int]:
        """Indices of a batch of so many samples, of all lengths; with all, the whole batch."""
        if n >= len(self.whole):
            return self.whole
        return spread_over([weight_of(sample) for sample in self._study.samples], n)

    def alike(self) -> list[int]:
        """Indices of samples that have a twin of the same size among them; none, or too few."""
        return twins([weight_of(sample) for sample in self._study.samples])

    def count(self, indices: list[int]) -> bool:
        """Count one batch; whether it came through."""
        probe = self._make()
        run = run_step(self._study, indices, probe)
        self.notes.extend(run.not_judged)
        if run.batch is None or not run.backward:
            return False
        # Smallest first, whatever was counted when.
        sizes = [self._size(batch) for batch in self.batches]
        at = bisect.bisect(sizes, self._size(indices))
        self.runs.insert(at, run)
        self.probes.insert(at, probe)
        self.batches.insert(at, indices)
        return True

    def _size(self, indices: list[int]) -> tuple[int, int]:
        return len(indices), sum(weight_of(self._study.samples[i]) for i in indices)

    def axes(self) -> tuple[list[dict[str, int]], dict[str, int]]:
        """Symbolic axes of each run, and of the whole batch; `longest` is found with them."""
        fallback = [{"batch": len(run.few)} for run in self.runs]
        try:
            runs = list(self.runs)
            if self.batches[-1] != self.whole:
                runs.append(collated(self._study, self.whole))
                if runs[-1].batch is None:
                    raise ValueError("the whole batch cannot be collated")
            found, self.longest = axes_of_all(runs)
        except Exception as error:  # names are a help; counts stand without them
            self.notes.append(Unjudged(name="symbolic axes", reason=f"{error}"))
            return fallback, {"batch": len(self.whole)}
        return found[: len(self.runs)], found[-1]

    def written(self) -> tuple[Unjudged, ...]:
        """What could not be counted, each once."""
        unique = dict.fromkeys((note.name, note.reason) for note in self.notes)
        return tuple(Unjudged(name=name, reason=reason) for name, reason in unique)
