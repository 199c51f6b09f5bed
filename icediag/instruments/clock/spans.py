"""Spans: begin and end of every stage of a step, by a clock or by events of the device.

Stages are told apart by their path, like in `flow`. The time of a stage that is its own is what
stages inside of it leave.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from icediag.instruments.running.stages import FunctionStage, location_of, wrapped
from icediag.place import Location
from icediag.records.clock import StageClock, StageKind

Path = tuple[str, ...]


class Timer(Protocol):
    """Marks points in time, and tells the seconds between two once all work is done."""

    def mark(self) -> Any:
        """Now."""

    def seconds(self, start: Any, end: Any) -> float:
        """Between two marks; only after `wait`."""

    def wait(self) -> None:
        """Until all work that was begun is done."""


class HostTimer:
    """A clock on the host: what runs there runs at once.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def mark(self) -> Any:
        """Now."""
        return self._clock()

    def seconds(self, start: Any, end: Any) -> float:
        """Between two marks."""
        return float(end - start)

    def wait(self) -> None:
        """Nothing is under way."""


class EventTimer:
    """Events in the stream of a CUDA device, which runs behind the host.

    Args:
        new_event: An event that keeps time.
        synchronize: Wait for the device.
    """

    def __init__(self, new_event: Callable[[], Any], synchronize: Callable[[], None]) -> None:
        self._new_event = new_event
        self._synchronize = synchronize

    def mark(self) -> Any:
        """Put an event behind all work that was begun."""
        event = self._new_event()
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Between two events; the device counts milliseconds."""
        return float(start.elapsed_time(end)) / 1e3

    def wait(self) -> None:
        """Until the device is done."""
        self._synchronize()


def timer_for(device: torch.device, clock: Callable[[], float]) -> HostTimer | EventTimer:
    """The timer that suits a device."""
    if device.type == "cuda":
        return EventTimer(
            lambda: torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            lambda: torch.cuda.synchronize(device),
        )
    return HostTimer(clock)


class Listener(Protocol):
    """Is told of each stage as it begins and ends, e.g. to mark it in a trace."""

    def begin(self, path: Path) -> None:
        """A stage begins."""

    def end(self, path: Path) -> None:
        """It ends."""


@dataclass
class Node:
    """One stage, over all calls inside of the same parent."""

    kind: StageKind
    location: Location | None = None
    calls: int = 0
    marks: list[tuple[Any, Any]] = field(default_factory=list)


class Spans:
    """The stages of one step.

    Args:
        timer: Reads the time.
        listeners: Told of every stage.
    """

    def __init__(self, timer: Timer, listeners: tuple[Listener, ...] = ()) -> None:
        self.nodes: dict[Path, Node] = {}
        self._timer = timer
        self._listeners = listeners
        self._open: list[tuple[Path, Node, Any]] = []
        #: Stages begin here and nowhere else: what activation checkpointing runs again is backward.
        self.paused = False

    @property
    def innermost(self) -> Path:
        """Path of the stage that was entered last; () outside of all."""
        return self._open[-1][0] if self._open else ()

    def begin(self, name: str, kind: StageKind, owner: Any = None) -> None:
        """Enter a stage; `owner` is its module or function, for its place in the source."""
        path = (*self.innermost, name)
        node = self.nodes.get(path)
        if node is None:
            place = None if owner is None else location_of(owner)
            node = Node(kind, place)
            self.nodes[path] = node
        node.calls += 1
        for listener in self._listeners:
            listener.begin(path)
        self._open.append((path, node, self._timer.mark()))

    def end(self) -> None:
        """Leave the stage that was entered last."""
        path, node, start = self._open.pop()
        node.marks.append((start, self._timer.mark()))
        for listener in reversed(self._listeners):
            listener.end(path)

    @contextmanager
    def span(self, name: str, kind: StageKind, owner: Any = None) -> Iterator[None]:
        """A stage that ends with the block, also after an exception."""
        depth = len(self._open)
        self.begin(name, kind, owner)
        try:
            yield
        finally:
            while len(self._open) > depth:
                self.end()

    def times(self) -> dict[Path, tuple[float, float]]:
        """Path -> seconds in the stage, and those that are its own."""
        self._timer.wait()
        totals = {
            path: sum(self._timer.seconds(start, end) for start, end in node.marks)
            for path, node in self.nodes.items()
        }
        inside = dict.fromkeys(totals, 0.0)
        for path, total in totals.items():
            if path[:-1] in inside:
                inside[path[:-1]] += total
        return {path: (total, total - inside[path]) for path, total in totals.items()}


def gathered(steps: list[Spans]) -> tuple[StageClock, ...]:
    """Stages of several steps; one that was not met in a step took no time there."""
    times = [step.times() for step in steps]
    order = {path: node for step in steps for path, node in step.nodes.items()}
    return tuple(
        StageClock(
            name=path[-1],
            kind=node.kind,
            depth=len(path) - 1,
            calls=max(step.nodes[path].calls for step in steps if path in step.nodes),
            total_s=tuple(seen.get(path, (0.0, 0.0))[0] for seen in times),
            self_s=tuple(seen.get(path, (0.0, 0.0))[1] for seen in times),
            location=node.location,
        )
        for path, node in order.items()
    )


@contextmanager
def marked(spans: Spans, stages: list[FunctionStage], model: Any) -> Iterator[None]:
    """Mark modules, functions, the backward pass and clipping while the block runs."""
    clips = [
        _clip_stage(name) for name in ("clip_grad_norm_", "clip_grad_value_") if _clip_stage(name)
    ]
    functions = [(stage, "function") for stage in stages]
    functions += [(stage, "clip") for stage in clips if stage is not None]
    kinds: dict[int, Any] = {id(stage): kind for stage, kind in functions}

    def wrapper(stage: FunctionStage) -> Callable[..., Any]:
        kind = kinds[id(stage)]
        name = "clip" if kind == "clip" else stage.name

        def stand_in(*args: Any, **kwargs: Any) -> Any:
            if spans.paused:
                return stage.function(*args, **kwargs)
            spans.begin(name, kind, None if kind == "clip" else stage.function)
            depth = len(spans.innermost)
            try:
                return stage.function(*args, **kwargs)
            finally:
                while len(spans.innermost) >= depth:
                    spans.end()

        return stand_in

    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(_marked_modules(spans, model))
        stack.enter_context(wrapped([stage for stage, _ in functions], wrapper, model))
        stack.enter_context(_marked_backward(spans))
        yield


def _clip_stage(name: str) -> FunctionStage | None:
    module = torch.nn.utils.clip_grad
    function = getattr(module, name, None)
    return None if function is None else FunctionStage(name, module, name, function, function)


@contextmanager
def _marked_modules(spans: Spans, model: nn.Module) -> Iterator[None]:
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            name = path or "model"

            def before(module: nn.Module, _: Any, name: str = name) -> None:
                if not spans.paused:
                    spans.begin(name, "module", module)

            def after(_: nn.Module, __: Any, ___: Any, name: str = name) -> None:
                if spans.paused or spans.innermost[-1:] != (name,):
                    return  # it never began: an earlier hook of the user's raised
                spans.end()

            try:
                hooks.callback(module.register_forward_pre_hook(before).remove)
                hooks.callback(module.register_forward_hook(after, always_call=True).remove)
            except (RuntimeError, TypeError):
                continue  # a scripted module takes no hooks: its time is that of what calls it
        yield


@contextmanager
def _marked_backward(spans: Spans) -> Iterator[None]:
    """`tensor.backward()` calls this too."""
    original = torch.autograd.backward

    @functools.wraps(original)
    def stand_in(*args: Any, **kwargs: Any) -> Any:
        if spans.paused:
            return original(*args, **kwargs)
        with spans.span("backward", "backward"):
            spans.paused = True
            try:
                return original(*args, **kwargs)
            finally:
                spans.paused = False

    torch.autograd.backward = stand_in
    try:
        yield
    finally:
        torch.autograd.backward = original
