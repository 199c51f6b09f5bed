"""What a command works on: the built-in pipeline or the user's own, and on which device."""

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from icediag.errors import IcediagError
from icediag.pipeline import Pipeline


def load_pipeline(
    name: str | None,
    *,
    data: Path | None,
    files: int | None,
    events: int,
    faults: Sequence[str] | None,
    head: str,
    backend: str,
    batch_size: int | None,
    seed: int,
) -> Pipeline:
    """The pipeline that the options ask for.

    Raises:
        IcediagError: It cannot be imported or built, or an option is off.
        DataError: The data set is not what it must be.
    """
    if name is not None:
        if data is not None or files is not None or faults:
            raise IcediagError(
                "--data, --files and --fault belong to the built-in pipeline; the factory given "
                "with --pipeline opens its own data"
            )
        return user_pipeline(name)
    from icediag.icecube import pipeline
    from icediag.model.network import NetworkConfig

    if files is not None and data is None:
        raise IcediagError("--files: expected --data with it, got none")
    try:
        return pipeline(
            data=data,
            files=files,
            n_events=events,
            config=NetworkConfig(head=cast("Any", head), backend=cast("Any", backend)),
            faults=tuple(faults or ()),
            batch_size=batch_size or 256,
            seed=seed,
        )
    except ValueError as error:
        raise IcediagError(str(error)) from error


def user_pipeline(name: str) -> Pipeline:
    """Import and call the factory that "module:factory" names.

    The folder that the command is run in comes first on the import path, as with `python -m`.

    Raises:
        IcediagError: There is no such factory, it fails, or it gives something else.
    """
    module_name, _, factory_name = name.partition(":")
    if not module_name or not factory_name:
        raise IcediagError(f"--pipeline: expected module:factory, got {name!r}")
    if "/" in module_name or module_name.endswith(".py"):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise IcediagError(
            f"--pipeline: expected the name of a module, such as {dotted}:{factory_name}, got the "
            f"path {module_name!r}"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    from icediag.instruments.running.containment import quiet
    from icediag.instruments.running.kept import Kept
    from icediag.instruments.running.reasons import reason_of

    try:
        with quiet():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script without a __main__ guard may exit
        raise IcediagError(
            f"--pipeline: cannot import {module_name!r}: {reason_of(error)}"
        ) from error
    factory: Any = module
    for part in factory_name.split("."):
        factory = getattr(factory, part, None)
    if factory is None:
        raise IcediagError(f"--pipeline: {module_name!r} has no {factory_name!r}")
    _takes_nothing(factory, name)
    try:
        with quiet():
            made = factory() if callable(factory) else factory
    except (Exception, SystemExit) as error:
        raise IcediagError(f"--pipeline: {name} failed: {reason_of(error)}") from error
    if not isinstance(made, Pipeline):
        raise IcediagError(
            f"--pipeline: expected {name} to give an icediag.Pipeline, got {type(made).__name__}"
        )
    if isinstance(made.dataset, Iterator):
        # A generator is used up by the first instrument that reads it.
        return replace(made, dataset=Kept(made.dataset))
    return made


def _takes_nothing(factory: Any, name: str) -> None:
    """Complain about a factory that cannot be called without arguments.

    Raises:
        IcediagError: It needs some.
    """
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # not to be called, or of no known signature
    needed = [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise IcediagError(
            f"--pipeline: {name} is called without arguments and needs {', '.join(needed)}; give "
            "them defaults, or name a function that fills them in"
        )


def replay(pipeline: Pipeline, batch: Path) -> Pipeline:
    """The pipeline with a kept batch in place of its data set.

    Raises:
        IcediagError: The file holds no batch, or not one of this pipeline's.
    """
    from icediag.instruments.trees.file import load_batch

    load_batch(batch)

    # Read anew for each run: what is done to one in place does not reach the next. It stands for
    # the pipeline's own collate, whose place findings name.
    @functools.wraps(pipeline.collate, assigned=(), updated=())
    def kept(_: Any) -> Any:
        return load_batch(batch)

    return replace(pipeline, dataset=[batch], collate=kept)


def restore(pipeline: Pipeline, state: Path) -> None:
    """Put the weights that a watch kept into the pipeline's model. No code of the file's is run.

    Raises:
        IcediagError: The file cannot be read, holds none, or those of another model.
    """
    if not isinstance(pipeline.model, nn.Module):
        raise IcediagError("--state: the model is no torch.nn.Module: it takes no weights")
    try:
        whole = torch.load(state, map_location="cpu", weights_only=True)
        weights = whole["model"]
        if not isinstance(weights, dict):
            raise TypeError("no weights in it")
    except OSError as error:
        raise IcediagError(f"--state: {state} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged file may raise anything in torch.load
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise IcediagError(
            f"--state: expected a state that a watch kept, got {state}: {reason}"
        ) from None
    try:
        pipeline.model.load_state_dict(weights)
    except Exception as error:  # of the user's own load_state_dict, too
        reason = " ".join(str(error).split())[:200]
        raise IcediagError(f"--state: {state} does not fit the model: {reason}") from None


def resolve_device(device: str, pipeline: Pipeline) -> str:
    """The device that the option asks for, with the model moved to it.

    `auto` is where the model is: nothing is moved unless a device is named.

    Raises:
        IcediagError: There is no such device.
    """
    model = pipeline.model
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    if device == "auto":
        return str(tensors[0].device) if tensors else "cpu"
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
        if wanted.type == "meta":
            raise RuntimeError("tensors there have no values")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise IcediagError(f"--device: cannot use {device!r}: {reason}") from None
    if isinstance(model, nn.Module):
        model.to(wanted)
    return str(wanted)


def writable_folder(path: Path, option: str) -> None:
    """Complain early about a folder that an output file cannot be written to.

    Raises:
        IcediagError: The folder is missing or closed to us.
    """
    if not path.is_dir():
        raise IcediagError(f"{option}: expected an existing folder, got {path}")
    if not os.access(path, os.W_OK):
        raise IcediagError(f"{option}: cannot write to {path}")


def made_folder(path: Path, option: str) -> Path:
    """A folder for output files, made where it is missing.

    Raises:
        IcediagError: It cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IcediagError(f"{option}: cannot make the folder {path}: {error.strerror}") from None
    writable_folder(path, option)
    return path
