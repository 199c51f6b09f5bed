"""Watching: names the stage that runs, and reads the interval of everything that a stage gives."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import annotated_types
import torch
from torch import Tensor, nn

from icediag.instruments.recorder.flow import Flow, SeenStage
from icediag.pipeline import Pipeline
from icediag.recording import Location, Role
from icediag.records.bounds import StageBounds

from .propagate import Propagation


@dataclass(frozen=True)
class Given:
    """A tensor that a stage gave.

    Attributes:
        storage: Which storage it lies in.
        stage: Name of the stage.
        location: Where the stage begins.
        kept: The tensor itself, so that the storage is not used again.
    """

    storage: int
    stage: str
    location: Location | None
    kept: Tensor


@dataclass(frozen=True)
class Limit:
    """A range that a signature states of an argument.

    Attributes:
        tensor: The argument.
        low: Smallest allowed value, None where nothing is said.
        high: Largest allowed value.
    """

    tensor: Tensor
    low: float | None
    high: float | None


class BoundFlow(Flow):
    """A flow that notes intervals instead of values.

    Args:
        contracts: Of the pipeline.
    """

    def __init__(self, contracts: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(None)
        self.propagation: Propagation | None = None
        self.given: list[Given] = []
        self.limits: list[Limit] = []
        self.order: list[str] = []
        self._contracts = contracts
        self._ends: dict[tuple[str, str], tuple[float, float, bool]] = {}
        self._owners: dict[str, str] = {}

    def begin(self, name: str, kind: Any, owner: Any = None) -> SeenStage:
        """Enter a stage."""
        kind_of = type(owner) if isinstance(owner, nn.Module) else owner
        module, qualified = (
            getattr(kind_of, "__module__", ""),
            getattr(kind_of, "__qualname__", ""),
        )
        self._owners[name] = f"{module}:{qualified}"
        stage = super().begin(name, kind, owner)
        if isinstance(owner, nn.Module) and any(True for _ in owner.parameters(recurse=False)):
            self.order = [other for other in self.order if other != name] + [name]
        return stage

    def current(self) -> str:
        """Name of the innermost stage."""
        return self.innermost[-1] if self.innermost else "model"

    def note_tensor(
        self, stage: SeenStage, role: Role, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Note the interval of an output, and the declared range of an input."""
        if role == "in":
            declared = self._contracts.get(self._owners.get(stage.name, ""), {}).get(path)
            low, high = limits_of(annotation)
            also_low, also_high = limits_of(declared)
            low, high = (
                (low if also_low is None else also_low),
                (high if also_high is None else also_high),
            )
            if low is not None or high is not None:
                self.limits.append(Limit(tensor.detach(), low, high))
            return
        if role != "out" or self.propagation is None or not tensor.is_floating_point():
            return
        if tensor.is_nested or tensor.layout != torch.strided:
            return
        with self.propagation.aside():
            self._read(self.propagation, stage, path, tensor)

    def _read(self, propagation: Propagation, stage: SeenStage, path: str, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()._cdata  # noqa: SLF001 - its identity
        self.given.append(Given(storage, stage.name, stage.location, tensor.detach()))
        if not tensor.numel():
            return
        ends = propagation.shadows.interval(tensor)
        low, high = float(ends.lo.amin()), float(ends.hi.amax())
        shadow = propagation.shadows.of(tensor)
        proved = (shadow is None or not shadow.unproved) and not propagation.escaped
        before = self._ends.get((stage.name, path), (low, high, True))
        self._ends[stage.name, path] = (
            min(low, before[0]),
            max(high, before[1]),
            proved and before[2],
        )

    def stage_bounds(self) -> tuple[StageBounds, ...]:
        """Intervals of what all stages gave, in the order in which they first gave it."""
        return tuple(
            StageBounds(stage=stage, path=path, low=low, high=high, proved=proved)
            for (stage, path), (low, high, proved) in self._ends.items()
        )

    def giver_of(self, tensor: Tensor) -> Given | None:
        """The innermost stage of the user's own that gave a tensor; else any that did."""
        storage = tensor.untyped_storage()._cdata  # noqa: SLF001 - its identity
        givers = [given for given in self.given if given.storage == storage]
        own = [g for g in givers if g.location is not None and not _of_torch(g.location.file)]
        return next(iter(own), None) or next(iter(givers), None)


def _of_torch(file: str) -> bool:
    return file.startswith("torch/")


def limits_of(annotation: Any) -> tuple[float | None, float | None]:
    """Smallest and largest allowed value of an annotation; None where it does not say.

    Ends that are not themselves allowed (`Gt`, `Lt`) say nothing of what can be reached.
    """
    low: float | None = None
    high: float | None = None
    for item in _metadata(annotation):
        at_least = (
            item.ge if isinstance(item, (annotated_types.Ge, annotated_types.Interval)) else None
        )
        at_most = (
            item.le if isinstance(item, (annotated_types.Le, annotated_types.Interval)) else None
        )
        if isinstance(at_least, (int, float)):
            low = float(at_least)
        if isinstance(at_most, (int, float)):
            high = float(at_most)
    return low, high


def _metadata(annotation: Any) -> list[Any]:
    if annotation is None:
        return []
    if isinstance(annotation, (list, tuple)):
        return [found for item in annotation for found in _metadata(item)]
    inside = getattr(annotation, "__metadata__", None)
    if inside is not None:
        return list(inside)
    arguments = typing.get_args(annotation)
    optional = [a for a in arguments if hasattr(a, "__metadata__")]
    if optional:
        return [found for item in optional for found in item.__metadata__]
    return [annotation]


def contracts_of(pipeline: Pipeline) -> Mapping[str, Mapping[str, Any]]:
    """The pipeline's contracts."""
    return pipeline.contracts
