"""The training step, from positions in a data set to updated weights.

Beside it stand the same with the case's parts, and a published network.
"""

from collections.abc import Callable
from functools import cache

import torch

from icediag.model.assembly import Assembly, assemble
from icediag.model.network import NetworkConfig

from .timing import Way

#: GraphNeT 1.8's DynEdge, 1.38 M parameters, 256 events of 51,059 pulses, forward and backward on 2
#: CPU cores: 8.9 events a second (the project's facts of the field, section 2).
DYNEDGE_EVENTS, DYNEDGE_EVENTS_PER_SECOND = 256, 8.9
#: A network of at least its size.
LARGE = NetworkConfig(d_model=224, n_heads=7, n_layers=2)


def step_of(made: Assembly, n_events: int) -> Callable[[], object]:
    """One step: fetch, collate, forward, loss, backward, optimizer."""
    optimizer = torch.optim.AdamW(made.network.parameters(), 1e-4)
    at = list(range(n_events))

    def step() -> None:
        batch = made.collate(made.dataset.__getitems__(at))
        optimizer.zero_grad(set_to_none=True)
        made.loss(made.network(batch), batch.targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def step_ways(n_events: int, *, n_simulated: int, seed: int) -> list[Way]:
    """The step of the default network, of a larger one, and with the case's parts.

    Args:
        n_events: Events a step.
        n_simulated: Events of the data set, at least as many.
        seed: Of events and weights.
    """
    usual = _made(n_simulated, seed, None, ())
    large = _made(n_simulated, seed, LARGE, ())
    case = _made(n_simulated, seed, None, ("case",))
    return [
        Way(name="ours", run=step_of(usual, n_events), note=_size(usual)),
        Way(name="with the case's parts", run=step_of(case, n_events), note=_size(case)),
        Way(name="ours, larger", run=step_of(large, n_events), note=_size(large)),
    ]


@cache
def _made(n: int, seed: int, config: NetworkConfig | None, faults: tuple[str, ...]) -> Assembly:
    return assemble(n_events=n, validation=0, config=config, faults=faults, seed=seed)


def _size(made: Assembly) -> str:
    return f"{sum(p.numel() for p in made.network.parameters()) / 1e6:.2f} M parameters"
