"""Where values that are not finite are born: operation, line, and what went in. Plain data."""

from dataclasses import dataclass
from typing import Literal

from icediag.place import Location


@dataclass(frozen=True, kw_only=True)
class BirthInput:
    """One tensor, or number, that went into an operation.

    Attributes:
        name: What the operation calls it.
        shape: Sizes.
        dtype: Such as `float32`.
        minimum: Smallest finite value; None where there is none.
        maximum: Largest finite value.
        at: The value at the first place where the result is not finite; None where the two cannot
            be held side by side.
    """

    name: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    minimum: float | None = None
    maximum: float | None = None
    at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Birth:
    """An operation that gave NaN or infinities from values that were finite.

    Attributes:
        phase: Forward (data, model, loss) or backward.
        stage: Stage of the flow; on the way back, that whose line made the autograd node.
        op: Such as `log`.
        node: On the way back, name of the autograd node.
        location: The user's line.
        nans: How many values are NaN.
        positive_infs: How many are +inf.
        negative_infs: How many are -inf.
        values: Of how many.
        index: Place of the first of them.
        constant: Whether an infinity was among its arguments as a number, as where scores are
            masked with -inf.
        from_infinite: Whether infinities went in, as into inf - inf, which is NaN.
        inputs: What went in.
        times: How often this line did so.
    """

    phase: Literal["forward", "backward"]
    stage: str
    op: str
    node: str | None = None
    location: Location | None = None
    nans: int = 0
    positive_infs: int = 0
    negative_infs: int = 0
    values: int = 0
    index: tuple[int, ...] = ()
    constant: bool = False
    from_infinite: bool = False
    inputs: tuple[BirthInput, ...] = ()
    times: int = 1


@dataclass(frozen=True, kw_only=True)
class BirthsRecord:
    """All of them, in the order in which they happened; empty where none was met again."""

    births: tuple[Birth, ...] = ()
