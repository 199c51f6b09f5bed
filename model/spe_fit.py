"""The single-photo-electron likelihood fit: the track under which first hits are most likely.

Source. [C] AMANDA, "Muon track reconstruction and data selection techniques in AMANDA", NIM A524
(2004) 169, sections 3.2 and 4: the likelihood and Pandel's density; [V] van Eijndhoven et al.,
Astropart. Phys. 28 (2007) 456: how jitter is met.
"""

# H hits, N events, S starts of each

import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .light import C_LIGHT, COS_CHERENKOV, SIN_CHERENKOV
from .linefit import Hits, Lines

F64 = NDArray[np.float64]

#: Pandel's length and time [C], as the simulator has them; see `light.py`.
_PANDEL_LENGTH: Final = 33.29
_PANDEL_SCALE: Final = 246.8
#: t_geo = (d_t + _TO_LINE * d) / c [C].
_TO_LINE: Final = 0.91733
#: Jitter in the fit, ns (assumption, of 15, 40, 60, 80 and 120 tried: [C] has 15, with which the
#: first of many photons in a bright DOM is far too early for one, and false minima abound).
_JITTER: Final = 60.0
#: Share of hits that are noise, anywhere within the readout (assumption).
_NOISE: Final = 1e-3
_READOUT: Final = 12_000.0

#: Hits of an event that are looked at, the earliest (assumption: later ones add little but time).
_MOST_HITS: Final = 150
#: Steps of the descent, its first and last rate (assumption; in radians, and in units of 100 m).
_STEPS: Final = 160
_RATES: Final = (0.03, 0.003)
#: After so many steps only the best so many starts of each event go on (assumption: the order of
#: the ends is known by then, and the rest of the way costs half as much).
_SIFTED_AT: Final = 60
_SIFTED: Final = 2
_UNIT: Final = 100.0
#: Starts: the line fit, and directions at this angle from it, all round.
_TILT: Final = math.radians(30.0)
_TILTED: Final = 4


def spe_fit(hits: Hits, first: Lines) -> F64:
    """Fit tracks.

    Every event is started from several directions; all starts of all events descend together, each
    on its own likelihood. The best of them go all the way, and the best end of each event is taken.

    Args:
        hits: The hits.
        first: Where to start from.

    Returns:
        `(N, 3)` unit vectors to where the particle came from.
    """
    hits = _earliest(hits)
    starts = _starts(-first.origin())
    n_starts = len(starts)
    event = torch.from_numpy(hits.event)
    position = torch.from_numpy(hits.position).float()
    time = torch.from_numpy(hits.time - first.time[hits.event]).float()
    middle = torch.from_numpy(first.start).float()
    direction = torch.from_numpy(starts).float()
    basis = _basis(direction)
    relative = position - middle.index_select(0, event)
    # On a track the mean position is behind the light by some tens of metres; 0 is good enough.
    moved = torch.zeros(n_starts, hits.n_events, 4, requires_grad=True)
    turned = torch.zeros(n_starts, hits.n_events, 2, requires_grad=True)

    def loss() -> Tensor:
        """`(S, N)` negative logarithm of the likelihood."""
        # index_select: its gradient is a sum by index, many times quicker than that of p[:, event].
        p = _turn(direction, basis, turned).index_select(1, event)
        by = (_UNIT * moved).index_select(1, event)
        each = _unlikely(relative - by[..., :3], time - by[..., 3], p)
        return torch.zeros(moved.shape[:2]).index_add(1, event, each)

    optimizer = torch.optim.Adam([moved, turned], lr=_RATES[0])
    for step in range(_STEPS):
        if step == _SIFTED_AT:
            with torch.no_grad():
                rank = loss().nan_to_num(math.inf).argsort(dim=0, stable=True)[:_SIFTED]
            direction, moved, turned, *basis = (
                part.detach().gather(0, rank[..., None].expand(-1, -1, part.shape[-1]))
                for part in (direction, moved, turned, *basis)
            )
            moved.requires_grad_()
            turned.requires_grad_()
            optimizer = torch.optim.Adam([moved, turned])
        share = step / (_STEPS - 1)
        for group in optimizer.param_groups:
            group["lr"] = _RATES[0] * (_RATES[1] / _RATES[0]) ** share
        optimizer.zero_grad()
        # The sum: no start feels another.
        loss().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        best = loss().nan_to_num(math.inf).argmin(dim=0)
        p = _turn(direction, basis, turned)[best, torch.arange(hits.n_events)]
    return np.asarray(-p.double().numpy())


def _unlikely(w: Tensor, late: Tensor, p: Tensor) -> Tensor:
    """`(S, H)` negative logarithm of how likely each hit is.

    Args:
        w: `(S, H, 3)` m from the track's point at time 0 to the hit.
        late: `(S, H)` ns, when it is.
        p: `(S, H, 3)` unit vectors along the track.
    """
    along = (w * p).sum(dim=-1)
    d = (w.square().sum(dim=-1) - along.square()).clamp_min(1.0).sqrt()
    residual = late - (along + _TO_LINE * d) / C_LIGHT
    # From where the light left: straight up it goes into the PMT.
    rise = (w[..., 2] - (along - d * (COS_CHERENKOV / SIN_CHERENKOV)) * p[..., 2]) / d
    cos_eta = rise * SIN_CHERENKOV
    effective = 0.8395 * d + 3.094 - 3.946 * cos_eta + 4.636 * cos_eta.square()
    shape = effective / _PANDEL_LENGTH
    early = residual.clamp_max(0.0)
    # The density, moved from its pole by the jitter and falling like a Gauss before 0 [V].
    soft = _JITTER * torch.nn.functional.softplus(residual / _JITTER) + 1.0
    log = (
        (shape - 1) * (soft / _PANDEL_SCALE).log()
        - soft / _PANDEL_SCALE
        - torch.lgamma(shape)
        - math.log(_PANDEL_SCALE)
        - 0.5 * (early / _JITTER).square()
    )
    noise = torch.full_like(log, math.log(_NOISE / _READOUT))
    return -torch.logaddexp(log + math.log(1 - _NOISE), noise)


def _earliest(hits: Hits) -> Hits:
    """The first so many hits of each event."""
    order = np.lexsort((hits.time, hits.event))
    n = np.bincount(hits.event, minlength=hits.n_events)
    rank = np.arange(len(order)) - (np.cumsum(n) - n)[hits.event[order]]
    keep = np.zeros(len(order), dtype=bool)
    keep[order[rank < _MOST_HITS]] = True
    return hits.take(keep)


def _starts(motion: F64) -> F64:
    """`(S, N, 3)` directions of motion: the one given, and others round about it."""
    u, v = _perpendicular(motion)
    angles = 2 * np.pi * np.arange(_TILTED) / _TILTED
    tilted = [
        np.cos(_TILT) * motion + np.sin(_TILT) * (np.cos(a) * u + np.sin(a) * v) for a in angles
    ]
    return np.stack([motion, *tilted])


def _perpendicular(p: F64) -> tuple[F64, F64]:
    """Two unit vectors at right angles to each and to one another."""
    other = np.where(np.abs(p[..., 2:]) < 0.9, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0])
    u = np.cross(p, other)
    u /= np.linalg.norm(u, axis=-1, keepdims=True)
    return u, np.cross(p, u)


def _basis(direction: Tensor) -> list[Tensor]:
    return [torch.from_numpy(u).float() for u in _perpendicular(direction.double().numpy())]


def _turn(direction: Tensor, basis: list[Tensor], by: Tensor) -> Tensor:
    """Directions moved along their sphere: by tan of an angle along either axis."""
    moved = direction + by[..., :1] * basis[0] + by[..., 1:] * basis[1]
    return torch.nn.functional.normalize(moved, dim=-1)
