"""Runs the trials of one pipeline and writes down what they showed."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from icediag.instruments.recorder.flow import Flow
from icediag.instruments.recorder.record import prepared
from icediag.instruments.running.lab import Lab, attempt, difference
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.stages import FunctionStage
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.layouts import stored_values
from icediag.instruments.trees.walk import leaves
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged
from icediag.records.invariances import InvariancesRecord, Pairing, Trial

from .conserve import conserved_events, conserved_rows
from .facts import order_of_rows, shift_of_time
from .pairing import pairings, targets_of
from .repeat import evaluation, training
from .samples import mutated, probes, ragged_axes
from .small import small_cases
from .stages import first_mixed, first_moved
from .trials import Setting, batch_layout, company, content, gradient

#: Samples that are read: enough to meet short and long ones.
MOST_SAMPLES = 64


def record_invariances(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> InvariancesRecord:
    """Put batches together otherwise and see what moves.

    The model runs in evaluation, where batch statistics are fixed; everything is left as it was
    found.

    Args:
        pipeline: What to look at.
        batch_size: Samples to choose from; without, that of the pipeline; 64 at most.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    run = Run(Flow(None))
    wanted = min(MOST_SAMPLES, pipeline.batch_size if batch_size is None else batch_size)
    with prepared(pipeline, run, wanted, device, seed) as (samples, stages, target):
        lab = Lab(pipeline, target, seed)
        return _Tries(lab, samples, stages).record() if samples else _nothing(run)


def _nothing(run: Run) -> InvariancesRecord:
    reasons = [item for item in run.not_judged if item.name == "dataset item"]
    return InvariancesRecord(samples=0, not_tried=tuple(reasons))


class _Tries:
    """All trials, each by itself: where the user's code fails in one, the others go on."""

    def __init__(self, lab: Lab, samples: list[Any], stages: list[FunctionStage]) -> None:
        self.lab, self.samples, self.stages = lab, samples, stages
        self.not_tried: list[Unjudged] = []
        self.trials: list[Trial] = []

    def _try(self, name: str, action: Callable[[], Any], otherwise: Any = None) -> Any:
        found, reason = attempt(action, lambda error: reason_of(error, self.lab.pipeline))
        if reason is not None:
            self.not_tried.append(Unjudged(name=name, reason=reason))
            return otherwise
        return found

    def _skip(self, name: str, reason: str) -> None:
        self.not_tried.append(Unjudged(name=name, reason=reason))

    def record(self) -> InvariancesRecord:
        lab, samples = self.lab, self.samples
        chosen = probes(samples)
        some = [samples[i] for i in chosen]
        found = InvariancesRecord(samples=len(some))
        found = replace(
            found,
            evaluation=self._try("evaluation", lambda: evaluation(lab, some)),
            training=self._try("training", lambda: training(lab, some)),
        )
        if found.evaluation is None:
            return replace(found, not_tried=tuple(self.not_tried))
        ragged = ragged_axes(samples)
        targets: list[str] = []
        setting = None
        if len(some) < 3:
            self._skip("trials", f"expected 3 events or more to compare, got {len(some)}")
        elif found.evaluation.output is not None:
            self._skip("trials", "in evaluation the same batch gives different outputs")
        elif self._try("collate", lambda: _random_collate(lab, some), False):
            self._skip("trials", "collate draws random numbers: two batches are not comparable")
            found = replace(found, pairings=self._at_random(some, chosen))
        else:
            setting = self._try("trials", lambda: self._setting(some, chosen))
        if setting is not None:
            targets = self._try("targets", lambda: targets_of(setting), [])
            self._independence(setting)
            found = replace(
                found,
                pairings=tuple(self._try("pairing", lambda: self._paired(setting, targets), [])),
                small=tuple(
                    self._try("small events", lambda: small_cases(setting, samples, ragged), [])
                ),
            )
            self.trials += self._try("order of rows", lambda: order_of_rows(setting, ragged), [])
            self.trials += self._try("shift of time", lambda: shift_of_time(setting), [])
        kept = [
            *self._try("events", lambda: conserved_events(lab, samples, set(targets)), []),
            *self._try("rows", lambda: conserved_rows(lab, samples, ragged), []),
        ]
        return replace(
            found,
            precise=lab.twin is not None,
            trials=tuple(self.trials),
            conservation=tuple(kept),
            not_tried=tuple(self.not_tried),
        )

    def _at_random(self, some: list[Any], chosen: list[int]) -> tuple[Pairing, ...]:
        """Pairings of a collate that draws: from the same random numbers it gives the same again.

        What draws values too, such as noise on the inputs, leaves no event to be recognised.
        """
        setting = attempt(lambda: self._setting(some, chosen), str)[0]
        if setting is None:
            return ()
        found = attempt(lambda: pairings(setting, targets_of(setting)), str)[0]
        return tuple(found or ())

    def _setting(self, some: list[Any], chosen: list[int]) -> Setting:
        lab = self.lab
        if not lab.find_twin(some):
            lab.measure_noise(some)
        return Setting(lab, some, chosen)

    def _independence(self, setting: Setting) -> None:
        if not setting.rows:
            reason = "no output has a part for each event that its size shows"
            if setting.failed is not None:
                of = reason_of(setting.failed, self.lab.pipeline)
                reason = f"an event alone does not come through: {of}"
            self._skip("independence of events", reason)
            return
        if setting.reordered:
            return  # each row is what its event gives alone, only in another place
        self.trials += self._placed(
            setting, self._try("content of neighbours", lambda: content(setting), [])
        )
        self.trials += self._placed(setting, self._try("company", lambda: company(setting), []))
        layout = self._try("layout of the batch", lambda: batch_layout(setting), {})
        self.trials += self._try("gradient", lambda: gradient(setting, layout), [])

    def _placed(self, setting: Setting, trials: Sequence[Trial]) -> list[Trial]:
        """The first of the broken trials of each kind, with the stage where it begins."""
        placed: list[Trial] = []
        for trial in trials:
            if trial.broken and trial.change in ("content", "padding", "batch size"):
                at = self._try("stage", lambda trial=trial: self._stage(setting, trial))  # type: ignore[misc]
                if at is not None:
                    trial = replace(trial, stage=at[0], location=at[1])
            placed.append(trial)
        return placed

    def _stage(self, setting: Setting, trial: Trial) -> Any:
        samples, half = setting.samples, setting.n // 2
        at = setting.numbers.index(trial.event) if trial.event is not None else 0
        one = samples[at]
        if trial.change == "content":
            changed = [mutated(sample, k) for k, sample in enumerate(samples)]
            return first_mixed(self.lab, self.stages, samples, changed, half)
        if trial.change == "batch size":
            return first_moved(self.lab, self.stages, [one], [one], [one, one])
        return first_moved(self.lab, self.stages, [one], [one, one], [one, samples[-1]])

    def _paired(self, setting: Setting, targets: list[str]) -> Any:
        if any(trial.broken and trial.change in ("content", "company") for trial in self.trials):
            self._skip("pairing", "outputs depend on the company, so rows cannot be recognised")
            return []
        return pairings(setting, targets)


def _random_collate(lab: Lab, samples: list[Any]) -> bool:
    """Whether collate gives other values where other random numbers come up."""
    with lab.ready(samples, native=True):
        first, second = (
            {path: stored_values(tensor)[0].clone() for path, tensor in leaves(lab.batch(samples))}
            for _ in range(2)
        )
    return any(
        path not in second
        or second[path].shape != tensor.shape
        or difference(tensor, second[path]) > 0
        for path, tensor in first.items()
        if not tensor.is_complex()
    )
