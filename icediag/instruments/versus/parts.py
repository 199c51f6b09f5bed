"""Collate, packing, pooling and attention: ways to do each on one simulated batch."""

# P pulses, D DOMs, B events, S slots, F features

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from icediag.model.attention import bucket_attention
from icediag.model.block import EventBlock
from icediag.model.collate import Batch, collate
from icediag.model.dom_encoder import DomEncoder
from icediag.model.event import CHARGE, Event
from icediag.model.faults.packing_loop import pack_one_by_one
from icediag.model.packing import PackingPlan, pack, plan_packing
from icediag.model.scatter import Backend
from icediag.model.table import TableDataset

from .case import collate_event_by_event, collate_like_the_case
from .peers import peer
from .timing import Way

#: Width of DOM vectors, and heads, of the default network.
WIDTH, HEADS = 128, 4
#: One rectangle for a whole batch is not made where it would be larger, bytes a tensor.
LARGEST_RECTANGLE = 2**29


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One batch, in the forms that the ways take.

    Attributes:
        events: As a list, made before the clock runs.
        block: As the data set's batched fetch gives it.
        batch: Collated.
        doms: `(D, F)` a vector a DOM.
        cls: `(F,)`.
        rectangle: The plan of one rectangle for all.
    """

    events: Sequence[Event]
    block: EventBlock
    batch: Batch
    doms: Tensor
    cls: Tensor
    rectangle: PackingPlan

    @property
    def too_large(self) -> str:
        """Why one rectangle is not made; empty where it is."""
        size = self.rectangle.n_slots * WIDTH * 4
        if size <= LARGEST_RECTANGLE:
            return ""
        return f"not run: one rectangle takes {size / 2**30:.2g} GiB a tensor"


def setting_of(dataset: TableDataset, n_events: int, seed: int) -> Setting:
    """The first events of a data set."""
    block = dataset.__getitems__(range(n_events))
    batch = collate(block)
    generator = torch.Generator().manual_seed(seed)
    return Setting(
        events=[dataset[i] for i in range(n_events)],
        block=block,
        batch=batch,
        doms=torch.randn(batch.num_doms, WIDTH, generator=generator).requires_grad_(),
        cls=torch.randn(WIDTH, generator=generator).requires_grad_(),
        rectangle=plan_packing(batch.event_dom_counts, ratio=math.inf),
    )


def collate_ways(s: Setting) -> list[Way]:
    """From events to a batch."""
    ways = [
        Way(name="ours, the data set's block", run=lambda: collate(s.block)),
        Way(name="ours, a list of events", run=lambda: collate(s.events)),
        Way(
            name="torch.cat of the rows",
            run=lambda: torch.cat([event.pulse_features for event in s.events]),
            note="no index, no DOMs",
        ),
        Way(
            name="torch.cat and an event index",
            run=lambda: _rows_and_index(s.events),
            note="no DOMs, no plan",
        ),
        Way(name="the case's", run=lambda: collate_like_the_case(s.events), note="no plan"),
        Way(name="event by event", run=lambda: collate_event_by_event(s.events), note="no plan"),
    ]
    geometric, reason = peer("torch_geometric")
    if geometric is None:
        return [*ways, Way(name="PyG Batch.from_data_list", run=None, note=reason)]
    data = geometric.data
    graphs = [
        data.Data(x=e.pulse_features, y=e.target[None], event_id=torch.tensor([e.event_id]))
        for e in s.events
    ]
    run = lambda: data.Batch.from_data_list(graphs)  # noqa: E731 - as the others
    return [*ways, Way(name="PyG Batch.from_data_list", run=run, note="no DOMs, no plan")]


def _rows_and_index(events: Sequence[Event]) -> tuple[Tensor, Tensor]:
    rows = torch.cat([event.pulse_features for event in events])
    lengths = torch.tensor([event.n_pulses for event in events])
    return rows, torch.repeat_interleave(torch.arange(len(events)), lengths)


def _back(run: Callable[[], Tensor], *wanted: Tensor) -> Callable[[], object]:
    """A run forward and backward."""
    return lambda: torch.autograd.grad(run().sum(), wanted)


def packing_ways(s: Setting) -> list[Way]:
    """From DOM vectors to padded tokens, forward and backward."""
    plan, counts = s.batch.packing, s.batch.event_dom_counts
    whole = s.too_large
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])

    def one(run: Callable[[], Tensor], name: str, note: str = "no CLS token") -> Way:
        return Way(name=name, run=None if whole else _back(run, s.doms), note=whole or note)

    def nested() -> Tensor:
        jagged = torch.nested.nested_tensor_from_jagged(s.doms, offsets)
        padded: Tensor = jagged.to_padded_tensor(0.0)
        return padded

    lengths = counts.tolist()
    ways = [
        Way(
            name="ours, in buckets",
            run=_back(lambda: pack(s.doms, s.cls, plan).tokens, s.doms, s.cls),
            note=_used(plan),
        ),
        one(
            lambda: pack(s.doms, s.cls, s.rectangle).tokens,
            "ours, one rectangle",
            _used(s.rectangle),
        ),
        one(
            lambda: pad_sequence(list(torch.split(s.doms, lengths)), batch_first=True),
            "pad_sequence",
        ),
        one(nested, "torch.nested to padded"),
        one(lambda: pack_one_by_one(s.doms, s.cls, s.batch).tokens, "the case's loop", ""),
    ]
    geometric, reason = peer("torch_geometric")
    if geometric is None:
        return [*ways, Way(name="PyG to_dense_batch", run=None, note=reason)]
    dense: Any = geometric.utils.to_dense_batch
    index, n = s.batch.dom_to_event_idx, s.batch.batch_size
    return [*ways, one(lambda: dense(s.doms, index, batch_size=n)[0], "PyG to_dense_batch")]


def _used(plan: PackingPlan) -> str:
    tokens = plan.slot_of_dom.shape[0] + plan.slot_of_cls.shape[0]
    return f"{100 * tokens / plan.n_slots:.0f} % of {plan.n_slots:,} slots used"


def pooling_ways(s: Setting) -> list[Way]:
    """From pulse vectors to DOM vectors: mean, maximum and weighted mean, forward and backward."""
    batch = s.batch
    generator = torch.Generator().manual_seed(0)
    encoded = torch.randn(len(batch.pulse_features), WIDTH, generator=generator).requires_grad_()
    charges = batch.pulse_features[:, CHARGE]

    def pooled(backend: Backend) -> Callable[[], Tensor]:
        encoder = DomEncoder(WIDTH, WIDTH, WIDTH, backend)
        return lambda: encoder.pool(encoded, charges, batch.pulse_to_dom_idx, batch.num_doms)

    scatter, reason = peer("torch_scatter")
    return [
        Way(name="ours, native", run=_back(pooled("native"), encoded)),
        Way(
            name="ours, torch-scatter",
            run=None if scatter is None else _back(pooled("torch-scatter"), encoded),
            note=reason,
        ),
    ]


def attention_ways(s: Setting) -> list[Way]:
    """Attention within each event, forward and backward."""
    counts = s.batch.event_dom_counts

    def ours(plan: PackingPlan) -> Callable[[], object]:
        x = torch.randn(plan.n_slots, 3 * WIDTH).requires_grad_()
        query, key, value = x.chunk(3, dim=1)
        return _back(
            lambda: bucket_attention(query, key, value, plan.padding_mask, plan.buckets, HEADS), x
        )

    def nested() -> Callable[[], object]:
        tokens = counts + 1
        offsets = torch.cat([tokens.new_zeros(1), tokens.cumsum(0)])
        x = torch.randn(int(offsets[-1]), 3 * WIDTH).requires_grad_()

        cut: Any = torch.Tensor.unflatten  # untyped
        shape = [HEADS, WIDTH // HEADS]

        def run() -> Tensor:
            heads = [
                cut(torch.nested.nested_tensor_from_jagged(y, offsets), -1, shape).transpose(1, 2)
                for y in (z.contiguous() for z in x.chunk(3, dim=1))
            ]
            out = torch.nn.functional.scaled_dot_product_attention(*heads)
            values: Tensor = out.transpose(1, 2).flatten(-2).values()
            return values

        return _back(run, x)

    whole = s.too_large
    return [
        Way(name="ours, in buckets", run=ours(s.batch.packing), note=_used(s.batch.packing)),
        Way(
            name="padded to the longest",
            run=None if whole else ours(s.rectangle),
            note=whole or _used(s.rectangle),
        ),
        Way(
            name="torch.nested, jagged",
            run=nested(),
            note="no padding; on a CPU event by event",
        ),
    ]
