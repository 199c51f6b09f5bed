"""JSON Schema of what icediag writes, from the dataclasses themselves: nothing is written twice.

Descriptions are those of the docstrings. What `icediag.plain` writes for a value is what the schema
of its type takes; fields may be added by later versions, so unknown ones are let through.
"""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

DRAFT = "https://json-schema.org/draft/2020-12/schema"
#: Floats that JSON has not are texts.
_FLOAT: dict[str, Any] = {"anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}]}
_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: _FLOAT,
    types.NoneType: {"type": "null"},
    Any: {},
}


def schema_of(root: type, *, name: str, version: int, more: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass as a file of its own.

    Args:
        root: The dataclass.
        name: What it is called.
        version: Of the format.
        more: Properties that its file has beside its fields -> their schema.
    """
    found: dict[str, dict[str, Any]] = {}
    top = _object(root, found)
    top["properties"] |= {"version": {"const": version, "description": "Of this format."}, **more}
    top["required"] = sorted({*top["required"], "version", *more})
    return {
        "$schema": DRAFT,
        "$id": f"urn:icediag:{name}:{version}",
        "title": f"{name.capitalize()} of icediag, version {version}",
        **top,
        "$defs": dict(sorted(found.items())),
    }


def _object(kind: Any, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The schema of a dataclass; those it holds are put into `found`."""
    title, said = _docs(kind)
    hints = typing.get_type_hints(kind)
    properties = {}
    for field in dataclasses.fields(kind):
        described = {"description": said[field.name]} if field.name in said else {}
        properties[field.name] = described | _type(hints[field.name], found)
    return {
        "type": "object",
        "description": title,
        "properties": properties,
        # All fields are written, defaults too; those that came later are missing in older files.
        "required": sorted(
            field.name
            for field in dataclasses.fields(kind)
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        ),
    }


def _type(wanted: Any, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The schema of a type, as `icediag.plain.from_plain` knows them."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        name = f"{wanted.__module__.rpartition('.')[2]}.{getattr(wanted, '__name__', '')}"
        if name not in found:
            found[name] = {}  # named before it is looked at: it may hold itself
            found[name] = _object(wanted, found)
        return {"$ref": f"#/$defs/{name}"}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], found)}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _type(arguments[1], found)}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_type(argument, found) for argument in arguments]}
    return dict(_PLAIN[wanted])


def _docs(kind: Any) -> tuple[str, dict[str, str]]:
    """First sentence of a docstring, and field -> what stands of it under Attributes."""
    lines = inspect.cleandoc(kind.__doc__ or "").splitlines()
    said: dict[str, str] = {}
    inside, name = False, ""
    for line in lines:
        if line == "Attributes:":
            inside = True
        elif inside and line and not line.startswith(" "):
            break
        elif inside and (match := re.match(r"^ {4}(\w+): (.*)$", line)):
            name = match[1]
            said[name] = match[2]
        elif inside and name and line.strip():
            said[name] = f"{said[name]} {line.strip()}"
    return (lines[0] if lines else ""), said
