"""Contracts: compares what signatures and the pipeline declare with what arrives, call by call.

Rides on the recorder's own pass: shapes and dtypes are compared when a tensor is noted, ranges with
the facts that are taken anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from icediag.instruments.recorder.flow import Flow, Looker, SeenStage
from icediag.instruments.recorder.values import Values
from icediag.instruments.shapes.axes import pairs
from icediag.instruments.trees.walk import leaves
from icediag.recording import Facts, Role
from icediag.records.contracts import ContractsRecord

from .declared import Declared, declared_in
from .dims import Misfit, Sizes, UnreadableError, fit
from .seen import Ranged, SeenContract, worst_of, written
from .signatures import owner_of
from .terms import Terms, dtype_fits, terms_of

#: Of a stage that runs more often than this inside of another, the first calls are compared: a
#: helper called once a DOM would otherwise take longer to compare than to run.
COMPARED_CALLS = 32


Key = tuple[Any, ...]


class ContractFlow(Flow):
    """A flow that compares what it meets with what is declared.

    Args:
        values: As for `Flow`; without, ranges are not compared.
        contracts: Of the pipeline.
        lookers: As for `Flow`.
    """

    def __init__(
        self,
        values: Values | None,
        contracts: Mapping[str, Mapping[str, Any]],
        lookers: Sequence[Looker] = (),
    ) -> None:
        super().__init__(values, lookers)
        self.seen: dict[Key, SeenContract] = {}
        self.unread: dict[str, str] = {}
        self.met: set[tuple[str, str]] = set()
        self._contracts = contracts
        self._scopes: list[dict[tuple[Role | None, str], Sizes]] = []
        # Fields of a container that goes from stage to stage are compared once.
        self._fields: Any = WeakTensorKeyDictionary()

    def begin(self, name: str, kind: Any, owner: Any = None) -> SeenStage:
        """Enter a stage: names of axes begin anew."""
        stage = super().begin(name, kind, owner)
        self._scopes.append({})
        return stage

    def end(self, error: BaseException | None = None) -> None:
        """Leave a stage."""
        super().end(error)
        self._scopes.pop()

    def note(
        self, stage: SeenStage, role: Role, tree: Any, prefix: str = "", annotation: Any = None
    ) -> None:
        """Note a tree; a whole number may be what an axis speaks of."""
        if role == "in" and type(tree) is int:
            self._sizes(None, "").numbers[prefix] = tree
        super().note(stage, role, tree, prefix, annotation)

    def note_batch(self, stage: SeenStage, name: str, batch: Any, annotation: Any) -> None:
        """Compare the batch with what the stage that takes it declares."""
        declared = declared_in(batch, annotation, name)
        if not declared and stage.owner not in self._contracts:
            return
        for path, tensor in leaves(batch, name):
            self.compare(stage, "in", path, tensor, declared.get(path))

    def _sizes(self, role: Role | None, scope: str) -> Sizes:
        # Arguments and result share their names; a container has its own.
        return self._scopes[-1].setdefault((role if scope else None, scope), Sizes())

    def compare(
        self,
        stage: SeenStage,
        role: Role,
        path: str,
        tensor: Tensor,
        declared: Declared | None,
    ) -> None:
        """Compare one tensor."""
        if role == "grad" or stage.calls > COMPARED_CALLS or not self._scopes:
            return
        owner = stage.owner
        ways = terms_of(declared.annotation) if declared is not None else ()
        if declared is not None and isinstance(declared.annotation, str):
            self._not_read(owner, path, declared.annotation)
        argument = path if role == "in" else f"return.{path}" if path else "return"
        stated = self._contracts.get(owner, {}).get(argument)
        if stated is not None:
            self.met.add((owner, argument))
            ways = _together(ways, terms_of(stated))
        if not ways:
            return
        holder = declared.holder if declared is not None and stated is None else None
        if holder is not None:
            assert declared is not None
            inner = path.removeprefix(declared.scope).removeprefix(".")
            before = self._fields.setdefault(tensor, set())
            if (holder, inner) in before:
                return
            before.add((holder, inner))
        key = (self.innermost, role, path)
        seen = self.seen.get(key)
        if seen is None:
            seen = self.seen[key] = SeenContract(
                stage=stage.name,
                owner=owner,
                role=role,
                path=path,
                holder=None if holder is None else owner_of(holder),
                declared=" or ".join(terms.text or "any tensor" for terms in ways),
                location=stage.location,
            )
        scope = declared.scope if declared is not None and holder is not None else ""
        try:
            way = self._shape(seen, ways, tensor, self._sizes(role, scope), stage.calls)
        except UnreadableError as error:
            self.unread[f"{path or 'the result'} of {owner}"] = str(error)
            return
        if way is not None:
            self._values_of(seen, way, tensor, stage.calls)

    def _not_read(self, owner: str, path: str, annotation: str) -> None:
        if "Annotated[" in annotation or "Tensor," in annotation:
            place = f"{path or 'the result'} of {owner}"
            self.unread[place] = f"its annotation {annotation!r} cannot be evaluated"

    def _shape(
        self, seen: SeenContract, ways: tuple[Terms, ...], tensor: Tensor, sizes: Sizes, call: int
    ) -> Terms | None:
        """Compare shape and dtype; gives the terms that fit, where any do."""
        shape = _shape_of(tensor)
        if shape is None:
            raise UnreadableError("a nested tensor has no sizes")
        misfits: list[Misfit] = []
        for way in ways:
            if way.array is not None and not dtype_fits(way.array, tensor.dtype):
                continue
            misfit = (
                fit(way.dims, shape, sizes, seen.path or "the result")
                if way.dims is not None
                else None
            )
            if misfit is not None:
                misfits.append(misfit)
                continue
            self._learn(seen, way, shape)
            low, high = way.lengths or (0, None)
            length = shape[0] if shape else 0
            if length < low or (high is not None and length > high):
                text = f"length {low} to {'any' if high is None else high}"
                seen.breach("shape", text, str(length), call=call)
            return way
        if misfits:
            first = misfits[0]
            expected = first.expected if len(misfits) == 1 else seen.declared
            got = first.got if len(misfits) == 1 else f"shape {shape}"
            seen.breach("shape", expected, got, beside=first.beside, call=call)
            self._learn(seen, ways[0], shape)
        else:
            got = str(tensor.dtype).removeprefix("torch.")
            kinds = dict.fromkeys(w.array.dtype.__name__ for w in ways if w.array is not None)
            seen.breach("dtype", " or ".join(kinds), got, call=call)
            # The shape may be off as well, and other tensors are held against its sizes.
            for way in ways:
                misfit = (
                    fit(way.dims, shape, sizes, seen.path or "the result")
                    if way.dims is not None
                    else None
                )
                if misfit is None:
                    self._learn(seen, way, shape)
                    return way
                if len(ways) == 1:
                    seen.breach(
                        "shape", misfit.expected, misfit.got, beside=misfit.beside, call=call
                    )
        return None

    def _learn(self, seen: SeenContract, way: Terms, shape: tuple[int, ...]) -> None:
        seen.unit = way.unit
        seen.column = way.raw.column if way.raw is not None else None
        if seen.sizes is None:
            seen.sizes = shape
            seen.axes = _names(way, len(shape))
        elif seen.sizes != shape:
            seen.sizes = ()

    def _values_of(self, seen: SeenContract, way: Terms, tensor: Tensor, call: int) -> None:
        known = self._known.get(tensor)
        if known is None:
            return
        number = known[0]
        if seen.number is None:
            seen.number = number
        if any(ranged.number == number for ranged in seen.ranged):
            return
        if way.multiple_of is not None and tensor.numel() and not tensor.is_complex():
            # Of few arguments, so that the read that this takes on a GPU is not felt.
            ratio = tensor.detach().double() / way.multiple_of
            off = (ratio - ratio.round()).abs() > 1e-6 * ratio.abs().clamp_min(1)
            if count := int(off.sum()):
                first = float(tensor.detach()[off][0])
                seen.breach(
                    "multiple",
                    f"a multiple of {way.multiple_of:g}",
                    f"{first:g}",
                    call=call,
                    count=count,
                    total=tensor.numel(),
                )
        if not way.limits and not way.finite:
            return
        ranged = Ranged(number, way.limits, way.finite, tensor.dtype, call)
        seen.ranged.append(ranged)
        facts = self._values.known(number) if self._values is not None else None
        for limit in way.limits if facts is not None else ():
            assert facts is not None
            if worst_of(facts, limit, tensor.dtype) is not None:
                end = limit.value
                outside = {
                    ">=": torch.lt,
                    ">": torch.le,
                    "<=": torch.gt,
                    "<": torch.ge,
                }[limit.op]
                ranged.counts[limit.op] = int(outside(tensor.detach(), end).sum())


def _shape_of(tensor: Tensor) -> tuple[int, ...] | None:
    if tensor.is_nested:
        return None
    try:
        return tuple(int(size) for size in tensor.shape)
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def _names(way: Terms, ndim: int) -> tuple[str | None, ...]:
    """Name of each axis that has a plain one."""
    if way.dims is None:
        return ()
    names = [dim.text if dim.kind == "name" and not dim.many else None for dim in way.dims]
    wide = next((i for i, dim in enumerate(way.dims) if dim.many), None)
    if wide is not None:
        names[wide : wide + 1] = [None] * (ndim - len(way.dims) + 1)
    return tuple(names) if len(names) == ndim else ()


def _together(ways: tuple[Terms, ...], stated: tuple[Terms, ...]) -> tuple[Terms, ...]:
    """What the signature declares, and what the pipeline states beside it."""
    if not ways or any(terms.dims is not None for terms in stated):
        return stated
    return tuple(
        replace(
            way,
            limits=(*way.limits, *more.limits),
            multiple_of=more.multiple_of or way.multiple_of,
            finite=way.finite | more.finite,
            lengths=more.lengths or way.lengths,
            unit=more.unit or way.unit,
            raw=more.raw or way.raw,
        )
        for way in ways
        for more in stated
    )


def contracts_record(
    flow: ContractFlow, small: ContractFlow, collected: list[Facts | str]
) -> ContractsRecord:
    """Write down what was compared.

    Args:
        flow: Of the batch.
        small: Of a smaller batch.
        collected: Facts of the tensors, by number.
    """
    shapes = (
        {path: shape for path, tensor in leaves(one.batch) if (shape := _shape_of(tensor))}
        for one in (flow, small)
    )
    large_shapes, small_shapes = shapes
    axes = {sizes for *_, sizes in pairs(large_shapes.items(), small_shapes)}
    unread = dict(flow.unread)
    for owner, arguments in flow._contracts.items():  # noqa: SLF001 - a flow of this file
        for argument in arguments:
            if (owner, argument) not in flow.met and terms_of(arguments[argument]):
                unread[f"{argument} of {owner}"] = "was not seen"
    return ContractsRecord(
        contracts=tuple(
            written(seen, small.seen.get(key), collected) for key, seen in flow.seen.items()
        ),
        batch_axes=tuple(sorted(sizes for sizes in axes if sizes[0] != sizes[1])),
        unread=unread,
    )
