"""`train`: a network, a dataset and a configuration made into a run."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from icediag.model.errors import DataError
from icediag.model.event import EventDataset
from icediag.model.losses import Loss

from .checkpoint import Checkpoint, check_same, load_network, read_checkpoint, run_of
from .compiling import compile_parts
from .config import TrainConfig
from .curve import draw_curve
from .files import CURVE, LAST, METRICS, TENSORBOARD
from .interrupts import Interrupts
from .loader import Collate, TrainLoader, in_order
from .metrics import MetricsLog
from .optimizer import make_optimizer, trained_parameters
from .progress import Note, OnEvent, Progress, Started, Summary
from .recorder import Recorder
from .run import Run, Watching
from .seeds import restore_rng, seed_everything


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after the step was finished and the checkpoint written.

    Attributes:
        summary: How far it came.
        signal: The signal's number.
    """

    def __init__(self, summary: Summary, signal: int) -> None:
        super().__init__(f"interrupted at step {summary.step}; {summary.last} is written")
        self.summary = summary
        self.signal = signal


def train(
    network: nn.Module,
    dataset: EventDataset,
    train_indices: npt.NDArray[np.integer],
    validation_indices: npt.NDArray[np.integer],
    collate: Collate,
    loss: Loss,
    config: TrainConfig,
    *,
    out: Path,
    on_event: OnEvent = lambda event: None,  # noqa: ARG005 - nobody listens
    watching: Watching | None = None,
    resume: bool = False,
    clock: Callable[[], float] = time.monotonic,
    baseline_loss: float | None = None,
    about: Mapping[str, Any] | None = None,
) -> Summary:
    """Train a network; leave checkpoints, metrics and a learning curve in a folder.

    On a CPU a run that is stopped and resumed gives bit for bit what it gives in one go:
    parameters, optimizer and metrics. The global random generators are seeded and used.

    Args:
        network: Batch in, `Prediction` out; trained in place. With a dataclass as `config`,
            checkpoints carry it.
        dataset: The events.
        train_indices: `(n,)` positions in `dataset` to train on, at least one.
        validation_indices: `(m,)` positions held out. Where there are none, training events are
            scored instead, and all that reports the score says so.
        collate: Events to batch, on the host.
        loss: (prediction, targets) -> mean over the batch's events.
        config: How to train.
        out: Folder for the files; made if absent.
        on_event: Told how it goes.
        watching: (network, optimizer) -> a guard around the steps, told of each.
        resume: Go on from `last.pt` in `out`. `epochs`, `max_minutes`, `lr`, what is saved, logged
            and scored how often, workers and device may be others than before.
        clock: Seconds; only for rates and `max_minutes`.
        baseline_loss: The loss of a predictor that knows nothing, for the curve.
        about: What else must be the same when it is resumed, in plain types.

    Returns:
        How it ended.

    Raises:
        DataError: Nothing to resume from, or it does not fit; a file cannot be written; loss or
            gradient is not finite (named with step and events; the last checkpoint stays).
        Interrupted: Ctrl-C or SIGTERM; the checkpoint is written.
        ValueError: An argument is not what it must be.
    """
    if len(train_indices) == 0:
        raise ValueError("train_indices: expected at least one event, got none")
    began = clock()
    device = config.torch_device()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from error
    identity = run_of(
        batch_size=config.batch_size,
        seed=config.seed,
        events=dataset.event_ids[train_indices],
        about=about or {},
    )
    progress = Progress()
    checkpoint = None
    if resume:
        checkpoint = read_checkpoint(out / LAST)
        check_same(out / LAST, checkpoint.run, identity)
        progress = Progress.from_plain(out / LAST, checkpoint.progress)
        load_network(out / LAST, checkpoint, network)
    network.to(device)
    optimizer = make_optimizer(network, config)
    loader = TrainLoader(dataset, train_indices, collate, config, device)
    total_steps = config.epochs * loader.steps_per_epoch
    if checkpoint is None:
        seed_everything(config.seed)
    else:
        _restore(out / LAST, checkpoint, optimizer)
        if progress.step > total_steps:
            raise DataError(
                f"{out / LAST}: expected a run of at most {total_steps} steps (epochs x batches), "
                f"got one that has done {progress.step}"
            )
    if config.compile:
        compile_parts(network)

    held_out = len(validation_indices) > 0
    scored = validation_indices if held_out else np.sort(train_indices)
    with (
        MetricsLog(
            out / METRICS,
            keep=progress.lines,
            tensorboard=out / TENSORBOARD,
            step=progress.step,
        ) as metrics,
        Interrupts() as interrupts,
        nullcontext() if watching is None else watching(network, optimizer) as guard,
    ):
        run = Run(
            network=network,
            optimizer=optimizer,
            parameters=trained_parameters(optimizer),
            loader=loader,
            scored=lambda: in_order(dataset, scored[: config.max_scored], collate, config, device),
            held_out=held_out,
            loss=loss,
            config=config,
            total_steps=total_steps,
            device=device,
            progress=progress,
            recorder=Recorder(progress, metrics, clock),
            guard=guard,
            interrupts=interrupts,
            identity=identity,
            out=out,
            on_event=on_event,
            clock=clock,
            began=began,
            tensorboard=metrics.tensorboard,
        )
        started = Started(
            step=progress.step,
            total_steps=total_steps,
            steps_per_epoch=loader.steps_per_epoch,
            train_events=len(train_indices),
            scored_events=min(len(scored), config.max_scored),
            held_out=held_out,
            parameters=sum(p.numel() for p in run.parameters),
            device=str(device),
        )
        if metrics.lines == 0:
            line = {**vars(started), "step": 0, "baseline_loss": baseline_loss}
            run.recorder.write({"kind": "start", **line})
        if metrics.tensorboard is None:
            on_event(Note(text="TensorBoard is not installed: metrics go to JSON lines alone"))
        if not held_out:
            on_event(Note(text="nothing is held out: the scores are of training events"))
        on_event(started)
        if checkpoint is None:
            run.save()
        stopped = run.to_end()
        if stopped == "interrupt":
            run.save()
            assert interrupts.received is not None
            raise Interrupted(run.summary(stopped), interrupts.received)
    draw_curve(out / METRICS, out / CURVE)
    return run.summary(stopped)


def _restore(path: Path, checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    """Put the optimizer's and the random generators' states back.

    Raises:
        DataError: They do not fit.
    """
    asked = [group["weight_decay"] for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(checkpoint.optimizer)
        restore_rng(checkpoint.rng)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: the optimizer's state does not fit ({error})") from error
    # `load_state_dict` brings back the old one; what is asked for now counts.
    for group, weight_decay in zip(optimizer.param_groups, asked, strict=True):
        group["weight_decay"] = weight_decay
