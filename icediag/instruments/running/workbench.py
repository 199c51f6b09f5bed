"""Workbench: short trainings on the user's own model, after which all is as it was found."""

import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from icediag.errors import IcediagError
from icediag.instruments.recorder.flow import Flow
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.walk import leaves, move
from icediag.pipeline import Pipeline
from icediag.recording import Unjudged

from .companions import companions_kept, generators_kept, kept_optimizer
from .modes import eager, seed_all, train_mode
from .preserve import is_lazy, preserved, unchanged
from .reasons import reason_of
from .samples import read_samples
from .still import without_dropout

#: Adam (Kingma and Ba, arXiv:1412.6980) at its own default, where no optimizer is given.
DEFAULT_RATE = 1e-3

Step = Callable[[], float]


@dataclass
class Curve:
    """Losses of a training: before each step, and after the last where that was asked for."""

    losses: list[float] = field(default_factory=list)
    rate: float | None = None
    optimizer: str = ""
    failure: str | None = None


class Batches:
    """One batch that is handed out again and again, collated anew where it was written to."""

    def __init__(self, collate: Callable[[], Any]) -> None:
        self._collate = collate
        self._batch: Any = None
        self._versions: list[int] = []

    def __call__(self) -> Any:
        """The batch as collate gave it."""
        if self._batch is None or self._now() != self._versions:
            self._batch = self._collate()
            self._versions = self._now()
        return self._batch

    def _now(self) -> list[int]:
        return [
            -1 if tensor.is_inference() else tensor._version  # noqa: SLF001 - the only way
            for _, tensor in leaves(self._batch)
        ]


class Workbench:
    """A pipeline made ready for short trainings. Made by `workbench`.

    Args:
        pipeline: What is trained.
        samples: Of its data set.
        device: Where the model is.
        seed: Every step begins with it, so that steps on a batch differ by the weights alone.
    """

    def __init__(
        self, pipeline: Pipeline, samples: list[Any], device: torch.device, seed: int
    ) -> None:
        self.pipeline, self.samples, self.device, self.seed = pipeline, samples, device, seed
        self.model: Any = pipeline.model
        #: The batch that is under way.
        self.current: Any = None

    def batches(self, indices: list[int]) -> Batches:
        """A batch of some samples."""

        def collate() -> Any:
            seed_all(self.seed)
            picked = [self.samples[i] for i in indices]
            with unchanged(picked):
                return move(self.pipeline.collate(picked), self.device)

        return Batches(collate)

    def predict(self, batch: Any) -> Any:
        """Forward, with the same random numbers every time."""
        seed_all(self.seed)
        self.current = batch
        forward = self.pipeline.forward
        return self.model(batch) if forward is None else forward(self.model, batch)

    def loss(self, batch: Any) -> Tensor:
        """Forward and loss."""
        return self.pipeline.loss(self.predict(batch), batch)

    def make_optimizer(
        self, *, rate: float | None = None, default: bool = False
    ) -> torch.optim.Optimizer:
        """The pipeline's optimizer, or Adam on everything that asks for a gradient.

        Args:
            rate: The largest learning rate of its groups; the others keep their proportion.
            default: Take Adam although the pipeline has one.
        """
        parameters = list(self.model.parameters())
        if self.pipeline.optimizer is None or default:
            asked = [p for p in parameters if p.requires_grad]
            return torch.optim.Adam(asked, lr=rate or DEFAULT_RATE)
        optimizer: torch.optim.Optimizer = self.pipeline.optimizer(parameters)
        if rate is not None:
            own = rate_of(optimizer)
            for group in getattr(optimizer, "param_groups", ()):
                group["lr"] = rate * (float(group["lr"]) / own if own else 1.0)
        return optimizer

    @contextmanager
    def from_here(self) -> Iterator[None]:
        """What is trained within is forgotten at the end."""
        pipeline = self.pipeline
        steps = (pipeline.train_step, pipeline.optimizer, pipeline.forward, pipeline.loss)
        functions = (*steps, pipeline.save, pipeline.load)
        with preserved(self.model), companions_kept(functions, self.model):
            yield

    @contextmanager
    def stepping(
        self, batch: Batches, *, own: bool = True, **optimizer: Any
    ) -> Iterator[tuple[Step, torch.optim.Optimizer]]:
        """Steps on a batch, and their optimizer; the weights are put back at the end.

        Args:
            batch: What to train on.
            own: Whether the user's `train_step` is used where there is one.
            **optimizer: See `make_optimizer`.
        """
        with self.from_here(), ExitStack() as stack:
            made = self.make_optimizer(**optimizer)
            kept_optimizer(made, stack)
            yield self.step_of(made, batch, own), made

    def step_of(self, optimizer: Any, batch: Batches, own: bool = True) -> Step:
        """A step of an optimizer on a batch: the user's own where there is one and it is wanted."""
        train_step = self.pipeline.train_step
        if own and train_step is not None:
            its_own: Callable[..., Any] = train_step

            def user_step() -> float:
                seed_all(self.seed)
                self.current = batch()
                given = its_own(self.model, self.current, optimizer)
                return _number(given) if given is not None else self.value(batch)

            return user_step
        closes = wants_closure(optimizer)

        def plain_step() -> float:
            first: list[float] = []

            def closure() -> Tensor:
                optimizer.zero_grad()
                loss = self.loss(batch())
                loss.backward()  # type: ignore[no-untyped-call]
                first.append(_number(loss))
                return loss

            if closes:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
            return first[0]

        return plain_step

    def value(self, batch: Batches) -> float:
        """The loss as it stands, without a step."""
        with torch.no_grad():
            return _number(self.loss(batch()))

    def train(
        self,
        batch: Batches,
        *,
        steps: int,
        stop: Callable[[list[float]], bool] = lambda _: False,
        after: Callable[[], None] = lambda: None,
        **how: Any,
    ) -> Curve:
        """Train on one batch.

        Args:
            batch: On what.
            steps: At most this many.
            stop: Told the losses after each step.
            after: Called with the trained weights in place.
            **how: See `stepping`.
        """
        curve = Curve()
        try:
            with torch.enable_grad(), self.stepping(batch, **how) as (step, optimizer):
                curve.rate, curve.optimizer = rate_of(optimizer), type(optimizer).__name__
                for _ in range(steps):
                    curve.losses.append(step())
                    if not math.isfinite(curve.losses[-1]) or stop(curve.losses):
                        break
                if math.isfinite(curve.losses[-1]):
                    curve.losses.append(self.value(batch))
                after()
        except IcediagError:
            raise
        except Exception as error:
            curve.failure = reason_of(error, self.pipeline)
        return curve

    def seconds(self, batch: Batches) -> float:
        """What one forward and backward pass takes; the weights are left alone.

        Of wall and processor time the shorter: the first grows with what else the machine does, the
        second with the number of threads, and neither makes the step dearer.
        """
        with preserved(self.model), torch.enable_grad():
            batch()
            began, worked = time.perf_counter(), time.process_time()
            loss = self.loss(batch())
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            wall, processor = time.perf_counter() - began, time.process_time() - worked
            return wall if self.device.type != "cpu" else min(wall, processor)


@contextmanager
def workbench(
    pipeline: Pipeline, *, wanted: int, device: str, seed: int, notes: list[Unjudged]
) -> Iterator[Workbench]:
    """Read samples, switch dropout off, and put everything back at the end.

    Args:
        pipeline: What is to be trained; its model is an `nn.Module`.
        wanted: Samples.
        device: Where the model is.
        seed: Of every step.
        notes: What could not be seen is added here.

    Raises:
        IcediagError: The data set is empty or cannot be read.
    """
    run, place = Run(Flow(None)), torch.device(device)
    model = pipeline.model
    with generators_kept(pipeline), preserved(model), eager(model):
        seed_all(seed)
        train_mode(model)
        samples = read_samples(pipeline, wanted, run)
        notes.extend(item for item in run.not_judged if item.name != "batch size")
        if not samples:
            raise IcediagError("; ".join(n.reason for n in run.not_judged) or "no samples")
        bench = Workbench(pipeline, samples, place, seed)
        with unchanged(samples), without_dropout(model) as some:
            if any(is_lazy(p) for p in model.parameters()):
                with torch.no_grad():  # gives lazy parameters their shape
                    bench.predict(bench.batches(list(range(min(2, len(samples)))))())
            if some:
                notes.append(Unjudged(name="dropout", reason="off"))
            yield bench


def rate_of(optimizer: Any) -> float | None:
    """The largest learning rate of an optimizer's groups."""
    groups = getattr(optimizer, "param_groups", None) or ()
    rates = [float(group["lr"]) for group in groups if "lr" in group]
    return max(rates) if rates else None


def wants_closure(optimizer: Any) -> bool:
    """Whether an optimizer cannot step without a closure, as L-BFGS."""
    try:
        parameters = inspect.signature(type(optimizer).step).parameters
    except (TypeError, ValueError):
        return False
    closure = parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


def _number(loss: Any) -> float:
    """The loss as a number, whatever a step gives: a tensor, a number, the first of several."""
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            raise TypeError(f"expected a loss of one value, got shape {tuple(loss.shape)}")
        return float(loss.detach())
    if isinstance(loss, (int, float)):
        return float(loss)
    if isinstance(loss, dict) and "loss" in loss:
        return _number(loss["loss"])
    if isinstance(loss, (list, tuple)) and loss:
        return _number(loss[0])
    raise TypeError(f"expected the loss to be a tensor of one value, got {type(loss).__name__}")


def has_weights(model: Any) -> str | None:
    """Why there is nothing to train, or None."""
    if not isinstance(model, nn.Module):
        return f"the model is a {type(model).__name__}, not an nn.Module: nothing to train"
    if not any(True for _ in model.parameters()):
        return "the model has no parameters: nothing to train"
    if not any(p.requires_grad for p in model.parameters()):
        return "no parameter asks for a gradient: nothing to train"
    return None
