"""One training step, from reading samples to the optimizer, as the pipeline would take it."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from icediag.errors import IcediagError
from icediag.instruments.running.kept import read_once
from icediag.instruments.running.preserve import is_lazy
from icediag.instruments.running.stages import FunctionStage, resolve
from icediag.instruments.trees.walk import move
from icediag.pipeline import Pipeline

from .spans import Spans, marked


class Stepper:
    """Takes steps. The weights move; whoever calls this restores them (`preserve`).

    Args:
        pipeline: Whose step.
        samples: The first samples of its data set, for a data set that gives them only once.
        stages: Functions to mark.
        device: Where the model is.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        samples: list[Any],
        stages: list[FunctionStage],
        device: torch.device,
    ) -> None:
        self.pipeline = pipeline
        self.samples = samples
        self.device = device
        self.stages = _marked_stages(pipeline, stages)
        self.optimizer: Any = None
        self._made = False

    def fetch(self, n: int) -> list[Any]:
        """The first `n` samples, read as a DataLoader reads them."""
        dataset = self.pipeline.dataset
        if by_index(dataset):
            many = getattr(dataset, "__getitems__", None)
            if callable(many):
                return list(many(list(range(n))))
            return [dataset[i] for i in range(n)]
        if one_shot(dataset):
            return self.samples[:n]
        return list(itertools.islice(iter(dataset), n))

    def step(self, n: int, spans: Spans | None = None) -> None:
        """A whole step on the first `n` samples."""
        self.on_batch(self.batch(n, spans), spans)

    @contextmanager
    def marks(self, spans: Spans) -> Iterator[None]:
        """Mark the stages of steps that are taken while the block runs.

        Apart from the steps themselves, because finding the places takes its time.
        """
        with (
            marked(spans, self.stages, self.pipeline.model),
            _marked_optimizer(spans, self.optimizer),
        ):
            yield

    def batch(self, n: int, spans: Spans | None = None) -> Any:
        """A batch of the first `n` samples, on the device."""
        dataset = self.pipeline.dataset
        names = ("__getitems__", "__getitem__") if by_index(dataset) else ("__iter__",)
        owner = next((f for name in names if (f := getattr(type(dataset), name, None))), None)
        with _span(spans, "dataset item", "item", owner):
            samples = self.fetch(n)
        with _span(spans, "collate", "collate", self.pipeline.collate):
            batch = self.pipeline.collate(samples)
        with _span(spans, "transfer", "transfer"):
            return move(batch, self.device)

    def on_batch(self, batch: Any, spans: Spans | None = None) -> None:
        """Forward, loss, backward and, where there is an optimizer, its step."""
        self._make_optimizer(batch)
        model = self.pipeline.model
        with torch.enable_grad():
            if self.pipeline.train_step is not None:
                self.pipeline.train_step(model, batch, self.optimizer)
                return
            closure = functools.partial(self._losses, batch, spans)
            if self.optimizer is None:
                closure()
            elif _needs_closure(self.optimizer):
                self.optimizer.step(closure)
            else:
                closure()
                self.optimizer.step()

    def _losses(self, batch: Any, spans: Spans | None) -> Tensor:
        model = self.pipeline.model
        if self.optimizer is not None:
            self.optimizer.zero_grad()
        elif isinstance(model, nn.Module):
            model.zero_grad()
        forward = self.pipeline.forward or _call
        predictions = forward(model, batch)
        with _span(spans, "loss", "loss", self.pipeline.loss):
            loss = self.pipeline.loss(predictions, batch)
        if loss.requires_grad:
            torch.autograd.backward(loss)
        return loss

    def _make_optimizer(self, batch: Any) -> None:
        """Once: a lazy model has its parameters only after it was called."""
        if self._made:
            return
        model = self.pipeline.model
        if isinstance(model, nn.Module):
            if any(is_lazy(parameter) for parameter in model.parameters()):
                with torch.no_grad():
                    (self.pipeline.forward or _call)(model, batch)
            if self.pipeline.optimizer is not None:
                self.optimizer = self.pipeline.optimizer(model.parameters())
        self._made = True


def _call(model: Any, batch: Any) -> Any:
    return model(batch)


def by_index(dataset: Any) -> bool:
    """Whether samples are taken by index; torch gives iterable data sets a `__getitem__` too."""
    if isinstance(dataset, IterableDataset):
        return False
    return hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")


def one_shot(dataset: Any) -> bool:
    """Whether a data set gives its samples only once."""
    return not by_index(dataset) and read_once(dataset)


def _span(spans: Spans | None, name: str, kind: Any, owner: Any = None) -> Any:
    return nullcontext() if spans is None else spans.span(name, kind, owner)


def _needs_closure(optimizer: Any) -> bool:
    """Whether `step` cannot be called without one, as that of L-BFGS."""
    try:
        parameters = inspect.signature(optimizer.step).parameters
    except (TypeError, ValueError):
        return False
    closure = parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _marked_stages(pipeline: Pipeline, stages: list[FunctionStage]) -> list[FunctionStage]:
    """Stages without what is marked anyway; with the loss, where the user's own step calls it."""
    own = [_bare(pipeline.collate)]
    if pipeline.train_step is None:
        own.append(_bare(pipeline.loss))
    kept = [stage for stage in stages if not any(stage.function is function for function in own)]
    if pipeline.train_step is not None:
        loss = _bare(pipeline.loss)
        known = any(stage.function is loss for stage in kept)
        name = f"{getattr(loss, '__module__', '')}:{getattr(loss, '__qualname__', '')}"
        if not known and "<" not in name and not isinstance(loss, nn.Module):
            try:
                found = resolve(name)
            except IcediagError:
                return kept
            if found.function is loss:
                kept.append(found)
    return kept


def _bare(function: Any) -> Any:
    """The function within a bound method or a partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


@contextmanager
def _marked_optimizer(spans: Spans, optimizer: Any) -> Iterator[None]:
    step: Callable[..., Any] | None = getattr(optimizer, "step", None)
    if step is None or not hasattr(optimizer, "__dict__"):
        yield
        return
    before = vars(optimizer).get("step")

    @functools.wraps(step)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        with spans.span("optimizer", "optimizer"):
            return step(*args, **kwargs)

    optimizer.step = stand_in
    try:
        yield
    finally:
        if before is None:
            del optimizer.step
        else:
            optimizer.step = before
