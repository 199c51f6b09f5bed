"""Rules for layers: normalisation, attention, and the reductions of torch-scatter."""

import math

import torch
from torch import Tensor

from .calls import Call, rule
from .intervals import (
    INF,
    Interval,
    add,
    between,
    by_amount,
    clipped,
    everything,
    finite_size,
    mended,
    multiply,
)
from .rules_groups import group_by_index
from .rules_linear import mixed


def _standardised(c: Call, d: int, like: Tensor) -> Interval:
    """(x - mean) / sqrt(variance + eps) of d numbers: at most sqrt(d - 1), whatever they are.

    The largest deviation squared is at most (d - 1) times the sum of the others' squared;
    Samuelson, "How Deviant Can You Be?", J. Am. Stat. Ass. 63 (1968) 1522.
    """
    top = math.sqrt(max(d - 1, 0)) * (1 + 64 * torch.finfo(c.dtype).eps)
    return between(-top, top, like)


def _scaled(c: Call, z: Interval, weight: Interval | None, bias: Interval | None) -> Interval:
    out = z
    if weight is not None:
        out = c.near(mended(multiply(out, weight)))
    if bias is not None:
        size = finite_size(out)
        slack = size * 4 * torch.finfo(c.dtype).eps
        out = by_amount(add(out, bias), slack, c.dtype)
    return out


def _maybe(c: Call, name: str, shape: tuple[int, ...] | None = None) -> Interval | None:
    if not c.has(name):
        return None
    x = c[name]
    if shape is None:
        return x
    if x.constant:
        lo = x.lo.view(shape)
        return Interval(lo, lo)
    return Interval(x.lo.reshape(shape), x.hi.reshape(shape))


def _rest(c: Call) -> list[Interval | None]:
    """Means and deviations that a kernel gives beside its result."""
    return [everything(out.shape, out.device) for out in c.outs[1:]]


@rule("native_layer_norm", "layer_norm", kind="norm")
def _layer_norm(c: Call) -> list[Interval | None]:
    d = math.prod(c.args["normalized_shape"])
    z = _standardised(c, d, c.out)
    return [_scaled(c, z, _maybe(c, "weight"), _maybe(c, "bias")), *_rest(c)]


@rule("_fused_rms_norm", "rms_norm", kind="norm")
def _rms_norm(c: Call) -> list[Interval | None]:
    d = math.prod(c.args["normalized_shape"])
    z = _standardised(c, d + 1, c.out)
    return [_scaled(c, z, _maybe(c, "weight"), None), *_rest(c)]


@rule("native_group_norm", kind="norm")
def _group_norm(c: Call) -> list[Interval | None]:
    d = c.args["input"].numel() // max(c.args["N"] * c.args["group"], 1)
    shape = (1, -1, *(1,) * (c.out.ndim - 2))
    z = _standardised(c, d, c.out)
    weight, bias = _maybe(c, "weight", shape), _maybe(c, "bias", shape)
    return [_scaled(c, z, weight, bias), *_rest(c)]


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    kind="norm",
)
def _batch_norm(c: Call) -> list[Interval | None]:
    x: Tensor = c.first("input", "self")
    shape = (1, -1, *(1,) * (x.ndim - 2))
    weight, bias = _maybe(c, "weight", shape), _maybe(c, "bias", shape)
    training = c.args.get("training", c.name == "_batch_norm_with_update")
    if training or not c.has("running_mean"):
        d = x.numel() // max(x.shape[1], 1)
        return [_scaled(c, _standardised(c, d, c.out), weight, bias), *_rest(c)]
    eps = float(c.first("eps", "epsilon"))
    mean, variance = _maybe(c, "running_mean", shape), _maybe(c, "running_var", shape)
    assert mean is not None and variance is not None
    scale = Interval(*((v + eps).rsqrt() for v in (variance.hi, variance.lo)))
    # x * alpha + beta with alpha, beta computed before: rounding is relative to both terms.
    alpha = mended(multiply(scale, weight)) if weight is not None else scale
    term = mended(multiply(c.of(x), alpha))
    offset = mended(multiply(mean, alpha))
    beta = Interval(-offset.hi, -offset.lo)
    if bias is not None:
        beta = add(beta, bias)
    size = sum(finite_size(v) for v in (term, beta, offset))
    assert isinstance(size, Tensor)
    out = by_amount(add(term, beta), size * 16 * torch.finfo(c.dtype).eps, c.dtype)
    return [out, *_rest(c)]


@rule(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "scaled_dot_product_attention",
)
def _attention(c: Call) -> list[Interval | None]:
    """Weighted means of the values; a query that may look at nothing gives 0."""
    value: Tensor = c.args["value"]
    values = c.of(value)
    n_heads = c.out.shape[1]
    if values.lo.shape[1] != n_heads:  # grouped queries share keys and values
        each = n_heads // values.lo.shape[1]
        values = Interval(
            values.lo.repeat_interleave(each, 1), values.hi.repeat_interleave(each, 1)
        )
    terms = value.shape[-2]
    out = mixed(c, values, terms)
    p = float(c.args.get("dropout_p", 0.0))
    if p > 0:
        factor = 1 / (1 - p) if p < 1 else 0.0
        # Weights that are left are raised, so they no longer sum to 1.
        size = torch.maximum(out.lo.abs(), out.hi.abs()) * factor
        out = Interval(-size * terms, size * terms)
    elif c.first("attn_mask", "attn_bias") is not None or terms == 0:
        out = Interval(out.lo.clamp_max(0), out.hi.clamp_min(0))
    return [out, *_rest(c)]


def _grouped(c: Call) -> tuple[Tensor, Tensor, int]:
    """Source, index and axis; the package's schemas give arguments no names."""
    src, index, dim = list(c.args.values())[:3]
    return src, index, int(dim)


def _spread(index: Tensor, src: Tensor, dim: int) -> Tensor:
    """The index over all axes of the source, as the package itself stretches it."""
    if index.ndim == 1:
        index = index.view(*(1,) * (dim % src.ndim), -1)
    return index.view(*index.shape, *(1,) * (src.ndim - index.ndim)).expand(src.shape)


def _onto(c: Call) -> bool:
    """Whether an `out` is given, which the result starts from."""
    return list(c.args.values())[3] is not None


@rule("torch_scatter::scatter_max", "torch_scatter::scatter_min")
def _scatter_extreme(c: Call) -> list[Interval | None] | None:
    src, index, dim = _grouped(c)
    if c.unknown(index) or _onto(c):
        return None
    largest = c.name.endswith("max")
    x = c.of(src)
    index = _spread(index, src, dim)
    ends = []
    for end in (x.lo, x.hi):
        start = end.new_zeros(c.out.shape)
        how = "amax" if largest else "amin"
        # Groups without members stay 0. A group of -inf alone is left at the lowest number by the
        # kernel, or at 0.
        ends.append(start.scatter_reduce(dim, index, end, how, include_self=False))
    if largest:
        group_by_index(c, None, src, index, dim)
    zero = torch.zeros(c.outs[1].shape, dtype=torch.float64, device=c.out.device)
    low, high = ends
    unsure = (low == -INF) if largest else (high == INF)
    if largest:
        high = torch.where(unsure, high.clamp_min(0), high)
    else:
        low = torch.where(unsure, low.clamp_max(0), low)
    both = Interval(low, high)
    return [both, Interval(zero, zero + src.shape[dim])]


@rule("torch_scatter::scatter_sum", "torch_scatter::scatter_mean")
def _scatter_sum(c: Call) -> Interval | None:
    src, index, dim = _grouped(c)
    if c.unknown(index) or _onto(c):
        return None
    x = c.of(src)
    index = _spread(index, src, dim)
    start = x.lo.new_zeros(c.out.shape)
    count = start.scatter_add(dim, index, torch.ones_like(x.lo)).clamp_min(1)
    lo, hi = (start.scatter_add(dim, index, end) for end in (x.lo, x.hi))
    size = finite_size(x)
    amount = start.scatter_add(dim, index, size) * (count + 4) * torch.finfo(c.dtype).eps
    out = by_amount(mended(Interval(lo, hi)), amount, c.dtype)
    if bool((x.lo >= 0).all()):
        out = clipped(out, 0, INF)
    if c.name.endswith("mean"):
        return c.near(Interval(out.lo / count, out.hi / count))
    group_by_index(c, None, src, index, dim)
    return out


@rule("torch_scatter::scatter_mul")
def _scatter_mul(c: Call) -> Interval:
    """A product of any number of them: no bounds."""
    return c.anything()
