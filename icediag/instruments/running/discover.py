"""Discovery: which plain functions of the user's own hand tensors on, where no stages are named.

One forward pass under Python's profiler hook: every function defined in the user's packages that
returns tensors is a stage. Methods named `forward` are left out, because the module itself is
recorded, and so are functions that cannot be named from outside (closures, lambdas).
"""

import sys
from types import CodeType, FrameType, FunctionType
from typing import Any

import torch
from torch import nn

from icediag.errors import ENDS, IcediagError
from icediag.instruments.trees.walk import has_tensor, move
from icediag.pipeline import Pipeline

from .kept import Kept
from .stages import FunctionStage, resolve

#: Packages whose functions are never the user's own.
LIBRARIES = ("torch", "torch_geometric", "numpy", "builtins", "functools", "contextlib")
#: A function that returned no tensor this often is no longer looked at.
ENOUGH = 4


def user_packages(pipeline: Pipeline) -> tuple[str, ...]:
    """Top-level names of the packages that count as the user's own.

    `Pipeline.sources`, or where it is empty those that model, data set, collate and loss come from,
    less what is installed as a library. The loss and the forward function are taken for the user's
    own wherever they are installed.
    """
    if pipeline.sources:
        return pipeline.sources
    own = {_package(thing) for thing in (pipeline.loss, pipeline.forward)}
    dataset = pipeline.dataset.once if isinstance(pipeline.dataset, Kept) else pipeline.dataset
    other = {_package(type(dataset)), _package(pipeline.collate)}
    if isinstance(pipeline.model, nn.Module):
        other |= {_package(type(module)) for module in pipeline.model.modules()}
    names = own | {name for name in other if not _installed(name)}
    return tuple(sorted(name for name in names if name and name not in LIBRARIES))


def _package(thing: Any) -> str:
    return str(getattr(thing, "__module__", "") or "").partition(".")[0]


def _installed(package: str) -> bool:
    """Whether a package lies where an installer puts libraries."""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def belongs(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of the packages or lies inside one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def discover(pipeline: Pipeline, samples: list[Any], device: torch.device) -> list[FunctionStage]:
    """Find the functions of the user's own through which tensors go.

    Where the user's code raises, what was found until then is returned: the recording that follows
    will meet the same exception and report it.
    """
    packages = user_packages(pipeline)
    found: list[str] = []
    misses: dict[str, int] = {}
    looked: dict[CodeType, str | None] = {}

    def name_of(frame: FrameType) -> str | None:
        code = frame.f_code
        if code not in looked:
            module = frame.f_globals.get("__name__", "")
            qualified = code.co_qualname
            usable = (
                belongs(module, packages)
                and "<" not in qualified
                and code.co_name != "forward"
                and not code.co_name.startswith("__")
            )
            looked[code] = f"{module}:{qualified}" if usable else None
        return looked[code]

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event != "return":
            return
        name = name_of(frame)
        if name is None or name in found or misses.get(name, 0) >= ENOUGH:
            return
        if has_tensor(argument):
            found.append(name)
        else:
            misses[name] = misses.get(name, 0) + 1

    before = sys.getprofile()
    try:
        with torch.enable_grad():
            sys.setprofile(watch)
            try:
                batch = move(pipeline.collate(samples[:2]), device)
                predictions = (pipeline.forward or (lambda model, b: model(b)))(
                    pipeline.model, batch
                )
                pipeline.loss(predictions, batch)
            finally:
                sys.setprofile(before)
    except ENDS:
        raise
    except BaseException:  # noqa: S110 - met again, and reported, by the recording
        pass
    stages = []
    for name in found:
        try:
            stage = resolve(name)
        except IcediagError:
            continue  # replaced or deleted since, or built at run time
        if isinstance(stage.function, FunctionType):
            stages.append(stage)
    return stages
