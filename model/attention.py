"""Attention within each event, on packed slots: nothing is padded to the longest event.

Two ways to the same values. Bucket by bucket, each a rectangle of events of nearly one length, on
any device and in any precision; or all events in one launch, by a fused kernel for lengths that
vary, where torch offers one: on CUDA, in half precision.

Memory is bounded. A kernel that keeps its scores needs heads x length^2 of them for each event:
8 GB for one of 20,000 DOMs. Where they would pass a budget, rows of a bucket, and queries of an
event, are taken some at a time, and computed again on the way back instead of being kept.
"""

# S slots, F features (d_model), R rows of a bucket, L its length, Q queries a row, H heads,
# E features of a head

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor, split
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .packing import Bucket

#: Bytes that scores may take while a bucket is worked on, forward or backward.
SCORE_BUDGET = 2**28
#: Tensors of the size of the scores that torch's unfused kernel holds at once on the way back:
#: scores, weights, their gradients and a product.
SCORES_HELD = 5

#: Head sizes that the kernels for varying lengths take: multiples of the first, up to the second.
_HEAD_STEP, _HEAD_MOST = 8, 256


def bucket_attention(
    query: Float[Tensor, "queries features"],
    key: Float[Tensor, "slots features"],
    value: Float[Tensor, "slots features"],
    padding_mask: Bool[Tensor, "slots"],
    buckets: tuple[Bucket, ...],
    n_heads: int,
    *,
    budget: int = SCORE_BUDGET,
) -> Float[Tensor, "queries features"]:
    """Attention within each event, bucket by bucket.

    Args:
        query: `(S, F)`; or `(R, F)` for one query a row, in the order of rows.
        key: `(S, F)`.
        value: `(S, F)`.
        padding_mask: `(S,)` True where a slot is padding: never looked at.
        buckets: The rectangles.
        n_heads: Number of heads; divides F.
        budget: Bytes, see `SCORE_BUDGET`.

    Returns:
        One row a query. Padding slots get a finite value of no meaning.
    """
    slots = [bucket.rows * bucket.length for bucket in buckets]
    rows = [bucket.rows for bucket in buckets]
    n_features = query.shape[1]
    outputs = []
    # Cut at once: cut one by one, each piece's way back would fill a gradient of all slots.
    parts = zip(
        buckets,
        split(query, rows if query.shape[0] == sum(rows) else slots),
        split(key, slots),
        split(value, slots),
        split(padding_mask, slots),
        strict=True,
    )
    for bucket, *qkv, padding in parts:
        q_RHQE, k_RHLE, v_RHLE = (
            x.view(bucket.rows, -1, n_heads, n_features // n_heads).transpose(1, 2) for x in qkv
        )
        # Slot 0 of a row is its CLS token, so no row is without a key.
        attend = ~padding.view(bucket.rows, 1, 1, bucket.length) if bucket.padded else None
        out_RHQE = _within_budget(q_RHQE, k_RHLE, v_RHLE, attend, budget)
        outputs.append(out_RHQE.transpose(1, 2).reshape(-1, n_features))
    return torch.cat(outputs)


def _within_budget(
    q_RHQE: Tensor, k_RHLE: Tensor, v_RHLE: Tensor, attend: Tensor | None, budget: int
) -> Tensor:
    """Attention of a bucket, cut so that scores stay within the budget."""
    n_rows, n_heads, n_queries, _ = q_RHQE.shape
    of_query = SCORES_HELD * n_heads * k_RHLE.shape[2] * max(q_RHQE.element_size(), 4)
    if n_rows * n_queries * of_query <= budget:
        return functional.scaled_dot_product_attention(q_RHQE, k_RHLE, v_RHLE, attn_mask=attend)
    queries = min(n_queries, max(1, budget // of_query))
    rows = max(1, budget // (queries * of_query))
    masks = [None] * -(-n_rows // rows) if attend is None else split(attend, rows)
    return torch.cat(
        [
            torch.cat(
                [
                    # Kept scores of all pieces would add up to what is avoided here.
                    checkpoint(
                        functional.scaled_dot_product_attention,
                        q,
                        k,
                        v,
                        attn_mask=mask,
                        use_reentrant=False,
                        preserve_rng_state=False,
                    )
                    for q in split(q_some, queries, dim=2)
                ],
                dim=2,
            )
            for q_some, k, v, mask in zip(
                split(q_RHQE, rows), split(k_RHLE, rows), split(v_RHLE, rows), masks, strict=True
            )
        ]
    )


#: As `torch.nn.attention.varlen.varlen_attn`: query, key, value `(tokens, H, E)`, where sequences
#: of queries and of keys begin and end, and the longest of each.
VarlenKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int], Tensor]


def varlen_kernel(query: Tensor, n_heads: int) -> VarlenKernel | None:
    """The fused kernel for lengths that vary, or None where there is none for such tokens."""
    head = query.shape[1] // n_heads
    if (
        query.device.type != "cuda"
        or query.dtype not in (torch.float16, torch.bfloat16)
        or head % _HEAD_STEP
        or head > _HEAD_MOST
        or torch.version.hip is not None
        or torch.cuda.get_device_capability(query.device) < (8, 0)
    ):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # torch before 2.10
        return None
    kernel: Any = varlen_attn
    return kernel  # type: ignore[no-any-return]


def varlen_attention(
    query: Float[Tensor, "queries features"],
    key: Float[Tensor, "slots features"],
    value: Float[Tensor, "slots features"],
    runs: Int32[Tensor, "runs"],
    longest: int,
    n_heads: int,
    kernel: VarlenKernel,
) -> Float[Tensor, "queries features"]:
    """Attention within each event in one launch, memory growing with the number of slots alone.

    A run of padding is a sequence of its own that nobody reads, so nothing has to be moved.

    Args:
        query: `(S, F)`; or `(R, F)` for one query a row, in the order of rows.
        key: `(S, F)`.
        value: `(S, F)`.
        runs: `(2 R + 1,)` int32, see `PackingPlan`.
        longest: Slots of the longest row.
        n_heads: Number of heads; divides F.
        kernel: From `varlen_kernel`.

    Returns:
        As `bucket_attention`.
    """
    q, k, v = (x.view(x.shape[0], n_heads, -1) for x in (query, key, value))
    if query.shape[0] == key.shape[0]:
        return kernel(q, k, v, runs, runs, longest, longest).flatten(1)
    # One query for each run of tokens, none for padding: for 2 rows [0, 1, 1, 2, 2].
    of_queries = (torch.arange(runs.shape[0], device=runs.device, dtype=runs.dtype) + 1) // 2
    return kernel(q, k, v, of_queries, runs, 1, longest).flatten(1)
