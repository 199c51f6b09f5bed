"""Runs the probes of one loss and writes down what they showed."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.recorder.flow import Flow
from icediag.instruments.recorder.record import prepared
from icediag.instruments.running.companions import companions_kept
from icediag.instruments.running.lab import call, weights_of
from icediag.instruments.running.preserve import preserved, unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.stages import location_of
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.reads import Reads
from icediag.instruments.trees.rebuild import rebuilt
from icediag.instruments.trees.walk import leaves, move
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged
from icediag.records.loss import (
    Foresight,
    IdleColumn,
    LossRecord,
    MetricSeen,
    Point,
    Rows,
    Seam,
    Sweep,
    Targets,
    Where,
)

from .columns import idle_columns
from .crossed import crossed
from .foresight import foresight
from .metrics import look_at_metrics
from .points import STEPS, Finder, look_at
from .probe import Probe, still
from .rotations import rotations
from .spaces import Space, column_of, declared, spaces_of, width_of
from .sweeps import seams, sweeps
from .targets import look_at_rows, look_at_targets

#: Samples of the probed batch: enough rows to tell apart, and a number that is seldom a width.
SAMPLES = 13
#: A change of the loss, relative to its size, that tells nothing apart.
ALIKE = 1e-5
#: Steps of Adam, and their rate, after which predictions are no longer those of chance: the
#: built-in network knows 8 events by heart after 14 steps at a third of the rate.
FITTING, RATE = 24, 3e-3


def record_loss(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> LossRecord:
    """Probe the loss at predictions and targets of our choice.

    The model runs a few times, in evaluation, to give predictions to begin with; everything is left
    as it was found.

    Args:
        pipeline: Whose loss.
        batch_size: Samples to choose from; 13 at most.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    run = Run(Flow(None))
    wanted = min(SAMPLES, pipeline.batch_size if batch_size is None else batch_size)
    with prepared(pipeline, run, wanted, device, seed) as (samples, _, target):
        whole = LossRecord(
            name=_name(pipeline.loss),
            location=location_of(pipeline.loss),
            samples=len(samples),
            states_metric=pipeline.metric is not None,
            metric_location=None if pipeline.metric is None else location_of(pipeline.metric),
        )
        if not samples:
            reasons = tuple(item for item in run.not_judged if item.name == "dataset item")
            return _with(whole, not_tried=reasons)
        with preserved(pipeline.model), unchanged(samples), still(pipeline.model):
            return _Probing(pipeline, samples, target, seed).record(whole)


def _name(loss: Any) -> str:
    while isinstance(loss, functools.partial):
        loss = loss.func
    name = str(getattr(loss, "__qualname__", type(loss).__qualname__))
    return "the loss" if name.endswith("<lambda>") else name.replace("<locals>.", "")


def _among(best: dict[str, Tensor], spaces: dict[str, Space]) -> dict[str, Tensor]:
    """Predictions about as far from the best ones as those are from each other."""
    found = {}
    for path, value in best.items():
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value)
        spread = value.std() if value.numel() > 1 else value.new_zeros(())
        spread = spread if spread > 0 else value.abs().mean() / 4 + 1e-3
        found[path] = spaces[path].back(value + spread * noise, value)
    return found


def _with(record: LossRecord, **changes: Any) -> LossRecord:
    return LossRecord(**{**vars(record), **changes})


class _Probing:
    """All probes, each by itself: where the user's code fails in one, the others go on."""

    def __init__(
        self, pipeline: Pipeline, samples: list[Any], device: torch.device, seed: int
    ) -> None:
        self.pipeline, self.samples, self.device, self.seed = pipeline, samples, device, seed
        self.not_tried: list[Unjudged] = []

    def _try(self, name: str, action: Callable[[], Any], otherwise: Any = None) -> Any:
        try:
            return action()
        except Exception as error:
            self.not_tried.append(Unjudged(name=name, reason=reason_of(error, self.pipeline)))
            return otherwise

    def _batch(self, samples: list[Any]) -> Any:
        """A batch in memory of its own."""
        with torch.no_grad():
            batch = move(self.pipeline.collate(list(samples)), self.device)
        return rebuilt(batch, lambda _, leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf)

    def _predict(self, batch: Any) -> Any:
        with torch.enable_grad():  # a model may take a gradient on its way
            return call(self.pipeline, self.pipeline.model, batch)

    def record(self, found: LossRecord) -> LossRecord:
        """Probe.

        Raises:
            Exception: Whatever the user's code raises for the batch as it is.
        """
        batch = self._batch(self.samples)
        with Reads(batch) as by_model:
            predictions = self._predict(batch)
        n = len(self.samples)
        probe = Probe(self.pipeline, batch, predictions, n=n, seed=self.seed)
        reason = self._settle(probe)
        if reason is not None:
            missing = Unjudged(name="loss", reason=reason)
            return _with(
                found,
                declared=tuple(self.pipeline.outputs),
                not_tried=(*self.not_tried, missing),
            )
        with Reads(batch) as by_loss:
            probe.value(probe.values)
        fewer = self._fewer() if n > 2 else {}
        self._find_rows(probe, fewer)
        targets: Targets | None = self._try(
            "targets",
            lambda: look_at_targets(probe, by_model.seen, by_loss.seen, n, fewer),
        )
        rows: Rows | None = None
        if targets is not None:
            by_samples, seen = self.by_samples, targets
            rows = self._try("rows", lambda: look_at_rows(probe, seen, by_samples=by_samples))
        spaces = spaces_of(self.pipeline, probe)
        idle = self._try("columns of the targets", lambda: self._idle(probe, targets, spaces), ())
        points, best = self._points(probe, spaces, targets)
        if targets is not None and rows is not None and (not rows.own or rows.permuted < ALIKE):
            # Where all predictions lie on one side of all truths, |p - t| has but one slope; where
            # they are alike, as those of a last layer of zeros, no loss tells one from another.
            near = _among(probe.values if best is None else best, spaces)
            seen = targets
            again = self._try(
                "rows",
                lambda: look_at_rows(probe, seen, by_samples=self.by_samples, values=near),
            )
            rows = again if again is not None else rows
        swept: list[Sweep] = []
        if best is not None:
            few = probe.left < 1500
            swept = self._try("sweeps", lambda: list(sweeps(probe, best, spaces, few=few)), [])
        names = {
            (path, column): name
            for path, of in declared(self.pipeline, probe).items()
            for column, name in of.items()
        }
        closed: list[Seam] = self._try(
            "seams", lambda: list(seams(probe, probe.values, spaces, names)), []
        )
        return _with(
            found,
            outputs=tuple(probe.values),
            declared=tuple(self.pipeline.outputs),
            periodic=tuple(k for k, domain in self.pipeline.outputs.items() if domain.periodic),
            targets=targets,
            rows=rows,
            foresight=self._foresight(probe, targets),
            crossed=self._try("pairs of rows", lambda: crossed(probe)),
            idle=idle,
            unused=self._try("unused outputs", lambda: self._unused(probe), ()),
            points=tuple(points),
            sweeps=tuple(swept),
            seams=tuple(closed),
            rotations=self._try(
                "rotations",
                lambda: tuple(rotations(probe, spaces, targets)),
                (),
            ),
            metrics=self._metrics(probe, targets, best),
            doubled=self._try("batch of each sample twice", lambda: self._doubled(probe)),
            evaluations=probe.evaluations,
            not_tried=tuple(self.not_tried),
        )

    def _settle(self, probe: Probe) -> str | None:
        """Why the loss cannot be probed; None where it can."""
        if not probe.values:
            return "no floating-point tensor among the predictions"
        if probe.of_distribution:
            return "it goes by a distribution, whose parameters are not free: a scale is above 0"
        try:
            probe.settle()
            if not probe.values:
                return "it has no slope by the predictions, held by themselves"
            first, second = probe.slopes(probe.values), probe.slopes(probe.values)
        except Exception as error:
            return f"away from the model, {reason_of(error, self.pipeline)}"
        if all(value.numel() == 1 for value in probe.values.values()) and probe.n > 1:
            return "it is what the model gives: what it is made of lies inside the model"
        if probe.moved(first, second) > 0:
            return "it does not repeat: it draws random numbers of its own or changes its batch"
        if not abs(first[0]) < float("inf"):
            return "it is not finite for the predictions as they are"
        return None

    def _fewer(self) -> dict[str, tuple[int, ...]]:
        """Shapes of batch and predictions of one sample less; the latter as `predictions.path`."""

        def run() -> dict[str, tuple[int, ...]]:
            batch = self._batch(self.samples[:-1])
            shapes = {path: tuple(tensor.shape) for path, tensor in leaves(batch)}
            given = self._predict(batch)
            return shapes | {f"predictions.{p}": tuple(t.shape) for p, t in leaves(given)}

        return dict(self._try("one sample less", run, {}))

    def _find_rows(self, probe: Probe, fewer: dict[str, tuple[int, ...]]) -> None:
        """Tensors of the predictions whose first axis is the samples, or else of one length."""
        n = len(self.samples)
        of_samples = [
            path
            for path, value in probe.values.items()
            if value.ndim
            and value.shape[0] == n
            and fewer.get(f"predictions.{path}", (0,))[:1] == (n - 1,)
        ]
        self.by_samples = bool(of_samples) and len(of_samples) == len(probe.values)
        lengths = {value.shape[0] for value in probe.values.values() if value.ndim}
        whole = all(value.ndim for value in probe.values.values())
        if self.by_samples or (whole and len(lengths) == 1):
            probe.rows = list(probe.values)

    def _points(
        self, probe: Probe, spaces: Any, targets: Targets | None
    ) -> tuple[list[Point], dict[str, Tensor] | None]:
        finder = Finder(probe, spaces, targets)
        finder.matched()
        steps = max(20, min(STEPS, probe.left // 8))
        best: list[dict[str, Tensor]] = self._try(
            "best predictions", lambda: finder.best(steps), []
        )
        found: list[Point] = []
        for values in best:
            found += self._look(probe, "best", values, spaces)
        bounded = all(
            spaces[path].bounded or spaces[path].closed(width_of(value))
            for path, value in probe.values.items()
        )
        if bounded:
            ended = self._try("opposite predictions", lambda: finder.walk(-1.0, steps))
            if ended is not None:
                for values in [ended[0], *ended[1][:1]]:
                    found += self._look(probe, "opposite", values, spaces)
        if all(s.kind == "columns" and not (s.positive or s.domains) for s in spaces.values()):
            zero = {path: torch.zeros_like(value) for path, value in probe.values.items()}
            found += self._look(probe, "zero", zero, spaces)
        # Sweeps go out from where slopes are finite, if there is such a place.
        clean = [v for v in best if abs(probe.value(v)) < float("inf")]
        return found, min(clean, key=probe.value, default=None)

    def _look(self, probe: Probe, where: Where, values: Any, spaces: Any) -> list[Point]:
        point = self._try(f"{where} predictions", lambda: look_at(probe, where, values, spaces))
        return [] if point is None else [point]

    def _idle(
        self, probe: Probe, targets: Targets | None, spaces: dict[str, Space]
    ) -> tuple[IdleColumn, ...]:
        """Columns of the targets that the loss leaves out."""
        if targets is None:
            return ()
        return idle_columns(probe, targets, spaces, list(self.pipeline.outputs))

    def _foresight(self, probe: Probe, targets: Targets | None) -> Foresight | None:
        """Whether predictions of what comes next read it."""
        if targets is None:
            return None

        def predict(batch: Any) -> Any:
            probe.begin()
            return self._predict(batch)

        seen = targets
        found: Foresight | None = self._try(
            "predictions of what comes next", lambda: foresight(probe, seen, predict)
        )
        return found

    def _metrics(
        self, probe: Probe, targets: Targets | None, best: dict[str, Tensor] | None
    ) -> tuple[MetricSeen, ...]:
        """Metrics of the pipeline beside the loss."""
        metric = self.pipeline.metric
        if metric is None:
            return ()
        with companions_kept((metric,), self.pipeline.model):
            least = probe.value(best) if best is not None else -math.inf
            fitted = functools.partial(self._fitted, least)
            return tuple(
                self._try("metric", lambda: look_at_metrics(probe, targets, best, fitted), ())
            )

    def _fitted(self, least: float) -> Any:
        """Predictions of the model after some steps on the batch; it is left as it was found.

        Args:
            least: The smallest loss: a third of the way to it is enough.
        """
        model, batch = self.pipeline.model, self._batch(self.samples)
        with preserved(model), torch.enable_grad():
            optimizer = torch.optim.Adam([p for p in weights_of(model) if p.requires_grad], RATE)
            first: float | None = None
            for _ in range(FITTING):
                optimizer.zero_grad()
                loss = self.pipeline.loss(self._predict(batch), batch)
                first = float(loss.detach()) if first is None else first
                if 3 * float(loss.detach()) < 2 * first + least:
                    break
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            given = self._predict(batch)
        return rebuilt(given, lambda _, leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf)

    def _unused(self, probe: Probe) -> tuple[str, ...]:
        """Declared output columns of a table that have no slope, at three sets of predictions."""
        names = declared(self.pipeline, probe)
        idle: dict[str, bool] = {}
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            values = {
                path: value + step * 0.1 * torch.randn(value.shape, generator=generator).to(value)
                for path, value in probe.values.items()
            }
            _, slopes = probe.slopes(values)
            for path, columns in names.items():
                # A tensor that the loss leaves alone as a whole may be what another is made of.
                if path not in slopes or len(columns) < 2:
                    continue
                for column, name in columns.items():
                    still_idle = not bool(column_of(slopes[path], column).any())
                    idle[name] = idle.get(name, True) and still_idle
        return tuple(name for name, it_is in idle.items() if it_is)

    def _doubled(self, probe: Probe) -> float | None:
        """The loss of each sample twice over that of each once."""
        batch = self._batch([*self.samples, *self.samples])
        with torch.no_grad():
            twice = float(self.pipeline.loss(self._predict(batch), batch))
        once = probe.value(probe.values)
        return twice / once if once else None
