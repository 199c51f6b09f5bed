"""Poles: where an operation or its slope is not finite, met in runs on values within their ranges.

Whether an input can reach a pole is decided by going there: the batch as it is, and the batch with
rows moved to the ends of their ranges. Whether it does harm, by looking at what comes out and at
what comes back: a pole that a mask or a clamp guards leaves the gradient finite, and is passed
over.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icediag.instruments.running.operations import OperationMode
from icediag.records.bounds import Place, Pole

from .dispatch import name_of, named_of
from .places import line_of_user

#: At so many entries of an operation value and slope are computed again.
ENTRIES = 16


def _x(named: dict[str, Any]) -> Tensor:
    found: Tensor = named["self"]
    return found


def _other_zero(named: dict[str, Any]) -> Tensor:
    other = named["other"]
    if not isinstance(other, Tensor):
        other = torch.tensor(float(other))
    # By numpy: torch's own imports its symbolic shapes, which takes most of a second.
    return (other == 0).expand(np.broadcast_shapes(_shape(named["self"]), other.shape))


def _shape(value: Any) -> torch.Size:
    return value.shape if isinstance(value, Tensor) else torch.Size()


def _power(named: dict[str, Any]) -> Tensor:
    x, n = named["self"], named["exponent"]
    if not isinstance(x, Tensor):
        return torch.zeros((), dtype=torch.bool)
    n = n if isinstance(n, Tensor) else torch.tensor(float(n), device=x.device)
    fractional = n != n.round()
    return ((x == 0) & ((n < 0) | (fractional & (n < 1)))) | ((x < 0) & fractional)


def _both_zero(named: dict[str, Any]) -> Tensor:
    x, y = named["self"], named["other"]
    found: Tensor = (x == 0) & (y == 0)
    return found


#: Operation -> (entries that are at a pole, what is there).
POLES: dict[str, tuple[Callable[[dict[str, Any]], Tensor], str]] = {
    "log": (lambda n: _x(n) <= 0, "the logarithm of a number that is not positive"),
    "log2": (lambda n: _x(n) <= 0, "the logarithm of a number that is not positive"),
    "log10": (lambda n: _x(n) <= 0, "the logarithm of a number that is not positive"),
    "log1p": (lambda n: _x(n) <= -1, "the logarithm of a number that is not positive"),
    "sqrt": (lambda n: _x(n) <= 0, "a square root, whose slope at 0 is infinite"),
    "rsqrt": (lambda n: _x(n) <= 0, "the reciprocal of the root of 0"),
    "reciprocal": (lambda n: _x(n) == 0, "the reciprocal of 0"),
    "div": (_other_zero, "a division by 0"),
    "remainder": (_other_zero, "a remainder of a division by 0"),
    "fmod": (_other_zero, "a remainder of a division by 0"),
    "acos": (lambda n: _x(n).abs() >= 1, "an arccosine, whose slope at 1 and -1 is infinite"),
    "asin": (lambda n: _x(n).abs() >= 1, "an arcsine, whose slope at 1 and -1 is infinite"),
    "atanh": (lambda n: _x(n).abs() >= 1, "an inverse hyperbolic tangent at 1 or -1"),
    "acosh": (lambda n: _x(n) <= 1, "an inverse hyperbolic cosine at 1"),
    "logit": (lambda n: (_x(n) <= 0) | (_x(n) >= 1), "a logit of 0 or 1"),
    "pow": (_power, "a power whose value or slope is infinite"),
    "hypot": (_both_zero, "the length of the zero vector, whose slope is 0 / 0"),
    "atan2": (_both_zero, "the angle of the zero vector, whose slope is 0 / 0"),
    "exp": (lambda n: _x(n) > 10, "an exponential that overflows"),
    "expm1": (lambda n: _x(n) > 10, "an exponential that overflows"),
    "exp2": (lambda n: _x(n) > 10, "an exponential that overflows"),
}
#: Operations that bring many entries together: their pole is a result of 0.
JOINED: dict[str, str] = {
    "linalg_vector_norm": "the norm of the zero vector",
    "norm": "the norm of the zero vector",
    "std": "a standard deviation of equal numbers, whose slope is 0 / 0",
}


@dataclass(eq=False)
class Meeting:
    """An operation that was at a pole.

    Attributes:
        place: Which.
        what: What is there.
        argument: The argument that decides, at the first such entry.
        value: The result there.
        slope: Its derivative there, by that argument; NaN where it has none.
        dtype: Of the result.
        entries: How many entries were there.
        value_bad: Whether the result is not finite there although the arguments are.
        source: The argument whose gradient is looked at, None where none goes to it.
        result: The result.
        slopes: Filled on the way back: whether the gradient by the result was finite, and whether
            that by the argument was not.
    """

    place: Place
    what: str
    argument: float
    value: float
    slope: float
    dtype: str
    entries: int
    value_bad: bool
    source: Tensor | None
    result: Tensor
    slopes: dict[str, bool] = field(default_factory=dict)


class PoleWatch(OperationMode):
    """Notes operations that are at a pole while it is active.

    Args:
        stage: Gives the name of the stage that is running.
    """

    def __init__(self, stage: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.meetings: list[Meeting] = []
        self._stage = stage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and look at its arguments."""
        kwargs = kwargs or {}
        name = name_of(func)
        if name not in POLES and name not in JOINED:
            return func(*args, **kwargs)
        named = named_of(func, args, kwargs)
        written = func._schema.is_mutable  # noqa: SLF001 - the only way to its schema
        if written:
            # What is overwritten has to be looked at before.
            named = {k: v.clone() if isinstance(v, Tensor) else v for k, v in named.items()}
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and out.is_floating_point() and out.numel():
            self._look(name, named, args, out, written)
        return out

    def _look(
        self, name: str, named: dict[str, Any], args: Any, out: Tensor, written: bool
    ) -> None:
        if name in JOINED:
            at, what = out == 0, JOINED[name]
        else:
            where, what = POLES[name]
            at = where(named)
            if name.startswith("exp"):
                at = at & out.isinf()
            if at.shape != out.shape:
                at = at.expand(out.shape)
        finite = torch.ones((), dtype=torch.bool, device=out.device)
        for value in named.values():
            if isinstance(value, Tensor) and value.is_floating_point() and name not in JOINED:
                finite = finite & value.isfinite()
        at = at & finite
        count = int(at.sum())
        if not count:
            return
        source = _deciding(name, args)
        original = source if isinstance(source, Tensor) and source.requires_grad else None
        line = line_of_user()
        argument, slope = _slope_at(name, named, at)
        values = out[at]
        self.meetings.append(
            Meeting(
                place=Place(
                    op=f"aten::{name}",
                    stage=self._stage(),
                    file=line[0] if line else None,
                    line=line[1] if line else None,
                ),
                what=what,
                argument=argument,
                value=float(
                    values[~values.isfinite()][0] if bool((~values.isfinite()).any()) else values[0]
                ),
                slope=slope,
                dtype=str(out.dtype).removeprefix("torch."),
                entries=count,
                value_bad=bool((~values.isfinite()).any()),
                source=None if written else original,
                result=out,
            )
        )

    def listen(self) -> None:
        """Have the gradients of what was noted looked at, when the backward pass comes by."""
        for meeting in self.meetings:
            if meeting.source is None or not meeting.result.requires_grad:
                continue

            def on_result(gradient: Tensor, meeting: Meeting = meeting) -> None:
                meeting.slopes["after"] = bool(gradient.isfinite().all())

            def on_source(gradient: Tensor, meeting: Meeting = meeting) -> None:
                meeting.slopes["before"] = bool(gradient.isfinite().all())

            meeting.result.register_hook(on_result)  # type: ignore[no-untyped-call]
            meeting.source.register_hook(on_source)  # type: ignore[no-untyped-call]


def _deciding(name: str, args: Any) -> Any:
    """The argument at whose value the pole is, as the caller handed it over."""
    i = 1 if name in ("div", "remainder", "fmod") else 0
    return args[i] if len(args) > i else None


def _slope_at(name: str, named: dict[str, Any], at: Tensor) -> tuple[float, float]:
    """The argument at the first pole, and the derivative there."""
    if name in JOINED:
        return 0.0, math.nan
    which = "other" if name in ("div", "remainder", "fmod") else "self"
    value = named[which]
    if not isinstance(value, Tensor):
        return float(value), math.nan
    argument = float(value.expand(at.shape)[at][0])
    return argument, _derivative(name, argument)


def _derivative(name: str, x: float) -> float:
    """Of the function at a point, as calculus has it."""
    if name in ("log", "log2", "log10", "log1p"):
        moved = x + 1 if name == "log1p" else x
        base = {"log2": math.log(2), "log10": math.log(10)}.get(name, 1.0)
        return math.inf if moved == 0 else 1 / (moved * base)
    if name in ("sqrt", "rsqrt", "reciprocal", "acos", "asin", "atanh", "logit", "acosh"):
        inside = {"sqrt": x, "rsqrt": x, "acosh": x - 1}.get(name, 0.0)
        sign = -1.0 if name in ("rsqrt", "reciprocal", "acos") else 1.0
        return (
            math.nan
            if inside < 0 or (abs(x) > 1 and name in ("acos", "asin"))
            else (sign * math.inf)
        )
    return math.inf if name in ("pow", "exp", "expm1", "exp2") else math.nan


def confirmed(meetings: list[Meeting], outcome: str, met: str) -> list[Pole]:
    """Poles of one run.

    Args:
        meetings: What was at a pole.
        outcome: What came out of the run that is not finite, "" for nothing.
        met: On which batch.
    """
    poles: dict[tuple[Any, ...], Pole] = {}
    for meeting in meetings:
        born = meeting.slopes.get("before") is False and meeting.slopes.get("after", True)
        harmful = bool(outcome) and (meeting.value_bad or born)
        if not harmful and not meeting.value_bad and not born:
            continue  # value and slope are in order: the kernel knows this point
        place = meeting.place
        key = (place.op, place.stage, place.file, place.line)
        if key in poles and (poles[key].confirmed or not harmful):
            continue
        poles[key] = Pole(
            place=place,
            what=meeting.what,
            argument=meeting.argument,
            value=meeting.value,
            slope=meeting.slope,
            dtype=meeting.dtype,
            confirmed=harmful,
            outcome=outcome if harmful else "",
            met=met,
            entries=meeting.entries,
        )
    return list(poles.values())
