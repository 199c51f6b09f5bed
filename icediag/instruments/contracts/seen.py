"""What was seen of one contract, over all calls of its stage, and how it is written down."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from icediag.recording import Facts, Location, Role
from icediag.records.contracts import Breach, BreachKind, Contract

from .terms import Limit

#: By how many of the steps that a dtype takes at a limit a value may be off by rounding alone.
ROUNDING = 4


@dataclass
class Ranged:
    """A tensor whose range is compared when its facts are there."""

    number: int
    limits: tuple[Limit, ...]
    finite: frozenset[str]
    dtype: torch.dtype
    call: int
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class SeenContract:
    """One contract, over all calls of its stage."""

    stage: str
    owner: str
    role: Role
    path: str
    holder: str | None
    declared: str
    location: Location | None
    axes: tuple[str | None, ...] = ()
    sizes: tuple[int, ...] | None = None
    unit: str | None = None
    column: str | None = None
    number: int | None = None
    ranged: list[Ranged] = field(default_factory=list)
    breaches: dict[tuple[str, str], Breach] = field(default_factory=dict)

    def breach(self, kind: BreachKind, expected: str, got: str, **more: Any) -> None:
        """Note a breach; of several alike the first one is kept."""
        found = Breach(kind=kind, expected=expected, got=got, **more)
        self.breaches.setdefault((kind, expected), found)


def worst_of(facts: Facts, limit: Limit, dtype: torch.dtype) -> float | int | None:
    """The value that lies farthest outside of a limit; None where none does.

    Of floating-point values the limit counts as reached within `ROUNDING` of it: the float32
    nearest to 2 pi is above 2 pi, and a sum of shares that should be 1 is at times 1.0000001.
    """
    below = limit.op in (">=", ">")
    value = facts.minimum if below else facts.maximum
    if value is None:
        return None
    end, strict = limit.value, limit.op in (">", "<")
    if dtype.is_floating_point:
        rounded = float(torch.tensor(end, dtype=torch.float64).to(dtype))
        strict = strict and rounded == end
        slack = ROUNDING * torch.finfo(dtype).eps * abs(end)
        end = rounded - slack if below else rounded + slack
    outside = value < end if below else value > end
    return value if outside or (strict and value == limit.value) else None


def written(
    seen: SeenContract, twin: SeenContract | None, collected: list[Facts | str]
) -> Contract:
    """As it is written down.

    Args:
        seen: In the batch.
        twin: The same in a smaller batch; None where it was not met there.
        collected: Facts of the tensors, by number.
    """
    for ranged in seen.ranged:
        facts = collected[ranged.number]
        if isinstance(facts, Facts):
            _judge_range(seen, ranged, facts)
    return Contract(
        stage=seen.stage,
        owner=seen.owner,
        role=seen.role,
        path=seen.path,
        holder=seen.holder,
        declared=seen.declared,
        axes=seen.axes,
        sizes=seen.sizes or (),
        small_sizes=(twin.sizes or ()) if twin is not None else (),
        unit=seen.unit,
        column=seen.column,
        number=seen.number,
        breaches=tuple(seen.breaches.values()),
        location=seen.location,
    )


def _judge_range(seen: SeenContract, ranged: Ranged, facts: Facts) -> None:
    for limit in ranged.limits:
        worst = worst_of(facts, limit, ranged.dtype)
        if worst is not None:
            seen.breach(
                "range",
                limit.text,
                f"{worst:.6g}",
                call=ranged.call,
                count=ranged.counts.get(limit.op),
                total=facts.count,
            )
    bad: dict[str, Callable[[], int]] = {
        "NaN": lambda: facts.nans,
        "infinity": lambda: facts.positive_infs + facts.negative_infs,
    }
    for what in sorted(ranged.finite):
        if count := bad[what]():
            seen.breach(
                "finite", f"no {what}", what, call=ranged.call, count=count, total=facts.count
            )
