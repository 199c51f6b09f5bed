"""Counter: every operation that torch dispatches, with stage, line and cost.

Operations of the backward pass are attributed to the forward line that made their autograd node:
nodes are numbered in the order in which they are made, and the number is read at each operation.
"""

# ruff: noqa: SLF001 - numbers of autograd nodes have no public name

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from icediag.instruments.bounds.dispatch import name_of, tensors_of
from icediag.instruments.recorder.flow import Flow
from icediag.instruments.running.operations import OperationMode
from icediag.records.work import Phase

from .costs import Cost, bytes_of, cost_of
from .own import Line, Own
from .repeats import Repeats

#: Where the engine of the backward pass is called from: frames above it are not the node's.
_ENGINE = str(Path(torch.__file__).resolve().parent / "autograd" / "graph.py")
_OPTIMIZERS = str(Path(torch.__file__).resolve().parent / "optim")
#: Readings of a tensor by the host that are not dispatched where the tensor is on the host anyway.
READINGS = frozenset({"tolist", "numpy", "cpu", "__array__", "__repr__", "__format__"})

#: Recurrences: a GPU's library does them in one operation, the CPU step by step. The counts are
#: those of one call, and a kernel for each of its products.
FUSED = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
#: A call of one of these: its name, its number, its dtype.
Call = tuple[str, int, str]

#: phase, stage, op, node, dtype, line
Key = tuple[Phase, str, str, str | None, str, Line | None]


def _made_so_far() -> int:
    """Number that the next autograd node will have."""
    autograd: Any = torch.autograd
    return int(autograd._get_sequence_nr())


def running_node() -> Any:
    """The autograd node that runs; None on the way forward."""
    own: Any = torch._C
    return own._current_autograd_node()


class Counter:
    """Counts one step.

    Args:
        own: Tells the user's lines.
        model: For the names of parameters.
        repeats: Finds work that is done twice; None where that is not wanted.
    """

    def __init__(self, own: Own, model: Any, repeats: Repeats | None = None) -> None:
        self.phase: Phase | None = None
        self.counts: dict[Key, list[int]] = {}
        self.repeats = repeats
        #: Whether `x[...] = y` runs, of a tensor y.
        self.writes_rows = False
        self._own = own
        self._flow: Flow | None = None
        self._nodes: dict[int, tuple[str, Line | None, Call | None]] = {}
        self._fused: Call | None = None
        self._begun: set[tuple[Phase, Call]] = set()
        self._next = 0
        self._homes: dict[int, str] = {}
        if isinstance(model, nn.Module):
            for path, module in model.named_modules():
                for parameter in module.parameters(recurse=False):
                    self._homes.setdefault(id(parameter), path or "model")

    @contextmanager
    def watching(self, flow: Flow) -> Iterator[None]:
        """Count what is done within."""
        self._flow = flow
        self.start_numbers()
        with _Functions(self), _Operations(self):
            yield

    @property
    def _stage(self) -> str:
        innermost = self._flow.innermost if self._flow is not None else None
        if innermost:
            return innermost[-1]
        return "model" if self.phase == "forward" else str(self.phase)

    def start_numbers(self) -> None:
        """Nodes that are made from now on are of the lines that run from now on."""
        self._next = _made_so_far()

    def name_nodes(self, stage: str, line: Line | None) -> None:
        """Note that the autograd nodes made since the last call are of this line."""
        now = _made_so_far()
        for number in range(self._next, now):
            self._nodes[number] = stage, line, self._fused
        self._next = now

    def made(self) -> None:
        """Nodes were made by a function that has just returned."""
        if _made_so_far() > self._next and self.phase is not None:
            line, looker = self._own.line()
            if not looker:
                self.name_nodes(self._stage, line)

    def operation(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Count an operation."""
        if self.phase is None:
            return
        phase: Phase = self.phase
        node = running_node()
        if node is None:
            line, looker = self._own.line()
            if looker:
                return
            stage = self._stage
            if phase == "step" and self._flow is not None and self._flow.innermost:
                phase = "forward"
            self.name_nodes(stage, line)
            name, fused = None, self._fused
        else:
            stage, line, name, fused = self._behind(node)
            phase = "backward"
        cost = cost_of(func, args, kwargs, out, rows=self.writes_rows)
        op = name_of(func)
        if self.phase == "optimizer" and cost.syncs and _called_by_torch():
            cost.syncs = 0  # torch's optimizers keep the number of their step on the host
        if op == "clone" and not next(tensors_of(args)).is_contiguous():
            op = "contiguous"
        if fused is not None:
            self._add_fused(
                (phase, stage, fused[0], name and fused[0], fused[2], line), fused, cost
            )
            return
        self._add((phase, stage, op, name, cost.dtype, line), cost)
        if self.repeats is not None and node is None:
            self.repeats.operation(func, args, kwargs, out, phase, line, cost)

    def _behind(self, node: Any) -> tuple[str, Line | None, str, Call | None]:
        """Stage, line and name of the autograd node that runs, and what it is a part of."""
        name = str(node.name()).rpartition("::")[2]
        stage, line, fused = self._nodes.get(node._sequence_nr(), ("backward", None, None))
        if name == "AccumulateGrad":
            home = self._homes.get(id(node.variable))
            return home or stage, None, name, None
        # Code of the user's own that runs on the way back: a custom backward, a hook, what
        # checkpointing computes again.
        own, _ = self._own.line(until=_ENGINE)
        return stage, own or line, name, fused

    @contextmanager
    def within(self, name: str, args: Any) -> Iterator[None]:
        """Count what is done within as one operation."""
        first = next(tensors_of(args), None)
        dtype = str(first.dtype).removeprefix("torch.") if first is not None else ""
        self._fused, before = (name, _made_so_far(), dtype), self._fused
        try:
            yield
            self.made()
        finally:
            self._fused = before

    def _add_fused(self, key: Key, call: Call, cost: Cost) -> None:
        """Add a part of a call, which is dispatched once and waits for nothing."""
        begun = key[0], call
        total = self.counts.setdefault(key, [0] * 7)
        total[0] += begun not in self._begun
        total[1] += cost.flops > 0
        total[2] += cost.elements
        total[3] += cost.bytes_read
        total[4] += cost.bytes_written
        total[5] += cost.flops
        self._begun.add(begun)

    def reading(self, name: str, tensor: Any) -> None:
        """Count that the host reads a tensor."""
        if self.phase not in ("forward", "loss", "step", "backward"):
            return
        line, looker = self._own.line()
        if looker:
            return
        cost = Cost(bytes_read=bytes_of(tensor), syncs=1)
        cost.dtype = str(tensor.dtype).removeprefix("torch.")
        phase = self.phase
        if phase == "step" and self._flow is not None and self._flow.innermost:
            phase = "forward"
        self._add((phase, self._stage, name.strip("_"), None, cost.dtype, line), cost)

    @property
    def syncs(self) -> int:
        """Waits counted so far."""
        return sum(count[6] for count in self.counts.values())

    @property
    def calls(self) -> int:
        """Operations counted so far."""
        return sum(count[0] for count in self.counts.values())

    def add(self, other: "Counter") -> None:
        """Add what another has counted."""
        for key, counts in other.counts.items():
            total = self.counts.setdefault(key, [0] * len(counts))
            for i, count in enumerate(counts):
                total[i] += count

    def _add(self, key: Key, cost: Cost) -> None:
        total = self.counts.setdefault(key, [0] * 7)
        total[0] += 1
        total[1] += cost.launches
        total[2] += cost.elements
        total[3] += cost.bytes_read
        total[4] += cost.bytes_written
        total[5] += cost.flops
        total[6] += cost.syncs


def _called_by_torch() -> bool:
    """Whether an optimizer of torch's is among the innermost frames."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(12):
        if frame is None:
            return False
        if frame.f_code.co_filename.startswith(_OPTIMIZERS):
            return True
        frame = frame.f_back
    return False


class _Operations(OperationMode):
    """Hands every dispatched operation to a counter."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._counter.operation(func, args, kwargs, out)
        return out


class _Functions(TorchFunctionMode):
    """Sees calls of torch's functions: which line made which autograd nodes, and readings."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        reads = name in READINGS and bool(args)
        before = self._counter.syncs if reads else 0
        if name in FUSED:
            with self._counter.within(name, args):
                return func(*args, **(kwargs or {}))
        self._counter.writes_rows = name == "__setitem__" and isinstance(args[-1], torch.Tensor)
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self._counter.writes_rows = False
        self._counter.made()
        if reads and self._counter.syncs == before and isinstance(args[0], torch.Tensor):
            self._counter.reading(name, args[0])
        return out
