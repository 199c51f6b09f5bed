"""Attention within a budget of memory, in one launch, and of the CLS tokens alone."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from icediag.model.attention import (
    SCORE_BUDGET,
    SCORES_HELD,
    bucket_attention,
    varlen_attention,
    varlen_kernel,
)
from icediag.model.collate import collate
from icediag.model.packing import BUCKET_RATIO, Packed, pack, plan_packing
from icediag.model.simulate import default_dataset
from icediag.model.transformer import EventTransformer
from tests.strategies import SEEDS, lengths

F, HEADS = 4, 2


def packed_of(counts: list[int], seed: int, ratio: float = BUCKET_RATIO) -> Packed:
    rng = np.random.default_rng(seed)
    doms = torch.from_numpy(rng.normal(size=(sum(counts), F))).requires_grad_()
    return pack(doms, torch.ones(F).double(), plan_packing(torch.tensor(counts), ratio=ratio))


def with_gradients(out: Tensor, packed: Packed, seed: int) -> tuple[Tensor, ...]:
    """Values and gradients where a token is, 0 in padding."""
    weights = torch.from_numpy(np.random.default_rng(seed).uniform(0.5, 2, out.shape))
    if out.shape == packed.tokens.shape:
        out = out.masked_fill(packed.padding_mask[:, None], 0)
    (gradient,) = torch.autograd.grad((out * weights).sum(), packed.tokens, retain_graph=True)
    return out, gradient


def attend(packed: Packed, query: Tensor | None = None, **options: Any) -> Tensor:
    x = packed.tokens
    query = x.sin() if query is None else query
    return bucket_attention(
        query, x.roll(1, 1), x.square(), packed.padding_mask, packed.buckets, HEADS, **options
    )


def loop_over_runs(
    q: Tensor, k: Tensor, v: Tensor, of_q: Tensor, of_k: Tensor, most_q: int, most_k: int
) -> Tensor:
    """What `varlen_attn` promises, sequence by sequence, on any device."""
    out = []
    for (a, b), (c, d) in zip(pairwise(of_q.tolist()), pairwise(of_k.tolist()), strict=True):
        assert b - a <= most_q
        assert d - c <= most_k
        mine, keys, values = (x.transpose(0, 1) for x in (q[a:b], k[c:d], v[c:d]))
        if b > a:
            out.append(functional.scaled_dot_product_attention(mine, keys, values).transpose(0, 1))
    return torch.cat(out)


class TestBudget:
    @pytest.mark.parametrize("ratio", [BUCKET_RATIO, math.inf])
    @given(counts=lengths(giant=60), seed=SEEDS, budget=st.sampled_from([0, 3_000, 20_000]))
    def test_values_and_gradients_are_those_without_a_budget(
        self, ratio: float, counts: list[int], seed: int, budget: int
    ) -> None:
        packed = packed_of(counts, seed, ratio)
        free = with_gradients(attend(packed), packed, seed)
        torch.testing.assert_close(
            with_gradients(attend(packed, budget=budget), packed, seed), free
        )

    def test_a_small_bucket_is_one_call_and_a_large_one_several(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shapes = []
        original = functional.scaled_dot_product_attention

        def spy(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
            shapes.append((q.shape[0], q.shape[2], k.shape[2]))
            return original(q, k, v, **rest)

        monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
        packed = packed_of([9, 9, 9], 0)
        attend(packed)
        of_query = SCORES_HELD * HEADS * 10 * 8
        attend(packed, budget=of_query * 10 * 2)
        attend(packed, budget=of_query * 4)
        assert shapes == [
            (3, 10, 10),
            *[(2, 10, 10), (1, 10, 10)],
            *[(1, 4, 10), (1, 4, 10), (1, 2, 10)] * 3,
        ]

    @pytest.mark.parametrize("counts", [[2_000], [300] * 30])
    def test_scores_stay_within_the_budget_even_in_the_kernel_that_keeps_them(
        self, counts: list[int]
    ) -> None:
        budget = 2**22
        everything = SCORES_HELD * HEADS * 8 * sum((n + 1) ** 2 for n in counts)
        assert everything > 20 * budget
        found = {}
        for name, limit in (("bounded", budget), ("free", 100 * everything)):
            packed = packed_of(counts, 0)
            with sdpa_kernel(SDPBackend.MATH):
                found[name] = peak_bytes(
                    lambda packed=packed, limit=limit: with_gradients(
                        attend(packed, budget=limit), packed, 0
                    )
                )
        # Queries, keys, values, outputs and their gradients: some tens of numbers a token.
        linear = 64 * 8 * F * (sum(counts) + len(counts))
        assert found["bounded"] <= budget + linear
        assert found["free"] > 5 * (budget + linear)

    def test_the_budget_holds_an_ordinary_batch_in_one_call_a_bucket(self) -> None:
        dataset = default_dataset(256)
        plan = collate(dataset.__getitems__(range(256))).packing
        for bucket in plan.buckets:
            assert SCORES_HELD * 4 * bucket.rows * bucket.length**2 * 4 <= SCORE_BUDGET
        # And at least 85 % of the slots are used, whatever the tail.
        assert float((~plan.padding_mask).float().mean()) > 0.85


def peak_bytes(run: Any) -> int:
    """Most bytes that torch held at once beyond what it held before, by its own allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    assert len(held) > 10
    return int(held.max())


class TestVarlen:
    @given(counts=lengths(giant=60), seed=SEEDS, ratio=st.sampled_from([1.0, 1.15, math.inf]))
    def test_values_and_gradients_are_those_of_the_buckets(
        self, counts: list[int], seed: int, ratio: float
    ) -> None:
        packed = packed_of(counts, seed, ratio)
        assert packed.runs is not None
        x = packed.tokens
        slot_of_row = packed.slot_of_cls.sort().values
        for some in (torch.arange(x.shape[0]), slot_of_row):
            query = x.index_select(0, some).sin()
            out = varlen_attention(
                query, x.roll(1, 1), x.square(), packed.runs, packed.buckets[0].length, HEADS,
                loop_over_runs,
            )  # fmt: skip
            by_bucket = with_gradients(attend(packed, query), packed, seed)
            torch.testing.assert_close(with_gradients(out, packed, seed), by_bucket)

    def test_there_is_a_kernel_only_where_torch_has_one(self) -> None:
        for dtype in (torch.float32, torch.bfloat16):
            assert varlen_kernel(torch.zeros(3, 64, dtype=dtype), 4) is None

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    def test_on_a_gpu_it_agrees_with_the_buckets(self) -> None:
        torch.manual_seed(0)
        transformer = EventTransformer(64, 4, 2).cuda()
        plan = plan_packing(torch.tensor([700, 3, 0, 90, 91, 1])).to("cuda")
        doms = torch.randn(885, 64, device="cuda", requires_grad=True)
        found = []
        for planned in (True, False):
            with torch.autocast("cuda", torch.bfloat16):
                packed = pack(doms, torch.zeros(64, device="cuda"), plan)
                packed = packed if planned else Packed(**{**vars(packed), "runs": None})
                out = transformer(packed).float()
            found.append((out, *torch.autograd.grad(out.square().sum(), doms)))
        if varlen_kernel(torch.zeros(1, 64, dtype=torch.bfloat16, device="cuda"), 4) is None:
            pytest.skip("this torch or GPU has no kernel for lengths that vary")
        torch.testing.assert_close(found[0], found[1], rtol=0.05, atol=0.05)


class TestLastLayer:
    @given(counts=lengths(giant=60), seed=SEEDS)
    def test_values_and_gradients_are_those_of_all_tokens(
        self, counts: list[int], seed: int
    ) -> None:
        torch.manual_seed(seed)
        transformer = EventTransformer(F, HEADS, 2).double()
        packed = packed_of(counts, seed)
        got = transformer(packed)
        tokens = packed.tokens
        for layer in transformer.layers:
            tokens = layer(tokens, packed)
        expected = transformer.norm(tokens.index_select(0, packed.slot_of_cls))
        wanted = [packed.tokens, *transformer.parameters()]
        weights = torch.rand(got.shape, dtype=got.dtype)
        gradients = [
            torch.autograd.grad((out * weights).sum(), wanted, retain_graph=True)
            for out in (got, expected)
        ]
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(gradients[0], gradients[1])


def test_an_older_torch_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older torch has no kernel for lengths that vary: None, not an error."""
    monkeypatch.setitem(__import__("sys").modules, "torch.nn.attention.varlen", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))

    class OnCuda:
        shape = (3, 64)
        dtype = torch.bfloat16
        device = torch.device("cuda")

    tokens: Any = OnCuda()
    assert varlen_kernel(tokens, 4) is None
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert varlen_kernel(tokens, 4) is not None
    assert varlen_kernel(tokens, 64) is None  # heads of one feature
