"""Cherenkov light in the ice of the South Pole: how much of it reaches a DOM, and when.

Two kinds of source: a straight line (a muon) and a point (a shower). Lengths in metres, times in
ns, z upwards from the middle of the array, directions along the particle's motion.

Sources. [A] IceCube, "Energy reconstruction methods in the IceCube neutrino telescope", JINST 9
(2014) P03009: yields and the analytic light curves of line and point. [B] IceCube, "Measurement of
South Pole ice transparency with the IceCube LED calibration system", arXiv:1301.5361, p. 31: the
table of ice. [C] AMANDA, "Muon track reconstruction and data selection techniques in AMANDA", NIM
A524 (2004) 169: Pandel's arrival times and effective distance; with the group velocity as in van
Eijndhoven et al., Astropart. Phys. 28 (2007) 456. [D] IceCube, "Calibration and characterization of
the IceCube photomultiplier tube", NIM A618 (2010) 139.
"""

# C candidate events, M lit DOMs of them, P photo-electrons

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .array import DOMS_PER_STRING, N_MAIN_STRINGS, icecube86

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

C_LIGHT: Final = 0.299792458  #: m/ns
N_PHASE: Final = 1.3195  #: refractive index of ice at 400 nm [A, C]
N_GROUP: Final = 1.35634  #: the group velocity's, at 400 nm [C]

COS_CHERENKOV: Final = 1.0 / N_PHASE  #: angle 40.72 degrees
SIN_CHERENKOV: Final = math.sqrt(1.0 - COS_CHERENKOV**2)
_COT_CHERENKOV: Final = COS_CHERENKOV / SIN_CHERENKOV

#: Photons weighted by the PMT's quantum efficiency, per metre of bare muon, and the share that the
#: muon's small showers add: yield = PHOTONS_PER_METRE * (1.22 + 1.36e-3 E/GeV) [A]. [A] has 2450;
#: about half of it is kept here for glass, cable shadow, holes and the discriminator's threshold
#: (assumption, fitted to the lengths of events). Seen through the PMT's face, 0.0444 m^2 [D].
PHOTONS_PER_METRE: Final = 2450.0 * 0.53
_TRACK_LIGHT: Final = (1.22, 1.36e-3)
PMT_AREA: Final = 0.0444

#: Length of bare muon that shines as brightly as 1 GeV of electromagnetic shower, m/GeV [A].
_METRES_PER_GEV: Final = 5.21

#: DeepCore's PMTs of high quantum efficiency count 1.35 [JINST 12 P03012, section 2].
HIGH_EFFICIENCY: Final = 1.35

#: Pandel's residual [C]: Gamma of shape d_eff / 33.29 m and scale 246.8 ns, which is the 556.7 ns
#: of scattering shortened by absorption over 98 m. The bulk values serve for all depths here.
_PANDEL_LENGTH: Final = 33.29
_PANDEL_SCALE: Final = 246.8

#: Standard deviation of the timing jitter, ns, and where we cut it (assumption) so that "no light
#: before it can arrive" has a bound that can be tested.
_JITTER: Final = 3.0
MAX_EARLY: Final = 10.0

#: Depth of z = 0 below the surface, m.
_DEPTH_OF_ORIGIN: Final = 1948.07

#: The ice [B], in steps of 40 m: depth, effective scattering length, absorption length, all in
#: metres; means of the published 10 m rows (of 1/length, which is what light paths add up). The
#: dust layer is at 2,000-2,080 m.
_ICE: Final = (
    (1420, 15.3, 54.0), (1460, 18.4, 67.2), (1500, 34.5, 117.5), (1540, 14.8, 51.9),
    (1580, 17.0, 59.6), (1620, 21.9, 76.6), (1660, 42.4, 148.3), (1700, 27.1, 98.3),
    (1740, 21.3, 73.5), (1780, 34.3, 115.5), (1820, 36.7, 129.6), (1860, 23.7, 80.5),
    (1900, 42.3, 147.8), (1940, 29.6, 109.0), (1980, 12.5, 43.9), (2020, 8.1, 29.1),
    (2060, 7.6, 27.7), (2100, 34.6, 126.1), (2140, 44.5, 148.8), (2180, 29.8, 97.7),
    (2220, 42.9, 137.5), (2260, 61.6, 191.3), (2300, 76.9, 239.9), (2340, 36.9, 127.1),
    (2380, 37.8, 133.4), (2420, 60.0, 197.1), (2460, 81.6, 251.9), (2500, 56.7, 185.2),
)  # fmt: skip

#: Attenuation over the whole Cherenkov spectrum, by that at 400 nm, where ice is clearest
#: (assumption, fitted to the DOMs of bright events).
_SPECTRUM: Final = 1.16


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """Light sources of C candidate events: a line from `start`, and one point on it.

    Attributes:
        start: `(C, 3)` m, where the line begins; the particle is there at time 0.
        direction: `(C, 3)` unit vectors of motion.
        length: `(C,)` m, 0 for a pure shower.
        line: `(C,)` photons per metre, weighted by quantum efficiency.
        point: `(C,)` photons of the shower.
        point_at: `(C,)` m along the line.
    """

    start: F64
    direction: F64
    length: F64
    line: F64
    point: F64
    point_at: F64


def track_yield(energy: F64) -> F64:
    """Photons per metre of a muon of `energy` GeV, its average small showers included [A]."""
    return PHOTONS_PER_METRE * (_TRACK_LIGHT[0] + _TRACK_LIGHT[1] * energy)


def shower_yield(energy: F64) -> F64:
    """Photons of an electromagnetic shower of `energy` GeV [A]."""
    return PHOTONS_PER_METRE * _METRES_PER_GEV * energy


def _hypotenuse(a: F32, b: F32) -> F32:
    """The root of a^2 + b^2, as `np.hypot` rounds it and in half the time."""
    square = a.astype(np.float64)
    square *= square
    other = b.astype(np.float64)
    other *= other
    square += other
    return np.sqrt(square, out=square).astype(np.float32)


class Ice:
    """The array in its ice: tables by DOM, and the integral of attenuation over depth."""

    def __init__(self) -> None:
        depth, scattering, absorption = np.array(_ICE).T
        edge = 2.0
        self._z0 = float(_DEPTH_OF_ORIGIN - depth[-1] - 400.0)
        grid = np.arange(self._z0, _DEPTH_OF_ORIGIN - depth[0] + 400.0, edge)
        at = _DEPTH_OF_ORIGIN - grid
        # [A], eq. for the diffuse limit: propagation length sqrt(absorption * scattering / 3).
        inverse = np.interp(at, depth, _SPECTRUM / np.sqrt(absorption * scattering / 3.0))
        self._per_metre = 1.0 / edge
        self._integral = np.concatenate([[0.0], np.cumsum(inverse * edge)]).astype(np.float32)
        self._step = np.diff(self._integral)
        self._top = np.float32(len(self._integral) - 1.001)
        self.xyz = icecube86()
        self.z = self.xyz[:, 2].astype(np.float32)
        dom_depth = _DEPTH_OF_ORIGIN - self.xyz[:, 2]
        scat = np.interp(dom_depth, depth, scattering)
        absorb = np.interp(dom_depth, depth, absorption)
        propagation = np.sqrt(absorb * scat / 3.0) / _SPECTRUM
        diffusion = scat / 3.0 * np.exp(scat / absorb)  # [A]: lambda_c = lambda_e / (3 zeta)
        mu = (diffusion / SIN_CHERENKOV) ** 2 * 2.0 / (np.pi * propagation)
        area = np.full(len(self.z), PMT_AREA)
        area[N_MAIN_STRINGS * DOMS_PER_STRING :] *= HIGH_EFFICIENCY
        self.attenuation = (1.0 / propagation).astype(np.float32)
        self.scattering = scat.astype(np.float32)
        self.diffusion = diffusion.astype(np.float32)
        self.line_diffusion = mu.astype(np.float32)
        self.area = area.astype(np.float32)
        self.depth_integral = self.integral(self.z)

    def integral(self, z: F32) -> F32:
        """Attenuation (1/m) integrated upwards to `z`, clear of the table's ends by a constant."""
        x = z - np.float32(self._z0)
        x *= np.float32(self._per_metre)
        np.maximum(x, np.float32(0.0), out=x)
        np.minimum(x, self._top, out=x)
        whole = np.floor(x)
        cell = whole.astype(np.int64)
        x -= whole
        between = np.multiply(x, self._step[cell], dtype=np.float64)
        between += self._integral[cell]
        found: F32 = between.astype(np.float32)
        return found

    def expected(
        self, sources: Sources, candidate: I64, sensor: I64, along: F32, d: F32
    ) -> tuple[F32, F32]:
        """Mean number of photo-electrons in DOMs.

        Args:
            sources: The light.
            candidate: `(M,)` rows of `sources`.
            sensor: `(M,)` sensor_id.
            along: `(M,)` m, the DOM's place along the line, counted from its start.
            d: `(M,)` m, its distance from the line, above 0.

        Returns:
            `(M,)` each: the means from the line and from the point.
        """
        means = []
        for strength, find in (
            (sources.line, self._from_line),
            (sources.point, self._from_point),
        ):
            photons = strength.astype(np.float32)[candidate]
            rows = np.flatnonzero((strength > 0)[candidate])
            if len(rows) == len(photons):
                value = find(sources, candidate, sensor, along, d)
                value *= photons
            else:
                value = np.zeros_like(d)
                of_rows = find(sources, candidate[rows], sensor[rows], along[rows], d[rows])
                value[rows] = photons[rows] * of_rows
            means.append(value)
        return means[0], means[1]

    def _from_line(self, sources: Sources, c: I64, sensor: I64, along: F32, d: F32) -> F32:
        on_line = d * np.float32(_COT_CHERENKOV)
        np.subtract(along, on_line, out=on_line)
        path = on_line.copy()
        np.maximum(on_line, np.float32(0.0), out=on_line)
        np.minimum(on_line, sources.length.astype(np.float32)[c], out=on_line)
        # A DOM off the end of the line is lit by light that scattered round the corner.
        path -= on_line
        np.abs(path, out=path)
        path += d
        length = self.line_diffusion[sensor]
        ratio = d / length
        np.sqrt(ratio, out=ratio)
        length *= np.float32(2 * np.pi * SIN_CHERENKOV)
        length *= ratio
        length *= np.tanh(ratio, out=ratio)
        distance = _hypotenuse(d, along - on_line)
        area = self._seen(sources, c, sensor, on_line, path, distance)
        area /= length
        return area

    def _from_point(self, sources: Sources, c: I64, sensor: I64, along: F32, d: F32) -> F32:
        at = sources.point_at.astype(np.float32)[c]
        ahead = along - at
        distance = _hypotenuse(d, ahead)
        length = self.diffusion[sensor]
        ratio = distance / length
        length *= np.float32(4 * np.pi)
        length *= distance
        length *= np.tanh(ratio, out=ratio)
        # Assumption: showers shine forward, exp(-2.5 |cos - cos_C|) normalised to a mean of 1, and
        # forget the direction over two effective scattering lengths.
        kept = np.float32(-0.5) * distance
        kept /= self.scattering[sensor]
        np.exp(kept, out=kept)
        forward = np.divide(ahead, distance, out=ahead)
        forward -= np.float32(COS_CHERENKOV)
        np.abs(forward, out=forward)
        forward *= np.float32(-2.5)
        np.exp(forward, out=forward)
        forward *= np.float32(3.47)
        forward -= np.float32(1.0)
        forward *= kept
        forward += np.float32(1.0)
        area = self._seen(sources, c, sensor, at, distance, distance)
        area /= length
        area *= forward
        return area

    def _seen(
        self, sources: Sources, c: I64, sensor: I64, at: F32, path: F32, distance: F32
    ) -> F32:
        """Area (m^2) that a DOM offers to light from `at` m on the line, attenuated over `path`."""
        z_from = at * sources.direction[:, 2].astype(np.float32)[c]
        z_from += sources.start[:, 2].astype(np.float32)[c]
        rise = self.z[sensor]
        rise -= z_from
        per_metre = self.depth_integral[sensor]
        per_metre -= self.integral(z_from)
        # PMTs look down. Assumption: acceptance falls linearly from 0.9 for light going straight up
        # to 0.1 for light coming straight down (which scatters in the refrozen hole to be seen).
        # (Clipped: within centimetres of the line float32 may put the DOM nearer than its height.)
        seen = rise / distance
        np.maximum(seen, np.float32(-1.0), out=seen)
        np.minimum(seen, np.float32(1.0), out=seen)
        seen *= np.float32(0.4)
        seen += np.float32(0.5)
        seen *= self.area[sensor]
        # From a source at the DOM's own height the ice is that at the DOM.
        level = np.flatnonzero(np.abs(rise) < 1.0)
        rise[level] = 1.0
        per_metre /= rise
        per_metre[level] = self.attenuation[sensor[level]]
        per_metre *= path
        np.negative(per_metre, out=per_metre)
        seen *= np.exp(per_metre, out=per_metre)
        return seen

    def arrival(
        self,
        sources: Sources,
        candidate: I64,
        sensor: I64,
        of: I64,
        from_line: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> F64:
        """Arrival times of photo-electrons.

        Emitted at s on the line, light arrives at (s + n_group * distance) / c; for a long line
        that is t = (d_t + 0.91733 d) / c [C]. Then Pandel's residual, drawn exactly as a Gamma of
        d_eff = 0.8395 d + 3.094 - 3.946 cos(eta) + 4.636 cos^2(eta) [C]; cos(eta) is 1 for light
        that goes straight up into the PMT. Assumptions: a point at distance r counts as a line at
        d = r sin(angle_C); light that turns back to reach the DOM has up to 1.9 times the way.

        Args:
            sources: The light.
            candidate: `(H,)` rows of `sources`, for each DOM that is hit.
            sensor: `(H,)` sensor_id.
            of: `(P,)` the DOM of each photo-electron, 0..H - 1.
            from_line: `(P,)` True where the light comes from the line, False from the point.
            rng: Random numbers.

        Returns:
            `(P,)` ns after the start of the line; at most `MAX_EARLY` before light can be there.
        """
        # What follows from geometry is worked out once for the line and once for the point, of each
        # DOM that has light from there.
        way = 2 * of + from_line
        used = np.zeros(2 * len(sensor), dtype=bool)
        used[way] = True
        ways = np.flatnonzero(used)
        place = np.cumsum(used)
        place -= 1
        at = place[way]
        dom, by_line = ways >> 1, ways & 1 == 1
        c = candidate[dom]

        p = sources.direction[candidate]
        w = self.xyz[sensor] - sources.start[candidate]
        along = np.einsum("pk,pk->p", w, p)
        d = np.sqrt(np.maximum(np.einsum("pk,pk->p", w, w) - along**2, 0.25))
        along, d, wz, pz = (column[dom] for column in (along, d, w[:, 2], p[:, 2]))
        s = np.clip(along - d * _COT_CHERENKOV, 0.0, sources.length[c])
        s = np.where(by_line, s, sources.point_at[c])
        ahead = along - s
        distance = np.sqrt(d**2 + ahead**2)
        cos_eta = (wz - s * pz) / distance
        turn = np.maximum(COS_CHERENKOV - ahead / distance, 0.0)
        effective = 0.8395 * distance * SIN_CHERENKOV * (1.0 + 0.5 * turn)
        effective += 3.094 - 3.946 * cos_eta + 4.636 * cos_eta**2
        shape = effective / _PANDEL_LENGTH
        straight = (s + N_GROUP * distance) / C_LIGHT
        time = rng.standard_gamma(shape[at])
        time *= _PANDEL_SCALE
        time += straight[at]
        time += np.clip(rng.normal(0.0, _JITTER, len(of)), -MAX_EARLY, MAX_EARLY)
        return np.asarray(time)
