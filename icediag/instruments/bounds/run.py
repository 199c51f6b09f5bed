"""The instrument: proves what it can of a pipeline's outputs, searches for what it cannot."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icediag.errors import IcediagError
from icediag.instruments.recorder.flow import Flow, watched_functions, watched_modules
from icediag.instruments.running.companions import generators_kept
from icediag.instruments.running.discover import discover
from icediag.instruments.running.preserve import preserved, unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.samples import read_samples
from icediag.instruments.running.stages import FunctionStage, resolve
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.outputs import output_columns, target_column
from icediag.instruments.trees.walk import leaves, move
from icediag.pipeline import Domain, Pipeline
from icediag.records.bounds import (
    BoundingOp,
    BoundsNote,
    BoundsRecord,
    InputRange,
    OutputBounds,
    Place,
    Pole,
    Witness,
)

from .facts import counted, merged, with_facts
from .poles import PoleWatch, confirmed
from .propagate import Propagation
from .ranges import Column, columns_of, move_rows, records, within
from .search import Search, outside, tolerance
from .watch import BoundFlow

#: Samples that are searched for poles, and that searches move.
FEW = 16
#: Of these, samples that intervals are carried for: a bound does not depend on how many rows there
#: are. They are of several lengths, the longest left out, which may hold more than all others.
CARRIED = 4
#: Samples whose inputs a search moves by their gradients. They are searched side by side, so more
#: find little more; and where a model writes row by row, the way back costs the square of them.
SEARCHED = 4
#: How often rows of the batch are moved to the ends of their ranges, to meet poles.
PROBES = 2


def record_bounds(
    pipeline: Pipeline,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> BoundsRecord:
    """Prove bounds of a pipeline's values, and look for poles.

    The model, its gradients, flags and all random generators are left as they were found. Outputs
    are those of the model in evaluation mode; poles are looked for in training mode.

    Args:
        pipeline: What to look at.
        batch_size: Samples, at least 1; without, that of the pipeline.
        device: Where the model is and the batch is to go.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    wanted = pipeline.batch_size if batch_size is None else batch_size
    if wanted < 1:
        raise IcediagError(f"batch size: expected 1 or more, got {wanted}")
    with generators_kept(pipeline), preserved(pipeline.model), _eager(pipeline.model):
        _seed(seed)
        run = Run(Flow(None))
        samples = read_samples(pipeline, wanted, run)
        prover = _Prover(pipeline, samples, torch.device(device), seed)
        if samples:
            with unchanged(samples):
                prover.run()
        notes = [BoundsNote(name=n.name, reason=n.reason) for n in run.not_judged]
        return prover.record([n for n in notes if n.name != "batch size"])


class _Prover:
    """One run of the instrument."""

    def __init__(
        self, pipeline: Pipeline, samples: list[Any], device: torch.device, seed: int
    ) -> None:
        self._pipeline = pipeline
        self._samples = samples
        self._few = samples[:FEW]
        self._device = device
        self._seed = seed
        self._stages: list[FunctionStage] = []
        self._notes: list[BoundsNote] = []
        self._outputs: list[OutputBounds] = []
        self._flow = BoundFlow(pipeline.contracts)
        self._propagation: Propagation | None = None
        self._poles: list[Pole] = []
        self._ranges: tuple[InputRange, ...] = ()
        self._missed: list[str] = []

    def run(self) -> None:
        """Everything, part by part; a part that fails is noted and the others go on."""
        pipeline = self._pipeline
        self._stages = [resolve(stage) for stage in pipeline.stages]
        if not self._stages:
            with preserved(pipeline.model), unchanged(self._samples[:2]):
                self._stages = discover(pipeline, self._samples[:2], self._device)
        for name, part in (("bounds", self._prove), ("poles", self._find_poles)):
            try:
                with preserved(pipeline.model):
                    _seed(self._seed)
                    part()
            except IcediagError:
                raise
            except Exception as error:  # the user's code may raise anything
                self._notes.append(BoundsNote(name=name, reason=reason_of(error, pipeline)))
        if not pipeline.outputs:
            self._notes.append(BoundsNote(name="outputs", reason="no outputs declared"))

    def record(self, notes: list[BoundsNote]) -> BoundsRecord:
        """What came of it."""
        unproved = (
            self._propagation.unproved + self._propagation.escaped if self._propagation else []
        )
        return BoundsRecord(
            batch_size=len(self._samples),
            outputs=tuple(self._outputs),
            stages=self._flow.stage_bounds(),
            poles=tuple(self._poles),
            ranges=self._ranges,
            unproved=counted(unproved),
            not_judged=(*notes, *self._notes),
        )

    def _batch(self, samples: list[Any]) -> Any:
        return move(self._pipeline.collate(samples), self._device)

    def _forward(self, model: Any, batch: Any) -> Any:
        forward = self._pipeline.forward
        return model(batch) if forward is None else forward(model, batch)

    def _columns(self, predictions: Any) -> dict[str, Tensor]:
        return output_columns(predictions, self._pipeline.outputs)[0]

    @contextmanager
    def _watched(self, flow: BoundFlow) -> Iterator[None]:
        model = self._pipeline.model
        skipped: list[str] = []
        stages = [s for s in self._stages if s.function not in _own(self._pipeline)]
        with watched_functions(flow, stages, model):
            if isinstance(model, nn.Module):
                with watched_modules(flow, model, skipped):
                    yield
            else:
                yield
        flow.close()

    def _prove(self) -> None:
        """Intervals of all stages and outputs, then what each output column is."""
        model = self._pipeline.model
        _set_training(model, False)
        batch = self._batch(_of_each_length(self._few))
        flow = self._flow
        self._propagation = propagation = Propagation(flow.current)
        flow.propagation = flow.batch = None
        self._missed = _free(propagation, batch)
        flow.propagation, flow.batch = propagation, batch
        with self._watched(flow), propagation.running():
            predictions = self._forward(model, batch)
        if not self._pipeline.outputs:
            return
        columns, missing = output_columns(predictions, self._pipeline.outputs)
        self._notes += [BoundsNote(name=m.name, reason=m.reason) for m in missing]
        reach = self._reach()
        whole = self._batch(self._samples)
        with torch.no_grad():
            attained = self._columns(self._forward(model, whole))
        for name, column in columns.items():
            self._outputs.append(
                self._one(name, column, reach.get(name), attained[name], whole, flow.order)
            )

    def _reach(self) -> dict[str, tuple[float, float]]:
        """Ranges of the output columns for any input and any weights."""
        model = self._pipeline.model
        batch = self._batch(self._samples[:2])
        propagation = Propagation()
        if _free(propagation, batch):
            return {}
        if isinstance(model, nn.Module):
            for weight in model.parameters():
                if weight.requires_grad and weight.is_floating_point():
                    propagation.free(weight)
        with propagation.running():
            columns = self._columns(self._forward(model, batch))
        if propagation.escaped:
            return {}
        found = {}
        for name, column in columns.items():
            ends = propagation.shadows.interval(column)
            if column.numel():
                found[name] = (float(ends.lo.amin()) + 0.0, float(ends.hi.amax()) + 0.0)
        return found

    def _one(
        self,
        name: str,
        column: Tensor,
        reach: tuple[float, float] | None,
        values: Tensor,
        batch: Any,
        order: list[str],
    ) -> OutputBounds:
        """All about one output column."""
        assert self._propagation is not None
        propagation, domain = self._propagation, self._pipeline.outputs[name]
        ends, shadow = propagation.shadows.interval(column), propagation.shadows.of(column)
        low = float(ends.lo.amin()) if column.numel() else math.nan
        high = float(ends.hi.amax()) if column.numel() else math.nan
        slack = tolerance(domain, column.dtype)
        inside = low >= domain.low - slack and high <= domain.high + slack
        why_not = _why_not(propagation, shadow.unproved if shadow else frozenset())
        if inside and not propagation.escaped:
            why_not = None
        if self._missed:
            why_not = f"no bounds are carried through {self._missed[0]}, a nested or sparse tensor"
        proved = inside and why_not is None
        giver = self._flow.giver_of(column)
        location = giver.location if giver is not None else None
        witness, searched = None, ""
        if not proved:
            search = Search(
                self._pipeline.model,
                self._forward,
                self._columns,
                self._batch(self._few[:SEARCHED]),
                self._batch(self._few),
                order,
            )
            witness, searched = self._in_batch(domain, values), "the batch"
            if witness is None:
                witness, tried = search(name, domain)
                searched = f"{searched}, {tried}"
        last = _last_of(propagation, column)
        found = OutputBounds(
            column=name,
            domain_low=float(domain.low),
            domain_high=float(domain.high),
            periodic=domain.periodic,
            low=low + 0.0,  # -0 reads oddly
            high=high + 0.0,
            proved=proved,
            why_not=why_not,
            last=last,
            stage=giver.stage if giver is not None else "model",
            file=location.file if location is not None else None,
            line=location.line if location is not None else None,
            witness=witness,
            searched=searched,
        )
        names = list(self._pipeline.outputs)
        targets = target_column(batch, name, names, values.numel())
        return with_facts(found, values, reach, targets)

    def _in_batch(self, domain: Domain, values: Tensor) -> Witness | None:
        """The value of the batch that is furthest outside, if any is."""
        if not values.numel():
            return None
        over = outside(values, domain).reshape(values.shape[0] if values.ndim else 1, -1)
        row = int(over.amax(1).argmax())
        entry = int(over[row].argmax())
        if not float(over[row, entry]) > 0:
            return None
        return Witness(how="batch", value=float(values.reshape(over.shape)[row, entry]), row=row)

    def _find_poles(self) -> None:
        """Runs on the batch as it is and with rows moved within their ranges, forward and back."""
        pipeline = self._pipeline
        _set_training(pipeline.model, True)
        first: list[Column] = []
        for probe in range(PROBES + 1):
            batch = self._batch(self._few)
            flow = BoundFlow(pipeline.contracts)
            if probe:
                columns = columns_of(batch, [], self._targets(batch))
                with unchanged([batch]):
                    move_rows(within(columns, first), self._seed + probe)
                    met = "the batch with rows moved within their ranges"
                    self._poles_of(flow, batch, met)
                continue
            try:
                with unchanged([batch]):
                    self._poles_of(flow, batch, "the batch as it is")
            finally:
                # The run has met the ranges that signatures state of columns of this batch.
                first = columns_of(batch, flow.limits, self._targets(batch))
                self._ranges = records(first)
        self._poles = merged(self._poles)

    def _targets(self, batch: Any) -> list[Tensor]:
        found = []
        names = list(self._pipeline.outputs)
        for name in names:
            for rows in {len(self._few), len(self._samples)}:
                target = target_column(batch, name, names, rows)
                if target is not None:
                    found.append(target)
        return found

    def _poles_of(self, flow: BoundFlow, batch: Any, met: str) -> None:
        pipeline = self._pipeline
        watch = PoleWatch(flow.current)
        outcome = ""
        with preserved(pipeline.model):
            with torch.enable_grad(), self._watched(flow), watch:
                flow.batch = batch
                predictions = self._forward(pipeline.model, batch)
                loss = pipeline.loss(predictions, batch)
            if not watch.meetings:
                return
            watch.listen()
            flow.paused = True
            loss.backward()  # type: ignore[no-untyped-call]
            if any(not bool(t.isfinite().all()) for _, t in leaves(predictions)
                   if t.is_floating_point()):  # fmt: skip
                outcome = "predictions"
            elif not bool(loss.detach().isfinite().all()):
                outcome = "the loss"
            elif any(
                p.grad is not None and not p.grad.is_sparse and not bool(p.grad.isfinite().all())
                for p in _parameters(pipeline.model)
            ):
                outcome = "gradients of weights"
        self._poles += confirmed(watch.meetings, outcome, met)


def _free(propagation: Propagation, batch: Any) -> list[str]:
    """Let the data be anything: all floating-point tensors, and the bytes of images.

    Other whole numbers say where things are and how many: these are taken as they are.

    Returns:
        Paths of tensors whose values cannot be followed.
    """
    missed = []
    for path, leaf in leaves(batch):
        if leaf.is_nested or leaf.layout != torch.strided:
            missed.append(path or "the batch")
        elif leaf.is_floating_point():
            propagation.free(leaf)
        elif leaf.dtype == torch.uint8 and leaf.ndim > 2:
            info = torch.iinfo(leaf.dtype)
            propagation.bound(leaf, torch.tensor(info.min), torch.tensor(info.max))
    return missed


def _of_each_length(samples: list[Any]) -> list[Any]:
    """A few samples, from the shortest up to three quarters of the way to the longest."""
    if len(samples) <= CARRIED:
        return samples
    sizes = [sum(leaf.numel() for _, leaf in leaves(sample)) for sample in samples]
    ranked = sorted(range(len(samples)), key=lambda i: (sizes[i], i))
    chosen = {ranked[k * len(samples) // CARRIED] for k in range(CARRIED)}
    return [samples[i] for i in sorted(chosen)]


def _own(pipeline: Pipeline) -> list[Any]:
    return [pipeline.collate, pipeline.loss]


def _parameters(model: Any) -> list[Tensor]:
    return list(model.parameters()) if isinstance(model, nn.Module) else []


def _why_not(propagation: Propagation, numbers: frozenset[int]) -> str | None:
    """Which operations stand in the way of a proof."""
    if propagation.escaped:
        place = propagation.escaped[0]
        return f"the flow depends on values taken out of a tensor by {_named(place)}"
    if numbers:
        return f"no rule for {_named(propagation.unproved[min(numbers)])}"
    return None


def _named(place: Place) -> str:
    at = f" ({place.file}:{place.line})" if place.file else ""
    return f"{place.op} in {place.stage}{at}"


def _last_of(propagation: Propagation, column: Tensor) -> BoundingOp | None:
    last = propagation.shadows.last(column)
    number = int(last.amax()) if isinstance(last, Tensor) and last.numel() else 0
    if isinstance(last, int):
        number = last
    return propagation.bounding[number - 1] if number else None


def _set_training(model: Any, training: bool) -> None:
    """The flag of every module; a frozen part's own `train` is respected by nobody here."""
    if isinstance(model, nn.Module):
        for module in model.modules():
            module.training = training


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the user's code may use the global generator
    torch.manual_seed(seed)


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Have compiled modules run as they are written."""
    compiled = isinstance(model, nn.Module) and any(
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    if compiled:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
