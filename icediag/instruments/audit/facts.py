"""From counts to facts."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from icediag.model.geometry import LENGTH_SCALE_M
from icediag.model.normalize import CHARGE_FLOOR, HIGH, LOW, NormalizerConfig
from icediag.records.data import DataFault, Distribution, Drift, Fault, Normalization

from .histograms import QUANTILES, Counted, Moments, quantiles_of
from .tally import ANGLE_BINS, COMPARED, FileTally, Tally

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

#: Two samples of one population of N and M events differ by more than this times
#: sqrt(1/N + 1/M) in one case of 100,000 [Smirnov: sqrt(ln(2 / 1e-5) / 2)].
_CHANCE = 2.47
#: Files of fewer events are not compared.
_FEW = 20

#: Fault -> column, what should be there.
_EXPECTED: Mapping[str, tuple[Fault, str, str]] = {
    "charge-not-finite": ("charge-not-finite", "charge", "a finite number"),
    "charge-not-positive": ("charge-not-positive", "charge", "more than 0 p.e."),
    "sensor-out-of-range": ("sensor-out-of-range", "sensor_id", "0 to 5,159"),
    "time-not-finite": ("time-not-finite", "time", "a finite number"),
    "times-unsorted": ("times-unsorted", "time", "times that rise within an event"),
}


def file_faults(name: str, of_file: FileTally) -> list[DataFault]:
    """What is not as it should be in the rows of a file."""
    found = []
    for key, (count, row, example) in of_file.bad.items():
        fault, column, expected = _EXPECTED[key]
        found.append(
            DataFault(
                fault=fault,
                file=name,
                column=column,
                count=count,
                of=of_file.whole if fault == "times-unsorted" else of_file.seen,
                row=row,
                example=example,
                expected=expected,
            )
        )
    return found


def distributions(tally: Tally) -> tuple[Distribution, ...]:
    """Of pulses, events, DOMs and truth."""
    return (
        tally.lengths.distribution("pulses per event"),
        tally.doms.distribution("DOMs per event"),
        tally.bright_doms.distribution("DOMs per event of 1,000 pulses or more"),
        tally.multiplicity.distribution("pulses per DOM"),
        tally.time.distribution("time", "ns"),
        tally.first.distribution("first pulse", "ns"),
        tally.last.distribution("last pulse", "ns"),
        tally.charge.distribution("charge", "p.e."),
        _angle("azimuth", tally.azimuth, tally.azimuth_moments, 2 * np.pi),
        _angle("zenith", tally.zenith, tally.zenith_moments, np.pi),
    )


def _angle(name: str, bins: Counted, moments: Moments, end: float) -> Distribution:
    if not moments.count:
        return Distribution(name=name, unit="rad", count=0)
    counts = bins.counts[1 : ANGLE_BINS + 1]
    middle = (np.arange(ANGLE_BINS) + 0.5) * end / ANGLE_BINS
    wide = 64
    return Distribution(
        name=name,
        unit="rad",
        count=moments.count,
        minimum=moments.least,
        maximum=moments.most,
        mean=moments.mean,
        std=moments.std,
        quantiles=dict(zip(map(str, QUANTILES), quantiles_of(counts, middle), strict=True)),
        error=0.5 / ANGLE_BINS,
        edges=tuple(float(e) for e in np.linspace(0, end, ANGLE_BINS // wide + 1)),
        counts=tuple(int(c) for c in counts.reshape(-1, wide).sum(axis=1)),
    )


def multiplicities(tally: Tally) -> dict[str, float]:
    """Shares of DOMs with so many pulses."""
    counts = tally.multiplicity.counts
    total = int(counts.sum())
    if not total:
        return {}
    return {
        "1": float(counts[1] / total),
        "2-3": float(counts[2:4].sum() / total),
        "4-10": float(counts[4:11].sum() / total),
        "more": float(counts[11:].sum() / total),
    }


def drifts(files: Mapping[str, FileTally]) -> tuple[Drift, ...]:
    """Files whose events differ from those of all others by more than chance.

    The file that differs most is taken out before the rest is looked at again: one file that is
    odd must not make the others look so.
    """
    found = []
    for quantity, edges in COMPARED.items():
        pool = {name: file.compared[quantity] for name, file in files.items()}
        pool = {name: counts for name, counts in pool.items() if counts.sum() >= _FEW}
        while len(pool) > 1:
            everything = np.sum([*pool.values()], axis=0)
            each = [
                _drift(name, quantity, edges, mine, everything - mine)
                for name, mine in pool.items()
            ]
            worst = max(each, key=lambda drift: drift.distance / drift.chance)
            if worst.distance <= worst.chance:
                break
            found.append(worst)
            del pool[worst.file]
    return tuple(found)


def _drift(name: str, quantity: str, edges: F64, mine: I64, others: I64) -> Drift:
    n, m = int(mine.sum()), int(others.sum())
    here, there = np.cumsum(mine) / n, np.cumsum(others) / m
    return Drift(
        file=name,
        against="the other files",
        quantity=quantity,
        distance=float(np.abs(here - there).max()),
        chance=_CHANCE * (1 / n + 1 / m) ** 0.5,
        here=_middle(here, edges),
        there=_middle(there, edges),
        events=n,
    )


def _middle(rising: F64, edges: F64) -> float:
    """The median, within its bin by straight line."""
    at = int(np.searchsorted(rising, 0.5))
    below = rising[at - 1] if at else 0.0
    share = (0.5 - below) / max(rising[at] - below, 1e-12)
    low, high = edges[at], edges[at + 1]
    return float(low if not np.isfinite(high) else low + share * (high - low))


def normalization(tally: Tally, xyz: npt.NDArray[np.float32] | None) -> tuple[Normalization, ...]:
    """What the field's constants make of these data."""
    config = NormalizerConfig()
    found = []
    time = tally.time
    if time.count:
        at = np.arange(time.low, time.high + 1, dtype=np.float64)
        found.append(
            _constants(
                "time (ns)", at, time.counts, config.time_shift, config.time_scale,
                time.least, time.most,
            )
        )  # fmt: skip
        charge, counts = tally.charge.points()
        found.append(
            _constants(
                "log10 charge (p.e.)", np.log10(np.maximum(charge, CHARGE_FLOOR)), counts,
                config.charge_shift, config.charge_scale, None, None,
            )
        )  # fmt: skip
        ones = np.array([tally.pulses - tally.auxiliary, tally.auxiliary])
        flag = _constants("auxiliary", np.array([0.0, 1.0]), ones, 0.0, 1.0, None, None)
        # Two values need no scaling.
        found.append(replace(flag, fitted_shift=0.0, fitted_scale=1.0))
    if xyz is not None and tally.sensors.sum():
        for axis, name in enumerate("xyz"):
            order = np.argsort(xyz[:, axis], kind="stable")
            found.append(
                _constants(
                    f"{name} (m)", xyz[order, axis].astype(np.float64), tally.sensors[order],
                    0.0, LENGTH_SCALE_M, None, None,
                )
            )  # fmt: skip
    return tuple(found)


def _constants(
    feature: str,
    values: F64,
    counts: I64,
    shift: float,
    scale: float,
    least: float | None,
    most: float | None,
) -> Normalization:
    """For values in rising order."""
    filled = np.flatnonzero(counts)
    least = float(values[filled[0]]) if least is None else least
    most = float(values[filled[-1]]) if most is None else most
    low, middle, high = quantiles_of(counts, values, (LOW, 0.5, HIGH))
    half = (high - low) / 2
    total = counts.sum()
    far = np.abs(values - middle) > 5 * half if half else values != middle
    return Normalization(
        feature=feature,
        shift=shift,
        scale=scale,
        minimum=(least - shift) / scale,
        maximum=(most - shift) / scale,
        median=(middle - shift) / scale,
        spread=half / scale,
        negative=float(counts[values < shift].sum() / total),
        far=float(counts[far].sum() / total),
        fitted_shift=middle,
        fitted_scale=half if half else 1.0,
    )
