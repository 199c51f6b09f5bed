"""Event transformer: DOM tokens of an event look at each other; its CLS token is the answer.

A pre-norm encoder (Vaswani et al. 2017, arXiv:1706.03762; pre-norm: Xiong et al. 2020,
arXiv:2002.04745) on the packed slots: token-wise layers see one flat tensor, attention works
rectangle by rectangle.
"""

# S slots, F features (d_model), B events, R rows of a bucket, L its length, H heads, E per head

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from .packing import Bucket, Packed


def bucket_attention(
    query: Float[Tensor, "slots features"],
    key: Float[Tensor, "slots features"],
    value: Float[Tensor, "slots features"],
    padding_mask: Bool[Tensor, "slots"],
    buckets: tuple[Bucket, ...],
    n_heads: int,
) -> Float[Tensor, "slots features"]:
    """Self-attention within each event.

    Args:
        query: `(S, F)`.
        key: `(S, F)`.
        value: `(S, F)`.
        padding_mask: `(S,)` True where a slot is padding: never looked at.
        buckets: The rectangles.
        n_heads: Number of heads; divides F.

    Returns:
        `(S, F)`. Padding slots get a finite value of no meaning.
    """
    outputs = []
    for bucket in buckets:
        slots = slice(bucket.start, bucket.stop)
        shape = (bucket.rows, bucket.length, n_heads, -1)
        q_RHLE, k_RHLE, v_RHLE = (x[slots].view(shape).transpose(1, 2) for x in (query, key, value))
        attend = None
        if bucket.padded:
            # Slot 0 of a row is its CLS token, so no row is without a key.
            attend = ~padding_mask[slots].view(bucket.rows, 1, 1, bucket.length)
        out_RHLE = functional.scaled_dot_product_attention(q_RHLE, k_RHLE, v_RHLE, attn_mask=attend)
        outputs.append(out_RHLE.transpose(1, 2).reshape(-1, query.shape[1]))
    return torch.cat(outputs)


class Block(nn.Module):
    """One layer: attention, then a feed-forward net, each normed before and added to its input."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm_attention = nn.LayerNorm(d_model)
        self.to_qkv = nn.Linear(d_model, 3 * d_model)
        self.from_heads = nn.Linear(d_model, d_model)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(d_model),
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(),
            nn.Linear(4 * d_model, d_model),
        )
        # On the residual branches alone: dropout on attention weights would rule out the fused
        # kernels, whose memory does not grow with the square of the length.
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: Float[Tensor, "slots features"],
        padding_mask: Bool[Tensor, "slots"],
        buckets: tuple[Bucket, ...],
    ) -> Float[Tensor, "slots features"]:
        """Apply the layer to `(S, F)` tokens."""
        query, key, value = self.to_qkv(self.norm_attention(tokens)).chunk(3, dim=-1)
        mixed = bucket_attention(query, key, value, padding_mask, buckets, self.n_heads)
        tokens = tokens + self.dropout(self.from_heads(mixed))
        out: Tensor = tokens + self.dropout(self.feed_forward(tokens))
        return out


class EventTransformer(nn.Module):
    """A stack of layers; returns each event's CLS token."""

    def __init__(
        self, d_model: int = 128, n_heads: int = 4, n_layers: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if n_heads < 1 or d_model % n_heads:
            raise ValueError(f"n_heads: expected a divisor of d_model ({d_model}), got {n_heads}")
        self.layers = nn.ModuleList(Block(d_model, n_heads, dropout) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, packed: Packed) -> Float[Tensor, "events features"]:
        """Run the layers on packed tokens; gives `(B, F)`, in the batch's order of events."""
        tokens = packed.tokens
        for layer in self.layers:
            tokens = layer(tokens, packed.padding_mask, packed.buckets)
        out: Tensor = self.norm(tokens.index_select(0, packed.slot_of_cls))
        return out
