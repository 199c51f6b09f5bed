"""A batch in a file: any tree of tensors, written and read without running code from the file.

Containers are written by the names of their classes. When the file is read, a class must have been
imported by then, by the pipeline that is to take the batch, and must be a dataclass or a named
tuple: its fields are filled in, its constructor is not called.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icediag.errors import IcediagError

#: What such a file says it is.
FORMAT = "icediag batch 1"
_PLAIN = (str, int, float, bool, type(None))


def encode(tree: Any) -> Any:
    """A tree as dicts, lists, plain values and tensors on the CPU.

    Raises:
        TypeError: Something in it is none of the containers that `decode` can build.
    """
    if isinstance(tree, Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, np.ndarray):
        return {"kind": "array", "value": torch.from_numpy(np.array(tree))}
    if isinstance(tree, np.generic):
        return tree.item()  # before plain values: a numpy double is a float, too
    if isinstance(tree, _PLAIN):
        return tree
    if type(tree) is dict:
        return {"kind": "dict", "items": [[encode(k), encode(v)] for k, v in tree.items()]}
    if type(tree) in (list, tuple):
        return {"kind": type(tree).__name__, "items": [encode(item) for item in tree]}
    name = f"{type(tree).__module__}:{type(tree).__qualname__}"
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return {"kind": "namedtuple", "class": name, "items": [encode(item) for item in tree]}
    if dataclasses.is_dataclass(tree):
        fields = {f.name: encode(getattr(tree, f.name)) for f in dataclasses.fields(tree)}
        return {"kind": "dataclass", "class": name, "items": fields}
    raise TypeError(f"expected tensors in dicts, lists, tuples and dataclasses, got {name}")


def decode(value: Any) -> Any:
    """The tree that `encode` was given.

    Raises:
        TypeError: It is not what `encode` gives.
        LookupError: A class that is not imported, or is neither a dataclass nor a named tuple.
    """
    if isinstance(value, (Tensor, *_PLAIN)):
        return value
    if not isinstance(value, Mapping) or "kind" not in value:
        raise TypeError(f"expected a container, got {type(value).__name__}")
    kind = value["kind"]
    if kind == "array":
        return value["value"].numpy()
    if kind == "dict":
        return {decode(key): decode(item) for key, item in value["items"]}
    if kind in ("list", "tuple"):
        items = [decode(item) for item in value["items"]]
        return items if kind == "list" else tuple(items)
    made_of = _class(value["class"])
    if kind == "namedtuple" and issubclass(made_of, tuple) and hasattr(made_of, "_fields"):
        return tuple.__new__(made_of, [decode(item) for item in value["items"]])
    if kind == "dataclass" and dataclasses.is_dataclass(made_of) and isinstance(made_of, type):
        known = {f.name for f in dataclasses.fields(made_of)}
        if set(value["items"]) != known:
            raise LookupError(f"{value['class']} has other fields now")
        made: Any = object.__new__(made_of)
        for name, item in value["items"].items():
            # Past a frozen dataclass's own refusal.
            object.__setattr__(made, name, decode(item))
        return made
    raise LookupError(f"{value['class']} is no {kind}")


def _class(name: str) -> Any:
    """A class that is imported already: nothing is imported for a file's sake."""
    module, _, qualified = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise LookupError(f"the pipeline has no class {name}")
    return found


def save_batch(tree: Any, path: Path) -> None:
    """Write a batch; wholly or not at all.

    Raises:
        TypeError: See `encode`.
        OSError: It cannot be written.
    """
    whole = {"format": FORMAT, "batch": encode(tree)}
    beside = path.with_name(f".{path.name}.part")
    try:
        torch.save(whole, beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_batch(path: Path) -> Any:
    """Read a batch. No code of the file's is run.

    Raises:
        IcediagError: It cannot be read, or is no batch.
    """
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(whole, dict) or whole.get("format") != FORMAT:
            raise TypeError("no batch that icediag wrote")
        return decode(whole["batch"])
    except OSError as error:
        raise IcediagError(f"{path}: cannot be read: {error.strerror or error}") from None
    except LookupError as error:
        raise IcediagError(f"{path}: does not fit this pipeline: {error.args[0]}") from None
    except Exception as error:  # a damaged file may raise anything in torch.load
        reason = str(error).split("\n")[0][:120] or type(error).__name__
        raise IcediagError(f"{path}: expected a batch that a watch kept, got {reason}") from None
