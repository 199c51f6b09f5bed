"""Costs of one dispatched operation: bytes, kernels, floating point operations, waits.

What moves is counted as a kernel that reads each argument once and writes each result once would
move it. A gather reads the rows it takes, not the whole table.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from icediag.instruments.bounds.dispatch import name_of, tensors_of

#: Allocate or rename; nothing runs on the device.
FREE = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"),
        *("alias", "_unsafe_view", "lift_fresh", "lift", "is_same_size", "_reshape_alias"),
        *("resize", "set", "_local_scalar_dense", "_has_compatible_shallow_copy_type"),
    }
)
#: Read as much as they write, and their indices.
GATHERS = frozenset(
    {
        *("index", "_unsafe_index", "index_select", "embedding", "gather", "take"),
        *("masked_select", "select_scatter"),
    }
)
#: Write, in place, as much as their last tensor holds.
SCATTERS = frozenset(
    {
        *("index_put", "_index_put_impl", "_unsafe_index_put", "index_copy", "index_add"),
        *("scatter", "scatter_add", "scatter_reduce", "index_reduce", "put"),
    }
)
#: In place, without reading what was there.
FILLS = frozenset(
    {
        *("copy", "zero", "fill", "uniform", "normal", "bernoulli", "random", "exponential"),
    }
)
#: The host must know a value, or how many there are, before it goes on.
#: Source: the CUDA kernels of these operations in PyTorch's aten/src/ATen/native/cuda.
WAITS = frozenset(
    {
        *("_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim"),
        *("unique_consecutive", "unique_dim_consecutive", "bincount", "equal"),
        *("_linalg_check_errors", "is_nonzero"),
    }
)
#: Take masks for indices.
MASKED = frozenset({"index", "index_put", "_index_put_impl"})
#: More kernels than one. Source: as above; sorts are by radix passes, of which this is a least.
KERNELS = {"nonzero": 3, "_unique2": 4, "sort": 2, "argsort": 2, "topk": 2, "bincount": 2}
#: Tensors that one launch of a `_foreach_` kernel takes. Source: MultiTensorApply.cuh, depth 1 to 5
#: takes 110 to 30 tensors.
FOREACH = 30


@dataclass
class Cost:
    """What one call costs; see `OperationRecord`."""

    launches: int = 0
    elements: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    flops: int = 0
    syncs: int = 0
    dtype: str = ""


def bytes_of(tensor: Tensor) -> int:
    """Bytes that lie behind a tensor; what is expanded counts once."""
    if tensor.layout != torch.strided or tensor.is_nested:
        try:
            return int(tensor.untyped_storage().nbytes())
        except (RuntimeError, NotImplementedError):
            return 0
    n = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        n *= size if stride else min(size, 1)
    return n * tensor.element_size()


def _flops(func: Any, args: Any, kwargs: Any, out: Any, name: str) -> int:
    count = flop_registry.get(func._overloadpacket)  # noqa: SLF001 - has no public name
    try:
        if count is not None:
            return int(count(*args, **kwargs, out_val=out))
        if name == "_scaled_dot_product_flash_attention_for_cpu":
            shapes = [tensor.shape for tensor in args[:3]]
            return int(sdpa_flop_count(*shapes))  # type: ignore[no-untyped-call]
        if name == "_scaled_dot_product_flash_attention_for_cpu_backward":
            shapes = [tensor.shape for tensor in args[:4]]
            return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]
        if name in ("mv", "addmv"):
            matrix = args[0] if name == "mv" else args[1]
            return 2 * int(matrix.numel())
        if name in ("dot", "vdot"):
            return 2 * int(args[0].numel())
    except Exception:  # a count that torch cannot give is none
        return 0
    return 0


def _bool_index(args: Any) -> bool:
    """Whether one of the indices is a mask, which must be counted first."""
    indices = args[1] if len(args) > 1 else None
    return isinstance(indices, (list, tuple)) and any(
        isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices
    )


def _waits(name: str, args: Any, kwargs: Any, out: Any, rows: bool) -> int:
    if name in WAITS:
        return 1
    if name == "index":
        return int(_bool_index(args))
    if name in ("index_put", "_index_put_impl"):
        # One mask and one number to fill in need no counting; see `cost_of` for what is none.
        value = args[2] if len(args) > 2 else None
        number = isinstance(value, Tensor) and value.numel() == 1 and not rows
        return int(_bool_index(args) and not number)
    if name == "repeat_interleave":
        return int(kwargs.get("output_size") is None and not any(isinstance(a, int) for a in args))
    if name in ("_to_copy", "copy"):
        source = args[0] if name == "_to_copy" else args[1]
        target = out if name == "_to_copy" else args[0]
        if isinstance(source, Tensor) and isinstance(target, Tensor):
            return int(source.device.type != "cpu" and target.device.type == "cpu")
    return 0


@functools.cache
def _arguments(func: Any) -> tuple[bool, tuple[tuple[str, bool], ...]]:
    """Whether an operation gives a view; of each argument its name and whether it is written."""
    schema = func._schema  # noqa: SLF001 - has no public name
    aliases = [r.alias_info for r in schema.returns if r.alias_info is not None]
    view = bool(aliases) and not any(alias.is_write for alias in aliases)
    arguments = tuple(
        (a.name, a.alias_info is not None and a.alias_info.is_write) for a in schema.arguments
    )
    return view, arguments


def cost_of(func: Any, args: Any, kwargs: Any, out: Any, *, rows: bool = False) -> Cost:
    """What a call costs.

    Args:
        func: An overload of an operation.
        args: Its arguments.
        kwargs: Its arguments by name.
        out: What it gave.
        rows: Whether what is written by it is a tensor, be it of one value. On a device it is
            there, and filling a mask wants a number of the host's.
            Source: canDispatchToMaskedFill in PyTorch's TensorAdvancedIndexing.
    """
    name = name_of(func)
    results = list(tensors_of(out))
    cost = Cost(dtype=str(results[0].dtype).removeprefix("torch.") if results else "")
    cost.syncs = _waits(name, args, kwargs, out, rows)
    if name in FREE:
        if name == "_local_scalar_dense":
            cost.bytes_read = bytes_of(args[0])
        return cost
    view, arguments = _arguments(func)
    if view:
        return cost
    written: list[Tensor] = []
    read: list[Tensor] = []
    for i, (argument, writes) in enumerate(arguments):
        value = args[i] if i < len(args) else kwargs.get(argument)
        if value is not None:
            (written if writes else read).extend(tensors_of(value))
    in_place = bool(written)
    results = written or results
    cost.elements = sum(tensor.numel() for tensor in results)
    out_bytes = sum(bytes_of(tensor) for tensor in results)
    read_bytes = sum(bytes_of(tensor) for tensor in read)
    if name in GATHERS and read:
        cost.bytes_read = out_bytes + sum(bytes_of(tensor) for tensor in read[1:])
        cost.bytes_written = out_bytes
    elif name in SCATTERS and in_place:
        # The last that is read is what is written; where that is a number, the index is as large.
        values = read[-1] if read else results[0]
        cost.elements = values.numel()
        cost.bytes_read = read_bytes
        cost.bytes_written = values.numel() * results[0].element_size()
    else:
        cost.bytes_read = read_bytes
        cost.bytes_written = out_bytes
        if in_place and name not in FILLS and not func._overloadname.endswith("out"):  # noqa: SLF001 - as above
            cost.bytes_read += out_bytes
    if name.startswith("_foreach_"):
        cost.launches = -(-max(len(results), 1) // FOREACH)
    else:
        cost.launches = KERNELS.get(name, 1)
        if cost.syncs and name in MASKED:
            cost.launches += KERNELS["nonzero"]  # which turns the mask into indices first
    if not cost.elements and not read_bytes:
        cost.launches = 0  # nothing to do, nothing is started
    cost.flops = _flops(func, args, kwargs, out, name)
    return cost
