"""One event as the data set yields it: the pulses of one readout and where they came from."""

# P pulses

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from annotated_types import Ge, Le, Unit
from jaxtyping import Float
from torch import Tensor

#: Columns of `Event.pulse_features` and `Batch.pulse_features`, in order.
TIME, CHARGE, SENSOR_ID, AUXILIARY = 0, 1, 2, 3

#: Number of DOMs of IceCube-86: 86 strings x 60 DOMs (sensor_id 0..5159).
N_SENSORS = 86 * 60

#: Largest integer up to which float32 holds every integer exactly. Times of the competition end at
#: 84,577 ns and sensor_id at 5,159, so both survive the cast; event_id (up to 2**31) would not, and
#: therefore travels as an integer of its own.
FLOAT32_EXACT = 2**24


@dataclass(frozen=True, kw_only=True, eq=False)
class Event:
    """One event, raw: nothing normalised, nothing dropped.

    Attributes:
        pulse_features: `(n_pulses, 4)` float32, one row per pulse: time in ns (relative to the
            readout, integer-valued), charge in p.e. (>= 0), sensor_id (0..5159), auxiliary (0 or 1;
            1 means not fully digitised, more likely noise). `n_pulses` may be 0.
        event_id: The event's number in the data set.
        target: `(2,)` float32: azimuth in [0, 2 pi] and zenith in [0, pi], radians, of the
            direction the neutrino came from.
    """

    pulse_features: Float[Tensor, "event_pulses 4"]
    event_id: int
    target: Annotated[Float[Tensor, "2"], Unit("rad"), Ge(0), Le(2 * math.pi)]

    def __post_init__(self) -> None:
        if self.pulse_features.ndim != 2 or self.pulse_features.shape[1] != 4:
            raise ValueError(
                f"Event.pulse_features: expected shape (n_pulses, 4), got "
                f"{tuple(self.pulse_features.shape)}"
            )
        if self.target.shape != (2,):
            raise ValueError(
                f"Event.target: expected shape (2,) = azimuth, zenith, got "
                f"{tuple(self.target.shape)}"
            )

    @property
    def n_pulses(self) -> int:
        """Number of pulses, 0 included."""
        return self.pulse_features.shape[0]


class EventDataset(Protocol):
    """What the Parquet data set and the in-memory one have in common.

    Attributes:
        event_ids: `(N,)` the events' numbers.
        lengths: `(N,)` pulses of each event.
        targets: `(N, 2)` azimuth, zenith, radians.
        file_of: `(N,)` which file each event is in, 0..; what is read together.
    """

    event_ids: npt.NDArray[np.int64]
    lengths: npt.NDArray[Any]
    targets: npt.NDArray[np.float32]
    file_of: npt.NDArray[Any]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Event: ...
    def __getitems__(self, indices: list[int], /) -> Sequence[Event]: ...
    def geometry(self) -> Float[Tensor, "sensors 3"]:
        """Positions of the detector's DOMs in metres, row = sensor_id."""
        ...


class FileDataset(EventDataset, Protocol):
    """A data set of events that lie in files, whose columns can be read whole.

    Attributes:
        first: `(N,)` row of each event's first pulse within its file.
    """

    first: npt.NDArray[Any]

    def read_table(self, file: int) -> pa.Table:
        """All pulses of a file, columns time, charge, sensor_id, auxiliary, unchecked."""
        ...
