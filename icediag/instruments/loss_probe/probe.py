"""The loss as a function of its predictions alone: values and slopes, as often as is wanted."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.recorder.births import BirthWatch
from icediag.instruments.recorder.flow import Flow
from icediag.instruments.running.lab import difference
from icediag.instruments.running.modes import seed_all
from icediag.instruments.running.operations import OperationMode
from icediag.instruments.trees.rebuild import rebuilt
from icediag.instruments.trees.walk import MAX_DEPTH, children, leaves
from icediag.instruments.work.own import Own
from icediag.pipeline import Pipeline
from icediag.records.births import Birth

#: path -> values of each tensor of the predictions that the loss is differentiable by.
Values = dict[str, Tensor]
#: Dispatched operations that all evaluations of one loss may take together: some seconds.
OPERATIONS = 400_000
#: Evaluations that are always made, and that are never exceeded.
FEWEST, MOST = 300, 6000


class Operations(OperationMode):
    """Counts dispatched operations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count it and run it."""
        self.count += 1
        return func(*args, **(kwargs or {}))


class Probe:
    """Evaluates the loss at predictions of our choice.

    Args:
        pipeline: Whose loss.
        batch: The batch.
        predictions: What the model gives for it.
        n: Samples in the batch.
        seed: Of the random generators, before each evaluation.

    Attributes:
        predictions: What the model gives, as it is.
        every: The model's predictions, all tensors of them.
        values: Of these, the tensors that the loss has a slope by.
        rows: Those of them whose first axis is the samples, see `find_rows`.
        evaluations: How many were made.
        of_distribution: Whether the predictions hold a distribution.
    """

    def __init__(
        self, pipeline: Pipeline, batch: Any, predictions: Any, *, n: int, seed: int
    ) -> None:
        self.pipeline, self.batch, self.n = pipeline, batch, n
        self.predictions = predictions
        seed_all(seed)
        self._random = torch.get_rng_state()
        self.evaluations = 0
        self.cost = 1
        every = {
            path: tensor.detach().clone()
            for path, tensor in leaves(predictions)
            if tensor.is_floating_point()
            and tensor.layout == torch.strided
            and not tensor.is_nested
            and tensor.numel()
        }
        self.every, self.values = every, every
        self.of_distribution = _holds_distribution(predictions)
        self.rows: list[str] = []

    def settle(self) -> None:
        """Keep the tensors that the loss has a slope by, and count what an evaluation costs.

        Raises:
            Exception: Whatever the user's loss raises.
        """
        operations = Operations()
        with operations:
            _, slopes = self.slopes(self.values)
        self.cost = max(1, operations.count)
        self.values = {path: self.values[path] for path in slopes}

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        return max(FEWEST, min(MOST, OPERATIONS // self.cost)) - self.evaluations

    def begin(self) -> None:
        """Put the random numbers back to where every evaluation begins."""
        torch.set_rng_state(self._random)

    def _call(self, values: Mapping[str, Tensor], batch: Any) -> Tensor:
        self.evaluations += 1

        def change(path: str, leaf: Any) -> Any:
            return values.get(path, leaf) if isinstance(leaf, Tensor) else leaf

        # Much cheaper than to seed anew; losses draw from torch's generator if from any.
        self.begin()
        given = rebuilt(self.predictions, change)
        loss = self.pipeline.loss(given, self.batch if batch is None else batch)
        return loss.reshape(())

    def value(self, values: Mapping[str, Tensor], batch: Any = None) -> float:
        """The loss."""
        with torch.no_grad():
            return float(self._call(values, batch))

    def slopes(self, values: Mapping[str, Tensor], batch: Any = None) -> tuple[float, Values]:
        """The loss and its slope by each tensor of the predictions that it has one by."""
        with torch.enable_grad():
            leaf = {path: value.detach().clone().requires_grad_() for path, value in values.items()}
            # What is written to in place must be no leaf.
            loss = self._call({path: tensor.clone() for path, tensor in leaf.items()}, batch)
            if not loss.requires_grad:
                return float(loss.detach()), {}
            found: Sequence[Tensor | None] = torch.autograd.grad(
                loss, list(leaf.values()), allow_unused=True
            )
        slopes = {path: s for path, s in zip(leaf, found, strict=True) if s is not None}
        return float(loss.detach()), slopes

    def births(self, values: Mapping[str, Tensor]) -> list[Birth]:
        """Where NaN and infinities begin at some predictions, on the way there and back.

        Raises:
            Exception: Whatever the user's loss raises.
        """
        flow = Flow(None)
        watch = BirthWatch(Own(self.pipeline), self.pipeline.model, flow)
        flow.begin("loss", "loss", self.pipeline.loss)
        try:
            with watch.looking():
                self.slopes(values)
        finally:
            flow.end()
        return list(watch.record().births)

    def moved(self, one: tuple[float, Values], other: tuple[float, Values]) -> float:
        """How far two evaluations are apart, relative to the size of slopes and loss."""
        size = max((float(s.abs().max()) for s in one[1].values() if s.numel()), default=0.0)
        apart = max(
            (difference(one[1][path], other[1][path]) for path in one[1] if path in other[1]),
            default=0.0,
        )
        by_value = abs(one[0] - other[0]) / max(abs(one[0]), 1e-30)
        return max(apart / size if size else float(apart > 0), by_value)


def _holds_distribution(tree: Any, depth: int = 0) -> bool:
    if isinstance(tree, torch.distributions.Distribution):
        return True
    return depth < MAX_DEPTH and any(
        _holds_distribution(value, depth + 1)
        for _, value in children(tree)
        if not isinstance(value, Tensor)
    )


@contextmanager
def still(model: Any) -> Iterator[None]:
    """The model in evaluation, without calling its own `train`."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    for module in modules:
        module.training = False
    yield


def with_targets(batch: Any, changes: Mapping[str, Tensor]) -> Any:
    """The batch with other tensors at some paths."""
    return rebuilt(batch, lambda path, leaf: changes.get(path, leaf))
