"""Stages that are functions: found by name, wrapped while an instrument runs, restored after."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from icediag.errors import IcediagError
from icediag.recording import Location


@dataclass(frozen=True)
class FunctionStage:
    """A function that is to be recorded.

    Attributes:
        name: Its qualified name within its module, e.g. `Net.pack`.
        owner: The module or class that holds it.
        attribute: Under which name.
        held: What is held there: the function, or the static or class method around it.
        function: The function itself.
    """

    name: str
    owner: Any
    attribute: str
    held: Any
    function: Callable[..., Any]


def resolve(stage: str) -> FunctionStage:
    """Find the function that "module:qualified.name" names.

    Raises:
        IcediagError: There is no such module or function, or it is not one that can be wrapped.
    """
    module_name, _, qualified = stage.partition(":")
    try:
        owner: Any = importlib.import_module(module_name)
    except Exception as error:  # a module of the user's may raise anything
        raise IcediagError(
            f"stages: cannot import {module_name!r} of {stage!r}: {type(error).__name__}: {error}"
        ) from None
    *path, attribute = qualified.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    # Of a class, the class that defines the method, so that restoring it leaves nothing behind.
    if inspect.isclass(owner):
        owner = next((base for base in owner.__mro__ if attribute in vars(base)), owner)
    held = vars(owner).get(attribute) if hasattr(owner, "__dict__") else None
    function = held.__func__ if isinstance(held, (staticmethod, classmethod)) else held
    if not callable(function) or inspect.isclass(function):
        raise IcediagError(
            f"stages: expected a function or method at {stage!r}, got "
            + ("nothing" if held is None else type(held).__name__)
        )
    return FunctionStage(qualified, owner, attribute, held, function)


def _places(stages: list[FunctionStage], model: Any) -> Iterator[tuple[FunctionStage, Any, str]]:
    """Every module and object that holds one of the functions, and under which name.

    `from .packing import pack` copies the reference, so replacing it in its home alone would change
    nothing for the module that calls it.
    """
    free: dict[int, FunctionStage] = {}
    for stage in stages:
        yield stage, stage.owner, stage.attribute
        if not inspect.isclass(stage.owner):
            free[id(stage.function)] = stage
    homes = {(id(stage.owner), stage.attribute) for stage in stages}
    holders: dict[int, Any] = {id(holder): holder for holder in _LOOKED.holding(free)}
    if isinstance(model, nn.Module):
        for part in model.modules():
            holders[id(part)] = part
            # Objects that a module keeps its helpers in.
            for value in list(vars(part).values()):
                plain = not isinstance(value, (nn.Module, type, FunctionType, ModuleType))
                if plain and hasattr(value, "__dict__"):
                    holders[id(value)] = value
    for holder in holders.values():
        for name, value in list(getattr(holder, "__dict__", {}).items()):
            if id(value) in free and (id(holder), name) not in homes:
                yield free[id(value)], holder, name


class _Modules:
    """Which loaded modules hold some functions.

    Of some 100,000 names few are looked at one by one, and those of a module only once for the same
    functions, as long as it has as many names: instruments ask again and again. A name that held
    something else at first and one of the functions later is missed; that costs a stage, no more.
    """

    #: Sets of functions that are remembered: the stages, and what some instruments wrap beside.
    _MOST = 8

    def __init__(self) -> None:
        #: Functions, by identity -> these, kept that nothing else gets their places in memory, and
        #: module -> how many names it had, and whether one of the functions was among them.
        self._known: dict[frozenset[int], tuple[list[Any], dict[int, tuple[Any, int, bool]]]] = {}

    def holding(self, free: dict[int, FunctionStage]) -> list[Any]:
        """The modules; functions are given by their `id`."""
        if not free:
            return []
        key = frozenset(free)
        if key not in self._known and len(self._known) >= self._MOST:
            del self._known[next(iter(self._known))]
        functions = [stage.function for stage in free.values()]
        _, seen = self._known.setdefault(key, (functions, {}))
        found = []
        for module in list(sys.modules.values()):
            held = getattr(module, "__dict__", None)  # anything may stand there
            if held is None:
                continue
            known = seen.get(id(module))
            if known is None or known[0] is not module or known[1] != len(held) or known[2]:
                holds = not key.isdisjoint(map(id, list(held.values())))
                known = seen[id(module)] = module, len(held), holds
            if known[2]:
                found.append(module)
        return found


_LOOKED = _Modules()


def _put(holder: Any, name: str, value: Any) -> None:
    """Set an attribute, past a frozen dataclass's or a module's own `__setattr__`."""
    if isinstance(holder, (ModuleType, type)):
        setattr(holder, name, value)
    else:
        holder.__dict__[name] = value


@contextmanager
def wrapped(
    stages: list[FunctionStage],
    wrapper: Callable[[FunctionStage], Callable[..., Any]],
    model: Any = None,
) -> Iterator[None]:
    """Replace functions by wrappers, wherever they are held; put them back at the end.

    Args:
        stages: What to wrap.
        wrapper: stage -> the function that stands in for `stage.function`.
        model: Its modules are searched for references too.
    """
    stand_ins: dict[int, Any] = {}
    for stage in stages:
        stand_in: Any = functools.wraps(stage.function)(wrapper(stage))
        if isinstance(stage.held, (staticmethod, classmethod)):
            stand_in = type(stage.held)(stand_in)
        stand_ins[id(stage)] = stand_in
    with ExitStack() as restore:
        for stage, holder, name in list(_places(stages, model)):
            restore.callback(_put, holder, name, vars(holder)[name])
            _put(holder, name, stand_ins[id(stage)])
        yield


def location_of(thing: Any) -> Location | None:
    """Where a function, or the `forward` of a module, begins; None where there is no source.

    The file is given from the folder that holds its top-level package on, so that a recording reads
    the same on every machine.
    """
    if isinstance(thing, nn.Module):
        thing = type(thing).forward
    if isinstance(thing, functools.partial):
        thing = thing.func
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if inspect.ismethod(thing):
        thing = thing.__func__
    if not inspect.isfunction(thing):
        # An object that is called: the place of its class's `__call__`.
        thing = vars(type(thing)).get("__call__")
        if not inspect.isfunction(thing):
            return None
    code = thing.__code__
    file = relative_file(code.co_filename, getattr(thing, "__module__", None))
    return Location(file=file, line=code.co_firstlineno)


@functools.lru_cache(maxsize=4096)
def relative_file(file: str, module: str | None) -> str:
    """A source file relative to the folder of its top-level package, in forward slashes."""
    path = Path(file)
    parts = (module or "").split(".")
    if module and module != "__main__":
        # pkg.sub.mod in .../pkg/sub/mod.py, or .../pkg/sub/mod/__init__.py
        deep = len(parts) + (path.stem == "__init__")
        if len(path.parts) > deep:
            return "/".join(path.parts[-deep:])
    return path.name
