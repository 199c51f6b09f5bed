"""Repeat: the same batch twice through the model, in evaluation and in training."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.running.discover import belongs, user_packages
from icediag.instruments.running.lab import (
    Lab,
    call,
    difference,
    outputs_of,
    scale_of,
    slopes_of,
    weights_of,
)
from icediag.instruments.running.modes import seed_all, train_mode
from icediag.instruments.running.operations import OperationMode
from icediag.instruments.running.stages import relative_file
from icediag.instruments.trees.rebuild import rebuilt
from icediag.pipeline import Pipeline
from icediag.recording import Location
from icediag.records.invariances import RandomEvaluation, RepeatedTraining


def own_line(pipeline: Pipeline) -> Location | None:
    """The innermost line of the user's own packages on the stack."""
    packages = user_packages(pipeline)
    frame = inspect.currentframe()
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if belongs(module, packages):
            return Location(
                file=relative_file(frame.f_code.co_filename, module), line=frame.f_lineno
            )
        frame = frame.f_back
    return None


class _Draws(OperationMode):
    """Notes the first operation that draws random numbers."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operation: str | None = None
        self.location: Location | None = None
        self._pipeline = pipeline

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation."""
        if self.operation is None and torch.Tag.nondeterministic_seeded in func.tags:
            drawn = func(*args, **(kwargs or {}))
            given = dict(zip(_argument_names(func), args, strict=False)) | (kwargs or {})
            # A dropout that is switched off goes by the same name, and so does attention without.
            if given.get("train", True) is not False and not _drops_nothing(func, given):
                self.operation = str(func.name())
                self.location = own_line(self._pipeline)
            return drawn
        return func(*args, **(kwargs or {}))


def _drops_nothing(func: Any, given: dict[str, Any]) -> bool:
    """Whether an operation that could drop entries, such as attention, is told to drop none."""
    names = [name for name in _argument_names(func) if name in ("dropout_p", "dropout")]
    return bool(names) and all(given.get(name, 0.0) == 0.0 for name in names)


def _argument_names(func: Any) -> list[str]:
    """Names of the arguments of a dispatched operation, in order."""
    return [argument.name for argument in func._schema.arguments]  # noqa: SLF001 - no public way


def _copied(batch: Any) -> Any:
    """The batch in memory of its own: the model may write to what it gets."""
    return rebuilt(batch, lambda _, leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf)


def evaluation(lab: Lab, samples: Sequence[Any]) -> RandomEvaluation:
    """Send one batch twice through the model in evaluation, random numbers going on.

    Raises:
        Exception: Whatever the user's code raises.
    """
    pipeline = lab.pipeline
    with lab.ready(samples, native=True) as model, torch.no_grad():
        batch = lab.batch(samples)
        seed_all(lab.seed)
        draws = _Draws(pipeline)
        with draws:
            first = outputs_of(call(pipeline, model, _copied(batch)))
        first = {path: out.clone() for path, out in first.items()}
        second = outputs_of(call(pipeline, model, _copied(batch)))
        second = {path: out.clone() for path, out in second.items()}
        seed_all(lab.seed)
        third = outputs_of(call(pipeline, model, _copied(batch)))
    sizes = {
        path: difference(out, second[path])
        if path in second and second[path].shape == out.shape
        else torch.inf
        for path, out in first.items()
    }
    if not any(sizes.values()):
        return RandomEvaluation()
    worst = max(sizes, key=lambda path: sizes[path])
    return RandomEvaluation(
        output=worst,
        size=sizes[worst],
        scale=scale_of(first[worst]),
        same_seed=all(
            path in third and third[path].shape == out.shape and difference(out, third[path]) == 0
            for path, out in first.items()
        ),
        operation=draws.operation,
        location=draws.location,
    )


def training(lab: Lab, samples: Sequence[Any]) -> RepeatedTraining | None:
    """Loss and gradients of the same batch, twice from the same random numbers.

    Returns:
        None where nothing asks for a gradient.

    Raises:
        Exception: Whatever the user's code raises.
    """
    pipeline = lab.pipeline
    seen: list[tuple[float, list[Tensor | None]]] = []
    for _ in range(2):
        with lab.ready(samples, native=True, training=True) as model, torch.enable_grad():
            train_mode(model)
            batch = lab.batch(samples)
            loss = pipeline.loss(call(pipeline, model, batch), batch)
            weights = [p for p in weights_of(model) if p.requires_grad]
            if not weights or not loss.requires_grad:
                return None
            seen.append((float(loss.detach()), slopes_of(loss, weights)))
    (one, first), (other, second) = seen
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    return RepeatedTraining(
        loss=difference(torch.tensor(one), torch.tensor(other)),
        gradient=max((difference(a, b) for a, b in pairs), default=0.0),
        scale=max((scale_of(a) for a, _ in pairs), default=0.0),
    )
