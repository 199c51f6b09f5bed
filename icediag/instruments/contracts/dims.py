"""Axes of a declared shape, as jaxtyping writes them, held against a shape that came.

Within one call a name has one size, whichever argument it stands in: the first tensor that has it
fixes it. jaxtyping compares too, but tells a sentence and not which argument had the other size.
"""

# Grammar: https://docs.kidger.site/jaxtyping/api/array/

import ast
import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DimKind = Literal["fixed", "name", "expression", "any"]

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "sum": lambda *values: sum(values),
    "ceil": math.ceil,
    "floor": math.floor,
}


class UnreadableError(ValueError):
    """An axis that cannot be compared, and why."""


@dataclass(frozen=True)
class Dim:
    """One axis, or with `many` any number of them.

    Attributes:
        kind: A number, a name, an expression of names, or anything.
        text: As it is written.
        size: Of a number.
        broadcasts: Whether a size of 1 fits too.
        many: Whether it stands for any number of axes.
    """

    kind: DimKind
    text: str
    size: int = 0
    broadcasts: bool = False
    many: bool = False


@dataclass
class Sizes:
    """What names mean in one call.

    Attributes:
        single: Name -> (size, where it was met first).
        several: Name of any number of axes -> (sizes, where they were met first, whether they may
            be broadcast).
        numbers: Whole numbers among the arguments, which `{n}` in an axis speaks of.
    """

    single: dict[str, tuple[int, str]] = field(default_factory=dict)
    several: dict[str, tuple[tuple[int, ...], str, bool]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Misfit:
    """How a shape differs from what is declared.

    Attributes:
        expected: Such as `pulses = 56`.
        got: Such as `38`.
        beside: Where the name got the other size.
    """

    expected: str
    got: str
    beside: str | None = None


@functools.lru_cache(maxsize=4096)
def parse_dims(text: str) -> tuple[Dim, ...]:
    """Axes of a shape such as "pulses 4", "*batch n+1 #c", "..." or "a=3 _"."""
    return tuple(_dim(word) for word in text.split())


def _dim(word: str) -> Dim:
    if word == "...":
        return Dim("any", word, many=True)
    rest, marks = word, set()
    while rest and (rest[0] in "#*_?" or rest.count("=") == 1):
        if rest[0] in "#*_?":
            marks.add(rest[0])
            rest = rest[1:]
        else:
            rest = rest.partition("=")[2]
    broadcasts, many = "#" in marks, "*" in marks
    # `?name` is another size in each leaf of a tree: nothing to compare within one tensor.
    if "_" in marks or "?" in marks or not rest:
        return Dim("any", word, many=many)
    if rest.isidentifier():
        return Dim("name", rest, broadcasts=broadcasts, many=many)
    try:
        return Dim("fixed", rest, size=int(rest), broadcasts=broadcasts)
    except ValueError:
        return Dim("expression", rest, broadcasts=broadcasts)


def fit(dims: tuple[Dim, ...], shape: tuple[int, ...], sizes: Sizes, place: str) -> Misfit | None:
    """Hold a shape against its axes; where it fits, new names get their sizes.

    Args:
        dims: As declared.
        shape: As it came.
        sizes: What names mean in this call; changed only where the shape fits.
        place: Path of the tensor.

    Returns:
        None where it fits.

    Raises:
        UnreadableError: An expression cannot be evaluated.
    """
    wide = next((i for i, dim in enumerate(dims) if dim.many), None)
    least = len(dims) - (wide is not None)
    if len(shape) < least or (wide is None and len(shape) != least):
        more = "" if wide is None else " or more"
        return Misfit(f"{least} axes{more}", f"{len(shape)} axes")
    single, several = dict(sizes.single), dict(sizes.several)
    trial = Sizes(single, several, sizes.numbers)
    if wide is None:
        pairs = list(zip(dims, shape, strict=True))
    else:
        after = len(dims) - wide - 1
        stop = len(shape) - after
        pairs = [
            *zip(dims[:wide], shape[:wide], strict=True),
            *zip(dims[wide + 1 :], shape[stop:], strict=True),
        ]
        misfit = _fit_many(dims[wide], shape[wide:stop], trial, place)
        if misfit is not None:
            return misfit
    for dim, size in pairs:
        misfit = _fit_one(dim, size, trial, place)
        if misfit is not None:
            return misfit
    sizes.single, sizes.several = single, several
    return None


def _fit_one(dim: Dim, size: int, sizes: Sizes, place: str) -> Misfit | None:
    if dim.kind == "any" or (dim.broadcasts and size == 1):
        return None
    if dim.kind == "fixed":
        return None if size == dim.size else Misfit(dim.text, str(size))
    if dim.kind == "expression":
        wanted = evaluate(dim.text, sizes)
        return None if size == wanted else Misfit(f"{dim.text} = {wanted}", str(size))
    known, beside = sizes.single.setdefault(dim.text, (size, place))
    return None if size == known else Misfit(f"{dim.text} = {known}", str(size), beside)


def _fit_many(dim: Dim, shape: tuple[int, ...], sizes: Sizes, place: str) -> Misfit | None:
    if dim.kind != "name":
        return None
    if dim.text not in sizes.several:
        sizes.several[dim.text] = (shape, place, dim.broadcasts)
        return None
    known, beside, broadcasts = sizes.several[dim.text]
    misfit = Misfit(f"*{dim.text} = {_tuple(known)}", _tuple(shape), beside)
    if not (broadcasts or dim.broadcasts):
        return None if shape == known else misfit
    together = _broadcast(known, shape)
    # Only what is marked may be stretched.
    if (
        together is None
        or (not broadcasts and together != known)
        or (not dim.broadcasts and together != shape)
    ):
        return misfit
    sizes.several[dim.text] = (together, beside, dim.broadcasts and broadcasts)
    return None


def _tuple(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _broadcast(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...] | None:
    n = max(len(first), len(second))
    pairs = zip((1,) * (n - len(first)) + first, (1,) * (n - len(second)) + second, strict=True)
    found = []
    for a, b in pairs:
        if a != b and 1 not in (a, b):
            return None
        found.append(b if a == 1 else a)
    return tuple(found)


def evaluate(text: str, sizes: Sizes) -> int | float:
    """Value of an axis such as `n+1` or `{heads}*d`.

    Raises:
        UnreadableError: It speaks of what has no size yet, or is no arithmetic.
    """
    try:
        filled = text.format_map(_Numbers(sizes.numbers)) if "{" in text else text
        tree = ast.parse(filled, mode="eval").body
        names = {name: size for name, (size, _) in sizes.single.items()}
        value = _value(tree, sizes.numbers | names)
    except UnreadableError:
        raise
    except Exception as error:
        raise UnreadableError(f"{text} cannot be evaluated ({type(error).__name__})") from None
    if not isinstance(value, (int, float)):
        raise UnreadableError(f"{text} is no number")
    return value


class _Numbers(dict[str, int]):
    def __missing__(self, key: str) -> int:
        raise UnreadableError(f"{{{key}}} is no whole number among the arguments")


def _value(node: ast.AST, names: Mapping[str, int]) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise UnreadableError(f"{node.id} has no size yet")
        return names[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, names), _value(node.right, names))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.operand, names))
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _FUNCTIONS
        and not node.keywords
    ):
        return _FUNCTIONS[node.func.id](*(_value(a, names) for a in node.args))
    raise UnreadableError("it is no arithmetic of sizes")
