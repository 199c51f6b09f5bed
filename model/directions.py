"""Directions on the sphere: angles, unit vectors and the angle between two of them.

Azimuth and zenith point to where the neutrino came *from*:
(cos az sin ze, sin az sin ze, cos ze), as in the public competition "IceCube - Neutrinos in Deep
Ice".
"""

# B events

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt, Unit
from jaxtyping import Float
from torch import Tensor

TWO_PI = 2 * math.pi
#: Largest float32 that is not above pi; rounded to the nearest, pi would be 9e-8 above itself.
MAX_ZENITH = 3.1415925


def to_unit_vector(
    azimuth: Annotated[Float[Tensor, "events"], Unit("rad")],
    zenith: Annotated[Float[Tensor, "events"], Unit("rad")],
) -> Float[Tensor, "events 3"]:
    """Unit vectors of `(B,)` angles in radians, any value; gives `(B, 3)`."""
    around = zenith.sin()
    return torch.stack([azimuth.cos() * around, azimuth.sin() * around, zenith.cos()], dim=-1)


def to_angles(
    direction: Float[Tensor, "events 3"],
) -> tuple[
    Annotated[Float[Tensor, "events"], Unit("rad"), Ge(0), Lt(TWO_PI)],
    Annotated[Float[Tensor, "events"], Unit("rad"), Ge(0), Le(math.pi)],
]:
    """Azimuth in [0, 2 pi) and zenith in [0, pi] of `(B, 3)` vectors of any length above 0.

    By atan2, which unlike arccos keeps its precision near the poles. Of a vector along the z axis
    the azimuth is 0.
    """
    x, y, z = direction.unbind(-1)
    # On the axis the slope of hypot is 0 / 0; there the gradient is 0 instead.
    on_axis = (x == 0) & (y == 0)
    around = torch.where(on_axis, 0, torch.hypot(torch.where(on_axis, 1, x), y))
    zenith = torch.atan2(around, z)
    return wrap_azimuth(torch.atan2(y, x)), zenith.clamp(0, MAX_ZENITH)


def wrap_azimuth(azimuth: Float[Tensor, "events"]) -> Float[Tensor, "events"]:
    """The same azimuth in [0, 2 pi), also where rounding would give 2 pi itself."""
    wrapped = torch.remainder(azimuth, TWO_PI)
    return torch.where(wrapped >= TWO_PI, 0, wrapped)


def angle_between(
    first: Float[Tensor, "events 3"], second: Float[Tensor, "events 3"]
) -> Annotated[Float[Tensor, "events"], Unit("rad"), Ge(0), Le(math.pi)]:
    """Angle between unit vectors, radians, with a gradient that is finite everywhere.

    2 atan2(|a - b|, |a + b|): exact to rounding from 0 to pi, where arccos of the scalar product
    loses half the digits and has an infinite slope. W. Kahan, "How Futile are Mindless Assessments
    of Roundoff in Floating-Point Computation?" (2006), section 12.
    """
    apart = torch.linalg.vector_norm(first - second, dim=-1)
    together = torch.linalg.vector_norm(first + second, dim=-1)
    return 2 * torch.atan2(apart, together)
