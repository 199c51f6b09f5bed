"""One training step of a pipeline, part by part, under the eyes of a probe."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import optimizer as optimizers

from icediag.errors import IcediagError
from icediag.instruments.recorder.flow import Flow, SeenStage, watched_functions, watched_modules
from icediag.instruments.running.companions import companions_kept, generators_kept
from icediag.instruments.running.discover import discover
from icediag.instruments.running.modes import eager, seed_all, train_mode
from icediag.instruments.running.preserve import preserved, unchanged
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.samples import read_samples
from icediag.instruments.running.stages import FunctionStage, resolve
from icediag.instruments.shapes.naming import Run
from icediag.instruments.trees.walk import move
from icediag.pipeline import Pipeline
from icediag.recording import Role, Unjudged
from icediag.records.work import Phase


class LightFlow(Flow):
    """A flow that keeps track of stages, and of the shapes of their first call alone."""

    def __init__(self) -> None:
        super().__init__(None)

    def note(
        self, stage: SeenStage, role: Role, tree: Any, prefix: str = "", annotation: Any = None
    ) -> None:
        """Note the tensors of a stage's first call."""
        if stage.calls <= 1:
            super().note(stage, role, tree, prefix, annotation)


class Probe(Protocol):
    """What watches a step. `phase` is None while what runs is none of the step."""

    phase: Phase | None

    def watching(self, flow: Flow) -> Any:
        """A context in which the probe watches."""


@dataclass
class Study:
    """A pipeline made ready for several steps.

    Attributes:
        pipeline: What is looked at.
        samples: Those of the batch.
        lengths: Rows of each sample, by path, where samples differ in them.
        stages: Functions that are stages.
        device: Where the model is.
        seed: Of the random generators, set before each step.
        not_judged: What went wrong when samples were read.
    """

    pipeline: Pipeline
    samples: list[Any]
    lengths: dict[str, list[int]]
    stages: list[FunctionStage]
    device: torch.device
    seed: int
    not_judged: list[Unjudged] = field(default_factory=list)


@contextmanager
def prepared(
    pipeline: Pipeline, *, batch_size: int | None, device: str, seed: int
) -> Iterator[Study]:
    """Read samples and find stages; at the end everything is as it was found.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
        DataError: The files of a built-in data set are not what they must be.
    """
    wanted = pipeline.batch_size if batch_size is None else batch_size
    if wanted < 1:
        raise IcediagError(f"batch size: expected 1 or more, got {wanted}")
    stages = [resolve(stage) for stage in pipeline.stages]
    target = torch.device(device)
    with generators_kept(pipeline), preserved(pipeline.model), eager(pipeline.model):
        seed_all(seed)
        train_mode(pipeline.model)
        run = Run(LightFlow())
        samples = read_samples(pipeline, wanted, run)
        if samples and not stages:
            with preserved(pipeline.model), unchanged(samples[:2]):
                stages = discover(pipeline, samples, target)
        yield Study(pipeline, samples, run.lengths, stages, target, seed, run.not_judged)


def collated(study: Study, indices: list[int]) -> Run:
    """The batch of some of the samples, without a step."""
    run = _run_of(study, indices)
    samples = [study.samples[i] for i in indices]
    with preserved(study.pipeline.model), unchanged(samples):
        seed_all(study.seed)
        try:
            run.batch = study.pipeline.collate(samples)
        except Exception as error:
            run.not_judged.append(_unjudged("collate", error, study))
    return run


def _run_of(study: Study, indices: list[int]) -> Run:
    lengths = {path: [sizes[i] for i in indices] for path, sizes in study.lengths.items()}
    return Run(LightFlow(), lengths=lengths, few=list(range(len(indices))))


def _unjudged(at: str, error: Exception, study: Study) -> Unjudged:
    return Unjudged(name=at, reason=reason_of(error, study.pipeline))


def run_step(study: Study, indices: list[int], probe: Probe) -> Run:
    """A whole step with some of the samples, watched; stops where the user's code fails.

    What is done within is undone: weights, gradients, flags, random numbers and samples.
    """
    pipeline, run = study.pipeline, _run_of(study, indices)
    samples = [study.samples[i] for i in indices]
    flow = run.flow
    # What the user's own step holds, its optimizer or schedule, moves with it.
    functions = (pipeline.train_step, pipeline.optimizer, pipeline.forward, pipeline.loss)
    held = companions_kept(functions, pipeline.model)
    with preserved(pipeline.model), held, unchanged(samples):
        seed_all(study.seed)
        optimizer = _optimizer(study, run)
        try:
            with ExitStack() as watching:
                watching.enter_context(torch.enable_grad())
                watching.enter_context(_stages_watched(study, flow))
                watching.enter_context(_optimizer_marked(probe))
                watching.enter_context(probe.watching(flow))
                _step(study, samples, run, probe, optimizer)
        except IcediagError:
            raise
        except Exception as error:
            run.not_judged.append(_unjudged(str(probe.phase or "optimizer"), error, study))
        finally:
            probe.phase = None
            flow.unwind(0)
            flow.close()
    return run


@contextmanager
def _stages_watched(study: Study, flow: Flow) -> Iterator[None]:
    model = study.pipeline.model
    with watched_functions(flow, study.stages, model):
        if isinstance(model, nn.Module):
            with watched_modules(flow, model, []):
                yield
        else:
            yield


@contextmanager
def _optimizer_marked(probe: Probe) -> Iterator[None]:
    """Have steps of optimizers, whoever takes them, count as such."""
    before: list[Phase | None] = []

    def start(*_: Any) -> None:
        before.append(probe.phase)
        if probe.phase is not None:
            probe.phase = "optimizer"

    def stop(*_: Any) -> None:
        if before:
            probe.phase = before.pop()

    first = optimizers.register_optimizer_step_pre_hook(start)
    last = optimizers.register_optimizer_step_post_hook(stop)
    try:
        yield
    finally:
        first.remove()
        last.remove()


def _step(study: Study, samples: list[Any], run: Run, probe: Probe, optimizer: Any) -> None:
    pipeline, flow = study.pipeline, run.flow
    probe.phase = "collate"
    batch = pipeline.collate(samples)
    probe.phase = "transfer"
    run.batch = flow.batch = batch = move(batch, study.device)
    if pipeline.train_step is not None:
        probe.phase = "step"
        pipeline.train_step(pipeline.model, batch, optimizer)
        run.backward = True
        return
    probe.phase = "forward"
    model = pipeline.model
    predictions = model(batch) if pipeline.forward is None else pipeline.forward(model, batch)
    probe.phase = "loss"
    loss: Any = pipeline.loss(predictions, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TypeError("expected the loss to be a tensor of one value")
    probe.phase = "backward"
    if not loss.requires_grad:
        raise TypeError("the loss depends on no parameter: nothing to go back through")
    flow.paused = True
    loss.backward()  # type: ignore[no-untyped-call]
    run.backward = True
    if optimizer is not None:
        # The first step makes the optimizer's state, which no other step does.
        probe.phase = None
        _take(optimizer, run)
        probe.phase = "optimizer"
        _take(optimizer, run)


def _take(optimizer: Any, run: Run) -> None:
    try:
        optimizer.step()
    except TypeError as error:
        if "closure" not in str(error):
            raise
        reason = "it wants a closure: its steps were not counted"
        if not any(item.name == "optimizer" for item in run.not_judged):
            run.not_judged.append(Unjudged(name="optimizer", reason=reason))


def _optimizer(study: Study, run: Run) -> Any:
    """A fresh optimizer of the pipeline's; on a CPU in the form that torch takes on a GPU."""
    pipeline = study.pipeline
    if pipeline.optimizer is None or not isinstance(pipeline.model, nn.Module):
        return None
    try:
        optimizer = pipeline.optimizer(pipeline.model.parameters())
        for group in getattr(optimizer, "param_groups", []):
            if group.get("foreach", 0) is None and not group.get("fused"):
                group["foreach"] = True
    except Exception as error:
        run.not_judged.append(_unjudged("optimizer", error, study))
        return None
    return optimizer
