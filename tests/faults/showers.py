"""Energies of showers, in a functional style: plain functions over a dict of parameters.

Hits of cells (time in ns, energy in MeV) are grouped by tower; contracts say what is to be raw.
"""

# H hits, T towers, B showers

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from icediag import Pipeline, Raw

from .case import Fault, Patient

N_SHOWERS, N_TOWERS, WIDTH = 96, 12, 32
Batch = dict[str, Tensor]


def showers() -> list[dict[str, Tensor]]:
    """Showers of 5 to 60 hits; the target is the logarithm of the energy, standardised."""
    generator = torch.Generator().manual_seed(33)
    made = []
    for _ in range(N_SHOWERS):
        n = int(torch.randint(5, 60, (), generator=generator))
        size = torch.randn((), generator=generator)
        energy = torch.exp(3 + 0.6 * size + 0.5 * torch.randn(n, generator=generator))
        time = 2000 + 60 * torch.randn(n, generator=generator).abs()
        tower = torch.randint(0, N_TOWERS, (n,), generator=generator)
        made.append({"time": time, "energy": energy, "tower": tower, "y": size})
    return made


def collate(samples: list[dict[str, Tensor]]) -> Batch:
    sizes = torch.tensor([len(sample["time"]) for sample in samples])
    shower = torch.arange(len(samples)).repeat_interleave(sizes)
    batch = {key: torch.cat([s[key] for s in samples]) for key in ("time", "energy", "tower")}
    key, group = (shower * N_TOWERS + batch["tower"]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    return {
        **batch,
        "group": group,
        "shower_of_group": key // N_TOWERS,
        "y": torch.stack([sample["y"] for sample in samples]),
    }


def normalise(time: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
    """Both about 0 and of order 1."""
    return (time - 2048) / 36, (energy.log10() - 1.3) / 0.33


def spread_in_tower(time: Tensor, group: Tensor, n: int) -> Tensor:
    """How late a hit is in its tower, in units of 100 ns; works on raw times."""
    first = torch.full((n,), torch.inf).scatter_reduce(0, group, time, "amin")
    return (time - first[group]) / 100


def pool_by_energy(hidden: Tensor, weights: Tensor, group: Tensor, n: int) -> Tensor:
    """Mean of hits in each tower, weighted by raw energy."""
    total = torch.zeros(n).index_add(0, group, weights)
    weighted = torch.zeros(n, hidden.shape[1]).index_add(0, group, hidden * weights[:, None])
    return weighted / total[:, None]


def forward(parameters: Any, batch: Batch) -> Tensor:
    fault = parameters.fault
    time, energy = normalise(batch["time"], batch["energy"])
    group, n = batch["group"], len(batch["shower_of_group"])
    if fault == "scaled-too-early":
        late = spread_in_tower(time, group, n)
    elif fault == "hit-by-hit":
        first = torch.full((n,), torch.inf)
        for i in range(len(group)):
            first[group[i]] = torch.minimum(first[group[i]], batch["time"][i])
        late = (batch["time"] - first[group]) / 100
    else:
        late = spread_in_tower(batch["time"], group, n)
    features = torch.stack([time, energy, late], 1)
    if fault == "raw-energy":
        features = torch.stack([time, batch["energy"].square(), late], 1)
    hidden = functional.gelu(functional.linear(features, parameters.w1, parameters.b1))
    if fault == "stops-gradient":
        hidden = functional.gelu(features.detach() @ parameters.w1.detach().t())
    weights = energy if fault == "log-weights" else batch["energy"]
    towers = pool_by_energy(hidden, weights, group, n)
    showers = len(batch["y"])
    total = torch.zeros(showers, WIDTH).index_add(0, batch["shower_of_group"], towers)
    counts = batch["shower_of_group"].bincount(minlength=showers)
    mean = total / counts[:, None]
    hidden = functional.gelu(functional.linear(mean, parameters.w2, parameters.b2))
    if fault == "seen-twice":
        again = functional.gelu(functional.linear(features, parameters.w1, parameters.b1))
        hidden = hidden + 0 * again.mean()
    return functional.linear(hidden, parameters.w3, parameters.b3)[:, 0]


class Parameters(nn.Module):
    """Weights and nothing else; what is done with them stands in `forward`."""

    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        for name, rows, columns in (("1", WIDTH, 3), ("2", WIDTH, WIDTH), ("3", 1, WIDTH)):
            weight = torch.randn(rows, columns) * columns**-0.5
            if fault == "huge-weights" and name == "2":
                weight = weight * 1e5
            self.register_parameter(f"w{name}", nn.Parameter(weight))
            self.register_parameter(f"b{name}", nn.Parameter(torch.zeros(rows)))


def loss(predictions: Tensor, batch: Batch) -> Tensor:
    return functional.smooth_l1_loss(predictions, batch["y"])


def build(fault: str | None) -> Pipeline:
    torch.manual_seed(0)
    here = "tests.faults.showers"
    optimizers: dict[str, Any] = {"momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)}
    return Pipeline(
        name="showers",
        dataset=showers(),
        collate=collate,
        model=Parameters(fault),
        forward=forward,
        loss=loss,
        optimizer=optimizers.get(fault or "", lambda p: torch.optim.Adam(p, 3e-3)),
        batch_size=24,
        raw={"time": lambda b: b["time"], "energy": lambda b: b["energy"]},
        stages=(f"{here}:normalise", f"{here}:spread_in_tower", f"{here}:pool_by_energy"),
        contracts={
            f"{here}:spread_in_tower": {"time": Raw("time", unit="ns")},
            f"{here}:pool_by_energy": {"weights": Raw("energy", unit="MeV")},
        },
        sources=(here,),
    )


PATIENT = Patient(
    name="showers",
    build=build,
    variants=("momentum",),
    faults=(
        Fault(
            name="scaled-too-early", checks=("normalized-relative",), stages=("spread_in_tower",)
        ),
        Fault(name="log-weights", checks=("normalized-weights",), stages=("pool_by_energy",)),
        Fault(name="raw-energy", checks=("unnormalized-input", "heavy-tail")),
        Fault(name="hit-by-hit", checks=("python-loop",), stages=("forward", "model")),
        Fault(name="stops-gradient", checks=("no-gradient",)),
        Fault(name="seen-twice", checks=("recomputation",), lowest="note"),
        Fault(name="huge-weights", checks=("exploding-gradient",)),
    ),
)
