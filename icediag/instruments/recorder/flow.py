"""Flow: follows one batch through modules and functions and notes every tensor it meets.

Modules are watched by hooks, functions by wrappers; both are gone afterwards. What is noted here is
plain and mutable; `record` turns it into a `Recording`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from icediag.instruments.contracts.declared import Declared, declared_in
from icediag.instruments.contracts.signatures import arguments_of, hints_of, owner_of
from icediag.instruments.running.stages import FunctionStage, location_of, wrapped
from icediag.instruments.trees.layouts import ragged_axes, sizes_of
from icediag.instruments.trees.walk import leaves
from icediag.recording import Kind, Location, Role

from .looked import Looked, version_of
from .values import Values

#: Of a stage that runs more often than this inside of another, the values of the first calls are
#: looked at: a helper called once a DOM would otherwise take longer to watch than to run.
VALUED_CALLS = 8


#: Up to this many columns of a table (pulse features, angles) are looked at one by one.
FEW_COLUMNS = 8


@dataclass
class SeenTensor:
    """One tensor at one stage, over all calls."""

    path: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    device: str
    varies: list[bool]
    numbers: list[int] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)
    annotation: Any = None


@dataclass
class SeenStage:
    """One stage, over all calls inside of the same parent."""

    name: str
    kind: Kind
    depth: int
    type: str = ""
    location: Location | None = None
    owner: str = ""
    calls: int = 0
    tensors: dict[tuple[Role, str], SeenTensor] = field(default_factory=dict)
    failed: str | None = None


class Looker(Protocol):
    """Something else that looks at the tensors of a flow."""

    def met(
        self, flow: "Flow", stage: SeenStage, role: Role, path: str, tensor: Tensor, annotation: Any
    ) -> None:
        """Told of each tensor that is noted."""
        ...


class Flow:
    """What was seen on the way, in the order in which stages began.

    Args:
        values: Where value facts are collected; None notes shapes alone.
        lookers: Told of every tensor beside.
    """

    def __init__(self, values: Values | None, lookers: Sequence[Looker] = ()) -> None:
        self.stages: dict[tuple[str, ...], SeenStage] = {}
        #: The batch itself: as an argument it is not listed again, `collate` shows it.
        self.batch: Any = None
        self._values = values
        self._lookers = lookers
        self._open: list[tuple[str, ...]] = []
        # A tensor that one stage hands to the next is looked at once.
        self._known: Looked[tuple[int, list[int]]] = Looked()
        self._awaited: Any = WeakTensorKeyDictionary()
        self._hooks = ExitStack()
        #: While the backward pass runs: what activation checkpointing computes again is no stage.
        self.paused = False

    def begin(self, name: str, kind: Kind, owner: Any = None) -> SeenStage:
        """Enter a stage; `owner` is the module or function, for its place in the source."""
        key = (*(self._open[-1] if self._open else ()), name)
        stage = self.stages.get(key)
        if stage is None:
            stage = self.stages[key] = SeenStage(name, kind, len(self._open))
            if owner is not None:
                stage.location = location_of(owner)
                stage.owner = owner_of(owner, name)
                stage.type = type(owner).__name__ if isinstance(owner, nn.Module) else ""
        stage.calls += 1
        self._open.append(key)
        return stage

    def end(self, error: BaseException | None = None) -> None:
        """Leave the stage that was entered last."""
        key = self._open.pop()
        if error is not None:
            self.stages[key].failed = type(error).__name__

    @property
    def looks(self) -> bool:
        """Whether anybody looks at the values of tensors."""
        own = type(self).note_tensor is not Flow.note_tensor
        return own or self._values is not None or bool(self._lookers)

    @property
    def innermost(self) -> tuple[str, ...] | None:
        """Names of the stages that are open, outermost first."""
        return self._open[-1] if self._open else None

    def unwind(self, depth: int) -> None:
        """Close stages that an exception left open."""
        while len(self._open) > depth:
            self.end(RuntimeError())

    def note(
        self, stage: SeenStage, role: Role, tree: Any, prefix: str = "", annotation: Any = None
    ) -> None:
        """Note every tensor of a tree as an input or output of a stage."""
        declared = declared_in(tree, annotation, prefix)
        for path, tensor in leaves(tree, prefix):
            one = declared.get(path)
            self.note_tensor(stage, role, path, tensor, one.annotation if one else None)
            self.compare(stage, role, path, tensor, one)

    def note_batch(self, stage: SeenStage, name: str, batch: Any, annotation: Any) -> None:
        """Told that a stage takes the batch itself, which `collate` shows."""

    def compare(
        self, stage: SeenStage, role: Role, path: str, tensor: Tensor, declared: Declared | None
    ) -> None:
        """Told what is declared of a tensor that was noted; `ContractFlow` compares."""

    def note_tensor(
        self, stage: SeenStage, role: Role, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Note one tensor."""
        shape = sizes_of(tensor)
        seen = stage.tensors.get((role, path))
        if seen is None:
            seen = stage.tensors[role, path] = SeenTensor(
                path,
                role,
                shape,
                str(tensor.dtype).removeprefix("torch."),
                str(tensor.device),
                ragged_axes(tensor),
                annotation=annotation,
            )
        elif len(seen.shape) == len(shape):
            seen.varies = [
                varies or old != new
                for varies, old, new in zip(seen.varies, seen.shape, shape, strict=True)
            ]
        for looker in self._lookers:
            looker.met(self, stage, role, path, tensor, annotation)
        if self._values is None or (stage.calls > VALUED_CALLS and role != "grad"):
            return
        known = self._known.get(tensor)
        if known is None:
            known = self._look(tensor)
            self._known.put(tensor, known)
        number, columns = known
        seen.numbers.append(number)
        if columns:
            seen.columns.append(columns)
        if role == "out" and tensor.requires_grad and torch.is_grad_enabled():
            self._await_gradient(stage, path, tensor)

    def _look(self, tensor: Tensor) -> tuple[int, list[int]]:
        """Look at a tensor's values, and at those of its columns if it is a table of a few."""
        assert self._values is not None
        table = tensor.layout == torch.strided and not tensor.is_nested and tensor.ndim > 1
        columns: list[int] = []
        if table and 1 < tensor.shape[-1] <= FEW_COLUMNS and tensor.dtype != torch.bool:
            columns = [self._values.add(column) for column in tensor.unbind(-1)]
        return self._values.add(tensor), columns

    def _await_gradient(self, stage: SeenStage, path: str, tensor: Tensor) -> None:
        """Have the gradient noted when the backward pass comes by, once for all that wait."""
        version, waiting = self._awaited.get(tensor, (None, None))
        # What a tensor held before it was changed in place has a gradient of its own.
        if waiting is not None and version == version_of(tensor):
            waiting.append((stage, path))
            return
        waiting = [(stage, path)]
        self._awaited[tensor] = (version_of(tensor), waiting)

        def arrived(gradient: Tensor) -> None:
            for stage, path in waiting:
                self.note_tensor(stage, "grad", path, gradient)

        # Removed in the end: the tensor may be a parameter or belong to the data set.
        handle = tensor.register_hook(arrived)  # type: ignore[no-untyped-call]
        self._hooks.callback(handle.remove)

    def close(self) -> None:
        """Take back the hooks that wait for gradients."""
        self._hooks.close()


def note_arguments(
    flow: Flow, stage: SeenStage, function: Callable[..., Any], args: Any, kwargs: Any
) -> None:
    """Note the tensors among a call's arguments under the names of the function's parameters."""
    hints = hints_of(function)
    for name, value in arguments_of(function, args, kwargs):
        if value is flow.batch and value is not None:
            flow.note_batch(stage, name, value, hints.get(name))
            continue
        flow.note(stage, "in", value, name, hints.get(name))


@contextmanager
def watched_modules(flow: Flow, model: nn.Module, skip: list[str]) -> Iterator[None]:
    """Watch every module of a model. Modules that take no hooks are added to `skip`."""
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            name = path or "model"

            def before(module: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                if flow.paused:
                    return
                stage = flow.begin(name, "module", module)
                note_arguments(flow, stage, module.forward, args, kwargs)

            def after(module: nn.Module, _: Any, __: Any, output: Any, name: str = name) -> None:
                innermost = None if flow.paused else flow.innermost
                if innermost is None or innermost[-1] != name:
                    return  # the call never began: an earlier hook of the user's raised
                if output is not None:
                    stage = flow.stages[innermost]
                    flow.note(stage, "out", output, "", hints_of(module.forward).get("return"))
                flow.end()

            try:
                start = module.register_forward_pre_hook(before, with_kwargs=True)
                hooks.callback(start.remove)
                # Also after an exception, so that the stage is closed.
                stop = module.register_forward_hook(after, with_kwargs=True, always_call=True)
                hooks.callback(stop.remove)
            except (RuntimeError, TypeError):
                skip.append(name)
        yield


@contextmanager
def watched_functions(flow: Flow, stages: list[FunctionStage], model: Any) -> Iterator[None]:
    """Watch functions."""

    def wrapper(stage: FunctionStage) -> Callable[..., Any]:
        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if flow.paused:
                return stage.function(*args, **kwargs)
            seen = flow.begin(stage.name, "function", stage.function)
            try:
                note_arguments(flow, seen, stage.function, args, kwargs)
                output = stage.function(*args, **kwargs)
                flow.note(seen, "out", output, "", hints_of(stage.function).get("return"))
            except BaseException as error:
                flow.end(error)
                raise
            flow.end()
            return output

        return stand_in

    with wrapped(stages, wrapper, model):
        yield
