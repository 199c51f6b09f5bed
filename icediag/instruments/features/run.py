"""The instrument: a traced run, and where there is cause, a moved one and a padded one."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from icediag.errors import IcediagError
from icediag.instruments.bounds.places import line_of_user
from icediag.instruments.recorder.flow import Flow, SeenStage, watched_modules
from icediag.instruments.recorder.record import follow
from icediag.instruments.running.companions import generators_kept
from icediag.instruments.running.modes import eager, seed_all, train_mode
from icediag.instruments.running.preserve import preserved, unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.samples import read_samples
from icediag.instruments.shapes.naming import Run
from icediag.instruments.shapes.slots import Slots
from icediag.instruments.trees.walk import move
from icediag.pipeline import Pipeline
from icediag.records.features import (
    FeaturesNote,
    FeaturesRecord,
    LooseState,
    NormalizerFacts,
    PaddedStatistic,
    RepeatedLog,
    RunningFacts,
)

from .columns import Names, Source, facts_of, table_of
from .labels import Line, Twice
from .padding import Statistics, compare, longer, still
from .state import Loose, judge_loose, loose_state
from .trace import Trace

#: Samples of the run with more padding.
FEW = 8
#: A batch mean this many running deviations away is far.
FAR = 5.0


class _TracedFlow(Flow):
    """A flow that arms a trace once the run that counts begins."""

    trace: Trace

    def __init__(self) -> None:
        super().__init__(None)

    def begin(self, name: str, kind: Any, owner: Any = None) -> SeenStage:
        """Enter a stage."""
        if kind == "collate":
            self.trace.armed = True
            self.trace.numbers.n_samples = self.stages["dataset item",].calls
        return super().begin(name, kind, owner)

    def note_tensor(
        self, stage: SeenStage, role: Any, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Look at the types that samples come in."""
        super().note_tensor(stage, role, path, tensor, annotation)
        if stage.kind == "item" and not tensor.is_complex():
            self.trace.numbers.hold(path, tensor, Line("dataset item", None, None))

    def current(self) -> str:
        """Name of the innermost stage."""
        return self.innermost[-1] if self.innermost else "model"


def record_features(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> FeaturesRecord:
    """Look at what reaches the first learned layers.

    The model, its gradients, flags and all random generators are left as they were found.

    Args:
        pipeline: What to look at.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    wanted = pipeline.batch_size if batch_size is None else batch_size
    flow = _TracedFlow()
    candidates = loose_state(pipeline.model)
    most = pipeline.batch_size
    if hasattr(pipeline.dataset, "__len__"):
        most = min(most, len(pipeline.dataset))
    watched = {id(one.tensor) for one in candidates}
    trace = flow.trace = Trace(flow.current, watched, wanted, most)
    call = pipeline.forward or _call
    traced = replace(
        pipeline,
        collate=trace.around("collate", pipeline.collate),
        forward=trace.around("forward", call),
        loss=trace.around("loss", pipeline.loss),
    )
    run = follow(traced, flow, batch_size=batch_size, device=device, seed=seed)
    notes = [
        FeaturesNote(name=item.name, reason=item.reason)
        for item in run.not_judged
        if item.name != "batch size"
    ]
    if run.batch is None:
        return FeaturesRecord(batch_size=wanted, not_judged=tuple(notes))
    lengths = run.lengths
    n_samples = flow.stages["dataset item",].calls
    slots = Slots(run.batch, lengths, n_samples)
    names = Names(trace.seen.used, pipeline.model)
    source = Source(pipeline, run.batch, slots)
    record = FeaturesRecord(
        batch_size=n_samples,
        tables=tuple(table_of(met, source, names, n_samples) for met in trace.seen.met),
        logs=_logs(trace),
        normalizers=_normalizers(trace, slots),
        running=_running(trace, pipeline.model),
        overflows=tuple(trace.numbers.overflows.values()),
        roundings=trace.numbers.collected(names.holds),
        loose=(),
        not_judged=tuple(notes),
    )
    if trace.seen.touched:
        record = replace(record, loose=_loose(pipeline, trace, candidates, device, seed))
    if slots.of:
        record = _with_padding(record, pipeline, lengths, device, seed)
    return record


def _call(model: Any, batch: Any) -> Any:
    return model(batch)


def _logs(trace: Trace) -> tuple[RepeatedLog, ...]:
    found: dict[Twice, RepeatedLog] = {}
    for met in trace.seen.met:
        for twice in met.twice:
            found.setdefault(
                twice,
                RepeatedLog(
                    stage=twice.at.stage,
                    op=twice.op,
                    before=twice.before.text,
                    reaches=met.at.stage,
                    file=twice.at.file,
                    line=twice.at.line,
                ),
            )
    return tuple(found.values())


def _normalizers(trace: Trace, slots: Slots) -> tuple[NormalizerFacts, ...]:
    found: dict[Line, NormalizerFacts] = {}
    for divided in trace.seen.divided:
        out, scale = divided.out.double(), divided.scale.double()
        axes = [i for i, size in enumerate(scale.shape) if size > 1]
        if out.ndim == 0 or not out.numel() or len(axes) > 1 or scale.numel() > 64:
            continue
        axis = axes[0] - scale.ndim if axes else None
        if axis is None:
            table, width = out.reshape(-1, 1), 1
        else:
            width = scale.numel()
            table = out.movedim(axis, -1).reshape(-1, width)
        kept = slots.kept(tuple(out.shape)) if axis in (-1, None) and out.ndim > 2 else None
        values = table.cpu().numpy()
        if kept is not None and kept.size == values.shape[0]:
            values = values[kept]
        step = max(1, values.shape[0] // (1 << 15))
        columns = [facts_of(values[::step, i]) for i in range(width)]
        sizes = scale.reshape(-1).tolist()
        if all(column is not None for column in columns):
            found.setdefault(
                divided.at,
                NormalizerFacts(
                    stage=divided.at.stage,
                    columns=tuple(column for column in columns if column is not None),
                    scale=tuple(sizes if len(sizes) == width else sizes * width),
                    before=divided.before.text if divided.before else None,
                    file=divided.at.file,
                    line=divided.at.line,
                ),
            )
    return tuple(found.values())


def _running(trace: Trace, model: Any) -> tuple[RunningFacts, ...]:
    found: dict[str, RunningFacts] = {}
    for normed in trace.seen.normed:
        tracked = _tracked(model, normed.at.stage)
        if not tracked or normed.at.stage in found:
            continue
        x = normed.x.double().movedim(1, -1).reshape(-1, normed.x.shape[1])
        mean, var = x.mean(0), x.var(0, correction=0)
        kept_mean, kept_var = normed.mean.double(), normed.var.double().clamp_min(1e-12)
        offset = (mean - kept_mean).abs() / kept_var.sqrt()
        ratio = var / kept_var
        far = (offset > FAR) | (ratio > FAR**2) | (ratio < FAR**-2)
        found[normed.at.stage] = RunningFacts(
            stage=normed.at.stage,
            tracked=tracked,
            channels=mean.numel(),
            far=float(far.double().mean()),
            offset=float(offset.median()),
            ratio=float(ratio.median()),
            file=normed.at.file,
            line=normed.at.line,
        )
    return tuple(found.values())


def _tracked(model: Any, stage: str) -> int:
    if not isinstance(model, nn.Module):
        return 0
    try:
        module = model if stage == "model" else model.get_submodule(stage)
    except AttributeError:
        return 0
    counted = getattr(module, "num_batches_tracked", None)
    return int(counted) if isinstance(counted, Tensor) else 0


def _batch_of(pipeline: Pipeline, samples: list[Any], device: str, seed: int) -> Any:
    seed_all(seed)
    return move(pipeline.collate(samples), torch.device(device))


def _samples(pipeline: Pipeline, n: int, seed: int) -> list[Any]:
    seed_all(seed)
    return read_samples(pipeline, n, Run(Flow(None)))


def _loose(
    pipeline: Pipeline, trace: Trace, candidates: list[Loose], device: str, seed: int
) -> tuple[LooseState, ...]:
    """State that torch does not know of; the moved run is with two samples."""
    with generators_kept(pipeline), preserved(pipeline.model), eager(pipeline.model):
        samples = _samples(pipeline, 2, seed)
        with unchanged(samples):
            train_mode(pipeline.model)
            batch = _batch_of(pipeline, samples, device, seed)
            forward = pipeline.forward or _call
            return judge_loose(candidates, trace.seen, pipeline.model, forward, batch)


def _with_padding(
    record: FeaturesRecord,
    pipeline: Pipeline,
    lengths: dict[str, list[int]],
    device: str,
    seed: int,
) -> FeaturesRecord:
    """The record with what was seen in runs with more padding."""
    try:
        with generators_kept(pipeline), preserved(pipeline.model), eager(pipeline.model):
            samples = _samples(pipeline, FEW, seed)
            with unchanged(samples):
                found = _pad(pipeline, samples, lengths, device, seed)
    except IcediagError:
        raise
    except Exception as error:  # sizes that are fixed, or kept beside the tensors
        reason = f"the batch with more padding did not go through: {reason_of(error, pipeline)}"
        note = FeaturesNote(name="padding", reason=reason)
        return replace(record, not_judged=(*record.not_judged, note))
    if isinstance(found, str):
        note = FeaturesNote(name="padding", reason=found)
        return replace(record, not_judged=(*record.not_judged, note))
    return replace(record, padding=found, padding_tried=True)


def _pad(
    pipeline: Pipeline, samples: list[Any], lengths: dict[str, list[int]], device: str, seed: int
) -> tuple[PaddedStatistic, ...] | str:
    model, forward = pipeline.model, pipeline.forward or _call
    few = {path: sizes[: len(samples)] for path, sizes in lengths.items()}
    losses: list[float] = []
    taken = []
    sizes = (0, 0)
    for more, offset in ((False, 0), (False, 1), (True, 0)):
        with preserved(model):
            train_mode(model)
            still(model)
            batch = _batch_of(pipeline, samples, device, seed)
            slots = Slots(batch, few, len(samples))
            if not slots.of:
                return f"none of the first {len(samples)} samples is padded"
            undo = longer(batch, slots) if more else []
            flow = Flow(None)
            flow.batch = batch

            def line(flow: Flow = flow) -> Line:
                place = line_of_user()
                stage = flow.innermost[-1] if flow.innermost else "model"
                return Line(stage, *(place or (None, None)))

            statistics = Statistics(line)
            try:
                seed_all(seed + offset)
                with torch.enable_grad(), statistics:
                    with watched_modules(flow, model, []):
                        predictions = forward(model, batch)
                    flow.begin("loss", "loss", pipeline.loss)
                    loss = pipeline.loss(predictions, batch)
                losses.append(float(loss.detach()))
            finally:
                for tensor, before in undo:
                    tensor.data = before
            taken.append(statistics.taken)
            sizes = next(iter(slots.of)) if not more else sizes
    if not np.isclose(losses[0], losses[1], rtol=1e-5, atol=0):
        return "the loss is random: with another seed it is another one"
    return compare(taken[0], taken[2], sizes, (losses[0], losses[2]))
