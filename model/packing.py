"""Packing: DOMs of all events, ragged, into padded rectangles that attention can work on.

One rectangle for the whole batch is as long as its longest event: at 256 IceCube events 93 % of it
is padding. So events are sorted by length into a few buckets, each a rectangle of its own, and the
rectangles lie one behind the other in one flat tensor of *slots*. Everything that works token by
token (projections, norms, feed-forward) sees one tensor; only attention looks at the rectangles.

Which DOM goes to which slot depends on the lengths alone. It is planned once, on the host, where
the batch is collated; packing itself is then a copy of rows and needs no device-to-host read.
"""

# D DOMs, B events, R rows (the events, longest first), S slots, F features

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

#: Within a bucket no event is shorter than the longest divided by this (or than the longest less
#: `SHORT` tokens), so at least 1 / 1.15 = 87 % of the slots of a bucket of long events are used.
#: Of 256 simulated events 94 % are, in 15 buckets; at 1.25 it is 90 %, in 11.
BUCKET_RATIO = 1.15
#: Below this difference in length a bucket of its own costs more in launches than its padding.
SHORT = 4


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A rectangle of slots: `rows` events of up to `length` tokens each, from slot `start` on.

    Attributes:
        start: First slot.
        rows: Number of events.
        length: Tokens of the longest of them, CLS included.
        padded: Whether any slot of the rectangle is padding; without, attention needs no mask.
    """

    start: int
    rows: int
    length: int
    padded: bool

    @property
    def stop(self) -> int:
        """One past the last slot."""
        return self.start + self.rows * self.length


@dataclass(frozen=True, kw_only=True, eq=False)
class PackingPlan:
    """Where each event's CLS token and each DOM goes.

    Attributes:
        slot_of_dom: `(D,)` slot of each DOM, in the order of the batch's DOMs.
        slot_of_cls: `(B,)` slot of each event's CLS token, in the order of the batch's events.
        padding_mask: `(S,)` True where a slot holds no token.
        runs: `(2 B + 1,)` int32, where runs of slots begin and end, row by row: first the tokens of
            an event, then its padding, which may be none. What kernels for lengths that vary take.
        buckets: The rectangles, longest events first.
    """

    slot_of_dom: Annotated[Int64[Tensor, "doms"], Ge(0)]
    slot_of_cls: Annotated[Int64[Tensor, "events"], Ge(0)]
    padding_mask: Bool[Tensor, "slots"]
    runs: Annotated[Int32[Tensor, "runs"], Ge(0)]
    buckets: tuple[Bucket, ...]

    def __post_init__(self) -> None:
        covered = self.buckets[-1].stop if self.buckets else 0
        if covered != self.padding_mask.shape[0]:
            raise ValueError(
                f"PackingPlan.buckets: expected to cover the {self.padding_mask.shape[0]} slots of "
                f"padding_mask, got {covered}"
            )

    @property
    def n_slots(self) -> int:
        """Number of slots S, padding included."""
        return self.padding_mask.shape[0]

    def _map(self, change: Callable[[Tensor], Tensor]) -> "PackingPlan":
        """A copy with `change` applied to each tensor."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        changed = {name: change(v) for name, v in values if isinstance(v, Tensor)}
        return replace(self, **changed)  # type: ignore[arg-type]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "PackingPlan":
        """The same plan with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "PackingPlan":
        """The same plan in page-locked memory, for asynchronous copies to a GPU."""
        return self._map(Tensor.pin_memory)


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """Tokens of a batch in slots.

    Attributes:
        tokens: `(S, F)`; padding slots hold 0.
        padding_mask: `(S,)` True where a slot is padding.
        slot_of_cls: `(B,)` slot of each event's CLS token.
        buckets: The rectangles that the slots form.
        runs: As in `PackingPlan`; None where they were not planned.
    """

    tokens: Float[Tensor, "slots features"]
    padding_mask: Bool[Tensor, "slots"]
    slot_of_cls: Annotated[Int64[Tensor, "events"], Ge(0)]
    buckets: tuple[Bucket, ...]
    runs: Int32[Tensor, "runs"] | None = None


def _cut(tokens_desc: npt.NDArray[np.int64], ratio: float) -> list[int]:
    """First row of each bucket, for token counts in descending order; the loop is over buckets."""
    cuts = []
    ascending = tokens_desc[::-1].tolist()
    row, n = 0, len(ascending)
    while row < n:
        cuts.append(row)
        longest = ascending[n - 1 - row]
        shortest = min(longest / ratio, longest - SHORT)
        # Rows still to come with at least `shortest` tokens stay in this bucket.
        row = n - bisect_left(ascending, shortest)
    return cuts


def plan_packing(
    event_dom_counts: Int64[Tensor, "events"], *, ratio: float = BUCKET_RATIO
) -> PackingPlan:
    """Plan the slots of a batch from the number of DOMs of each event.

    The DOMs must come event by event, as `collate` orders them.

    Args:
        event_dom_counts: `(B,)` DOMs of each event, 0 allowed, on the CPU.
        ratio: How much longer than the shortest the longest event of a bucket may be, at least 1;
            infinity gives one rectangle for all.

    Returns:
        The plan, on the CPU. Example: counts [1, 0, 3] and ratio infinity give rows of 4 slots,
        longest first: slot_of_cls = [4, 8, 0] and slot_of_dom = [5, 1, 2, 3].

    Raises:
        ValueError: `ratio` is below 1, or the counts are not a one-dimensional CPU tensor.
    """
    if not ratio >= 1:
        raise ValueError(f"ratio: expected 1 or more, got {ratio}")
    if event_dom_counts.ndim != 1 or event_dom_counts.device.type != "cpu":
        raise ValueError(
            "event_dom_counts: expected a one-dimensional tensor on the CPU, got shape "
            f"{tuple(event_dom_counts.shape)} on {event_dom_counts.device}"
        )
    counts_B = event_dom_counts.numpy()
    tokens_B = counts_B + 1
    event_of_row = np.argsort(-tokens_B, kind="stable")
    tokens_R = tokens_B[event_of_row]
    n_events = counts_B.size
    cuts = [0] * (n_events > 0) if ratio == np.inf else _cut(tokens_R, ratio)

    buckets, start, lengths = [], 0, tokens_R.tolist()
    for first, stop in pairwise([*cuts, n_events]):
        rows, length = stop - first, lengths[first]
        padded = lengths[stop - 1] != length
        buckets.append(Bucket(start=start, rows=rows, length=length, padded=padded))
        start += rows * length
    length_R = np.repeat([b.length for b in buckets], [b.rows for b in buckets])
    # For rows of 2 tokens and no padding, then 1 and 1, runs are [0, 2, 2, 3, 4].
    runs = np.zeros(2 * n_events + 1, np.int32)
    np.cumsum(np.stack([tokens_R, length_R - tokens_R], axis=1), out=runs[1:])
    slot_of_cls = np.empty(n_events, np.int64)
    slot_of_cls[event_of_row] = runs[:-1:2]

    # Position of each DOM within its event: for counts [1, 0, 3] it is [0, 0, 1, 2].
    slot_of_dom = np.repeat(slot_of_cls + 1 - (np.cumsum(counts_B) - counts_B), counts_B)
    slot_of_dom += np.arange(slot_of_dom.size)
    is_padding = np.arange(2 * n_events) % 2 == 1
    return PackingPlan(
        slot_of_dom=torch.from_numpy(slot_of_dom),
        slot_of_cls=torch.from_numpy(slot_of_cls),
        padding_mask=torch.from_numpy(np.repeat(is_padding, np.diff(runs))),
        runs=torch.from_numpy(runs),
        buckets=tuple(buckets),
    )


class _Pack(torch.autograd.Function):
    """One copy of rows forward, one gather backward.

    In-place writes of rows would do forward, but each of them copies the whole gradient on the way
    back.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, doms_DF: Tensor, cls_BF: Tensor, plan: PackingPlan
    ) -> Tensor:
        ctx.save_for_backward(plan.slot_of_dom, plan.slot_of_cls)
        tokens_SF = doms_DF.new_zeros(plan.n_slots, doms_DF.shape[1])
        tokens_SF.index_copy_(0, plan.slot_of_dom, doms_DF)
        return tokens_SF.index_copy_(0, plan.slot_of_cls, cls_BF)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad_SF: Tensor
    ) -> tuple[Tensor, Tensor, None]:
        slot_of_dom, slot_of_cls = ctx.saved_tensors  # type: ignore[attr-defined]
        to_doms = grad_SF.index_select(0, slot_of_dom)
        return to_doms, grad_SF.index_select(0, slot_of_cls), None


def pack(
    doms: Float[Tensor, "doms features"], cls: Float[Tensor, "*events features"], plan: PackingPlan
) -> Packed:
    """Put the DOMs of all events, and a CLS token before each event, into the plan's slots.

    Args:
        doms: `(D, F)` one row a DOM, event by event.
        cls: `(B, F)` the token that comes first in each event, or `(F,)` one for all.
        plan: From `plan_packing` on the same events, on the device of `doms`.

    Returns:
        The packed tokens; an event without DOMs has its CLS token alone.

    Raises:
        ValueError: `doms` or `cls` has another number of rows than the plan.
    """
    if doms.shape[0] != plan.slot_of_dom.shape[0]:
        raise ValueError(
            f"doms: expected the {plan.slot_of_dom.shape[0]} rows of the plan, got {doms.shape[0]}"
        )
    n_events, n_features = plan.slot_of_cls.shape[0], doms.shape[1]
    if cls.shape not in ((n_features,), (n_events, n_features)):
        raise ValueError(
            f"cls: expected shape ({n_features},) or ({n_events}, {n_features}), got "
            f"{tuple(cls.shape)}"
        )
    cls_BF = cls.to(doms.dtype).expand(n_events, n_features)
    tokens: Tensor = _Pack.apply(doms, cls_BF, plan)  # type: ignore[no-untyped-call]
    return Packed(
        tokens=tokens,
        padding_mask=plan.padding_mask,
        slot_of_cls=plan.slot_of_cls,
        buckets=plan.buckets,
        runs=plan.runs,
    )


def unpack(
    tokens: Float[Tensor, "slots features"], plan: PackingPlan
) -> tuple[Float[Tensor, "doms features"], Float[Tensor, "events features"]]:
    """The inverse of `pack`: the DOM rows and the CLS rows, in the batch's order."""
    return tokens.index_select(0, plan.slot_of_dom), tokens.index_select(0, plan.slot_of_cls)
