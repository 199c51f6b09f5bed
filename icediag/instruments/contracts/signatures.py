"""Signatures: what functions and classes declare of their arguments, results and fields.

Read once each. An annotation that cannot be evaluated stays the text that it is, and does not take
the others with it.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


def _bare(function: Any) -> Any:
    """The function that was written: without its binding, and without decorators."""
    function = getattr(function, "__func__", function)
    try:
        return inspect.unwrap(function)
    except ValueError:  # a decorator that wraps itself
        return function


def hints_of(function: Any) -> dict[str, Any]:
    """Annotations of a function by argument, and of its result by "return"."""
    bare = _bare(function)
    if isinstance(bare, functools.partial):
        return hints_of(bare.func)
    if not inspect.isfunction(bare):
        # An object that is called.
        bare = _bare(vars(type(bare)).get("__call__"))
    return _hints(bare) if inspect.isfunction(bare) else {}


@functools.lru_cache(maxsize=4096)
def _hints(function: Any) -> dict[str, Any]:
    space = getattr(function, "__globals__", {})
    return dict(_evaluated(getattr(function, "__annotations__", {}), space))


@functools.lru_cache(maxsize=1024)
def fields_of(kind: type) -> dict[str, Any]:
    """Annotations of the fields of a class, those of its bases included."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base is object or base.__module__ in ("builtins", "typing"):
            continue
        space = vars(sys.modules.get(base.__module__)) if base.__module__ in sys.modules else {}
        try:
            held = inspect.get_annotations(base)
        except Exception:  # noqa: S112 - annotations may be any expression
            continue
        found |= dict(_evaluated(held, space | {base.__name__: base}))
    return found


def _evaluated(annotations: dict[str, Any], space: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, annotation in annotations.items():
        value = annotation
        if isinstance(annotation, str):
            try:
                value = eval(annotation, dict(space))  # noqa: S307 - as typing.get_type_hints does
            except Exception:
                value = annotation
        yield name, value


@functools.lru_cache(maxsize=4096)
def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def arguments_of(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of each argument as the function calls them."""
    held = getattr(function, "__self__", None)
    bare = getattr(function, "__func__", function)
    try:
        signature = _signature(bare)
    except TypeError:  # a callable that cannot be hashed
        signature = None
    try:
        bound = signature.bind(*(() if held is None else (held,)), *args, **kwargs)  # type: ignore[union-attr]
    except (AttributeError, TypeError):
        yield from ((str(i), value) for i, value in enumerate(args))
        yield from kwargs.items()
        return
    for i, (name, value) in enumerate(bound.arguments.items()):
        if name != "self" and not (i == 0 and held is not None):
            yield name, value


def owner_of(thing: Any, name: str = "") -> str:
    """Of a module's class or of a function: "package.file:Qualified.name"."""
    found = type(thing) if isinstance(thing, nn.Module) else _bare(thing)
    if isinstance(found, functools.partial):
        found = _bare(found.func)
    return f"{getattr(found, '__module__', '')}:{getattr(found, '__qualname__', name)}"
