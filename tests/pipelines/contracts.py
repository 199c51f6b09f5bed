"""Hits of towers in showers, with contracts on everything: typed dicts, named tuples, functions.

`pipeline(fault)` switches one fault on; without, every contract holds.
"""

from typing import Annotated, Any, NamedTuple, TypedDict

import torch
from annotated_types import Ge, Interval, Le, MultipleOf, Unit
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from icediag import Pipeline
from icediag.pipeline import Raw

#: Towers of each shower, and hits of each tower.
HITS = ((3, 1, 4, 2), (2, 5), (1, 1, 2, 6, 3), (4, 2, 2), (7, 1, 1, 3), (2, 2, 3), (5, 1), (1, 8))


class Batch(TypedDict):
    time: Float[Tensor, "hits"]
    energy: Annotated[Float[Tensor, "hits"], Ge(0), Unit("MeV")]
    tower_of_hit: Int64[Tensor, "hits"]
    shower_of_tower: Int64[Tensor, "towers"]
    height: Annotated[Float[Tensor, "towers"], MultipleOf(0.5)]
    truth: Float[Tensor, "showers"]


class Pooled(NamedTuple):
    towers: Float[Tensor, "towers d"]
    used: Bool[Tensor, "towers"]


def samples() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    found = []
    for towers in HITS:
        n = sum(towers)
        found.append(
            {
                "time": 500 + 900 * torch.rand(n, generator=generator),
                "energy": 0.1 + 4 * torch.rand(n, generator=generator).square(),
                "hits": torch.tensor(towers),
                "height": torch.randint(0, 9, (len(towers),), generator=generator) / 2,
                "truth": torch.rand((), generator=generator),
            }
        )
    return found


def collate(showers: list[dict[str, Any]]) -> Batch:
    hits = torch.cat([shower["hits"] for shower in showers])
    towers = torch.tensor([len(shower["hits"]) for shower in showers])
    return {
        "time": torch.cat([shower["time"] for shower in showers]),
        "energy": torch.cat([shower["energy"] for shower in showers]),
        "tower_of_hit": torch.repeat_interleave(torch.arange(len(hits)), hits),
        "shower_of_tower": torch.repeat_interleave(torch.arange(len(showers)), towers),
        "height": torch.cat([shower["height"] for shower in showers]),
        "truth": torch.stack([shower["truth"] for shower in showers]),
    }


def since_first(
    time: Annotated[Float[Tensor, "hits"], Raw("time", unit="ns")],
    tower_of_hit: Int64[Tensor, "hits"],
) -> Annotated[Float[Tensor, "hits"], Unit("ns"), Ge(0)]:
    first = torch.full((int(tower_of_hit.max()) + 1,), float("inf")).scatter_reduce(
        0, tower_of_hit, time, "amin"
    )
    return time - first[tower_of_hit]


def pool(
    encoded: Float[Tensor, "hits d"],
    energy: Annotated[Float[Tensor, "hits"], Unit("MeV"), Ge(0)],
    tower_of_hit: Int64[Tensor, "hits"],
    n: int,
) -> Pooled:
    total = torch.zeros(n).index_add(0, tower_of_hit, energy)
    share = energy / total[tower_of_hit].clamp_min(1e-3)
    towers = torch.zeros(n, encoded.shape[1]).index_add(0, tower_of_hit, encoded * share[:, None])
    return Pooled(towers, total > 0)


class Scale(nn.Module):
    """Three numbers a tower: works row by row, and does not mind which rows it gets."""

    def forward(self, height: Float[Tensor, "towers"]) -> Float[Tensor, "towers 2"]:
        return torch.stack([height / 4, height.sqrt()], dim=1)


class Net(nn.Module):
    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self.fault = fault
        self.encode = nn.Sequential(nn.Linear(2, 8), nn.GELU())
        self.scale = Scale()
        self.head = Head()

    def forward(self, batch: Batch) -> Float[Tensor, "showers"]:
        time, energy, index = batch["time"], batch["energy"], batch["tower_of_hit"]
        n = len(batch["height"])
        if self.fault == "energy-for-time":
            time = energy
        late = since_first(time / 1000 if self.fault == "microseconds" else time, index)
        weights = energy
        if self.fault == "log-weights":
            weights = energy.log10()
        elif self.fault == "time-for-energy":
            weights = batch["time"]
        elif self.fault == "scaled-energy":
            weights = energy / 1000
        features = torch.stack([late / 300, energy], dim=1)
        encoded = self.encode(features)
        if self.fault == "one-weight":
            weights = weights[:1]
        if self.fault == "int-index":
            index = index.int()
        pooled = pool(encoded, weights, index, n)
        if self.fault == "rows-of-hits":
            scaled = torch.zeros(n, 2).index_add(0, index, self.scale(energy))
        else:
            scaled = self.scale(batch["height"])
        towers = torch.cat([pooled.towers, scaled], dim=1)
        showers = len(batch["truth"])
        mean = torch.zeros(showers, 10).index_add(0, batch["shower_of_tower"], towers)
        out: Tensor = self.head(mean[:, :9] if self.fault == "narrow" else mean)
        return out


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.LazyLinear(1)

    def forward(
        self, showers: Float32[Tensor, "showers 10"]
    ) -> Annotated[Float[Tensor, "showers"], Interval(ge=0, le=1)]:
        out: Tensor = self.linear(showers).squeeze(-1).sigmoid()
        return out


def loss(
    predicted: Annotated[Float[Tensor, "showers"], Ge(0), Le(1)], batch: Batch
) -> Float[Tensor, ""]:
    return (predicted - batch["truth"]).square().mean()


def pipeline(fault: str | None = None, **more: Any) -> Pipeline:
    torch.manual_seed(0)
    here = __name__
    arguments: dict[str, Any] = {
        "contracts": {f"{here}:Scale": {"height": Unit("m")}},
        "raw": {"time": lambda batch: batch["time"], "energy": lambda batch: batch["energy"]},
    }
    return Pipeline(
        name="towers",
        dataset=samples(),
        collate=collate,
        model=Net(fault),
        loss=loss,
        batch_size=8,
        sources=("tests",),
        stages=(f"{here}:since_first", f"{here}:pool"),
        **(arguments | more),
    )
