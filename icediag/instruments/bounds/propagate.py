"""Propagation: a forward pass that carries an interval beside every tensor.

Values are computed as ever, so that Python code which looks at them goes on; what it looks at is
noted, because a proof then holds for one way through the code alone. Custom operations that hide
what they do from torch's dispatcher are met one floor higher, as functions.
"""

# ruff: noqa: SLF001 - schemas of operations and identities of storages have no public name

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from icediag.instruments.running.operations import OperationMode
from icediag.records.bounds import BoundingOp, BoundKind, Place

from . import (
    rules_activations,
    rules_arithmetic,
    rules_elementwise,
    rules_groups,
    rules_layers,
    rules_linear,
    rules_random,
    rules_reduce,
    rules_structure,
)
from .calls import RULES, Call, Entry, Result
from .dispatch import custom, functional_of, name_of, named_of, tensors_of
from .intervals import Interval, everything, mended
from .places import line_of_user
from .shadow import Shadows, plain

#: Modules that enter their rules when they are imported.
TABLES = (
    rules_random,
    rules_groups,
    rules_activations,
    rules_arithmetic,
    rules_elementwise,
    rules_layers,
    rules_linear,
    rules_reduce,
    rules_structure,
)

_EMPTY = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
_EMPTY |= {"empty_permuted", "resize"}
#: What takes values out of torch's sight.
_ESCAPES = {"numpy", "tolist", "__array__", "__dlpack__"}
#: These bound only where they narrow: a value already inside passes through.
_PASSING: set[BoundKind] = {"clamp"}
_PASSING_NAMES = {"remainder", "fmod"}
#: Of these the result does not depend on the values.
_SHAPE_ONLY = {
    "size", "sym_size", "stride", "sym_stride", "dim", "numel", "sym_numel", "is_same_size",
    "storage_offset", "sym_storage_offset", "is_contiguous", "set_data", "_assert_async",
    "_assert_tensor_metadata", "record_stream", "is_pinned",
}  # fmt: skip


class Propagation(OperationMode):
    """Carries intervals while it is active.

    Args:
        stage: Gives the name of the stage that is running.
        on_call: Called with every operation that meets a value that is no constant, before it runs.
    """

    def __init__(
        self,
        stage: Callable[[], str] = lambda: "model",
        on_call: Callable[[Call], None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shadows = Shadows()
        #: Operations that bound, numbered from 1; see `Shadow.last`.
        self.bounding: list[BoundingOp] = []
        #: Operations without a rule, numbered from 0; see `Shadow.unproved`.
        self.unproved: list[Place] = []
        #: Where the flow, or a result that cannot be followed, depends on values.
        self.escaped: list[Place] = []
        self.paused = False
        self._stage = stage
        self._on_call = on_call

    def free(self, tensor: Tensor) -> None:
        """Let a tensor be anything."""
        self.shadows.put(tensor, everything(tensor.shape, tensor.device))

    def bound(self, tensor: Tensor, low: Tensor, high: Tensor) -> None:
        """Let a tensor be anything between two ends."""
        lo, hi = (torch.as_tensor(v, dtype=torch.float64).expand(tensor.shape) for v in (low, high))
        self.shadows.put(tensor, Interval(lo.clone(), hi.clone()))

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Operations within are not looked at."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    @contextmanager
    def running(self) -> Iterator["Propagation"]:
        """Carry intervals through what runs within, without gradients."""
        fast = torch.backends.mha.get_fastpath_enabled()
        # Of torch's fused transformer layers nothing can be seen.
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), self, _Functions(self):
                yield self
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and its rule."""
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        return self.call(func, func, args, kwargs)

    def call(self, func: Any, run: Any, args: Any, kwargs: Any) -> Any:
        """Run one operation, and the rule that goes by its schema.

        Args:
            func: The operation.
            run: What computes it.
            args: Its positional arguments.
            kwargs: Its named ones.
        """
        name = name_of(func)
        entry = RULES.get(name)
        tensors = list(tensors_of((args, kwargs)))
        tracked = any(self.shadows.of(tensor) is not None for tensor in tensors)
        if not tracked and (entry is None or entry.needs_tracked):
            out = run(*args, **kwargs)
            if name in _EMPTY and isinstance(out, Tensor) and plain(out):
                self.shadows.uninitialised(out)
            return out
        named = named_of(func, args, kwargs)
        written = [
            item for a in func._schema.arguments if a.alias_info and a.alias_info.is_write
            for item in tensors_of(named.get(a.name))
        ]  # fmt: skip
        if written:
            return self._in_place(name, entry, func, run, args, kwargs, named, written)
        out = run(*args, **kwargs)
        if name in _EMPTY:
            self.shadows.uninitialised(out)
            return out
        here = {tensor.untyped_storage()._cdata for tensor in tensors if plain(tensor)}
        fresh = [
            tensor for tensor in tensors_of(out)
            if not plain(tensor) or tensor.untyped_storage()._cdata not in here
        ]  # fmt: skip
        results = list(tensors_of(out))
        if not results:
            self._note_escape(name, named)
        elif any(not plain(tensor) for tensor in fresh):
            self._escape(name)
        elif fresh:
            call = Call(name, func, named, results, self.shadows)
            self._judge(call, entry, fresh)
        return out

    def _in_place(
        self,
        name: str,
        entry: Entry | None,
        func: Any,
        run: Any,
        args: Any,
        kwargs: Any,
        named: dict[str, Any],
        written: list[Tensor],
    ) -> Any:
        """An operation that changes arguments: its rule first, on the values before."""
        functional = functional_of(func, name)
        if not all(plain(tensor) for tensor in written):
            out = run(*args, **kwargs)
            self._escape(name)
            return out
        if any(r.alias_info is None for r in func._schema.returns):
            # It gives something new and changes arguments beside: statistics, noise.
            out = run(*args, **kwargs)
            call = Call(name, func, named, list(tensors_of(out)), self.shadows)
            self._judge(call, entry, call.outs)
            for tensor in written:
                self.shadows.put(tensor, everything(tensor.shape, tensor.device))
            return out
        if functional is None:
            out = run(*args, **kwargs)
            for tensor in written:
                self._put_unproved(name, tensor)
            return out
        call = Call(name, functional, named, written, self.shadows)
        results = self._results(call, entry)
        out = run(*args, **kwargs)
        self._store(call, entry, results, written)
        return out

    def _judge(self, call: Call, entry: Entry | None, fresh: list[Tensor]) -> None:
        self._store(call, entry, self._results(call, entry), fresh)

    def _results(self, call: Call, entry: Entry | None) -> list[Interval | None] | None:
        if self._on_call is not None:
            self._on_call(call)
        if entry is None:
            return None
        try:
            found: Result | None = entry.rule(call)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError,
                NotImplementedError):  # fmt: skip
            # A form of the operation that the rule did not think of.
            return None
        if found is None:
            return None
        return [found] if isinstance(found, Interval) else list(found)

    def _store(
        self,
        call: Call,
        entry: Entry | None,
        results: list[Interval | None] | None,
        outs: list[Tensor],
    ) -> None:
        if results is None:
            for tensor in outs:
                self._put_unproved(call.name, tensor)
            return
        last = self._last(call, entry, results)
        inherited: frozenset[int] = frozenset()
        for tensor in call.tracked():
            shadow = self.shadows.of(tensor)
            inherited |= shadow.unproved if shadow is not None else frozenset()
        for tensor, interval in zip(call.outs, results, strict=False):
            if interval is None or not any(tensor is out for out in outs):
                continue
            interval = mended(interval)
            unproved = inherited
            if unproved and bool((interval.lo.isfinite() & interval.hi.isfinite()).all()):
                unproved = frozenset()
            if interval.lo.shape != tensor.shape or interval.hi.shape != tensor.shape:
                interval = Interval(
                    interval.lo.expand(tensor.shape).clone(),
                    interval.hi.expand(tensor.shape).clone(),
                )
            self.shadows.put(tensor, interval, last, unproved)
        for note in call.after:
            note()

    def _last(self, call: Call, entry: Entry | None, results: Any) -> int | Tensor:
        """Which operation bounds the result: this one, or the last of those before it."""
        if entry is not None and entry.kind is not None and self._narrows(call, entry, results):
            self.bounding.append(BoundingOp(kind=entry.kind, place=self.place(call.name)))
            return len(self.bounding)
        if call.last is not None:
            return call.last
        found: int | Tensor = 0
        shape = call.out.shape
        for tensor in call.tracked():
            last = self.shadows.last(tensor)
            if isinstance(last, Tensor):
                try:
                    torch.empty(last.shape, device="meta").expand(shape)
                    fits = last.ndim <= len(shape)
                except RuntimeError:
                    fits = False
                if not fits:
                    last = int(last.amax()) if last.numel() else 0
            if isinstance(found, Tensor) or isinstance(last, Tensor):
                device = call.out.device
                found = torch.maximum(
                    torch.as_tensor(found, device=device), torch.as_tensor(last, device=device)
                )
            else:
                found = max(found, last)
        return found

    def _narrows(self, call: Call, entry: Entry, results: list[Interval | None]) -> bool:
        if entry.kind not in _PASSING and call.name not in _PASSING_NAMES:
            return True
        source = call.args.get("self")
        out = results[0]
        if not isinstance(source, Tensor) or out is None or not out.lo.numel():
            return False
        before = self.shadows.interval(source)
        width_before = float(before.hi.amax() - before.lo.amin())
        width = float(out.hi.amax() - out.lo.amin())
        return width < 0.999 * width_before

    def place(self, name: str) -> Place:
        """The operation that is running."""
        line = line_of_user()
        op = name if "::" in name else f"aten::{name}"
        return Place(
            op=op,
            stage=self._stage(),
            file=line[0] if line else None,
            line=line[1] if line else None,
        )

    def _put_unproved(self, name: str, tensor: Tensor) -> None:
        self.unproved.append(self.place(name))
        number = frozenset([len(self.unproved) - 1])
        self.shadows.put(tensor, everything(tensor.shape, tensor.device), 0, number)

    def _note_escape(self, name: str, named: dict[str, Any]) -> None:
        """A result that is no tensor, such as of `item()`."""
        if name in _SHAPE_ONLY:
            return
        call = Call(name, None, named, [], self.shadows)
        if any(call.unknown(value) for value in named.values()):
            self._escape(name)

    def _escape(self, name: str) -> None:
        self.escaped.append(self.place(name))

    def escape(self, name: str, tensor: Tensor) -> None:
        """Values of a tensor are taken out of torch's sight."""
        with self.aside():
            if Call(name, None, {}, [], self.shadows).unknown(tensor):
                self._escape(name)


class _Functions(TorchFunctionMode):
    """Sees calls before they are dispatched: custom operations whose kernels hide what they do."""

    def __init__(self, propagation: Propagation) -> None:
        super().__init__()
        self._propagation = propagation

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        propagation = self._propagation
        if propagation.paused:
            return func(*args, **kwargs)
        if getattr(func, "__name__", "") in _ESCAPES and args and isinstance(args[0], Tensor):
            propagation.escape(func.__name__, args[0])
            return func(*args, **kwargs)
        overload = custom(func)
        if overload is None:
            return func(*args, **kwargs)

        def run(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **kwargs)

        with propagation.aside():
            return propagation.call(overload, run, args, kwargs)
