"""Births: at which operation of which line a value first is NaN or infinite, and from what.

One more run of the batch in which every result is looked at, so it is made only where the recording
holds such values. A birth is a result that holds NaN although nothing that went in did, or an
infinity although all that went in was finite.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from icediag.instruments.bounds.dispatch import name_of, named_of, tensors_of
from icediag.instruments.running.operations import OperationMode
from icediag.instruments.work.counter import Counter, running_node
from icediag.instruments.work.own import Line, Own, location
from icediag.recording import Recording
from icediag.records.births import Birth, BirthInput, BirthsRecord

from .flow import Flow
from .values import places_of

#: Lines that are kept, in the order in which they were met.
MOST_BIRTHS = 64
#: Hand on what they get, or make memory whose content is yet to be written.
PASSING = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize"),
        *("set", "lift_fresh", "lift", "detach", "alias"),
    }
)
#: Arguments that are values, where others are axes and choices.
VALUES = frozenset({"self", "other", "exponent", "value", "min", "max", "end", "weight"})


def holds_non_finite(recording: Recording) -> bool:
    """Whether a run that looks for births has something to look for.

    -inf alone is a mask as long as the loss is finite.
    """
    if recording.loss is not None and not math.isfinite(recording.loss):
        return True
    if any(not math.isfinite(part.gradient_norm) for part in recording.parameters):
        return True
    tensors = [tensor for stage in recording.stages for tensor in stage.tensors]
    return any(
        facts.nans + facts.positive_infs > 0
        or (tensor.role == "grad" and facts.negative_infs > 0)
        or (facts.negative_infs > 0 and facts.minimum is None)
        for tensor in tensors
        if (facts := tensor.facts) is not None
    )


class BirthWatch(Counter):
    """Looks at the result of every operation.

    Args:
        own: Tells the user's lines.
        model: For the names of parameters.
        flow: Tells the stage that runs.
    """

    def __init__(self, own: Own, model: Any, flow: Flow) -> None:
        super().__init__(own, model)
        self.births: dict[tuple[Any, ...], Birth] = {}
        self._flow = flow
        self.phase = "forward"

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look at all that is done within."""
        self.start_numbers()
        with _Functions(self), _Operations(self):
            yield

    def gave(self, func: Any, args: Any, kwargs: Any, before: list["_Seen"], out: Any) -> None:
        """An operation ran.

        Args:
            func: Its overload.
            args: What it took.
            kwargs: The same by name.
            before: Of its arguments that it writes to, what they were before.
            out: What it gave.
        """
        node = running_node()
        if node is None:
            line, looker = self._own.line()
            if looker:
                return
            stage = self._stage
            self.name_nodes(stage, line)
            name = None
        else:
            stage, line, name, _ = self._behind(node)
        results = [t for t in tensors_of(out) if _looked_at(t)]
        if not results or name_of(func) in PASSING:
            return
        bad = next((t for t in results if not bool(t.isfinite().all())), None)
        if bad is not None:
            self._add_birth(func, args, kwargs, before, bad, stage, line, name)

    def _add_birth(
        self,
        func: Any,
        args: Any,
        kwargs: Any,
        before: list["_Seen"],
        bad: Tensor,
        stage: str,
        line: Line | None,
        node: str | None,
    ) -> None:
        written = {id(seen.tensor): seen for seen in before}
        inputs = [
            written.get(id(tensor)) or _Seen(tensor)
            for tensor in tensors_of([args, kwargs])
            if _looked_at(tensor)
        ]
        nans = int(bad.isnan().sum())
        # Also views, copies and sums of what was not finite before: nothing is born there.
        if any(seen.nans for seen in inputs) or (not nans and any(seen.infs for seen in inputs)):
            return
        numbers = [value for value in [*args, *kwargs.values()] if isinstance(value, float)]
        constant = any(math.isinf(value) for value in numbers)
        op = name_of(func)
        key = (node is None, stage, op, node, line)
        if key in self.births:
            self.births[key] = replace(self.births[key], times=self.births[key].times + 1)
            return
        if len(self.births) >= MOST_BIRTHS:
            return
        first = int((~bad.isfinite()).reshape(-1).to(torch.uint8).argmax())
        index = tuple(int(i) for i in places_of(torch.tensor(first), bad.shape))
        self.births[key] = Birth(
            phase="forward" if node is None else "backward",
            stage=stage,
            op=op,
            node=node,
            location=location(line),
            nans=nans,
            positive_infs=int(bad.isposinf().sum()),
            negative_infs=int(bad.isneginf().sum()),
            values=bad.numel(),
            index=index,
            constant=constant,
            from_infinite=any(seen.infs for seen in inputs),
            inputs=tuple(_inputs(func, args, kwargs, written, bad, index)),
        )

    def record(self) -> BirthsRecord:
        """All of them."""
        return BirthsRecord(births=tuple(self.births.values()))


def _looked_at(tensor: Tensor) -> bool:
    return (
        tensor.is_floating_point()
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and not tensor.is_meta
        and tensor.numel() > 0
    )


class _Seen:
    """What a tensor holds, and a copy of it where the operation is about to write to it."""

    def __init__(self, tensor: Tensor, *, copied: bool = False) -> None:
        self.tensor = tensor
        self.values = tensor.detach().clone() if copied else tensor.detach()
        self.nans = bool(self.values.isnan().any())
        self.infs = bool(self.values.isinf().any())


def _inputs(
    func: Any,
    args: Any,
    kwargs: Any,
    written: dict[int, _Seen],
    bad: Tensor,
    index: tuple[int, ...],
) -> Iterator[BirthInput]:
    for name, value in named_of(func, args, kwargs).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if (
                name not in ("dim", "alpha", "beta", "reduction", "correction")
                and value is not None
            ):
                number = float(value)
                yield BirthInput(name=name, minimum=number, maximum=number, at=number)
            continue
        for tensor in tensors_of(value):
            if not (_looked_at(tensor) or tensor.dtype in (torch.int64, torch.int32)):
                continue
            if tensor.layout != torch.strided or not tensor.numel():
                continue
            seen = written.get(id(tensor))
            values = seen.values if seen is not None else tensor.detach()
            known = values[values.isfinite()] if values.is_floating_point() else values
            yield BirthInput(
                name=name,
                shape=tuple(values.shape),
                dtype=str(values.dtype).removeprefix("torch."),
                minimum=float(known.amin()) if known.numel() else None,
                maximum=float(known.amax()) if known.numel() else None,
                at=_value_at(values, bad, index),
            )


def _value_at(values: Tensor, bad: Tensor, index: tuple[int, ...]) -> float | None:
    try:
        return float(values.expand(bad.shape)[index])
    except RuntimeError:  # of another shape: a matrix product, a sum
        return None


class _Operations(OperationMode):
    """Hands every dispatched operation on, with what it is about to write over."""

    def __init__(self, watch: BirthWatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        before = []
        schema = getattr(func, "_schema", None)
        for i, argument in enumerate(schema.arguments if schema is not None else ()):
            alias = argument.alias_info
            if alias is not None and alias.is_write:
                value = args[i] if i < len(args) else kwargs.get(argument.name)
                before += [_Seen(t, copied=True) for t in tensors_of(value) if _looked_at(t)]
        out = func(*args, **kwargs)
        if schema is not None:
            self._watch.gave(func, args, kwargs, before, out)
        return out


class _Functions(TorchFunctionMode):
    """Sees calls of torch's functions: which line made which autograd nodes."""

    def __init__(self, watch: BirthWatch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._watch.made()
        return out
