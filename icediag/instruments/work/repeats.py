"""Repeats: work that is done again on the same values.

Every result gets a number that stands for the operation and the numbers of its arguments; the same
number twice is the same work twice. Values are told apart by their storage, where they lie in it
and how often it was written to; nothing is compared by content.
"""

# ruff: noqa: SLF001 - identity of storages and versions of tensors have no public name

import functools
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.bounds.dispatch import name_of, tensors_of
from icediag.records.work import Phase, Repeated

from .costs import FREE, Cost, bytes_of
from .own import Line, location

#: Storages that are kept alive, so that their places are not used again, up to this many bytes.
KEPT = 512 * 1024 * 1024
#: Give other values each time, or ones that say nothing.
OTHER = frozenset({"empty", "new_empty", "empty_like", "empty_strided", "lift_fresh", "lift"})


@functools.cache
def _numbered(func: Any) -> bool:
    """Whether an operation gives the same result for the same arguments, and writes to none."""
    arguments = func._schema.arguments
    writes = any(a.alias_info is not None and a.alias_info.is_write for a in arguments)
    random = torch.Tag.nondeterministic_seeded in func.tags
    return not (writes or random or name_of(func) in OTHER)


class Repeats:
    """Numbers the values of one step."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._values: dict[Any, int] = {}
        self._done: dict[int, Line | None] = {}
        self._found: dict[tuple[Phase, str, Line | None, Line | None], list[int]] = {}
        self._kept: dict[int, Any] = {}
        self._bytes = 0

    def operation(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        out: Any,
        phase: Phase,
        line: Line | None,
        cost: Cost,
    ) -> None:
        """Number the results of an operation."""
        if self._bytes > KEPT:
            return
        results = list(tensors_of(out))
        if not results or not _numbered(func):
            return  # the version of what was written tells it from what it was
        try:
            number = self._number((str(func), self._plain(args), self._plain(kwargs)))
        except (TypeError, RuntimeError):
            return  # an argument that cannot be told apart
        for i, result in enumerate(results):
            self._keep(result)
            key = self._place(result)
            if key is not None:
                self._values.setdefault(key, self._number((number, i)))
        name = name_of(func)
        if not cost.elements or name in FREE:
            return
        if number not in self._done:
            self._done[number] = line
            return
        entry = self._found.setdefault((phase, name, line, self._done[number]), [0, 0, 0])
        entry[0] += 1
        entry[1] += cost.bytes_read + cost.bytes_written
        entry[2] += cost.flops

    def _number(self, key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _place(self, tensor: Tensor) -> Any:
        if tensor.layout != torch.strided or tensor.is_inference():
            return None
        return (
            tensor.untyped_storage()._cdata,
            tensor._version,
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
            tensor.dtype,
        )

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self._keep(value)
            key = self._place(value)
            if key is None:
                raise TypeError("no storage")
            known = self._values.get(key)
            return ("value", known) if known is not None else ("place", key)
        if isinstance(value, (list, tuple)):
            return tuple(self._plain(item) for item in value)
        if isinstance(value, dict):
            return tuple((key, self._plain(value[key])) for key in sorted(value))
        hash(value)
        # 1 and True and 1.0 are equal, but not the same argument.
        return type(value).__name__, value

    def _keep(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        if storage._cdata not in self._kept:
            self._kept[storage._cdata] = storage
            self._bytes += bytes_of(tensor)

    def records(self) -> tuple[Repeated, ...]:
        """What was done again, most bytes first."""
        found = [
            Repeated(
                phase=phase,
                op=op,
                location=location(line),
                first=location(first),
                times=times,
                bytes=moved,
                flops=flops,
            )
            for (phase, op, line, first), (times, moved, flops) in self._found.items()
        ]
        return tuple(sorted(found, key=lambda repeated: -repeated.bytes))
