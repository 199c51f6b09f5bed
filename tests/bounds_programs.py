"""Small programs that between them use every rule of the interval propagation."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

aten: Any = torch.ops.aten
Program = Callable[[Tensor, Tensor], Any]

INDEX = torch.tensor([2, 0, 0, 3])
GROUPS = torch.tensor([0, 2, 2, 0])
MASK = torch.tensor([[True, False, True, True, False, True]] * 4)
WEIGHT = torch.linspace(-1, 1, 30).view(5, 6)
SQUARE = torch.linspace(-2, 1, 36).view(6, 6)


def image(x: Tensor) -> Tensor:
    return x.reshape(1, 1, 4, 6)


def put(x: Tensor, y: Tensor, name: str, *args: Any) -> Tensor:
    """An in-place operation on a copy."""
    z = x.clone()
    getattr(z, name)(*args)
    return z


def packed(x: Tensor) -> Any:
    """Rows of sequences, and back with something between."""
    rows = pack_padded_sequence(x, torch.tensor([6, 3, 2, 1]), batch_first=True)
    back, _ = pad_packed_sequence(rows, batch_first=True, padding_value=0.5)
    return rows.data, back


def written_through_views(x: Tensor, y: Tensor) -> Tensor:
    out = torch.zeros(4, 6)
    out[:, 0] = x[:, 1]
    out[1:3, 2:4] = y[1:3, 2:4]
    out.view(-1)[5:9] = x.reshape(-1)[:4]
    return out + out.t().reshape(4, 6)


def reduced(x: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it is in beta
        return torch.zeros(3, 6).index_reduce(0, GROUPS, x, "amax")


def filled_empty(x: Tensor, y: Tensor) -> Tensor:
    out = torch.empty(4, 6)
    out.copy_(x)
    out[INDEX] = y
    return out


#: Each program takes two tensors of shape (4, 6), x and y, and works on their values.
PROGRAMS: dict[str, Program] = {
    **{
        name: (lambda x, y, name=name: getattr(torch, name)(x))  # type: ignore[misc]
        for name in [
            "exp",
            "exp2",
            "expm1",
            "sinh",
            "asinh",
            "log",
            "log2",
            "log10",
            "log1p",
            "acosh",
            "atanh",
            "erfinv",
            "logit",
            "deg2rad",
            "rad2deg",
            "tanh",
            "sigmoid",
            "erf",
            "atan",
            "asin",
            "acos",
            "sign",
            "floor",
            "ceil",
            "round",
            "trunc",
            "relu",
            "sgn",
            "neg",
            "erfc",
            "reciprocal",
            "sqrt",
            "rsqrt",
            "abs",
            "square",
            "sin",
            "cos",
            "tan",
            "sinc",
            "frac",
            "cosh",
            "logical_not",
            "isnan",
            "isinf",
            "isfinite",
            "nan_to_num",
            "aminmax",
            "any",
            "all",
            "count_nonzero",
            "sum",
            "mean",
            "amax",
            "amin",
            "prod",
            "max",
            "min",
            "median",
            "argmax",
            "argmin",
            "std",
            "var",
            "std_mean",
            "var_mean",
        ]
        if hasattr(torch, name)
    },
    **{
        name: (lambda x, y, name=name: getattr(torch, name)(x, y))  # type: ignore[misc]
        for name in [
            "add",
            "sub",
            "mul",
            "div",
            "remainder",
            "fmod",
            "atan2",
            "hypot",
            "maximum",
            "minimum",
            "fmax",
            "fmin",
            "xlogy",
            "copysign",
            "logaddexp",
            "logaddexp2",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "logical_and",
            "logical_or",
            "logical_xor",
            "isclose",
            "floor_divide",
            "pow",
            "rsub",
        ]
    },
    **{
        name: (lambda x, y, name=name: getattr(f, name)(x))  # type: ignore[misc]
        for name in [
            "softplus",
            "logsigmoid",
            "elu",
            "selu",
            "celu",
            "hardtanh",
            "hardsigmoid",
            "hardswish",
            "relu6",
            "leaky_relu",
            "gelu",
            "silu",
            "mish",
            "softsign",
            "tanhshrink",
            "softshrink",
            "hardshrink",
            "glu",
        ]
    },
    "same": lambda x, y: (aten.alias(x), x.detach(), x.positive(), aten.lift_fresh(x) * 1),
    "gelu tanh": lambda x, y: f.gelu(x, approximate="tanh"),
    "softplus beta": lambda x, y: f.softplus(x, beta=2.0, threshold=1.0),
    "leaky negative": lambda x, y: f.leaky_relu(x, -0.5),
    "prelu": lambda x, y: f.prelu(x, torch.tensor([0.3])),
    "rrelu": lambda x, y: f.rrelu(x),
    "threshold": lambda x, y: f.threshold(x, 0.2, -1.0),
    "round decimals": lambda x, y: x.round(decimals=1),
    "casts": lambda x, y: (x.double(), x.long(), x.half().float(), x.bool(), x.to(torch.bfloat16)),
    "bool cast of difference": lambda x, y: (x > y).float() * x,
    "bitwise": lambda x, y: (~(x > 0), (x > 0) & (y > 0), (x > 0) | (y < 0), (x > 0) ^ (y > 0)),
    "alpha": lambda x, y: (torch.add(x, y, alpha=-2), torch.sub(x, y, alpha=3), x - x),
    "div modes": lambda x, y: (
        torch.div(x, y, rounding_mode="floor"),
        torch.div(x, 0.3, rounding_mode="trunc"),
        x / 2.5,
        3.0 / x,
        x / x,
    ),
    "remainders": lambda x, y: (x % 0.7, x % -0.7, torch.fmod(x, 0.7)),
    "clamps": lambda x, y: (x.clamp(-0.5, 0.5), x.clamp_min(0.1), x.clamp_max(0.1), x.clamp(min=y)),
    "powers": lambda x, y: (x**2, x**3, x**0.5, x**-1, x**-2, 2.0**x, x**0, x**1.5, x.abs() ** y),
    "where": lambda x, y: (torch.where(x > y, x, y), torch.where(x > 0, x, 0), x.where(MASK, y)),
    "masked_fill": lambda x, y: (x.masked_fill(MASK, 2.0), x.masked_fill(y > 0, -1.0)),
    "lerp": lambda x, y: (torch.lerp(x, y, 0.3), torch.lerp(x, y, x)),
    "addc": lambda x, y: (torch.addcmul(x, x, y, value=0.5), torch.addcdiv(x, x, y, value=0.5)),
    "squared": lambda x, y: x * x,
    "moving": lambda x, y: (
        x.clone(),
        x.t().contiguous(),
        x.index_select(0, INDEX),
        x.gather(1, INDEX[:, None].expand(4, 2)),
        x[INDEX],
        x[MASK],
        x.take(INDEX),
        x.take_along_dim(INDEX[:, None], 1),
        x.repeat(2, 1),
        x.flip(0),
        x.roll(1, 1),
        x.tril(),
        x.triu(),
        x.unfold(1, 2, 1).reshape(-1),
        x.rot90(),
        torch.diag_embed(x),
        f.pad(x, (1, 2), value=0.5),
        f.pad(image(x), (1, 1, 1, 1), mode="reflect"),
        f.pad(x[None], (1, 1), mode="reflect"),
        f.pad(x[None], (1, 1), mode="replicate"),
        f.pad(image(x), (1, 1, 1, 1), mode="replicate"),
        f.pad(image(x)[None], (1, 1, 1, 1, 0, 0), mode="reflect"),
        f.pad(image(x)[None], (1, 1, 1, 1, 0, 0), mode="replicate"),
        aten.unsafe_split(x, 2),
        x.repeat_interleave(2, 0),
        x.masked_select(MASK),
        f.interpolate(image(x), scale_factor=2.0),
        f.interpolate(x[None], scale_factor=2.0),
        f.pixel_shuffle(torch.cat([image(x)] * 4, 1), 2),
        f.pixel_unshuffle(image(x), 2),
        f.channel_shuffle(torch.cat([image(x), image(y)], 1), 2),
        f.unfold(image(x), 2),
    ),
    "joining": lambda x, y: (torch.cat([x, y]), torch.stack([x, y], 1), torch.cat([x, WEIGHT])),
    "scatters": lambda x, y: (
        x.scatter(0, INDEX[None].expand(1, 4), y),
        x.scatter(0, INDEX[None].expand(1, 4), 5.0),
        x.index_copy(0, torch.tensor([1, 0]), y[:2]),
        x.index_fill(0, INDEX, 1.5),
        x.index_put((INDEX,), y[0]),
        x.index_put((INDEX,), y, accumulate=True),
        x.masked_scatter(MASK, y),
        torch.slice_scatter(x, y[:2], 0, 1, 3),
        torch.select_scatter(x, y[0], 0, 2),
        torch.diagonal_scatter(x, y[:, 0]),
        aten._unsafe_index(x, [INDEX]),
    ),
    "embedding": lambda x, y: f.embedding(INDEX, x),
    "packed": lambda x, y: packed(x),
    "written through views": written_through_views,
    "filled empty": filled_empty,
    "in place": lambda x, y: (
        put(x, y, "add_", y),
        put(x, y, "mul_", 2.5),
        put(x, y, "clamp_", -0.1, 0.1),
        put(x, y, "relu_"),
        put(x, y, "zero_"),
        put(x, y, "fill_", 2.0),
        put(x, y, "index_add_", 0, INDEX, y),
        put(x, y, "masked_fill_", MASK, 0.5),
        put(x, y, "copy_", y),
        put(x, y, "tanh_"),
        put(x, y, "logical_and_", y),
    ),
    "constants": lambda x, y: (
        torch.zeros_like(x),
        torch.ones_like(x),
        torch.full_like(x, 2.0),
        x.new_zeros(3),
        x.new_ones(3),
        x.new_full((2,), 0.1),
    ),
    "grouped sums": lambda x, y: (
        torch.zeros(3, 6).scatter_add(0, GROUPS[:, None].expand(4, 6), x),
        torch.zeros(3, 6).index_add(0, GROUPS, x),
        torch.zeros(3, 6).index_add(0, GROUPS, x, alpha=2),
        y.scatter_add(0, x.argsort(0).clamp(0, 3), x),
    ),
    "grouped others": lambda x, y: tuple(
        torch.zeros(3, 6).scatter_reduce(
            0, GROUPS[:, None].expand(4, 6), x, how, include_self=included
        )
        for how in ("sum", "mean", "amax", "amin")
        for included in (True, False)
    ),
    "index_reduce": lambda x, y: reduced(x),
    "unknown indices": lambda x, y: (
        x.gather(1, y.argsort(1)),
        x[y[:, 0].argsort()],
        torch.bucketize(x, torch.tensor([0.0, 1.0])),
        torch.searchsorted(torch.tensor([0.0, 1.0]), x),
        x.index_select(0, y[:, 0].argsort()),
    ),
    "orders": lambda x, y: (
        x.sort(1),
        x.topk(2, 1),
        x.kthvalue(2, 1),
        x.cummax(1),
        x.cummin(1),
        x.mode(1),
        x.max(1),
        x.min(1, keepdim=True),
        x.median(1),
        x.nanmedian(),
        torch.max(x, y),
        torch.min(x, y),
    ),
    "pools": lambda x, y: (
        f.max_pool1d(x[None], 2),
        f.max_pool2d(image(x), 2),
        f.max_pool3d(image(x)[None], (1, 2, 2)),
        f.avg_pool1d(x[None], 2),
        f.avg_pool2d(image(x), 2, padding=1),
        f.avg_pool3d(image(x)[None], (1, 2, 2)),
        f.adaptive_avg_pool1d(x[None], 3),
        f.adaptive_avg_pool2d(image(x), 3),
        f.adaptive_avg_pool2d(image(x), 1),
        f.adaptive_avg_pool3d(image(x)[None], 1),
        f.adaptive_max_pool1d(x[None], 3),
        f.adaptive_max_pool2d(image(x), 3),
        f.adaptive_max_pool3d(image(x)[None], 1),
        f.interpolate(image(x), scale_factor=2.0, mode="bilinear"),
        f.interpolate(x[None], scale_factor=2.0, mode="linear"),
        f.interpolate(image(x)[None], scale_factor=2.0, mode="trilinear"),
        f.interpolate(image(x), scale_factor=0.5, mode="bilinear", antialias=True),
        f.interpolate(image(x)[None], scale_factor=2.0),
    ),
    "sums": lambda x, y: (
        x.sum(1),
        x.sum(),
        x.mean(0, keepdim=True),
        x.std(1),
        x.var(0, correction=0),
        x.amax(1),
        x.amin((0, 1)),
        x.prod(1),
        x.prod(),
        x.cumsum(1),
        x.any(1),
        (x > 0).all(1),
        x[0, 0].sum(),
    ),
    "norms of vectors": lambda x, y: (
        x.norm(dim=1),
        torch.linalg.vector_norm(x, dim=1),
        torch.linalg.vector_norm(x, 1, dim=0),
        torch.linalg.vector_norm(x, float("inf")),
        torch.linalg.vector_norm(x, 3),
        f.normalize(x),
        f.normalize(x, p=1.0),
        x / x.square().sum(1, keepdim=True).sqrt().clamp_min(1e-3),
        x.abs() / x.abs().sum(1, keepdim=True).clamp_min(1e-3),
        x.abs() / x.abs().amax(1, keepdim=True).clamp_min(1e-3),
        x / (1 + x.abs()),
        x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-3),
        x * (x.abs().sum(1, keepdim=True) + 1e-2).reciprocal(),
        torch.cdist(x, y),
        f.cosine_similarity(x, y),
        torch.linalg.cross(x[:, :3], y[:, 3:]),
    ),
    "in place normalize": lambda x, y: put(x, y, "div_", x.norm(dim=1, keepdim=True).clamp_min(1)),
    "logsumexp": lambda x, y: (x.logsumexp(1), x.logcumsumexp(1)),
    "shares": lambda x, y: (
        x.softmax(1),
        x.softmax(0),
        x.log_softmax(1),
        aten._safe_softmax(x, 1),
        torch.bmm(x.softmax(1)[None], y.t()[None]),
        torch.matmul(x.softmax(-1), y.t()),
    ),
    "products": lambda x, y: (
        x @ SQUARE,
        x @ y.t(),
        torch.bmm(x[None], y.t()[None]),
        x.mv(y[0]),
        x[0].dot(y[0]),
        torch.outer(x[0], y[0]),
        torch.vdot(x[0], y[0]),
        f.linear(x, WEIGHT, torch.ones(5)),
        aten.linear(x, WEIGHT, torch.ones(5)),
        torch.addmm(torch.ones(5), x, WEIGHT.t(), beta=0.5, alpha=2.0),
        torch.addmv(torch.ones(4), x, y[0]),
        torch.baddbmm(torch.ones(1, 4, 4), x[None], y.t()[None]),
        torch.addr(torch.ones(4, 6), x[:, 0], y[0]),
        torch.einsum("ij,kj->ik", x, y),
        f.bilinear(x, y, torch.linspace(-1, 1, 72).view(2, 6, 6)),
    ),
    "convolutions": lambda x, y: (
        f.conv1d(x[None], torch.linspace(-1, 1, 24).view(2, 4, 3), torch.ones(2), padding=1),
        f.conv2d(image(x), torch.linspace(-1, 1, 9).view(1, 1, 3, 3), stride=2),
        f.conv2d(image(x), y[:2, :2].reshape(1, 1, 2, 2)),
        f.conv_transpose1d(x[None], torch.linspace(-1, 1, 24).view(4, 2, 3), torch.ones(2)),
    ),
    "layer norms": lambda x, y: (
        f.layer_norm(x, (6,)),
        f.layer_norm(x, (6,), torch.linspace(-1, 2, 6), torch.ones(6)),
        f.rms_norm(x, (6,), torch.linspace(-1, 2, 6), 1e-3),
        f.group_norm(x[None], 2, torch.linspace(-1, 2, 4), torch.ones(4)),
        f.instance_norm(x[None]),
    ),
    "batch norms": lambda x, y: (
        f.batch_norm(x, torch.linspace(-1, 1, 6), torch.linspace(0.1, 1, 6), torch.ones(6)),
        f.batch_norm(x, None, None, torch.linspace(-1, 2, 6), torch.ones(6), training=True),
        f.batch_norm(x, torch.zeros(6), torch.ones(6), training=True),
    ),
    "attention": lambda x, y: (
        f.scaled_dot_product_attention(x[None, None], y[None, None], y[None, None]),
        f.scaled_dot_product_attention(
            x[None, None], y[None, None], y[None, None], attn_mask=torch.eye(4, dtype=torch.bool)
        ),
        f.scaled_dot_product_attention(x[None, None], x[None, None], y[None, None], is_causal=True),
    ),
    "dropout": lambda x, y: (f.dropout(x, 0.0), f.dropout(x, 0.5, training=False)),
}


class Encoder(nn.Module):
    """Torch's own transformer encoder and attention."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(x[None])
        mixed, weights = self.attention(tokens, tokens, tokens)
        out: Tensor = mixed + weights.sum()
        return out
