"""What a watch costs: training steps with and without it, in turn."""

import copy
import tempfile
import time
from dataclasses import replace
from typing import Any

import torch

from icediag.icecube import pipeline
from icediag.instruments.bench.run import BenchRow, Clock, compare
from icediag.model.network import NetworkConfig

from .watch import BUDGET, MOST, Watch

#: Steps of a block: enough for a sample, which is what costs most.
BLOCK = MOST + 2
#: Events of a batch: a step that takes some tens of milliseconds on two cores.
EVENTS = 16


def measure_watch(
    *,
    events: int = EVENTS,
    block: int = BLOCK,
    repeats: int = 20,
    seed: int = 0,
    config: NetworkConfig | None = None,
    clock: Clock = time.process_time,
) -> BenchRow:
    """Train two copies of the built-in network, one of them watched, a step each in turn.

    The watch writes its log, as a real one does, and keeps the time that it takes itself.

    Args:
        events: Simulated events in the batch.
        block: Steps that are added up, of each.
        repeats: Such blocks.
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

    # The watch's clock stands while the unwatched copy runs: its budget is a share of its own loop.
    stood = 0.0

    def unwatched() -> None:
        nonlocal stood
        began = time.perf_counter()
        step(bare, optimizers[1])
        stood += time.perf_counter() - began

    with (
        tempfile.TemporaryDirectory() as folder,
        Watch(
            watched,
            optimizers[0],
            out=folder,
            baseline_loss=built.baseline_loss,
            on_problem=_ignore,
            clock=lambda: time.perf_counter() - stood,
        ) as guard,
    ):
        row = compare(
            "",
            "the same steps without",
            lambda: guard.step(step(watched, optimizers[0]), batch),
            unwatched,
            repeats=repeats,
            rounds=block,
            clock=clock,
        )
        own = f"{guard.share:.1%} by its own clock, budget {BUDGET:.0%}"
    return replace(row, part=f"{block} steps with icediag.watch ({own})")


def _ignore(_: Any) -> None:
    """A problem of a network that is trained on one batch alone is none."""
