"""What is diagnosed: a training pipeline, described once, by its own parts."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Domain:
    """The values an output column may take.

    Attributes:
        low: Smallest allowed value.
        high: Largest allowed value, above `low`.
        periodic: Whether `low` and `high` are the same point, as 0 and 2 pi of an azimuth.
    """

    low: float
    high: float
    periodic: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Domain: expected low < high, got {self.low} and {self.high}")
        if self.periodic and not math.isfinite(self.high - self.low):
            raise ValueError(f"Domain: expected a finite period, got {self.low} to {self.high}")


@dataclass(frozen=True)
class Raw:
    """A contract: this argument carries a raw column, not a normalised one.

    In `Pipeline.contracts`, or in a signature: `Annotated[Tensor, Raw("time", unit="ns")]`.

    Attributes:
        column: Its name in `Pipeline.raw`.
        unit: The unit it is in, e.g. "ns".
    """

    column: str
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A training pipeline: data set, collate, model, loss; everything else is optional.

    Nothing here is run when it is made, and the user's code is never edited.

    Attributes:
        name: What reports call it.
        dataset: `len()` and `[i]`, or any iterable of samples.
        collate: list of samples -> batch: any tree of tensors.
        model: An `nn.Module`, called as `model(batch)` unless `forward` is given.
        loss: (predictions, batch) -> scalar tensor.
        forward: (model, batch) -> predictions.
        optimizer: parameters -> optimizer.
        batch_size: Samples a batch in training, at least 1.
        outputs: The `Domain` of each output: in the order of the columns of a prediction tensor, or
            by the names of the fields of a prediction tree.
        baseline_loss: The loss of a predictor that knows nothing.
        stages: Functions to record beside the modules, each as "module:qualified.name".
        contracts: Where signatures cannot be annotated: "module:Class" or "module:function" ->
            argument, `argument.field` or `return` -> contract. A contract is an annotation
            (`Float[Tensor, "pulses"]`, `Annotated[...]`), a constraint of annotated-types
            (`Ge(0)`, `Unit("ns")`), a `Raw`, or a tuple of these. It adds to what the signature
            says; a shape that is stated here takes its place.
        raw: The raw columns that `Raw` and provenance speak of: name -> (batch -> column).
        sources: Import names of packages whose lines count as the user's own.
        event_of: batch -> which event each row of each tensor belongs to, where it cannot be
            inferred.
        validation: A second data set, like `dataset`.
        train_step: (model, batch, optimizer) -> loss: the user's own step, diagnosed as it is.
        loader: () -> DataLoader: the user's own sampler, workers and order.
        metric: (predictions, batch) -> number, or name -> number: what models are chosen by. Its
            order of predictions is held against the loss's.
        save: (path, model, optimizer) -> nothing: writes the user's checkpoint to a file.
        load: (path, model, optimizer) -> nothing: puts it into a model and an optimizer that are
            made anew. What the two hold beside these, such as a schedule, they may save too.
    """

    name: str
    dataset: Any
    collate: Callable[[list[Any]], Any]
    model: Any
    loss: Callable[[Any, Any], "Tensor"]
    forward: Callable[[Any, Any], Any] | None = None
    optimizer: Callable[[Any], Any] | None = None
    batch_size: int = 256
    outputs: Mapping[str, Domain] = field(default_factory=dict)
    baseline_loss: float | None = None
    stages: tuple[str, ...] = ()
    contracts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    raw: Mapping[str, Callable[[Any], "Tensor"]] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    event_of: Callable[[Any], Any] | None = None
    validation: Any = None
    train_step: Callable[[Any, Any, Any], "Tensor"] | None = None
    loader: Callable[[], Any] | None = None
    metric: Callable[[Any, Any], Any] | None = None
    save: Callable[[Any, Any, Any], Any] | None = None
    load: Callable[[Any, Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        for name in ("collate", "model", "loss"):
            if not callable(getattr(self, name)):
                raise ValueError(
                    f"Pipeline.{name}: expected something callable, got "
                    f"{type(getattr(self, name)).__name__}"
                )
        for name in ("model", "loss"):
            value = getattr(self, name)
            if isinstance(value, type):
                raise ValueError(
                    f"Pipeline.{name}: expected one that is made, such as {value.__name__}(), got "
                    f"the class {value.__name__} itself"
                )
        functions = ("forward", "optimizer", "event_of", "train_step", "loader", "metric")
        for name in (*functions, "save", "load"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise ValueError(
                    f"Pipeline.{name}: expected a function or None, got {type(value).__name__}"
                )
        if (self.save is None) != (self.load is None):
            raise ValueError("Pipeline.save and Pipeline.load: expected both or none, got one")
        if not hasattr(self.dataset, "__getitem__") and not hasattr(self.dataset, "__iter__"):
            raise ValueError(
                "Pipeline.dataset: expected len() and [i], or an iterable, got "
                f"{type(self.dataset).__name__}"
            )
        # Where torch's loaders are not even imported it is none of them.
        loaders = getattr(sys.modules.get("torch.utils.data"), "DataLoader", ())
        if isinstance(self.dataset, loaders) and self.dataset.batch_sampler is not None:
            raise ValueError(
                "Pipeline.dataset: expected a data set of single samples, got a DataLoader, which "
                "gives batches: hand over its data set, and the loader itself as Pipeline.loader"
            )
        if isinstance(self.batch_size, bool) or not isinstance(self.batch_size, int):
            raise ValueError(
                f"Pipeline.batch_size: expected a whole number, got {self.batch_size!r}"
            )
        if self.batch_size < 1:
            raise ValueError(f"Pipeline.batch_size: expected 1 or more, got {self.batch_size}")
        for name in ("stages", "sources"):
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"Pipeline.{name}: expected a tuple of names, got {value!r}")
        for owner, arguments in self.contracts.items():
            if ":" not in owner or not isinstance(arguments, Mapping):
                raise ValueError(
                    "Pipeline.contracts: expected 'module:Class' -> argument -> contract, got "
                    f"{owner!r} -> {arguments!r}"
                )
        for stage in self.stages:
            module, _, qualified = stage.partition(":")
            if not module or not qualified:
                raise ValueError(
                    f"Pipeline.stages: expected 'module:qualified.name', got {stage!r}"
                )
