"""The IceCube-86 array: where its 5,160 DOMs hang in the ice.

Axes and units: metres, origin near the middle of the array, x towards grid east, y towards grid
north, z upwards with z = 1948.07 m - depth below the surface.

Source: the array as surveyed is described in IceCube, "The IceCube Neutrino Observatory:
Instrumentation and Online Systems", JINST 12 (2017) P03012, section 1 and table 1 (86 strings of 60
DOMs, 17 m apart, 125 m between strings, DeepCore 7 and 10 m apart). The positions below are the
published ones, written down as three figures a string and the spacings along it.
"""

# N sensors

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

N_STRINGS: Final = 86
DOMS_PER_STRING: Final = 60

#: Strings 1..78 are the main array, 79..86 the dense infill DeepCore.
N_MAIN_STRINGS: Final = 78

#: Metres between neighbouring DOMs of a main string: 17.02 m, and 17.03 m every few DOMs.
_MAIN_STEP: Final = 17.0205

#: DeepCore: 10 DOMs above the dust layer, a gap, 50 DOMs below it.
_DEEPCORE_STEPS: Final = (*[10.01] * 9, 257.31, *[7.007] * 49)

#: String by string, 1 to 86: x, y (median over the string) and z of its uppermost DOM, metres.
_STRINGS: Final = (
    (-256.14, -521.08, 496.03), (-132.80, -501.45, 500.07), (-9.13, -481.74, 499.23),
    (114.39, -461.99, 498.66), (237.78, -442.42, 501.46), (361.00, -422.83, 499.51),
    (-334.80, -424.50, 500.59), (-211.35, -404.48, 498.63), (-88.05, -384.30, 500.02),
    (35.54, -364.83, 497.71), (158.94, -345.23, 499.83), (282.18, -325.74, 498.44),
    (405.83, -306.38, 495.13), (-413.46, -327.27, 499.59), (-290.66, -307.38, 504.02),
    (-166.40, -287.79, 497.78), (-43.27, -267.52, 500.43), (79.41, -248.24, 498.90),
    (210.47, -209.77, 496.94), (326.85, -209.07, 498.42), (443.79, -194.29, 516.67),
    (-492.43, -230.16, 497.60), (-368.93, -210.23, 500.53), (-245.65, -190.49, 501.48),
    (-121.77, -171.03, 502.27), (1.71, -150.63, 497.25), (124.97, -131.25, 493.65),
    (248.15, -111.87, 498.34), (371.56, -92.18, 501.58), (500.43, -58.45, 501.85),
    (-570.90, -125.14, 499.60), (-447.74, -113.13, 500.67), (-324.39, -93.43, 500.13),
    (-200.55, -74.03, 523.42), (-77.80, -54.33, 502.70), (46.29, -34.88, 500.97),
    (194.34, -30.92, 504.09), (292.90, 5.20, 491.40), (411.81, 13.00, 501.73),
    (544.07, 55.89, 502.79), (-526.63, -15.60, 502.67), (-403.14, 3.49, 501.80),
    (-279.53, 23.17, 502.61), (-156.23, 43.37, 500.84), (-32.96, 62.44, 495.81),
    (90.49, 82.35, 501.66), (195.03, 125.59, 501.83), (330.03, 127.20, 500.87),
    (472.05, 127.90, 504.27), (576.37, 170.92, 494.04), (-481.60, 101.39, 502.05),
    (-358.44, 120.56, 498.06), (-234.95, 140.44, 500.06), (-111.51, 159.98, 500.53),
    (11.87, 179.19, 502.34), (132.03, 202.98, 502.74), (257.31, 211.66, 504.43),
    (382.35, 238.90, 498.54), (505.27, 257.88, 506.23), (-437.04, 217.80, 501.47),
    (-313.60, 237.44, 501.19), (-189.98, 257.42, 501.35), (-66.70, 276.92, 497.82),
    (54.26, 292.97, 524.56), (174.47, 315.54, 512.74), (303.41, 335.64, 512.95),
    (429.76, 351.02, 506.14), (-392.38, 334.24, 502.79), (-268.90, 354.24, 501.54),
    (-145.45, 374.24, 502.09), (-21.97, 393.24, 499.81), (101.04, 412.79, 504.42),
    (224.58, 432.35, 497.06), (338.44, 463.72, 505.72), (-347.88, 451.52, 502.01),
    (-224.09, 470.86, 502.42), (-101.06, 490.22, 501.49), (22.11, 509.50, 504.66),
    (31.25, -72.93, 188.29), (72.37, -66.60, 187.59), (41.60, 35.49, 189.52),
    (106.94, 27.09, 186.66), (113.19, -60.47, 186.32), (57.20, -105.52, 186.02),
    (-9.68, -79.50, 191.01), (-10.97, 6.72, 190.42),
)  # fmt: skip

#: Steps that differ from the regular one by 0.4 m or more: (string, om, metres by which this DOM
#: and all below it hang lower).
_IRREGULAR_STEPS: Final = (
    (1, 60, -3.79), (8, 59, 1.80), (9, 60, 0.62), (40, 60, 0.70), (41, 60, 0.45), (43, 59, 1.80),
    (44, 60, 0.50), (48, 60, 1.50), (55, 57, -0.50), (56, 60, 0.90), (57, 60, 0.40), (60, 60, 0.70),
    (64, 60, 0.40), (70, 60, 1.00), (72, 60, 0.70), (75, 60, 0.40), (77, 60, 0.50), (79, 60, 0.87),
    (82, 60, -0.56), (83, 60, 1.12), (84, 60, -0.52), (85, 60, -0.55),
)  # fmt: skip

#: DOMs that hang higher than their neighbours suggest: (string, oms, metres).
_RAISED: Final = ((21, (48, 50, 56, 58), 2.0), (29, tuple(range(2, 61, 2)), 1.0))


@cache
def _positions() -> NDArray[np.float64]:
    strings = np.asarray(_STRINGS, dtype=np.float64)
    assert strings.shape == (N_STRINGS, 3)
    steps = np.full((N_STRINGS, DOMS_PER_STRING), _MAIN_STEP)
    steps[N_MAIN_STRINGS:, 1:] = _DEEPCORE_STEPS
    steps[:, 0] = 0.0
    for string, om, extra in _IRREGULAR_STEPS:
        steps[string - 1, om - 1] += extra
    xyz = np.repeat(strings[:, None, :], DOMS_PER_STRING, axis=1)
    xyz[:, :, 2] -= np.cumsum(steps, axis=1)
    for string, oms, height in _RAISED:
        xyz[string - 1, np.asarray(oms) - 1, 2] += height
    return xyz.reshape(-1, 3)


def icecube86() -> NDArray[np.float64]:
    """Positions of all DOMs of IceCube-86.

    Returns:
        `(5160, 3)` float64, metres: x, y, z (up; about -513..525), row = sensor_id =
        (string - 1) * 60 + (om - 1) with string 1..86 and om 1 (top) to 60 (bottom). Within 1 m of
        the published position of every DOM (a DOM may stand 0.6 m beside its string's median), and
        within 2 cm of the median one. A fresh array: writing to it changes nothing else.
    """
    return _positions().copy()
