"""Calls: one dispatched operation, its arguments by name, and the table of rules.

A rule gives the interval of each result from the intervals of the arguments. It is found by the
operation's name without overload; `tanh_` and `tanh.out` go by the rule of `tanh`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from icediag.records.bounds import BoundKind

from .intervals import Interval, everything, number, rounded, widened
from .shadow import Shadows

#: Of a single result, or of each in order; None for a result that is a constant.
Result = Interval | Sequence[Interval | None]


@dataclass(eq=False)
class Call:
    """One operation that is being run.

    Attributes:
        name: Without overload and without the underscore of in-place ones: `tanh`.
        function: The operation, as its values are computed; for in-place ones that is not called.
        args: Every argument by its name in the schema, defaults included.
        outs: Tensors that it gives, or changes.
        shadows: Where what is known of arguments is found.
        after: What to note about the results once they have their ends.
        last: The last bounding operations of the result, where the rule knows better.
    """

    name: str
    function: Any
    args: dict[str, Any]
    outs: list[Tensor]
    shadows: Shadows
    after: list[Callable[[], None]] = field(default_factory=list)
    last: int | Tensor | None = None

    @property
    def out(self) -> Tensor:
        """The first result."""
        return self.outs[0]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first result."""
        return self.out.dtype

    def has(self, name: str) -> bool:
        """Whether an argument is there and not None."""
        return self.args.get(name) is not None

    def first(self, *names: str) -> Any:
        """The first of these arguments that is there."""
        return next((self.args[name] for name in names if self.has(name)), None)

    def of(self, value: Any) -> Interval:
        """The interval of a tensor or number."""
        if isinstance(value, Tensor):
            return self.shadows.interval(value)
        found = number(value, self.dtype)
        return Interval(found.lo.to(self.out.device), found.hi.to(self.out.device))

    def __getitem__(self, name: str) -> Interval:
        return self.of(self.args[name])

    def unknown(self, value: Any) -> bool:
        """Whether a value is anything but a constant."""
        if isinstance(value, (list, tuple)):
            return any(self.unknown(item) for item in value)
        if not isinstance(value, Tensor) or self.shadows.of(value) is None:
            return False
        found = self.shadows.interval(value)
        return not bool((found.lo == found.hi).all())

    def tracked(self) -> Iterator[Tensor]:
        """Tensors among the arguments that have a shadow."""
        for value in self.args.values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Tensor) and self.shadows.of(item) is not None:
                    yield item

    def exact(self, interval: Interval) -> Interval:
        """Outward by what a correctly rounded operation can add."""
        return rounded(interval, self.dtype)

    def near(self, interval: Interval, units: float = 4) -> Interval:
        """Outward by a few roundings."""
        return widened(interval, self.dtype, units)

    def anything(self) -> Interval:
        """No bounds: by rule, not for want of one."""
        return everything(self.out.shape, self.out.device)


Rule = Callable[[Call], Result | None]


@dataclass(frozen=True)
class Entry:
    """A rule in the table.

    Attributes:
        rule: The rule; where it gives None, no rule covers the call.
        kind: How the operation bounds what it gives, None where it does not.
        needs_tracked: False for operations whose result is unknown whatever their arguments are.
    """

    rule: Rule
    kind: BoundKind | None = None
    needs_tracked: bool = True


RULES: dict[str, Entry] = {}


def rule(
    *names: str, kind: BoundKind | None = None, needs_tracked: bool = True
) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of the operations it is for."""

    def enter(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, name
            RULES[name] = Entry(function, kind, needs_tracked)
        return function

    return enter


def dims_of(value: Any, ndim: int) -> list[int]:
    """Axes that an operation reduces, as non-negative numbers; all of them for None or []."""
    if value is None or (isinstance(value, (list, tuple)) and not value):
        return list(range(ndim))
    if isinstance(value, int):
        value = [value]
    return [d % ndim if ndim else 0 for d in value] if ndim else []
