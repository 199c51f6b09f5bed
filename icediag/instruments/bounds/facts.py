"""Facts: what is seen of a proved output on the batch, and records of the same place as one."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor

from icediag.records.bounds import OutputBounds, Place, Pole

#: A value this close to an end of its range, as a share of it, has next to no slope left.
END = 1e-3
#: Targets this close to the seam, as a share of the period, have neighbours across it.
SEAM = 0.05
#: An output that is saturated and further from its target than this share of the domain is wrong.
WRONG = 0.1


def with_facts(
    found: OutputBounds,
    values: Tensor,
    reach: tuple[float, float] | None,
    targets: Tensor | None,
) -> OutputBounds:
    """Add what is seen on the batch."""
    changes: dict[str, Any] = {}
    flat = values.detach().reshape(-1).double().cpu()
    finite = flat[flat.isfinite()]
    if finite.numel():
        changes |= {"attained_low": float(finite.min()), "attained_high": float(finite.max())}
    if reach is not None:
        changes |= {"reach_low": reach[0], "reach_high": reach[1]}
    low, high = reach or (-math.inf, math.inf)
    truth = None if targets is None else targets.detach().double().cpu()
    span = found.domain_high - found.domain_low
    kind = found.last.kind if found.last is not None else None
    if (
        found.proved
        and kind in ("squash", "clamp")
        and math.isfinite(high - low)
        and finite.numel()
    ):
        margin = END * (high - low)
        at_end = (flat < low + margin) | (flat > high - margin)
        changes["saturated"] = float(at_end.double().mean())
        if truth is not None and math.isfinite(span):
            apart = (flat - truth).abs()
            if found.periodic:
                apart = torch.minimum(apart, span - apart)
            changes["saturated_wrong"] = float((at_end & (apart > WRONG * span)).double().mean())
    if truth is not None and truth.numel():
        changes["targets"] = True
        margin = END * span if math.isfinite(span) else 0.0
        beyond = (truth < low - margin) | (truth > high + margin)
        changes["targets_out_of_reach"] = float(beyond.double().mean())
        if found.periodic:
            near = (truth < found.domain_low + SEAM * span) | (
                truth > found.domain_high - SEAM * span
            )
            changes["targets_near_seam"] = float(near.double().mean())
    return dataclasses.replace(found, **changes)


def counted(places: list[Place]) -> tuple[Place, ...]:
    """Each place once, with how often it was met."""
    counts: dict[Place, int] = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    return tuple(dataclasses.replace(place, count=n) for place, n in counts.items())


def merged(poles: list[Pole]) -> list[Pole]:
    """Each place once: where it did harm, else where it was met first."""
    found: dict[Place, Pole] = {}
    for pole in poles:
        if pole.place not in found or (pole.confirmed and not found[pole.place].confirmed):
            found[pole.place] = pole
    return list(found.values())
