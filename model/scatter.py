"""Reductions over groups of rows: the members of group g are the rows whose `index` is g.

Two backends with the same results and the same gradients: `native` (plain torch) and
`torch-scatter` (the package, where it is installed). What the two leave undefined or do differently
is defined here once:

* a group without members gives 0 for every reduction;
* where several rows share a maximum or minimum, the gradient is divided evenly among them;
* a NaN in a group makes that group's result NaN;
* half-precision rows are reduced in float32 and the result is cast back: a group of thousands loses
  nothing.
"""

# N rows, G groups, * any further axes

import functools
import warnings
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Backend = Literal["auto", "native", "torch-scatter"]
BACKENDS: tuple[Backend, ...] = ("auto", "native", "torch-scatter")


@functools.cache
def _torch_scatter() -> ModuleType | None:
    """The package, or None where it is absent or was built for another torch."""
    try:
        import torch_scatter
    except ModuleNotFoundError:
        return None
    except (ImportError, OSError, RuntimeError) as error:
        # A wheel built against another torch fails only when its library is loaded: OSError. One
        # without libraries raises ImportError, one for another CUDA RuntimeError.
        reason = str(error).partition("\n")[0]
        warnings.warn(
            f"torch-scatter is installed but cannot be loaded ({reason}); "
            "the native backend is used instead",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    module: ModuleType = torch_scatter
    return module


def resolve_backend(backend: Backend) -> Literal["native", "torch-scatter"]:
    """Turn `auto` into the backend it stands for.

    Args:
        backend: `native`, `torch-scatter`, or `auto`: torch-scatter where it can be loaded.

    Raises:
        ValueError: `backend` is not one of these, or torch-scatter is asked for and not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "native":
        return "native"
    if _torch_scatter() is not None:
        return "torch-scatter"
    if backend == "torch-scatter":
        raise ValueError(
            "backend: torch-scatter is asked for but cannot be imported; "
            "install the extra icediag[scatter] or use native"
        )
    return "native"


def _expand(index_N: Tensor, like: Tensor) -> Tensor:
    """`index_N` stretched over the further axes of `like`, without copying it."""
    return index_N.view(-1, *(1,) * (like.ndim - 1)).expand_as(like)


def _wide(src: Tensor) -> Tensor:
    """Half precision as float32, all else as it is."""
    return src.float() if src.dtype in (torch.float16, torch.bfloat16) else src


def _checked(src: Tensor, index: Tensor, n_groups: int) -> None:
    if index.ndim != 1 or src.ndim < 1 or index.shape[0] != src.shape[0]:
        raise ValueError(
            f"index: expected one group number for each of the {tuple(src.shape)[:1]} rows of src, "
            f"got shape {tuple(index.shape)}"
        )
    if n_groups < 0:
        raise ValueError(f"n_groups: expected 0 or more, got {n_groups}")


def group_sum(
    src: Float[Tensor, "rows *rest"],
    index: Int64[Tensor, "rows"],
    n_groups: int,
    backend: Backend = "auto",
) -> Float[Tensor, "groups *rest"]:
    """Sum of each group's rows; 0 where a group has none.

    Args:
        src: `(N, *)` values.
        index: `(N,)` group of each row, 0..n_groups-1, in any order.
        n_groups: Number of groups G.
        backend: See the module's text.

    Returns:
        `(G, *)` sums in the dtype of `src`.

    Raises:
        ValueError: `index` does not fit `src`, or the backend is unknown or absent.
    """
    _checked(src, index, n_groups)
    wide = _wide(src)
    if resolve_backend(backend) == "torch-scatter":
        module: Any = _torch_scatter()
        out: Tensor = module.scatter_sum(wide, index, dim=0, dim_size=n_groups)
    else:
        out = wide.new_zeros((n_groups, *wide.shape[1:])).scatter_add(0, _expand(index, wide), wide)
    return out.to(src.dtype)


def group_count(index: Int64[Tensor, "rows"], n_groups: int) -> Int64[Tensor, "groups"]:
    """Number of members of each group, `(G,)`; no device-to-host read, unlike `bincount`."""
    ones = torch.ones_like(index)
    return torch.zeros(n_groups, dtype=index.dtype, device=index.device).scatter_add(0, index, ones)


def group_mean(
    src: Float[Tensor, "rows *rest"],
    index: Int64[Tensor, "rows"],
    n_groups: int,
    backend: Backend = "auto",
) -> Float[Tensor, "groups *rest"]:
    """Mean of each group's rows; 0 where a group has none. Arguments as in `group_sum`."""
    total = group_sum(_wide(src), index, n_groups, backend)
    count = group_count(index, n_groups).clamp_min(1)
    mean = total / count.view(-1, *(1,) * (src.ndim - 1)).to(total.dtype)
    return mean.to(src.dtype)


class _Extreme(torch.autograd.Function):
    """Largest or smallest row of each group, with a gradient that both backends share."""

    @staticmethod
    def forward(
        ctx: Any, src: Tensor, index: Tensor, n_groups: int, largest: bool, backend: Backend
    ) -> Tensor:
        if resolve_backend(backend) == "torch-scatter":
            module: Any = _torch_scatter()
            reduce = module.scatter_max if largest else module.scatter_min
            out: Tensor
            out, row = reduce(src, index, dim=0, dim_size=n_groups)
            # The package leaves groups without members at 0, which is what is promised here. But it
            # begins at the lowest finite number, so it takes a group of -inf alone for empty too...
            empty = _expand(group_count(index, n_groups) == 0, out)
            nothing = -torch.inf if largest else torch.inf
            out = out.masked_fill((row == src.shape[0]) & ~empty, nothing)
            # ... and it compares with < and >, which pass NaN by: put it back.
            nan = module.scatter_sum(src.isnan().to(src.dtype), index, dim=0, dim_size=n_groups)
            out = out.masked_fill(nan > 0, torch.nan)
        else:
            out = src.new_zeros((n_groups, *src.shape[1:])).scatter_reduce(
                0, _expand(index, src), src, "amax" if largest else "amin", include_self=False
            )
        ctx.save_for_backward(src, index, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None, None, None]:
        src, index, out = ctx.saved_tensors
        hit = (src == out.index_select(0, index)).to(src.dtype)
        hits = torch.zeros_like(out).scatter_add(0, _expand(index, hit), hit)
        share = grads[0] / hits.clamp_min(1)
        return hit * share.index_select(0, index), None, None, None, None


def group_max(
    src: Float[Tensor, "rows *rest"],
    index: Int64[Tensor, "rows"],
    n_groups: int,
    backend: Backend = "auto",
) -> Float[Tensor, "groups *rest"]:
    """Largest row of each group, axis by axis; 0 where a group has none. See `group_sum`."""
    _checked(src, index, n_groups)
    result: Tensor = _Extreme.apply(_wide(src), index, n_groups, True, backend)  # type: ignore[no-untyped-call]
    return result.to(src.dtype)


def group_min(
    src: Float[Tensor, "rows *rest"],
    index: Int64[Tensor, "rows"],
    n_groups: int,
    backend: Backend = "auto",
) -> Float[Tensor, "groups *rest"]:
    """Smallest row of each group, axis by axis; 0 where a group has none. See `group_sum`."""
    _checked(src, index, n_groups)
    result: Tensor = _Extreme.apply(_wide(src), index, n_groups, False, backend)  # type: ignore[no-untyped-call]
    return result.to(src.dtype)


def group_std(
    src: Float[Tensor, "rows *rest"],
    index: Int64[Tensor, "rows"],
    n_groups: int,
    backend: Backend = "auto",
) -> Float[Tensor, "groups *rest"]:
    """Standard deviation of each group's rows (divided by n, not n - 1). See `group_sum`.

    0, with gradient 0, for groups of no member, of one member and of equal members: the square root
    alone would have an infinite slope there. Two passes, so that a spread of nanoseconds survives
    on times of 10,000 ns.
    """
    wide = _wide(src)
    centred = wide - group_mean(wide, index, n_groups, backend).index_select(0, index)
    variance = group_mean(centred * centred, index, n_groups, backend)
    flat = variance == 0
    return torch.where(flat, 0, torch.where(flat, 1, variance).sqrt()).to(src.dtype)


def group_softmax(
    src: Float[Tensor, "rows *rest"],
    index: Int64[Tensor, "rows"],
    n_groups: int,
    backend: Backend = "auto",
) -> Float[Tensor, "rows *rest"]:
    """Softmax within each group; the rows of a group sum to 1. Arguments as in `group_sum`.

    Returns:
        `(N, *)`, one weight a row. Groups without members have no row, so nothing to define.
    """
    wide = _wide(src)
    top = group_max(wide.detach(), index, n_groups, backend)
    raised = (wide - top.index_select(0, index)).exp()
    total = group_sum(raised, index, n_groups, backend)
    return (raised / total.index_select(0, index)).to(src.dtype)


def group_rank(
    key: Float[Tensor, "rows"], index: Int64[Tensor, "rows"], n_groups: int
) -> Int64[Tensor, "rows"]:
    """Rank of each row within its group, ascending: how many members have a smaller key.

    Rows with equal keys share a rank, so the result does not depend on their order.

    Args:
        key: `(N,)` what to rank by, e.g. times in ns.
        index: `(N,)` group of each row.
        n_groups: Number of groups G.

    Returns:
        `(N,)` ranks, 0..members-1.
    """
    n = key.shape[0]
    if n == 0:
        return index.new_zeros(0)
    # Sort by key, then stably by group: groups in order, ascending keys within each.
    by_key = torch.argsort(key, stable=True)
    order = by_key[torch.argsort(index[by_key], stable=True)]
    group, value = index[order], key[order]
    position = torch.arange(n, device=key.device)
    new = torch.ones(n, dtype=torch.bool, device=key.device)
    new[1:] = (group[1:] != group[:-1]) | (value[1:] != value[:-1])
    # First position of each run of equal (group, key): for new = [1, 0, 1, 1, 0] it is
    # [0, 0, 2, 3, 3].
    first_of_run = torch.where(new, position, 0).cummax(0).values
    count = group_count(index, n_groups)
    first_of_group = (count.cumsum(0) - count)[group]
    rank = torch.empty_like(index)
    rank[order] = first_of_run - first_of_group
    return rank
