"""Shadows: what is known about the values of a tensor, kept beside its storage.

A shadow lies beside a *storage*, not a tensor: views of it, and what is written through them, then
need no rule. An entry of the tensor at some offset has its ends at the same offset of the shadow.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from .intervals import INF, Interval

#: Shadows of storages that are gone are dropped each time this many new ones were made.
SWEEP = 64
#: The id of the root of a group is that of the group plus this; see `Group`.
ROOT = 1 << 40
#: The id of the reciprocal likewise.
INVERSE = 1 << 41


@dataclass(eq=False)
class Field:
    """One number for each entry of a storage; or a single one for all of them."""

    one: int = 0
    each: Tensor | None = None

    def at(self, tensor: Tensor) -> int | Tensor:
        """The numbers of a tensor on that storage."""
        if self.each is None:
            return self.one
        return self.each.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


@dataclass(eq=False)
class Origin:
    """A power or a magnitude remembers what it was taken of.

    Attributes:
        tensor: What it was taken of; an alias, so that nobody resizes it.
        version: How often that had been changed in place then.
        square: Whether it is the square; else the magnitude.
    """

    tensor: Tensor
    version: int
    square: bool


@dataclass(eq=False)
class Shadow:
    """What is known about a storage.

    Attributes:
        ref: Keeps the address of the storage from being used again.
        dtype: Type of the tensor; a view as another type is not followed.
        lo: Lower ends, one for each entry of the storage.
        hi: Upper ends.
        last: For each entry the number of the last operation that bounds it, 0 for none.
        unproved: Numbers of operations without a rule that it depends on.
        empty: Whether some entries may be uninitialised: their ends are +inf and -inf.
        member: For each entry a group: its magnitude is at most `factor` times every entry of that
            group in `bound`. 0 for none.
        bound: For each entry the group whose members it bounds.
        factor: See `member`; belongs to `bound`.
        runs: Each run of so many neighbours is a set of shares: at least 0, and 1 together. 0: no.
        origin: What it is the square or magnitude of.
    """

    ref: StorageWeakRef
    dtype: torch.dtype
    lo: Tensor
    hi: Tensor
    last: Field
    unproved: frozenset[int] = frozenset()
    empty: bool = False
    member: Field | None = None
    bound: Field | None = None
    factor: float = 1.0
    runs: int = 0
    origin: Origin | None = None


def _flat(values: Tensor, like: Tensor, fill: float | int) -> Tensor:
    """Values of a tensor in the order of its storage, with `fill` where the storage has more."""
    size = like.untyped_storage().nbytes() // like.element_size()
    if values.shape != like.shape:
        values = values.expand(like.shape)
    if like.is_contiguous() and size == like.numel():
        own = values.is_contiguous() and not values._is_view()  # noqa: SLF001 - no public name
        return (values if own else values.clone(memory_format=torch.contiguous_format)).view(-1)
    flat = torch.full((size,), fill, dtype=values.dtype, device=values.device)
    flat.as_strided(like.size(), like.stride(), like.storage_offset()).copy_(values)
    return flat


def plain(tensor: Tensor) -> bool:
    """Whether a tensor is a dense one of real numbers, which is what rules speak of."""
    return (
        tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_complex()
        and not tensor.is_quantized
    )


class Shadows:
    """All shadows of one run."""

    def __init__(self) -> None:
        self._of: dict[int, Shadow] = {}
        self._made = 0
        self._groups = 0

    def of(self, tensor: Tensor) -> Shadow | None:
        """The shadow of a tensor; None where its values are constants."""
        if not plain(tensor):
            return None
        return self._of.get(tensor.untyped_storage()._cdata)  # noqa: SLF001 - its identity

    def interval(self, tensor: Tensor) -> Interval:
        """Ends of a tensor; views of the shadow, not to be changed."""
        shadow = self.of(tensor)
        if shadow is None:
            value = tensor.detach().double()
            return Interval(value, value)
        if shadow.dtype.itemsize != tensor.dtype.itemsize or shadow.dtype != tensor.dtype:
            lo = torch.full(tensor.shape, -INF, dtype=torch.float64, device=tensor.device)
            return Interval(lo, -lo)
        at = (tensor.size(), tensor.stride(), tensor.storage_offset())
        lo, hi = shadow.lo.as_strided(*at), shadow.hi.as_strided(*at)
        if shadow.empty:
            nothing = lo > hi
            lo, hi = torch.where(nothing, -INF, lo), torch.where(nothing, INF, hi)
        return Interval(lo, hi)

    def put(
        self,
        tensor: Tensor,
        interval: Interval,
        last: int | Tensor = 0,
        unproved: frozenset[int] = frozenset(),
    ) -> Shadow:
        """Give a tensor ends. Where its storage has a shadow, only its entries change."""
        key = tensor.untyped_storage()._cdata  # noqa: SLF001 - its identity
        shadow = self._of.get(key)
        if shadow is not None and shadow.dtype == tensor.dtype:
            self._write(shadow, tensor, interval, last, unproved)
            return shadow
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        if not whole:
            # The rest of the storage is constant, and this is the first that is not.
            rest = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
                tensor.untyped_storage()
            )
            values = rest.double()
            shadow = self._add(key, tensor, values, values.clone(), Field(), frozenset())
            self._write(shadow, tensor, interval, last, unproved)
            return shadow
        lo, hi = _flat(interval.lo, tensor, -INF), _flat(interval.hi, tensor, INF)
        if lo is hi or lo.data_ptr() == hi.data_ptr():
            hi = hi.clone()
        field = (
            Field(each=_flat(last, tensor, 0)) if isinstance(last, Tensor) else Field(one=int(last))
        )
        return self._add(key, tensor, lo, hi, field, unproved)

    def _add(
        self,
        key: int,
        tensor: Tensor,
        lo: Tensor,
        hi: Tensor,
        last: Field,
        unproved: frozenset[int],
    ) -> Shadow:
        self._made += 1
        if self._made % SWEEP == 0:
            self._of = {
                k: s
                for k, s in self._of.items()
                if not s.ref.expired()  # type: ignore[no-untyped-call]
            }
        shadow = Shadow(
            ref=StorageWeakRef(tensor.untyped_storage()),  # type: ignore[no-untyped-call]
            dtype=tensor.dtype,
            lo=lo,
            hi=hi,
            last=last,
            unproved=unproved,
        )
        self._of[key] = shadow
        return shadow

    def _write(
        self,
        shadow: Shadow,
        tensor: Tensor,
        interval: Interval,
        last: int | Tensor,
        unproved: frozenset[int],
    ) -> None:
        at = (tensor.size(), tensor.stride(), tensor.storage_offset())
        shadow.lo.as_strided(*at).copy_(interval.lo.clone())
        shadow.hi.as_strided(*at).copy_(interval.hi.clone())
        whole = tensor.numel() >= shadow.lo.numel()
        if whole:
            shadow.unproved, shadow.empty = unproved, False
        else:
            shadow.unproved |= unproved
        if shadow.last.each is None and (isinstance(last, Tensor) or last != shadow.last.one):
            if whole and not isinstance(last, Tensor):
                shadow.last.one = last
            else:
                shadow.last.each = torch.full(
                    shadow.lo.shape, shadow.last.one, dtype=torch.int64, device=shadow.lo.device
                )
        if shadow.last.each is not None:
            shadow.last.each.as_strided(*at).copy_(torch.as_tensor(last))
        shadow.member = shadow.bound = shadow.origin = None
        shadow.runs = 0

    def uninitialised(self, tensor: Tensor) -> None:
        """A tensor whose values are whatever lay in memory."""
        lo = torch.full(tensor.shape, INF, dtype=torch.float64, device=tensor.device)
        self.put(tensor, Interval(lo, -lo)).empty = True

    def last(self, tensor: Tensor) -> int | Tensor:
        """The last bounding operations of the entries of a tensor."""
        shadow = self.of(tensor)
        return 0 if shadow is None else shadow.last.at(tensor)

    def groups(self, n: int, device: torch.device) -> Tensor:
        """Numbers for `n` new groups, never given before."""
        first = self._groups + 1
        self._groups += n
        return torch.arange(first, first + n, device=device)

    def set_member(self, tensor: Tensor, groups: Tensor) -> None:
        """The magnitudes of these entries are at most the bounds of these groups."""
        shadow = self.of(tensor)
        if shadow is not None:
            shadow.member = _laid(shadow, tensor, groups, shadow.member)

    def set_bound(self, tensor: Tensor, groups: Tensor, factor: float = 1.0) -> None:
        """These entries are bounds of these groups."""
        shadow = self.of(tensor)
        if shadow is not None:
            shadow.bound = _laid(shadow, tensor, groups, None)
            shadow.factor = factor

    def member(self, tensor: Tensor) -> Tensor | None:
        """Groups of the entries of a tensor, None where they are in none."""
        return self._ids(tensor, lambda shadow: shadow.member)

    def bound(self, tensor: Tensor) -> Tensor | None:
        """Groups that the entries of a tensor bound, None where there are none."""
        return self._ids(tensor, lambda shadow: shadow.bound)

    def _ids(self, tensor: Tensor, which: Callable[[Shadow], Field | None]) -> Tensor | None:
        shadow = self.of(tensor)
        field = None if shadow is None else which(shadow)
        if field is None or field.each is None:
            return None
        found = field.at(tensor)
        return found if isinstance(found, Tensor) else None

    def shares(self, tensor: Tensor) -> bool:
        """Whether along the last axis the entries are shares of one whole."""
        shadow = self.of(tensor)
        if shadow is None or not shadow.runs or tensor.ndim == 0:
            return False
        n = shadow.runs
        return (
            tensor.shape[-1] == n
            and (n == 1 or tensor.stride(-1) == 1)
            and tensor.storage_offset() % n == 0
            and all(stride % n == 0 for stride in tensor.stride()[:-1])
        )


def _laid(shadow: Shadow, tensor: Tensor, groups: Tensor, old: Field | None) -> Field:
    each = old.each if old is not None else None
    if each is None:
        each = torch.zeros(shadow.lo.shape, dtype=torch.int64, device=shadow.lo.device)
    at = (tensor.size(), tensor.stride(), tensor.storage_offset())
    each.as_strided(*at).copy_(groups)
    return Field(each=each)
