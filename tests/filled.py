"""A record with every field set to something else than its default, made from its types."""

import dataclasses
import types
import typing
from typing import Any, Literal


def filled(wanted: Any, number: int = 3, default: Any = None) -> Any:
    """A value of a type; of a dataclass, one in which no field has its default.

    Args:
        wanted: A type that a recording may hold.
        number: What numbers are made of.
        default: What the value must differ from.
    """
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if dataclasses.is_dataclass(wanted):
        hints = typing.get_type_hints(wanted)
        return typing.cast("Any", wanted)(
            **{
                field.name: filled(hints[field.name], number + i, field.default)
                for i, field in enumerate(dataclasses.fields(wanted))
            }
        )
    if origin is tuple:
        return (filled(arguments[0], number),)
    if origin is dict:
        return {"key": filled(arguments[1], number)}
    if origin is Literal:
        return next(value for value in arguments if value != default)
    if origin in (types.UnionType, typing.Union):
        some = next(argument for argument in arguments if argument is not types.NoneType)
        return filled(some, number, default)
    if wanted is bool:
        return default is not True
    if wanted is int:
        return number
    if wanted is float:
        return number + 0.5
    if wanted is str:
        return f"text {number}"
    raise TypeError(wanted)
