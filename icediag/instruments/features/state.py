"""State: tensors and weights that a module holds and torch does not know of.

`model.to(device)` leaves them behind, `state_dict()` leaves them out, and `parameters()` gives the
optimizer none of them. What the forward pass uses is told by the trace. Whether it would be left
behind on another device is found by a run in which all that torch knows of is a meta tensor, with
its real values kept beside it.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from icediag.instruments.bounds.dispatch import custom, name_of, tensors_of
from icediag.instruments.bounds.places import line_of_user
from icediag.instruments.running.operations import OperationMode
from icediag.instruments.running.preserve import is_lazy, preserved
from icediag.instruments.trees.walk import held, mapped
from icediag.records.features import LooseState

from .trace import Seen

META = torch.device("meta")
#: These take tensors of several devices, wherever they run.
ACROSS = {"copy", "_to_copy", "set_", "lift_fresh", "detach", "alias"}
#: Containers are searched this deep.
DEPTH = 4


@dataclass(frozen=True, eq=False)
class Loose:
    """State that torch does not know of."""

    module: str
    attribute: str
    kind: Any
    tensor: Tensor


def loose_state(model: Any) -> list[Loose]:
    """All of it in a model, whether used or not."""
    if not isinstance(model, nn.Module):
        return []
    known = {id(t) for t in (*model.parameters(), *model.buffers())}
    modules = {id(module) for module in model.modules()}
    found: dict[int, Loose] = {}
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for name, value in list(vars(module).items()):
            if name in ("_parameters", "_buffers", "_modules") or name.startswith("__"):
                continue
            for at, inner in _modules_in(value, name):
                if id(inner) in modules:
                    continue
                for own, weight in inner.named_parameters():
                    if id(weight) not in known:
                        one = Loose(path or "model", f"{at}.{own}", "weights", weight)
                        found.setdefault(id(weight), one)
            for at, tensor in _tensors_in(value, name):
                if id(tensor) not in known:
                    kind = "weights" if isinstance(tensor, nn.Parameter) else "tensor"
                    found.setdefault(id(tensor), Loose(path or "model", at, kind, tensor))
    return list(found.values())


def _modules_in(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(value, nn.Module):
        yield path, value
    elif depth < DEPTH and isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _modules_in(item, f"{path}[{i}]", depth + 1)
    elif depth < DEPTH and isinstance(value, dict):
        for key, item in value.items():
            yield from _modules_in(item, f"{path}[{key!r}]", depth + 1)


def _tensors_in(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, (Tensor, list, tuple, dict)):
        for at, thing in held(value, path):
            if isinstance(thing, Tensor):
                yield at, thing


class _Moved(OperationMode):
    """Stand-ins on the meta device for all that was moved; what they stand for is computed.

    Args:
        loose: Tensors that were not moved.
    """

    def __init__(self, loose: dict[int, Loose]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mixed: dict[int, tuple[str, tuple[str, int] | None]] = {}
        self._loose = loose
        # Stand-in -> (itself, so that its identity is not used again, and what it stands for).
        self._real: dict[int, tuple[Tensor, Tensor]] = {}
        # What was made of loose tensors alone, and still lies where they do.
        self._from: dict[int, tuple[Tensor, int]] = {}

    def stand_in(self, real: Tensor) -> Tensor:
        """A meta tensor for a real one."""
        meta = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device=META)
        self._real[id(meta)] = (meta, real)
        return meta

    def real(self, value: Any) -> Any:
        """The real tensor behind a stand-in; anything else as it is."""
        if isinstance(value, Tensor) and id(value) in self._real:
            return self._real[id(value)][1]
        return value

    def _of_loose(self, tensor: Tensor) -> int | None:
        if id(tensor) in self._loose:
            return id(tensor)
        return self._from[id(tensor)][1] if id(tensor) in self._from else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation on what is real; the result lies where its arguments do."""
        return self.call(func, name_of(func), args, kwargs or {})

    def call(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Run one operation."""
        tensors = list(tensors_of((args, kwargs)))
        away = any(tensor.is_meta for tensor in tensors)
        behind = [(t, k) for t in tensors if (k := self._of_loose(t)) is not None and not t.is_meta]
        # A mask or index on the host is taken along by an indexing operation.
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if away and name not in ACROSS:
            for tensor, key in behind:
                apart = tensor.ndim > 0 and (name != "index" or tensor is first)
                if apart and key not in self.mixed:
                    self.mixed[key] = (name, line_of_user())
        real_args, real_kwargs = tree_map(self.real, (args, kwargs))
        to = kwargs.get("device")
        if to is not None and torch.device(to).type == "meta":
            real_kwargs["device"] = torch.device("cpu")
        out = func(*real_args, **real_kwargs)
        moves = to is not None
        meta = torch.device(to).type == "meta" if to is not None else away
        given = {id(self.real(t)): t for t in tensors}
        loose = behind[0][1] if behind and not away and not moves else None

        def stand_in(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) in given and not moves:
                return given[id(value)]
            if meta:
                return self.stand_in(value)
            if loose is not None:
                self._from[id(value)] = (value, loose)
            return value

        return tree_map(stand_in, out)


class _Calls(TorchFunctionMode):
    """Operations that are not torch's own read memory, which a stand-in has not."""

    def __init__(self, moved: _Moved) -> None:
        super().__init__()
        self._moved = moved

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = custom(func)
        if own is None:
            return func(*args, **kwargs)
        return self._moved.call(func, own.name(), args, kwargs)


def judge_loose(
    candidates: list[Loose], seen: Seen, model: Any, forward: Any, batch: Any
) -> tuple[LooseState, ...]:
    """What is used of the state that torch does not know of.

    Args:
        candidates: What there is.
        seen: What the trace noted.
        model: The model; left as it was found.
        forward: (model, batch) -> predictions.
        batch: A fresh one.
    """
    used = [one for one in candidates if id(one.tensor) in seen.touched]
    if not used:
        return ()
    moved = _Moved({id(one.tensor): one for one in used})
    followed = True
    with preserved(model):
        try:
            _move(model, moved)
            there = _batch_of(batch, moved)
            with torch.no_grad(), moved, _Calls(moved):
                forward(model, there)
        except Exception:  # what it had seen until then is kept
            followed = False
    found = []
    for one in used:
        touched = seen.touched[id(one.tensor)]
        mixed = moved.mixed.get(id(one.tensor))
        line = mixed[1] if mixed and mixed[1] else (touched.at.file, touched.at.line)
        found.append(
            LooseState(
                module=one.module,
                attribute=one.attribute,
                kind=one.kind,
                numbers=one.tensor.numel(),
                asks=one.tensor.requires_grad and id(one.tensor) in seen.with_gradients,
                mixes=mixed[0] if mixed else None,
                followed=followed,
                file=line[0],
                line=line[1],
            )
        )
    return tuple(found)


def _move(model: nn.Module, moved: _Moved) -> None:
    """Put stand-ins where weights and buffers are; `preserved` puts these back."""

    @functools.cache
    def of(key: int) -> Tensor:
        return moved.stand_in(tensors[key].detach())

    everything = (*model.parameters(), *model.buffers())
    tensors = {id(tensor): tensor for tensor in everything if not is_lazy(tensor)}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):  # noqa: SLF001 - as torch does
            if parameter is not None and id(parameter) in tensors:
                stand_in = nn.Parameter(of(id(parameter)), requires_grad=False)
                moved._real[id(stand_in)] = (stand_in, parameter.detach())  # noqa: SLF001
                module._parameters[name] = stand_in  # noqa: SLF001
        for name, buffer in list(module._buffers.items()):  # noqa: SLF001
            if buffer is not None and id(buffer) in tensors:
                module._buffers[name] = of(id(buffer))  # noqa: SLF001
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()  # noqa: SLF001


def _batch_of(batch: Any, moved: _Moved) -> Any:
    """The batch with stand-ins for its tensors, in containers of the same types."""
    return mapped(batch, lambda tensor: moved.stand_in(tensor.detach()))
