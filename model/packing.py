"""Packing: DOMs of all events, ragged, into padded rectangles that attention can work on.

One rectangle for the whole batch is as long as its longest event: at 256 IceCube events 93 % of it
is padding. So events are sorted by length into a few buckets, each a rectangle of its own, and the
rectangles lie one behind the other in one flat tensor of *slots*. Everything that works token by
token (projections, norms, feed-forward) sees one tensor; only attention looks at the rectangles.

Which DOM goes to which slot depends on the lengths alone. It is planned once, on the host, where
the batch is collated; packing itself is then a copy of rows and needs no device-to-host read.
"""

# D DOMs, B events, S slots, F features

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

#: Within a bucket no event is shorter than the longest divided by this (or than the longest less
#: `SHORT` tokens), so at least 1 / 1.25 = 80 % of the slots of a bucket of long events are used.
BUCKET_RATIO = 1.25
#: Below this difference in length a bucket of its own costs more in launches than its padding.
SHORT = 8


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
        dom_of_slot: `(S,)` the inverse: row of the DOM that a slot takes, 0 where it takes none.
        slot_of_padding: `(slots without a token,)` which those are.
        padding_mask: `(S,)` the same as a mask: True where a slot holds no token.
        buckets: The rectangles, longest events first.
    """

    slot_of_dom: Int64[Tensor, "doms"]
    slot_of_cls: Int64[Tensor, "events"]
    dom_of_slot: Int64[Tensor, "slots"]
    slot_of_padding: Int64[Tensor, "padding"]
    padding_mask: Bool[Tensor, "slots"]
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
    """

    tokens: Float[Tensor, "slots features"]
    padding_mask: Bool[Tensor, "slots"]
    slot_of_cls: Int64[Tensor, "events"]
    buckets: tuple[Bucket, ...]


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
    counts = event_dom_counts.numpy()
    n_events = counts.size
    tokens = counts + 1
    event_of_row = np.argsort(-tokens, kind="stable")
    tokens_desc = tokens[event_of_row]

    first_row = np.array(
        [*([0] if ratio == np.inf and n_events else _cut(tokens_desc, ratio))], int
    )
    rows = np.diff(first_row, append=n_events)
    length = tokens_desc[first_row] if n_events else np.zeros(0, np.int64)
    stop = np.cumsum(rows * length)
    start = stop - rows * length
    n_slots = int(stop[-1]) if n_events else 0

    bucket_of_row = np.repeat(np.arange(first_row.size), rows)
    row_in_bucket = np.arange(n_events) - first_row[bucket_of_row]
    slot_of_cls = np.empty(n_events, np.int64)
    slot_of_cls[event_of_row] = start[bucket_of_row] + row_in_bucket * length[bucket_of_row]

    # Position of each DOM within its event: for counts [1, 0, 3] it is [0, 0, 1, 2].
    n_doms = int(counts.sum())
    offset = np.repeat(slot_of_cls + 1 - (np.cumsum(counts) - counts), counts)
    dom = np.arange(n_doms)
    slot_of_dom = dom + offset

    dom_of_slot = np.zeros(n_slots, np.int64)
    dom_of_slot[slot_of_dom] = dom
    padding = np.ones(n_slots, bool)
    padding[slot_of_dom] = False
    padding[slot_of_cls] = False
    shortest = tokens_desc[np.append(first_row[1:], n_events) - 1] if n_events else length
    return PackingPlan(
        slot_of_dom=torch.from_numpy(slot_of_dom),
        slot_of_cls=torch.from_numpy(slot_of_cls),
        dom_of_slot=torch.from_numpy(dom_of_slot),
        slot_of_padding=torch.from_numpy(np.flatnonzero(padding)),
        padding_mask=torch.from_numpy(padding),
        buckets=tuple(
            Bucket(start=s, rows=r, length=n, padded=n != m)
            for s, r, n, m in zip(
                start.tolist(), rows.tolist(), length.tolist(), shortest.tolist(), strict=True
            )
        ),
    )


class _Pack(torch.autograd.Function):
    """One gather forward, one gather backward.

    In-place writes of rows would do forward, but each of them copies the whole gradient on the way
    back.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, doms_DF: Tensor, cls_BF: Tensor, plan: PackingPlan
    ) -> Tensor:
        ctx.save_for_backward(plan.slot_of_dom, plan.slot_of_cls)
        if 2 * doms_DF.shape[0] < plan.n_slots:
            # Mostly padding, as in one rectangle for all: clear everything, then write the few.
            tokens_SF = doms_DF.new_zeros(plan.n_slots, doms_DF.shape[1])
            tokens_SF.index_copy_(0, plan.slot_of_dom, doms_DF)
        else:
            # Mostly DOMs: a gather writes each slot once, clearing first would write most twice.
            tokens_SF = doms_DF.index_select(0, plan.dom_of_slot)
            tokens_SF.index_fill_(0, plan.slot_of_padding, 0)
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
    )


def unpack(
    tokens: Float[Tensor, "slots features"], plan: PackingPlan
) -> tuple[Float[Tensor, "doms features"], Float[Tensor, "events features"]]:
    """The inverse of `pack`: the DOM rows and the CLS rows, in the batch's order."""
    return tokens.index_select(0, plan.slot_of_dom), tokens.index_select(0, plan.slot_of_cls)
