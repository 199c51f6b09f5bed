"""Companions: what the user's functions hold beside the model, left as it was found.

A training step closes over a scheduler, a gradient scaler, an averaged copy of the model. What has
a `state_dict` and is reached from a function's closure, defaults or object is put back.
"""

import copy
import functools
import inspect
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.pipeline import Pipeline

from .preserve import preserved
from .random_state import generators, put_state, state_of


def held_by(function: Any) -> Iterator[Any]:
    """What a function can reach without looking at globals."""
    while isinstance(function, functools.partial):
        yield from function.args
        yield from function.keywords.values()
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is not None and not inspect.ismodule(owner):
        yield owner
        yield from list(getattr(owner, "__dict__", {}).values())
    elif not inspect.isfunction(inspect.unwrap(function)) and not inspect.ismethod(function):
        yield function
        yield from list(getattr(function, "__dict__", {}).values())
    bare = inspect.unwrap(getattr(function, "__func__", function))
    for cell in getattr(bare, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # a name that is not bound yet
    yield from getattr(bare, "__defaults__", None) or ()
    names = getattr(getattr(bare, "__code__", None), "co_names", ())
    spread = getattr(bare, "__globals__", {})
    yield from (spread[name] for name in names if name in spread)


def kept_optimizer(optimizer: Any, stack: ExitStack) -> None:
    """Put an optimizer's state and settings back at the end, object by object."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        return  # one of another kind: it was made anew, and goes with the trial
    groups = [(group, dict(group)) for group in optimizer.param_groups]
    whole = list(optimizer.param_groups)
    state = {key: (value, dict(value)) for key, value in optimizer.state.items()}
    values = [
        (tensor, tensor.detach().clone())
        for _, held in state.values()
        for tensor in held.values()
        if isinstance(tensor, Tensor)
    ]

    def restore() -> None:
        optimizer.param_groups[:] = whole
        for group, before in groups:
            group.clear()
            group.update(before)
        optimizer.state.clear()
        for key, (value, before) in state.items():
            value.clear()
            value.update(before)
            optimizer.state[key] = value
        with torch.no_grad():
            for tensor, old in values:
                tensor.copy_(old)

    stack.callback(restore)


@contextmanager
def companions_kept(functions: Iterable[Any], model: Any) -> Iterator[None]:
    """Restore what functions hold, at the end and after an exception."""
    own = {id(m) for m in model.modules()} if isinstance(model, nn.Module) else set()
    seen: set[int] = set(own)
    with ExitStack() as stack:
        for function in functions:
            for thing in held_by(function) if callable(function) else ():
                if id(thing) in seen or isinstance(thing, type):
                    continue
                seen.add(id(thing))
                if isinstance(thing, nn.Module):
                    stack.enter_context(preserved(thing))
                elif isinstance(thing, torch.optim.Optimizer):
                    kept_optimizer(thing, stack)
                elif callable(getattr(thing, "state_dict", None)) and callable(
                    getattr(thing, "load_state_dict", None)
                ):
                    _kept_by_dict(thing, stack)
        yield


@contextmanager
def generators_kept(pipeline: Pipeline) -> Iterator[None]:
    """Restore random generators that data sets, loader, model and functions hold: the data order.

    Those of torch, NumPy and Python themselves are restored with the model, see `preserved`.
    """
    functions = (
        *(pipeline.collate, pipeline.forward, pipeline.loss, pipeline.optimizer),
        *(pipeline.train_step, pipeline.loader, pipeline.event_of, *pipeline.raw.values()),
        *(pipeline.metric, pipeline.save, pipeline.load),
    )
    held = [thing for f in functions if callable(f) for thing in held_by(f)]
    model = pipeline.model
    parts = [vars(m) for m in model.modules()] if isinstance(model, nn.Module) else [model]
    found = {
        id(generator): generator
        for thing in (pipeline.dataset, pipeline.validation, *held, *parts)
        for generator in generators(thing)
    }
    states = [(generator, state_of(generator)) for generator in found.values()]
    try:
        yield
    finally:
        for generator, state in states:
            put_state(generator, state)


def _kept_by_dict(thing: Any, stack: ExitStack) -> None:
    """Restore a scheduler, a gradient scaler or their kin."""
    try:
        before = copy.deepcopy(thing.state_dict())
    except Exception:  # a state that cannot be had cannot be put back
        return
    attributes = dict(vars(thing)) if hasattr(thing, "__dict__") else None

    def restore() -> None:
        if attributes is not None:
            vars(thing).clear()
            vars(thing).update(attributes)
        thing.load_state_dict(before)

    stack.callback(restore)
