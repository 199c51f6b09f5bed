"""Packing: against plain loops and the layout of the case, in values and gradients."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from icediag.model.attention import bucket_attention
from icediag.model.packing import (
    BUCKET_RATIO,
    SHORT,
    Bucket,
    Packed,
    PackingPlan,
    pack,
    plan_packing,
    unpack,
)
from tests.strategies import SEEDS, lengths

RATIOS = st.sampled_from([1.0, BUCKET_RATIO, 3.0, math.inf])
F, HEADS = 4, 2


def plan(counts: list[int], ratio: float = BUCKET_RATIO) -> PackingPlan:
    return plan_packing(torch.tensor(counts, dtype=torch.int64), ratio=ratio)


def draw_doms(counts: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """DOM rows, none of them 0, and a CLS row."""
    rng = np.random.default_rng(seed)
    doms = rng.uniform(0.5, 2, (sum(counts), F))
    return torch.from_numpy(doms).requires_grad_(), torch.full((F,), -1.0).double().requires_grad_()


def by_event(doms: Tensor, counts: list[int]) -> list[Tensor]:
    return [doms[sum(counts[:i]) : sum(counts[: i + 1])] for i in range(len(counts))]


def tokens_of(packed: Packed, event: int, count: int) -> Tensor:
    start = int(packed.slot_of_cls[event])
    return packed.tokens[start : start + 1 + count]


def weigh(x: Tensor, seed: int) -> Tensor:
    """A scalar to whose gradient every entry of `x` gives something else."""
    weights = np.random.default_rng(seed).uniform(0.5, 2, x.shape)
    return (x * torch.from_numpy(weights)).sum()


class TestPlan:
    def test_the_example_of_its_docstring(self) -> None:
        got = plan([1, 0, 3], math.inf)
        assert got.slot_of_cls.tolist() == [4, 8, 0]
        assert got.slot_of_dom.tolist() == [5, 1, 2, 3]
        assert got.padding_mask.tolist() == [False] * 6 + [True] * 2 + [False] + [True] * 3
        assert got.buckets == (Bucket(start=0, rows=3, length=4, padded=True),)
        assert got.n_slots == 12
        assert got.runs.tolist() == [0, 4, 4, 6, 8, 9, 12]

    @example(counts=[0], ratio=BUCKET_RATIO)
    @example(counts=[], ratio=BUCKET_RATIO)
    @example(counts=[], ratio=math.inf)
    @example(counts=[1, 0, 3], ratio=math.inf)
    @example(counts=[100, 80, 79, 78, 9, 0, 1], ratio=BUCKET_RATIO)
    @given(counts=lengths(giant=600), ratio=RATIOS)
    def test_every_token_has_one_slot_and_the_rest_is_padding(
        self, counts: list[int], ratio: float
    ) -> None:
        got = plan(counts, ratio)
        slots = got.slot_of_cls.tolist() + got.slot_of_dom.tolist()
        assert len(slots) == len(counts) + sum(counts)
        assert len(set(slots)) == len(slots)
        held = {slot for slot, padding in enumerate(got.padding_mask.tolist()) if not padding}
        assert set(slots) == held
        assert got.slot_of_dom.dtype == got.slot_of_cls.dtype == torch.int64
        # The same as runs: of tokens and of padding, in turn, each event's tokens one run.
        runs = list(pairwise(got.runs.tolist()))
        assert {slot for start, stop in runs[::2] for slot in range(start, stop)} == held
        assert [got.n_slots, 0] == [got.runs[-1], got.runs[0]]
        starts = sorted((cls, cls + 1 + n) for cls, n in zip(slots, counts, strict=False))
        assert runs[::2] == starts
        assert got.runs.dtype == torch.int32

    @given(counts=lengths(giant=600), ratio=RATIOS)
    def test_rectangles_follow_each_other_and_hold_one_event_a_row(
        self, counts: list[int], ratio: float
    ) -> None:
        got = plan(counts, ratio)
        slot, rows = 0, []
        for bucket in got.buckets:
            assert bucket.start == slot
            rows += list(range(bucket.start, bucket.stop, bucket.length))
            slot = bucket.stop
            padding = got.padding_mask[bucket.start : bucket.stop].view(bucket.rows, bucket.length)
            # Padding comes last in a row; the longest event has none; `padded` says if any does.
            assert (padding.int().diff(dim=1) >= 0).all()
            assert not padding.any(dim=1).all()
            assert bucket.padded == bool(padding.any())
        assert slot == got.n_slots
        # CLS comes first, its DOMs after it in their order.
        assert sorted(got.slot_of_cls.tolist()) == rows
        for cls, doms in zip(
            got.slot_of_cls.tolist(), by_event(got.slot_of_dom, counts), strict=True
        ):
            assert doms.tolist() == list(range(cls + 1, cls + 1 + doms.numel()))

    @example(counts=[50, 40, 39, 8, 0, 0], ratio=BUCKET_RATIO)
    @given(
        counts=st.lists(st.integers(0, 300), min_size=1, max_size=40),
        ratio=st.sampled_from([1.0, BUCKET_RATIO, 2.0, math.inf]),
    )
    def test_buckets_are_as_few_as_the_ratio_allows(self, counts: list[int], ratio: float) -> None:
        tokens = sorted((n + 1 for n in counts), reverse=True)
        expected: list[list[int]] = []
        for n in tokens:
            longest = expected[-1][0] if expected else 0
            if expected and (n * ratio >= longest or n >= longest - SHORT):
                expected[-1].append(n)
            else:
                expected.append([n])
        got = plan(counts, ratio).buckets
        assert [(b.length, b.rows) for b in got] == [(e[0], len(e)) for e in expected]

    @given(
        counts=st.lists(st.integers(0, 2500), min_size=1, max_size=60),
        longest=st.integers(40, 3000),
    )
    def test_at_least_87_percent_of_a_long_bucket_is_used(
        self, counts: list[int], longest: int
    ) -> None:
        got = plan([*counts, longest])
        judged = 0
        for bucket in got.buckets:
            used = int((~got.padding_mask[bucket.start : bucket.stop]).sum())
            # From 40 tokens on, 15 % is more than the 4 that are always allowed.
            if bucket.length >= 40:
                judged += 1
                assert used * BUCKET_RATIO >= bucket.rows * bucket.length
            else:
                assert used >= bucket.rows * max(1, bucket.length - SHORT)
        assert judged

    def test_one_rectangle_is_mostly_padding_where_buckets_are_not(self) -> None:
        rng = np.random.default_rng(0)
        counts = [*(10 * rng.lognormal(1, 1, 255)).astype(int).tolist(), 2533]
        tokens = sum(counts) + len(counts)
        assert tokens < 0.1 * plan(counts, math.inf).n_slots
        assert tokens > 0.8 * plan(counts).n_slots

    def test_bad_arguments_are_refused(self) -> None:
        for ratio in (0.99, -1.0, math.nan):
            with pytest.raises(ValueError, match="ratio: expected 1 or more, got"):
                plan([1], ratio)
        with pytest.raises(ValueError, match="event_dom_counts: expected a one-dimensional"):
            plan_packing(torch.zeros(1, 1, dtype=torch.int64))
        with pytest.raises(ValueError, match="on the CPU, got shape .2,. on meta"):
            plan_packing(torch.zeros(2, dtype=torch.int64, device="meta"))
        good = plan([2, 1])
        with pytest.raises(ValueError, match="PackingPlan.buckets: expected to cover the 5 slots"):
            replace(good, padding_mask=good.padding_mask[:5])


class TestPack:
    @example(counts=[0], seed=0, ratio=BUCKET_RATIO, own=False)
    @example(counts=[2, 0, 150], seed=0, ratio=BUCKET_RATIO, own=True)
    @example(counts=[2, 0, 150], seed=0, ratio=math.inf, own=True)  # mostly padding
    @example(counts=[9, 8], seed=0, ratio=BUCKET_RATIO, own=True)  # a little of it
    @example(counts=[5, 5], seed=0, ratio=BUCKET_RATIO, own=True)  # none
    @given(counts=lengths(), seed=SEEDS, ratio=RATIOS, own=st.booleans())
    def test_values_and_gradients_agree_with_a_loop_over_events(
        self, counts: list[int], seed: int, ratio: float, own: bool
    ) -> None:
        doms, cls = draw_doms(counts, seed)
        if own:  # a CLS token for each event, not one for all
            cls = (cls + torch.arange(len(counts))[:, None]).detach().requires_grad_()
        got = plan(counts, ratio)
        packed = pack(doms, cls, got)
        # The sum keeps `doms` in the graph when no event has one.
        expected = torch.zeros(got.n_slots, F, dtype=torch.float64) + 0 * doms.sum()
        slots = zip(got.slot_of_cls.tolist(), by_event(doms, counts), strict=True)
        for event, (start, rows) in enumerate(slots):
            expected[start] = cls[event] if own else cls
            for k, row in enumerate(rows):
                expected[start + 1 + k] = row
        assert torch.equal(packed.tokens, expected)
        assert (packed.tokens[packed.padding_mask] == 0).all()
        assert packed.buckets == got.buckets
        assert torch.equal(packed.slot_of_cls, got.slot_of_cls)
        assert torch.equal(packed.padding_mask, got.padding_mask)
        gradients = torch.autograd.grad(weigh(packed.tokens, seed), [doms, cls])
        by_loop = torch.autograd.grad(weigh(expected, seed), [doms, cls])
        torch.testing.assert_close(gradients, by_loop)
        assert gradients[1].abs().min() > 0

    @given(counts=lengths(), seed=SEEDS, ratio=RATIOS)
    def test_unpacking_gives_back_what_was_packed(
        self, counts: list[int], seed: int, ratio: float
    ) -> None:
        doms, cls = draw_doms(counts, seed)
        got = plan(counts, ratio)
        doms_too, cls_too = unpack(pack(doms, cls, got).tokens, got)
        assert torch.equal(doms_too, doms)
        assert torch.equal(cls_too, cls.expand(len(counts), -1))

    @given(counts=lengths(), seed=SEEDS)
    def test_one_rectangle_is_the_layout_of_the_case(self, counts: list[int], seed: int) -> None:
        doms, cls = draw_doms(counts, seed)
        packed = pack(doms, cls, plan(counts, math.inf))
        longest = max(counts) + 1
        rectangle = torch.zeros(len(counts), longest, F, dtype=torch.float64)
        mask = torch.ones(len(counts), longest, dtype=torch.bool)
        for event, rows in enumerate(by_event(doms, counts)):
            rectangle[event, : 1 + len(rows)] = torch.cat([cls[None], rows])
            mask[event, : 1 + len(rows)] = False
        # Rows are sorted by length; slot_of_cls tells which is whose.
        row_of_event = packed.slot_of_cls // longest
        assert torch.equal(packed.tokens.view(len(counts), longest, F)[row_of_event], rectangle)
        assert torch.equal(packed.padding_mask.view(len(counts), longest)[row_of_event], mask)

    @given(counts=lengths(), seed=SEEDS, data=st.data())
    def test_events_follow_a_reordering(
        self, counts: list[int], seed: int, data: st.DataObject
    ) -> None:
        doms, cls = draw_doms(counts, seed)
        order = data.draw(st.permutations(range(len(counts))))
        split = by_event(doms, counts)
        packed = pack(doms, cls, plan(counts))
        reordered = pack(
            torch.cat([split[i] for i in order]), cls, plan([counts[i] for i in order])
        )
        for new, old in enumerate(order):
            mine, its = tokens_of(reordered, new, counts[old]), tokens_of(packed, old, counts[old])
            assert torch.equal(mine, its)

    @pytest.mark.parametrize("counts", [[5, 4], [60, 1, 1]])
    def test_padding_is_0_whatever_the_doms_are(self, counts: list[int]) -> None:
        got = plan(counts, math.inf)
        doms = torch.full((sum(counts), F), torch.nan)
        packed = pack(doms, torch.ones(F), got)
        assert packed.padding_mask.any()
        assert (packed.tokens[packed.padding_mask] == 0).all()
        assert packed.tokens[got.slot_of_dom].isnan().all()
        assert (packed.tokens[got.slot_of_cls] == 1).all()

    @given(counts=lengths(), seed=SEEDS, data=st.data())
    def test_changing_one_event_leaves_the_others_bit_for_bit(
        self, counts: list[int], seed: int, data: st.DataObject
    ) -> None:
        counts = [*counts, 3]  # so that there is another one
        doms, cls = draw_doms(counts, seed)
        other = data.draw(st.integers(0, len(counts) - 1))
        counts_too = list(counts)
        counts_too[other] = data.draw(st.sampled_from([0, 1, counts[other], 200]))
        split = by_event(doms, counts)
        split[other] = torch.full((counts_too[other], F), torch.nan, dtype=torch.float64)
        packed, packed_too = (
            pack(doms, cls, plan(counts)),
            pack(torch.cat(split), cls, plan(counts_too)),
        )
        for i in range(len(counts)):
            if i != other:
                assert torch.equal(
                    tokens_of(packed_too, i, counts[i]), tokens_of(packed, i, counts[i])
                )
        assert (packed_too.tokens[packed_too.padding_mask] == 0).all()

    def test_gradients_agree_with_differences_twice(self) -> None:
        got = plan([2, 0, 3])
        doms, cls = draw_doms([2, 0, 3], 0)
        assert torch.autograd.gradcheck(lambda d, c: pack(d, c, got).tokens, [doms, cls])
        assert torch.autograd.gradgradcheck(lambda d, c: pack(d, c, got).tokens.pow(3), [doms, cls])

    def test_under_autocast_the_doms_dtype_is_kept(self) -> None:
        doms, cls = torch.ones(3, F, dtype=torch.bfloat16), torch.ones(F, requires_grad=True)
        packed = pack(doms, cls, plan([3, 0]))
        assert packed.tokens.dtype == torch.bfloat16
        (gradient,) = torch.autograd.grad(packed.tokens.sum(), cls)
        assert gradient.dtype == torch.float32
        assert gradient.tolist() == [2] * F

    def test_doms_that_do_not_fit_the_plan_are_refused(self) -> None:
        with pytest.raises(ValueError, match="doms: expected the 3 rows of the plan, got 4"):
            pack(torch.zeros(4, F), torch.zeros(F), plan([3, 0]))


def attend(packed: Packed) -> Tensor:
    """Attention in which query, key and value differ."""
    x = packed.tokens
    return bucket_attention(
        x.sin(), x.roll(1, 1), x.square(), packed.padding_mask, packed.buckets, HEADS
    )


def attend_one(x: Tensor) -> Tensor:
    """The same for the tokens of one event, head by head, with nothing but a softmax."""
    e = F // HEADS
    heads = []
    for h in range(HEADS):
        q, k, v = (y[:, h * e : (h + 1) * e] for y in (x.sin(), x.roll(1, 1), x.square()))
        heads.append((q @ k.T / math.sqrt(e)).softmax(dim=1) @ v)
    return torch.cat(heads, dim=1)


class TestAttention:
    @example(counts=[0], seed=0, ratio=BUCKET_RATIO)
    @example(counts=[3, 3], seed=0, ratio=BUCKET_RATIO)
    @example(counts=[2, 0, 150], seed=0, ratio=math.inf)
    @given(counts=lengths(giant=60), seed=SEEDS, ratio=RATIOS)
    def test_values_and_gradients_agree_with_one_event_at_a_time(
        self, counts: list[int], seed: int, ratio: float
    ) -> None:
        doms, cls = draw_doms(counts, seed)
        got = plan(counts, ratio)
        out = attend(pack(doms, cls, got))
        assert out.isfinite().all()
        rows, heads = unpack(out, got)
        one_by_one = [attend_one(torch.cat([cls[None], x])) for x in by_event(doms, counts)]
        expected_heads = torch.stack([x[0] for x in one_by_one])
        expected_rows = torch.cat([x[1:] for x in one_by_one])
        torch.testing.assert_close(heads, expected_heads)
        torch.testing.assert_close(rows, expected_rows)
        mine = torch.autograd.grad(weigh(heads, seed) + weigh(rows, seed + 1), [doms, cls])
        its = torch.autograd.grad(
            weigh(expected_heads, seed) + weigh(expected_rows, seed + 1), [doms, cls]
        )
        torch.testing.assert_close(mine, its)
        assert mine[1].abs().max() > 0

    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_buckets_agree_with_one_rectangle(self, counts: list[int], seed: int) -> None:
        counts = [*counts, 70, 0]  # more than one bucket, always
        doms, cls = draw_doms(counts, seed)
        several, one = plan(counts), plan(counts, math.inf)
        assert len(several.buckets) > len(one.buckets) == 1
        results = []
        for got in (several, one):
            rows, heads = unpack(attend(pack(doms, cls, got)), got)
            loss = weigh(heads, seed) + weigh(rows, seed + 1)
            results.append((rows, heads, *torch.autograd.grad(loss, [doms, cls])))
        torch.testing.assert_close(results[0], results[1])

    @given(counts=lengths(giant=60), seed=SEEDS, data=st.data())
    def test_no_event_sees_another(self, counts: list[int], seed: int, data: st.DataObject) -> None:
        counts = [*counts, 2]
        doms, cls = draw_doms(counts, seed)
        other = data.draw(st.integers(0, len(counts) - 1))
        got = plan(counts, math.inf)
        split = by_event(doms, counts)
        split[other] = split[other] * torch.nan
        rows, heads = unpack(attend(pack(doms, cls, got)), got)
        rows_too, heads_too = unpack(attend(pack(torch.cat(split), cls, got)), got)
        here = [i for i in range(len(counts)) if i != other]
        assert torch.equal(heads_too[here], heads[here])
        assert heads_too[other].isnan().all() == (counts[other] > 0)
        for i in here:
            assert torch.equal(by_event(rows_too, counts)[i], by_event(rows, counts)[i])
        (gradient,) = torch.autograd.grad(heads[other].sum(), doms)
        for i in here:
            assert (by_event(gradient, counts)[i] == 0).all()
        assert counts[other] == 0 or gradient.abs().max() > 0
