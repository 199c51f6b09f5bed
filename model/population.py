"""Which neutrino events there are: kind, direction, energy, place, and the light they make.

The mixture is fitted to the lengths of the competition's events (see `simulate.py`), not to a flux.
Lengths in metres, energies in GeV.
"""

# C candidates

from typing import Final

import numpy as np
from numpy.typing import NDArray

from .light import Sources, shower_yield, track_yield

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Kinds of event, by number.
KINDS: Final = ("through-going", "starting", "stopping", "cascade")
_THROUGH, _STARTING, _STOPPING, _CASCADE = range(4)

#: How often each kind is drawn (assumption, fitted to the DOMs of bright events).
KIND_SHARES: Final = (0.35, 0.2, 0.1, 0.35)

#: Energies, GeV: a steep and a hard power law, which together give the published lengths of events
#: (fitted to them, not to a flux): share, lowest energy, spectral index.
_ENERGY_PARTS: Final = ((0.8775, 100.0, 2.92), (0.115, 1180.0, 2.25), (0.0075, 1.3e4, 1.12))
_ENERGY_MAX: Final = 3e7

#: Direction: cos(zenith) = c with density (1 + tilt * c) / 2, fitted to the mean zenith of the
#: competition's truth, 1.534 = pi/2 - tilt * pi/8.
_ZENITH_TILT: Final = 0.094

#: Where light is: an event begins, ends or passes at a Gaussian distance in x, y and z of a random
#: DOM, m: at 100 GeV, and more for each power of ten (assumption: dim events are only seen from
#: near, and drawing them elsewhere would be in vain).
_SPREAD: Final = (15.0, 56.5)

#: A through-going track is followed from this far before that point to as far behind it, m.
_HALF_TRACK: Final = 1500.0

#: Metres that a muon runs for each GeV, from its loss by ionisation, 0.2 GeV/m (assumption: energy
#: lost by showers does not shorten it; longer than 2 * _HALF_TRACK leaves the array anyway).
_RANGE_PER_GEV: Final = 5.0

#: A muon's showers along its way: the share of them that is spread evenly over it, and the largest
#: share of its energy that a passing muon loses at one place (assumptions, fitted to the DOMs of
#: bright events; a mean of 0.2 of its energy is what is taken off a kilometre of even light).
_CONTINUOUS: Final = 0.4
_LARGEST_LOSS: Final = 0.8


def tilted_cosine(u: F64) -> F64:
    """Cosines of zenith with density (1 + tilt * c) / 2 from uniform numbers (inverted exactly)."""
    a = _ZENITH_TILT
    return np.asarray((np.sqrt(1 - 2 * a + a * a + 4 * a * u) - 1) / a)


def _energies(n: int, rng: np.random.Generator) -> F64:
    """`(n,)` GeV from the power laws, each cut at its top by inversion."""
    shares, lowest, index = np.array(_ENERGY_PARTS).T
    part = rng.choice(len(shares), n, p=shares)
    power = 1.0 - index[part]
    top = (_ENERGY_MAX / lowest[part]) ** power
    return np.asarray(lowest[part] * (1.0 - rng.random(n) * (1.0 - top)) ** (1.0 / power))


def candidates(kind: I64, motion: F64, xyz: F64, rng: np.random.Generator) -> tuple[Sources, F64]:
    """Draw energy, place and light of candidates.

    Args:
        kind: `(C,)` index into `KINDS`.
        motion: `(C, 3)` unit vectors along which the particle moves.
        xyz: `(5160, 3)` m, the array.
        rng: Random numbers.

    Returns:
        The light, and `(C,)` energies in GeV.
    """
    n = len(kind)
    energy = _energies(n, rng)
    near = xyz[rng.integers(0, len(xyz), n)]
    spread = _SPREAD[0] + _SPREAD[1] * np.maximum(np.log10(energy / 100.0), 0.0)
    place = near + spread[:, None] * rng.standard_normal((n, 3))
    # Share of the energy in the shower: inelasticity of a starting event, the one large loss that a
    # passing muon may suffer (assumptions: uniform, and by a cube so that most are small).
    u = rng.random(n)
    in_shower = np.select(
        [kind == _STARTING, kind == _CASCADE], [u, np.ones(n)], default=_LARGEST_LOSS * u**3
    )
    muon = np.where(kind == _STARTING, energy * (1 - u), energy)
    length = np.select(
        [kind == _THROUGH, kind == _CASCADE],
        [np.full(n, 2 * _HALF_TRACK), np.zeros(n)],
        default=np.minimum(_RANGE_PER_GEV * muon, 2 * _HALF_TRACK),
    )
    back = np.select([kind == _THROUGH, kind == _STOPPING], [np.full(n, _HALF_TRACK), length], 0.0)
    passing = (kind == _THROUGH) | (kind == _STOPPING)
    sources = Sources(
        start=place - back[:, None] * motion,
        direction=motion,
        length=length,
        line=np.where(kind == _CASCADE, 0.0, track_yield(_CONTINUOUS * muon)),
        point=shower_yield(in_shower * energy),
        point_at=np.where(passing, rng.random(n) * length, 0.0),
    )
    return sources, energy
