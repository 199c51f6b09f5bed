"""Event transformer: DOM tokens of an event look at each other; its CLS token is the answer.

A pre-norm encoder (Vaswani et al. 2017, arXiv:1706.03762; pre-norm: Xiong et al. 2020,
arXiv:2002.04745) on the packed slots: token-wise layers see one flat tensor, attention works within
each event. Of the last layer only the CLS tokens are read, so only they are computed there: DOMs
give keys and values, and go no further.
"""

# S slots, F features (d_model), B events

from jaxtyping import Float, Int64
from torch import Tensor, nn, split
from torch.nn import functional

from .attention import bucket_attention, varlen_attention, varlen_kernel
from .packing import Packed


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
        packed: Packed,
        wanted: Int64[Tensor, "rows"] | None = None,
    ) -> Float[Tensor, "wanted features"]:
        """Apply the layer.

        Args:
            tokens: `(S, F)`.
            packed: How the slots are laid out.
            wanted: `(R,)` first slot of each row, ascending, where only these are wanted.

        Returns:
            `(S, F)`, or `(R, F)` where only some are wanted.
        """
        normed = self.norm_attention(tokens)
        if wanted is None:
            query, key, value = self.to_qkv(normed).chunk(3, dim=-1)
        else:
            n = tokens.shape[1]
            weight, bias = (split(x, [n, 2 * n]) for x in (self.to_qkv.weight, self.to_qkv.bias))
            query = functional.linear(normed.index_select(0, wanted), weight[0], bias[0])
            key, value = functional.linear(normed, weight[1], bias[1]).chunk(2, dim=-1)
            tokens = tokens.index_select(0, wanted)
        tokens = tokens + self.dropout(self.from_heads(self._attention(query, key, value, packed)))
        out: Tensor = tokens + self.dropout(self.feed_forward(tokens))
        return out

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, packed: Packed) -> Tensor:
        kernel = varlen_kernel(query, self.n_heads)
        if kernel is None or packed.runs is None:
            return bucket_attention(
                query, key, value, packed.padding_mask, packed.buckets, self.n_heads
            )
        longest = packed.buckets[0].length
        return varlen_attention(query, key, value, packed.runs, longest, self.n_heads, kernel)


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
        *before, last = self.layers
        for layer in before:
            tokens = layer(tokens, packed)
        slot_of_row, event_of_row = packed.slot_of_cls.sort()
        row_of_event = event_of_row.argsort()
        out: Tensor = self.norm(last(tokens, packed, slot_of_row).index_select(0, row_of_event))
        return out
