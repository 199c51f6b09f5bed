"""Crossings: a column meets a row of as many, and all their pairs are reduced as rows would be."""

# n rows

from typing import Any

import torch
from torch import Tensor

from icediag.instruments.bounds.dispatch import name_of
from icediag.instruments.bounds.places import line_of_user
from icediag.instruments.recorder.following import storage_of
from icediag.instruments.running.operations import OperationMode
from icediag.recording import Location
from icediag.records.loss import Crossed

from .probe import Probe


class _Crossings(OperationMode):
    """Follows tables of (n, n) from the broadcast that makes them to where they become one number.

    Whoever means all pairs writes so: takes two of one tensor, has the table meet another table, or
    reduces it along one axis.

    Args:
        sizes: What n may be.
    """

    def __init__(self, sizes: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Crossed | None = None
        self._sizes = sizes
        #: By storage: what made a table, and the table, whose storage is kept by it.
        self._tables: dict[Any, tuple[Crossed, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        out = func(*args, **(kwargs or {}))
        if self.found is None and isinstance(out, Tensor) and out.layout == torch.strided:
            given = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, Tensor)]
            self._look(func, given, out)
        return out

    def _look(self, func: Any, given: list[Tensor], out: Tensor) -> None:
        crossed = self._made(func, given, out)
        known = [self._tables.get(storage_of(tensor)) for tensor in given]
        came = next((table for table in known if table is not None), None)
        if crossed is not None:
            self._tables[storage_of(out)] = crossed, out
        elif came is not None:
            made, n = came[0], came[0].rows
            meets = any(
                table is None and tensor.shape == (n, n)
                for table, tensor in zip(known, given, strict=True)
            )
            if out.numel() == 1 and not meets:
                self.found = made
            elif out.shape == (n, n) and not meets:
                self._tables[storage_of(out)] = made, out
            else:
                self._tables.pop(storage_of(out), None)

    def _made(self, func: Any, given: list[Tensor], out: Tensor) -> Crossed | None:
        real = [tensor for tensor in given if tensor.is_floating_point()]
        if len(given) != 2 or len(real) != 2 or out.ndim != 2:
            return None
        n = out.shape[0]
        shapes = {tuple(tensor.shape) for tensor in real}
        if n not in self._sizes or out.shape != (n, n) or shapes != {(n, 1), (n,)}:
            return None
        if storage_of(real[0]) == storage_of(real[1]):
            return None
        place = line_of_user()
        return Crossed(
            operation=name_of(func),
            rows=n,
            location=None if place is None else Location(file=place[0], line=place[1]),
        )


def crossed(probe: Probe) -> Crossed | None:
    """Look for a table of all pairs of rows that is reduced as a whole.

    Raises:
        Exception: Whatever the user's loss raises.
    """
    rows = {probe.values[path].shape[0] for path in probe.rows}
    mode = _Crossings({n for n in (probe.n, *rows) if n > 2})
    with mode:
        probe.value(probe.values)
    return mode.found
