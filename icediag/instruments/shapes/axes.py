"""Symbolic axes: which sizes follow the data, and what they are sizes of.

A size alone tells nothing: 128 may be events or features. So the pipeline is run on two batches of
different size; an axis whose size differs between them follows the data, and two axes are the same
if they agree in both. Names come from jaxtyping annotations, from the whole numbers and tensors of
the batch, and from sums and products of axes that have a name.
"""

import typing
from collections.abc import Iterable, Iterator
from typing import Any

#: Sizes of an axis in the large and in the small batch.
Sizes = tuple[int, int]


def annotated_axes(annotation: Any) -> list[str | None]:
    """Names of the axes of a jaxtyping annotation: ["pulses", None] of Float[Tensor, "pulses 4"].

    Args:
        annotation: Of an argument, result or field; `Annotated` and optional ones are looked into.

    Returns:
        One entry an axis, None for a number or an expression; empty where nothing can be said.
    """
    dims = getattr(annotation, "dim_str", None)
    if isinstance(dims, str):
        words = dims.split()
        if any(word.startswith(("*", "...")) or word == "..." for word in words):
            return []
        return [word if word.isidentifier() and word != "_" else None for word in words]
    for inner in typing.get_args(annotation):
        found = annotated_axes(inner) if not isinstance(inner, (str, int, float)) else []
        if found:
            return found
    return []


class Axes:
    """Names of the axes that follow the data."""

    def __init__(self) -> None:
        self.names: dict[Sizes, str] = {}
        self.notes: dict[str, str] = {}

    def add(self, name: str, sizes: Sizes, note: str | None = None) -> None:
        """Give a pair of sizes a name, unless it has one, or the name is taken, or it is fixed."""
        if sizes[0] == sizes[1] or sizes in self.names or name in self.names.values():
            return
        self.names[sizes] = name
        if note:
            self.notes[name] = note

    def name(self, sizes: Sizes) -> str | None:
        """Name of an axis that has this size in the large and this in the small batch.

        None for an axis that does not follow the data, "?" for one that does and has no name.
        """
        if sizes[0] == sizes[1]:
            return None
        if sizes in self.names:
            return self.names[sizes]
        for text, value in self._expressions():
            if value == sizes:
                return text
        return "?"

    def _expressions(self) -> Iterator[tuple[str, Sizes]]:
        known = list(self.names.items())
        for (large, small), name in known:
            for shift in (1, -1, 2):
                yield f"{name}{shift:+d}", (large + shift, small + shift)
        for i, ((a, b), first) in enumerate(known):
            for (c, d), second in known[i:]:
                yield f"{first}+{second}", (a + c, b + d)
                yield f"{first}*{second}", (a * c, b * d)
                yield f"{first}*({second}+1)", (a * (c + 1), b * (d + 1))
                yield f"{second}*({first}+1)", (c * (a + 1), d * (b + 1))

    def sizes(self) -> dict[str, int]:
        """Each name with its size in the large batch."""
        return {name: large for (large, _), name in self.names.items()}


def plural_of_count(name: str) -> str | None:
    """`num_doms` -> `doms`: what a whole number in the batch counts, if its name says it counts."""
    for prefix in ("num_", "n_", "number_of_"):
        if name.startswith(prefix) and len(name) > len(prefix):
            return name.removeprefix(prefix)
    return None


def pairs(
    large: Iterable[tuple[str, tuple[int, ...]]], small: dict[str, tuple[int, ...]]
) -> Iterator[tuple[str, int, Sizes]]:
    """(path, axis, sizes) of every axis of tensors that are there in both batches."""
    for path, shape in large:
        other = small.get(path)
        if other is not None and len(other) == len(shape):
            for axis, sizes in enumerate(zip(shape, other, strict=True)):
                yield path, axis, sizes
