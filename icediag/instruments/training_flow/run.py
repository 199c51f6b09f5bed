"""Looks at how samples come to the training and to the validation, and at the training step."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from icediag.instruments.recorder.flow import Flow
from icediag.instruments.recorder.record import prepared
from icediag.instruments.running.companions import generators_kept
from icediag.instruments.running.preserve import preserved, unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.stages import location_of
from icediag.instruments.running.workbench import has_weights, workbench
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.walk import leaves, move
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged
from icediag.records.training import TrainingRecord

from .checkpoints import look_at_checkpoint
from .content import Reader, by_index, drift, one_shot, overlap, reread, sized
from .order import order_of
from .steps import watch_steps
from .workers import workers_of

#: Samples of the batches that the user's own step is watched on.
SAMPLES = 16


def record_training_flow(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> TrainingRecord:
    """Look at validation set, loader and training step, as far as the pipeline states them.

    Model, optimizers, random numbers and the order of data are left as they were found.

    Args:
        pipeline: What to look at.
        batch_size: Samples of the batches that the step is watched on; 16 at most.
        device: Where the model is.
        seed: Of the random generators.
    """
    found = TrainingRecord(
        states_validation=pipeline.validation is not None,
        states_loader=pipeline.loader is not None,
        states_step=pipeline.train_step is not None,
        step_location=None if pipeline.train_step is None else location_of(pipeline.train_step),
        states_checkpoint=pipeline.save is not None,
        load_location=None if pipeline.load is None else location_of(pipeline.load),
    )
    looking = _Looking(pipeline, batch_size, device, seed)
    kept = generators_kept(pipeline)
    with kept, preserved(pipeline.model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user sees them when the training runs
        if pipeline.validation is not None:
            found = looking.at_validation(found)
        if pipeline.loader is not None:
            found = looking.at_loader(found)
        if pipeline.train_step is not None:
            found = looking.at_steps(found)
        if pipeline.save is not None:
            found = looking.at_checkpoint(found)
    return replace(found, not_tried=tuple(looking.not_tried))


class _Looking:
    """Each look by itself: where the user's code fails in one, the others go on."""

    def __init__(self, pipeline: Pipeline, batch_size: int | None, device: str, seed: int) -> None:
        self.pipeline, self.device, self.seed = pipeline, device, seed
        self.batch_size = pipeline.batch_size if batch_size is None else batch_size
        self.not_tried: list[Unjudged] = []
        self._loader: Any = None

    def _try(self, name: str, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:
            self.not_tried.append(Unjudged(name=name, reason=reason_of(error, self.pipeline)))
            return None

    def _skip(self, name: str, reason: str) -> None:
        self.not_tried.append(Unjudged(name=name, reason=reason))

    def at_validation(self, found: TrainingRecord) -> TrainingRecord:
        """Compare validation and training set."""
        data, held_out = self.pipeline.dataset, self.pipeline.validation
        if isinstance(held_out, torch.utils.data.DataLoader):
            held_out = held_out.dataset
        for dataset, name in ((data, "training"), (held_out, "validation")):
            if not hasattr(dataset, "__iter__") and not hasattr(dataset, "__getitem__"):
                self._skip("validation", f"the {name} set can be neither indexed nor iterated")
                return found
            if one_shot(dataset):
                self._skip("validation", f"the {name} set gives its samples only once")
                return found
        training, validation = Reader(data, self.seed), Reader(held_out, self.seed)
        if validation.size == 0:
            self._skip("validation", "the validation set is empty")
            return found
        again = self._try("validation, read twice", lambda: reread(validation))
        mine = self._try("training, read twice", lambda: reread(training))
        shared = self._try("overlap", lambda: by_index(data, held_out))
        if shared is None and again is not None and mine is not None:
            paths = again[1] & mine[1]
            # What is augmented now and then may still be met as it is.
            compared = paths or again[1] or {path for path, _ in leaves(validation.first(1)[0])}
            shared = self._try("overlap", lambda: overlap(training, validation, compared))
            if shared is not None and not shared.shared and not paths:
                self._skip("overlap", "every tensor of a sample differs when it is read again")
                shared = None
            elif shared is not None and not shared.values:
                few = "too few numbers of a sample are the same when it is read again to know it by"
                self._skip("overlap", few)
                shared = None
        drifted = self._try("drift", lambda: tuple(drift(training, validation)))
        return replace(
            found,
            validation_again=None if again is None else again[0],
            overlap=shared,
            drift=drifted or (),
        )

    def at_loader(self, found: TrainingRecord) -> TrainingRecord:
        """Look at the order of samples, and at the workers."""
        assert self.pipeline.loader is not None
        self._loader = self._try("loader", self.pipeline.loader)
        if self._loader is None:
            return found
        order = self._try("order", lambda: order_of(self._loader))
        if order is None and not self.not_tried:
            self._skip("order", "the loader gives its batches only once")
        return replace(
            found, order=order, workers=self._try("workers", lambda: workers_of(self._loader))
        )

    def at_steps(self, found: TrainingRecord) -> TrainingRecord:
        """Watch some calls of the user's own step."""
        pipeline = self.pipeline
        run = Run(Flow(None))
        with prepared(pipeline, run, min(2 * SAMPLES, self.batch_size), self.device, self.seed) as (
            samples,
            _,
            target,
        ):
            if not samples:
                self._skip("steps", "no sample could be read")
                return found

            def batch(number: int) -> Any:
                half = max(1, len(samples) // 2)
                some = samples[:half] if number % 2 == 0 or len(samples) < 4 else samples[half:]
                return move(pipeline.collate(list(some)), target)

            with unchanged(samples):
                seen = self._try("steps", lambda: watch_steps(pipeline, batch, self._calls()))
        if seen is None:
            return found
        steps, left, schedules = seen
        return replace(found, steps=tuple(steps), left_eval=left, schedules=tuple(schedules))

    def at_checkpoint(self, found: TrainingRecord) -> TrainingRecord:
        """Save, load and go on."""
        pipeline = self.pipeline
        reason = has_weights(pipeline.model)
        if reason is not None:
            self._skip("checkpoint", reason)
            return found
        notes: list[Unjudged] = []
        wanted = min(SAMPLES // 2, self.batch_size)

        def look() -> Any:
            with workbench(
                pipeline, wanted=wanted, device=self.device, seed=self.seed, notes=notes
            ) as bench:
                n = len(bench.samples)
                half = max(1, n // 2)
                halves = [list(range(half)), list(range(n - half, n))]
                return look_at_checkpoint(bench, lambda k: bench.batches(halves[k % 2]))

        return replace(found, checkpoint=self._try("checkpoint", look))

    def _calls(self) -> int:
        """Steps of an epoch, as far as known."""
        loader, dataset = self._loader, self.pipeline.dataset
        try:
            if loader is not None:
                return len(loader)
        except TypeError:
            pass
        return math.ceil(len(dataset) / self.pipeline.batch_size) if sized(dataset) else 0
