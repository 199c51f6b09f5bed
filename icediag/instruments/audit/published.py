"""Figures of the public competition "IceCube - Neutrinos in Deep Ice", to compare with.

From notebooks published there: lengths of all 131,953,924 events, times and charges of the 32.8
million pulses of batch 1, truth of all events.
"""

from collections.abc import Callable
from typing import Final

from icediag.records.data import Comparison, DataRecord, Distribution

#: How far from 1 a ratio may be: 15 %, and 30 % where it hangs on a thousandth or a hundredth.
_NEAR: Final = 0.15
_TAIL: Final = 0.3

#: Distribution, then quantile or "mean", "std", "minimum" and the published figure.
_FIGURES: Final[tuple[tuple[str, str, float], ...]] = (
    ("pulses per event", "0.5", 63),
    ("pulses per event", "0.75", 89),
    ("pulses per event", "0.9", 144),
    ("pulses per event", "0.95", 221),
    ("pulses per event", "0.99", 1177),
    ("pulses per event", "0.999", 19_605),
    ("pulses per event", "mean", 164),
    ("DOMs per event", "0.5", 55),
    ("DOMs per event of 1,000 pulses or more", "0.5", 329),
    ("DOMs per event of 1,000 pulses or more", "0.75", 508),
    ("DOMs per event of 1,000 pulses or more", "0.9", 823),
    ("DOMs per event of 1,000 pulses or more", "0.99", 1578),
    ("time", "0.25", 10_545),
    ("time", "0.5", 11_760),
    ("time", "0.75", 13_764),
    ("time", "mean", 12_909),
    ("time", "std", 4385),
    ("first pulse", "0.25", 5973),
    ("first pulse", "0.5", 6129),
    ("first pulse", "0.75", 6405),
    ("last pulse", "0.25", 16_214),
    ("last pulse", "0.5", 17_242),
    ("last pulse", "0.75", 18_787),
    ("charge", "minimum", 0.025),
    ("charge", "maximum", 2762),
    ("azimuth", "mean", 3.144),
    ("azimuth", "std", 1.814),
    ("zenith", "mean", 1.534),
    ("zenith", "std", 0.690),
)
_MULTIPLICITY: Final = {"1": 0.78, "2-3": 0.16, "4-10": 0.04, "more": 0.02}
_AUXILIARY: Final = 0.28
_AUXILIARY_SMALL: Final = 48 / 61

_WORDS: Final = {"0.25": "P25", "0.5": "P50", "0.75": "P75", "0.9": "P90", "0.95": "P95",
                 "0.99": "P99", "0.999": "P99.9"}  # fmt: skip
_ATTRIBUTES: Final[dict[str, Callable[[Distribution], float | None]]] = {
    "mean": lambda d: d.mean,
    "std": lambda d: d.std,
    "minimum": lambda d: d.minimum,
    "maximum": lambda d: d.maximum,
}


def compare(record: DataRecord) -> tuple[Comparison, ...]:
    """The figures of a data set beside the published ones; those that it has."""
    found = []
    for name, what, published in _FIGURES:
        distribution = record.distribution(name)
        if distribution is None or not distribution.count:
            continue
        read = _ATTRIBUTES.get(what)
        here = read(distribution) if read else distribution.quantiles[what]
        tail = what in ("0.99", "0.999", "maximum")
        found.append(_row(f"{name}, {_WORDS.get(what, what)}", here, published, tail=tail))
    found.extend(
        _row(
            f"DOMs with {pulses} pulse{'' if pulses == '1' else 's'}", share, _MULTIPLICITY[pulses]
        )
        for pulses, share in record.pulses_per_dom.items()
    )
    found.append(_row("auxiliary, of all pulses", record.auxiliary, _AUXILIARY))
    found.append(_row("auxiliary, of small events", record.auxiliary_small, _AUXILIARY_SMALL))
    return tuple(row for row in found if row is not None)


def _row(
    quantity: str, here: float | None, published: float, *, tail: bool = False
) -> Comparison | None:
    if here is None:
        return None
    return Comparison(
        quantity=quantity,
        here=here,
        published=published,
        ratio=here / published,
        limit=_TAIL if tail else _NEAR,
    )
