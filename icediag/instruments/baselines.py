"""Classical reconstructions, and a network's, on the same events: their angular errors."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from icediag.model.collate import Batch
from icediag.model.event import AUXILIARY, SENSOR_ID, TIME, EventDataset
from icediag.model.linefit import Hits, first_hits, improved_line_fit, line_fit
from icediag.model.spe_fit import spe_fit
from icediag.model.training.evaluate import angular_errors
from icediag.model.truth import EventTruth
from icediag.records.baseline import BaselineRecord, ErrorRow

F64 = npt.NDArray[np.float64]

#: A predictor that knows nothing, on directions all over the sky.
NOTHING = "pi/2"
#: The methods' names, in the order in which they are run.
METHODS = ("LineFit", "improved LineFit", "SPE likelihood")
#: What the others' means are divided by.
YARDSTICK = "improved LineFit"
_QUANTILES = (0.1, 0.25, 0.75, 0.9)
#: Events read and fitted at a time.
_BLOCK = 1024


def measure(
    dataset: EventDataset,
    indices: npt.NDArray[np.int64],
    *,
    name: str,
    truth: EventTruth | None = None,
    network: nn.Module | None = None,
    collate: Callable[..., Batch] | None = None,
    there: int | None = None,
    held_out: bool | None = None,
    methods: tuple[str, ...] = METHODS,
    progress: Callable[[int, int], None] = lambda done, of: None,  # noqa: ARG005
) -> BaselineRecord:
    """Reconstruct events and compare with their truth.

    Args:
        dataset: Where they are.
        indices: `(N,)` which.
        name: Of the data set.
        truth: Kind and energy of these events, in the order of `indices`, where known.
        network: A trained one, or None.
        collate: Its collate function.
        there: How many events there are, of which these are some.
        held_out: Whether the events are new to the network.
        methods: Those of `METHODS` to run.
        progress: Told how many events are done, and of how many.
    """
    xyz = dataset.geometry().double().numpy()
    errors: dict[str, list[F64]] = {}
    seconds: dict[str, float] = {}

    def take(method: str, found: Callable[[], F64]) -> None:
        began = time.perf_counter()
        errors.setdefault(method, []).append(found())
        seconds[method] = seconds.get(method, 0.0) + time.perf_counter() - began

    for start in range(0, len(indices), _BLOCK):
        some = indices[start : start + _BLOCK]
        hits, direction = _hits(dataset, some, xyz)
        improved = improved_line_fit(hits)
        fits: dict[str, Callable[[], F64]] = {
            "LineFit": lambda hits=hits: line_fit(hits).origin(),  # type: ignore[misc]
            "improved LineFit": lambda hits=hits: improved_line_fit(hits).origin(),  # type: ignore[misc]
            "SPE likelihood": lambda hits=hits, first=improved: spe_fit(hits, first),  # type: ignore[misc]
        }
        for method in methods:
            take(method, lambda fit=fits[method], d=direction: _angles(fit(), d))  # type: ignore[misc]
        if network is not None and collate is not None:
            batches = _batches(dataset, some, collate)
            take("network", lambda batches=batches: _predicted(network, batches))  # type: ignore[misc]
        progress(min(start + _BLOCK, len(indices)), len(indices))
    rows = [
        row
        for method, parts in errors.items()
        for row in _rows(method, np.concatenate(parts), truth)
    ]
    yardstick = {row.group: row.mean for row in rows if row.method == YARDSTICK}
    return BaselineRecord(
        name=name,
        events=len(indices),
        there=there,
        held_out=held_out,
        rows=tuple(replace(row, ratio=_ratio(row.mean, yardstick.get(row.group))) for row in rows),
        seconds=seconds,
    )


def _ratio(mean: float, of: float | None) -> float | None:
    return mean / of if of else None


def _hits(dataset: EventDataset, indices: npt.NDArray[np.int64], xyz: F64) -> tuple[Hits, F64]:
    events = dataset.__getitems__(indices.tolist())
    pulses = torch.cat([event.pulse_features for event in events]).numpy()
    lengths = np.array([event.n_pulses for event in events], np.int64)
    hits = first_hits(
        pulses[:, SENSOR_ID].astype(np.int64),
        pulses[:, TIME].astype(np.float64),
        pulses[:, AUXILIARY] > 0,
        lengths,
        xyz,
    )
    azimuth, zenith = dataset.targets[indices].astype(np.float64).T
    direction = np.stack(
        [np.cos(azimuth) * np.sin(zenith), np.sin(azimuth) * np.sin(zenith), np.cos(zenith)], axis=1
    )
    return hits, direction


def _angles(found: F64, direction: F64) -> F64:
    """`(N,)` rad between unit vectors; exact near 0 and pi too."""
    apart = np.linalg.norm(found - direction, axis=1)
    together = np.linalg.norm(found + direction, axis=1)
    return np.asarray(2 * np.arctan2(apart, together))


def _batches(
    dataset: EventDataset, indices: npt.NDArray[np.int64], collate: Callable[..., Batch]
) -> Iterator[Batch]:
    # Few at a time: the longest sets the memory.
    for start in range(0, len(indices), 128):
        yield collate(dataset.__getitems__(indices[start : start + 128].tolist()))


def _predicted(network: nn.Module, batches: Iterator[Batch]) -> F64:
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            parts = [angular_errors(network(batch), batch.targets).numpy() for batch in batches]
    finally:
        for module, flag in flags.items():
            module.training = flag
    return np.concatenate(parts)


def _rows(method: str, errors: F64, truth: EventTruth | None) -> list[ErrorRow]:
    groups: dict[str, npt.NDArray[np.bool_]] = {"all": np.ones(len(errors), bool)}
    if truth is not None:
        for kind in sorted(set(truth.kind.tolist())):
            groups[kind] = truth.kind == kind
        decade = np.floor(np.log10(np.maximum(truth.energy, 1e-3))).astype(int)
        for power in np.unique(decade).tolist():
            groups[f"1e{power} .. 1e{power + 1} GeV"] = decade == power
    return [_row(method, group, errors[mine]) for group, mine in groups.items()]


def _row(method: str, group: str, errors: F64) -> ErrorRow:
    if not len(errors):
        return ErrorRow(method=method, group=group, events=0, mean=np.nan, median=np.nan)
    return ErrorRow(
        method=method,
        group=group,
        events=len(errors),
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        quantiles={str(q): float(np.quantile(errors, q)) for q in _QUANTILES},
    )
