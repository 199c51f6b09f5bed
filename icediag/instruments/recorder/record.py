"""The recorder: one batch through a whole training pipeline, with a fact for every tensor it meets.

data set item -> collate -> every stage of the model -> loss -> gradients
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from icediag.errors import ENDS, IcediagError
from icediag.instruments.contracts.signatures import hints_of
from icediag.instruments.contracts.watch import ContractFlow, contracts_record
from icediag.instruments.running.companions import generators_kept
from icediag.instruments.running.discover import discover
from icediag.instruments.running.modes import eager, seed_all, train_mode
from icediag.instruments.running.preserve import preserved, unchanged
from icediag.instruments.running.reasons import raised, reason_of
from icediag.instruments.running.samples import few_of, read_samples
from icediag.instruments.running.stages import FunctionStage, resolve
from icediag.instruments.running.uncompiled import uncompiled
from icediag.instruments.shapes.naming import Run, small_size
from icediag.instruments.trees.walk import move
from icediag.instruments.work.own import Own
from icediag.pipeline import Pipeline
from icediag.recording import Recording, Unjudged

from .births import BirthWatch, holds_non_finite
from .compose import compose
from .flow import Flow, Looker, watched_functions, watched_modules
from .gradients import parameter_records
from .values import Values


def record(
    pipeline: Pipeline,
    *,
    batch_size: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    values: bool = True,
    lookers: Sequence[Looker] = (),
) -> Recording:
    """Record one batch.

    The model, its gradients, flags and all random generators are left as they were found. What
    fails in the user's code ends the recording there; it is listed in `not_judged`, and what was
    seen until then is kept.

    Args:
        pipeline: What to record.
        batch_size: Samples, at least 1; without, that of the pipeline.
        device: Where the model is and the batch is to go.
        seed: Of the random generators of Python, numpy and torch (augmentation, dropout).
        values: Whether to look at values, or at shapes alone.
        lookers: Told of every tensor on the way.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    facts = Values() if values else None
    flow = ContractFlow(facts, pipeline.contracts, lookers)
    few = ContractFlow(None, pipeline.contracts)
    run, small = Run(flow), Run(few)
    with prepared(pipeline, run, batch_size, device, seed) as (samples, stages, target):
        if samples:
            with unchanged(samples):
                _once(pipeline, samples, stages, target, run, backward=True)
                _try_optimizer(pipeline, run)
        parameters = parameter_records(pipeline.model) if run.backward else ()
        if len(samples) > 1:
            run.few = few_of(samples, run, small_size(len(samples)))
            first = [samples[i] for i in run.few]
            seed_all(seed)
            with unchanged(first):
                _once(pipeline, first, stages, target, small, backward=False)
        run.not_judged.extend(_unnamed_axes(samples, run, small))
    collected = facts.collect() if facts is not None else []
    recording = compose(pipeline, len(samples), run, small, collected, parameters)
    recording = replace(recording, contracts=contracts_record(flow, few, collected))
    if holds_non_finite(recording):
        recording = _with_births(pipeline, recording, batch_size, device, seed)
    return recording


def _with_births(
    pipeline: Pipeline, recording: Recording, batch_size: int | None, device: str, seed: int
) -> Recording:
    """The recording with the operations at which its NaN and infinities are born."""
    flow = Flow(None)
    watch = BirthWatch(Own(pipeline), pipeline.model, flow)
    run = Run(flow)
    with prepared(pipeline, run, batch_size, device, seed) as (samples, stages, target):
        try:
            with unchanged(samples), watch.looking():
                _once(pipeline, samples, stages, target, run, backward=True)
        except Exception as error:  # looking may fail where the pipeline does not
            reason = f"operations cannot be looked at: {reason_of(error, pipeline)}"
            missing = Unjudged(name="births of NaN", reason=reason)
            return replace(recording, not_judged=(*recording.not_judged, missing))
    return replace(recording, births=watch.record())


def follow(
    pipeline: Pipeline, flow: Flow, *, batch_size: int | None, device: str, seed: int
) -> Run:
    """Send one batch forward, up to the loss, through a flow of another instrument's.

    Arguments and errors as for `record`; everything is left as it was found.
    """
    run = Run(flow)
    with prepared(pipeline, run, batch_size, device, seed) as (samples, stages, target):
        if samples:
            with unchanged(samples):
                _once(pipeline, samples, stages, target, run, backward=False)
    return run


@contextmanager
def prepared(
    pipeline: Pipeline, run: Run, batch_size: int | None, device: str, seed: int
) -> Iterator[tuple[list[Any], list[FunctionStage], torch.device]]:
    """Samples, stages and device for a run; at the end everything is as it was found."""
    wanted = pipeline.batch_size if batch_size is None else batch_size
    if wanted < 1:
        raise IcediagError(f"batch size: expected 1 or more, got {wanted}")
    stages = [resolve(stage) for stage in pipeline.stages]
    target = torch.device(device)
    with generators_kept(pipeline), preserved(pipeline.model), eager(pipeline.model):
        seed_all(seed)
        train_mode(pipeline.model)
        samples = read_samples(pipeline, wanted, run)
        if samples and not stages:
            with preserved(pipeline.model), unchanged(samples[:2]):
                stages = discover(pipeline, samples, target)
        seed_all(seed)
        yield samples, stages, target


def _unnamed_axes(samples: list[Any], run: Run, small: Run) -> Iterator[Unjudged]:
    """Why axes have no names, where that is so and nothing else says so."""
    if len(samples) == 1:
        reason = "one sample does not tell what follows it"
        yield Unjudged(name="symbolic axes", reason=reason)
    elif small.not_judged and not run.not_judged:
        first = small.not_judged[0]
        reason = f"{first.name} failed with {len(run.few)} of the samples: {first.reason}"
        yield Unjudged(name="symbolic axes", reason=reason)


def _once(
    pipeline: Pipeline,
    samples: list[Any],
    stages: list[FunctionStage],
    device: torch.device,
    run: Run,
    *,
    backward: bool,
) -> None:
    """Collate, forward, loss and, if asked for, backward; stops where the user's code fails."""
    flow, model = run.flow, pipeline.model
    skipped: list[str] = []
    at = "collate"
    try:
        # With gradients also where none are asked for: a model may take some on its way.
        with torch.enable_grad(), watched_functions(flow, _without(stages, pipeline), model):
            stage = flow.begin("collate", "collate", pipeline.collate)
            try:
                batch = pipeline.collate(samples)
                flow.note(stage, "out", batch, "", hints_of(pipeline.collate).get("return"))
            finally:
                flow.end()
            run.batch = flow.batch = batch = move(batch, device)
            at = "model"
            with _watched(flow, model, skipped):
                predictions = (pipeline.forward or _call)(model, batch)
            at = "loss"
            stage = flow.begin("loss", "loss", pipeline.loss)
            try:
                hints = hints_of(pipeline.loss)
                of_arguments = [hint for name, hint in hints.items() if name != "return"]
                first = of_arguments[0] if len(of_arguments) == 2 else None
                flow.note(stage, "in", predictions, "predictions", first)
                loss = pipeline.loss(predictions, batch)
                flow.note(stage, "out", loss, "", hints.get("return"))
            finally:
                flow.end()
            run.loss = _one_value(loss)
            if backward:
                at = "backward"
                if not loss.requires_grad:
                    raise TypeError("the loss depends on no parameter: nothing to go back through")
                flow.paused = True
                loss.backward()  # type: ignore[no-untyped-call]
                run.backward = True
    except (IcediagError, *ENDS):
        raise
    except BaseException as error:
        flow.unwind(0)
        run.not_judged.append(raised(at, error, pipeline))
    finally:
        flow.close()
    for name in skipped:
        # Not under its own name: that of the whole model stands for a model that fails.
        run.not_judged.append(Unjudged(name="hooks", reason=f"{name} takes none: it is scripted"))


def _try_optimizer(pipeline: Pipeline, run: Run) -> None:
    """Say so where the optimizer cannot be made: whatever trains would have to leave it out."""
    if pipeline.optimizer is None or not run.backward or not isinstance(pipeline.model, nn.Module):
        return
    try:
        with uncompiled():
            made = pipeline.optimizer(list(pipeline.model.parameters()))
        # What a step of the user's own does with it is the user's.
        if pipeline.train_step is None and not callable(getattr(made, "step", None)):
            raise TypeError(f"expected an optimizer, with a step(), got {type(made).__name__}")
    except ENDS:
        raise
    except BaseException as error:
        run.not_judged.append(raised("optimizer", error, pipeline))


def _one_value(loss: Any) -> float:
    """The loss as a number.

    Raises:
        TypeError: It is not a tensor of one value.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return float(loss.detach())
    got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
    raise TypeError(f"expected the loss to be a tensor of one value, got {got}")


def _call(model: Any, batch: Any) -> Any:
    return model(batch)


def _watched(flow: Flow, model: Any, skipped: list[str]) -> Any:
    if isinstance(model, nn.Module):
        return watched_modules(flow, model, skipped)
    return watched_functions(flow, [], model)


def _without(stages: list[FunctionStage], pipeline: Pipeline) -> list[FunctionStage]:
    """Stages but for those that the recorder calls itself and shows anyway."""
    own = [_bare(pipeline.collate), _bare(pipeline.loss)]
    return [stage for stage in stages if not any(stage.function is function for function in own)]


def _bare(function: Any) -> Any:
    """The function within a bound method or a partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)
