"""What a watch costs: blocks of training steps with and without it, in turn."""

import copy
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from icediag.icecube import pipeline
from icediag.instruments.bench import BenchRow, Clock, compare
from icediag.model.network import NetworkConfig

from .watch import BUDGET, MOST, watch

#: Steps of a block: enough for a sample, which is what costs most.
BLOCK = MOST + 2
#: Events of a batch: a step that takes some tens of milliseconds on two cores.
EVENTS = 16


def measure_watch(
    *,
    events: int = EVENTS,
    block: int = BLOCK,
    repeats: int = 5,
    seed: int = 0,
    config: NetworkConfig | None = None,
    clock: Clock = time.process_time,
) -> BenchRow:
    """Train two copies of the built-in network, one of them watched, a block of steps each in turn.

    The watch writes its log, as a real one does.

    Args:
        events: Simulated events in the batch.
        block: Steps of a block.
        repeats: Pairs of blocks.
        seed: Of the simulation and the weights.
        config: Of the network; None for the default one.
        clock: Seconds. Of the processor, not of the wall: two percent drown in what else runs.
    """
    built = pipeline(n_events=events, batch_size=events, seed=seed, config=config)
    batch = built.collate([built.dataset[i] for i in range(events)])
    watched, bare = built.model, copy.deepcopy(built.model)
    optimizers = [torch.optim.AdamW(model.parameters(), 1e-4) for model in (watched, bare)]

    def step(model: Any, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        optimizer.zero_grad()
        loss = built.loss(model(batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss

    def unwatched() -> None:
        for _ in range(block):
            step(bare, optimizers[1])

    with (
        tempfile.TemporaryDirectory() as folder,
        watch(
            watched,
            optimizers[0],
            out=folder,
            baseline_loss=built.baseline_loss,
            on_problem=_ignore,
        ) as guard,
    ):

        def with_watch() -> None:
            for _ in range(block):
                guard.step(step(watched, optimizers[0]), batch)

        runs: tuple[Callable[[], None], Callable[[], None]] = (with_watch, unwatched)
        return compare(
            f"{block} steps with icediag.watch (budget {BUDGET:.0%}; processor time)",
            "the same steps without",
            *runs,
            repeats=repeats,
            clock=clock,
        )


def _ignore(_: Any) -> None:
    """A problem of a network that is trained on one batch alone is none."""
