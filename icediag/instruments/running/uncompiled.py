"""Optimizers without torch's compiler, where nobody uses it: to import it takes two seconds."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch

#: What torch keeps a function under that its compiler is told to pass by.
PASSED_BY = "__dynamo_disable"


def _stepping(func: Callable[..., Any]) -> Callable[..., Any]:
    """What torch puts round the steps of its optimizers, but for what only its compiler reads."""

    def step(*args: Any, **kwargs: Any) -> Any:
        before = torch.is_grad_enabled()
        try:
            torch.set_grad_enabled(args[0].defaults["differentiable"])
            return func(*args, **kwargs)
        finally:
            torch.set_grad_enabled(before)

    return step


#: Its code: put into a function of torch's, it calls the `func` of that one.
STEP = _stepping(len).__code__


def _steps() -> Iterator[FunctionType]:
    """Functions round the steps of torch's optimizers that import the compiler."""
    for kind in vars(torch.optim).values():
        function = vars(kind).get("step") if isinstance(kind, type) else None
        while isinstance(function, FunctionType):
            code = function.__code__
            if code.co_freevars == STEP.co_freevars and "_dynamo" in str(code.co_names):
                yield function
            function = getattr(function, "__wrapped__", None)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Have `torch.optim` make optimizers and step without an import of torch's compiler.

    Some methods import it at the first call, to have it pass them by. Where it is not there, there
    is nothing to pass by: they are told that this was done. All is taken back at the end, so that a
    program that compiles later finds torch as it was.
    """
    with contextlib.ExitStack() as restore:
        if "torch._dynamo" not in sys.modules:
            for method in vars(torch.optim.Optimizer).values():
                inner = getattr(method, "__wrapped__", None)
                if isinstance(inner, FunctionType) and not hasattr(inner, PASSED_BY):
                    setattr(inner, PASSED_BY, inner)
                    restore.callback(_forget, inner)
            for step in _steps():
                restore.callback(setattr, step, "__code__", step.__code__)
                step.__code__ = STEP
        yield


def _forget(inner: FunctionType) -> None:
    if getattr(inner, PASSED_BY, None) is inner:
        delattr(inner, PASSED_BY)
