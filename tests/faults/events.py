"""The built-in pipeline: its own switches, and faults put round it from outside."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icediag import Pipeline
from icediag.icecube import pipeline as icecube
from icediag.model.network import NetworkConfig

from .case import Fault, Patient

EVENTS, BATCH_SIZE = 64, 16
SWITCHES = (
    *("normalized-relative", "normalized-charge-weights", "packing-loop", "rank-loop"),
    *("unbounded-output", "per-event-slicing"),
)
VARIANTS: dict[str, dict[str, Any]] = {
    "bounded-angles": {"config": NetworkConfig(head="bounded_angles")},
    "angles": {"config": NetworkConfig(head="angles")},
    "native": {"config": NetworkConfig(backend="native")},
    "narrow": {"config": NetworkConfig(d_model=32, n_heads=2, n_layers=1)},
    "deep": {"config": NetworkConfig(d_model=64, n_layers=8)},
    "dropout": {"config": NetworkConfig(dropout=0.1)},
    "vmf": {"loss": "vmf"},
    "another-seed": {"seed": 7},
}


def in_degrees(whole: Pipeline) -> Pipeline:
    """Truth in degrees, for a network that predicts radians."""

    def collate(samples: list[Any]) -> Any:
        batch = whole.collate(samples)
        return replace(batch, targets=torch.rad2deg(batch.targets))

    return replace(whole, collate=collate)


def shuffled_truth(whole: Pipeline) -> Pipeline:
    """Each event gets its neighbour's direction."""

    def collate(samples: list[Any]) -> Any:
        batch = whole.collate(samples)
        return replace(batch, targets=batch.targets.roll(1, 0))

    return replace(whole, collate=collate)


def frozen_encoder(whole: Pipeline) -> Pipeline:
    """One layer in the middle is never trained."""
    first = next(m for m in whole.model.dom_encoder.modules() if isinstance(m, torch.nn.Linear))
    first.requires_grad_(False)
    return whole


def rate_of_zero(whole: Pipeline) -> Pipeline:
    return replace(whole, optimizer=lambda parameters: torch.optim.AdamW(parameters, 0.0))


def half_the_parameters(whole: Pipeline) -> Pipeline:
    return replace(
        whole, optimizer=lambda _: torch.optim.AdamW(whole.model.head.parameters(), 1e-3)
    )


def event_by_event_loss(whole: Pipeline) -> Pipeline:
    """The loss of each event by itself, each read from the device."""

    def loss(prediction: Any, batch: Any) -> Tensor:
        total = whole.loss(prediction, batch)
        seen = [float(zenith) for zenith in batch.targets[:, 1]]
        return total + 0.0 * sum(seen)

    return replace(whole, loss=loss)


def nan_in_data(whole: Pipeline) -> Pipeline:
    """One charge is not a number."""

    def collate(samples: list[Any]) -> Any:
        batch = whole.collate(samples)
        batch.pulse_features[3, 1] = torch.nan
        return batch

    return replace(whole, collate=collate)


OUTSIDE = {
    "in-degrees": in_degrees,
    "shuffled-truth": shuffled_truth,
    "frozen-encoder": frozen_encoder,
    "rate-of-zero": rate_of_zero,
    "half-the-parameters": half_the_parameters,
    "event-by-event-loss": event_by_event_loss,
    "nan-in-data": nan_in_data,
}


def build(fault: str | None) -> Pipeline:
    options = dict(VARIANTS.get(fault or "", {}))
    switches = (fault,) if fault in SWITCHES else ()
    whole = icecube(n_events=EVENTS, batch_size=BATCH_SIZE, faults=switches, **options)
    return OUTSIDE[fault](whole) if fault in OUTSIDE else whole


PATIENT = Patient(
    name="icecube",
    build=build,
    variants=tuple(VARIANTS),
    faults=(
        Fault(
            name="normalized-relative",
            checks=("normalized-relative",),
            stages=("relative_encoder",),
        ),
        Fault(
            name="normalized-charge-weights",
            checks=("normalized-weights",),
            stages=("dom_encoder",),
        ),
        Fault(name="packing-loop", checks=("python-loop",), stages=("pack_one_by_one",)),
        Fault(name="rank-loop", checks=("python-loop",), stages=("relative_encoder", "rank_dom")),
        Fault(name="unbounded-output", checks=("unbounded-output",), stages=("head",)),
        Fault(
            name="per-event-slicing",
            checks=("per-item-access", "python-loop"),
            stages=("dataset item",),
            lowest="note",
        ),
        # The head reaches all of its domain: it is the batch that breaks its contract, in radians.
        Fault(name="in-degrees", checks=("contract-broken",), stages=("collate",)),
        Fault(name="shuffled-truth", checks=("targets-shuffled",), stages=("collate",)),
        Fault(name="frozen-encoder", checks=("no-gradient",), stages=("dom_encoder",)),
        Fault(name="rate-of-zero", checks=("learning-rate",)),
        Fault(name="half-the-parameters", checks=("optimizer-misses-parameters",)),
        Fault(name="event-by-event-loss", checks=("python-loop", "host-sync"), stages=("loss",)),
        Fault(name="nan-in-data", checks=("non-finite-value",), stages=("collate",)),
    ),
)
