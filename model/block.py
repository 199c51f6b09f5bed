"""A block of events: what a data set reads for one batch, flat, before it is collated."""

# P pulses, B events

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from .event import Event


@dataclass(frozen=True, kw_only=True, eq=False)
class EventBlock(Sequence[Event]):
    """Some events, flat: a sequence of `Event` that makes each only when it is asked for.

    A batch of 256 events needs five arrays, not 256 objects: making those would take longer than
    reading and collating the pulses.

    Attributes:
        pulse_features: `(P, 4)` as in `Event`, event by event.
        lengths: `(B,)` int64, pulses of each event.
        event_ids: `(B,)` int64.
        targets: `(B, 2)` as in `Event`.
        dom_ranks: `(P,)` int16 from `grouping.dom_ranks`, where the data set keeps them.
    """

    pulse_features: Float[Tensor, "pulses 4"]
    lengths: npt.NDArray[np.int64]
    event_ids: npt.NDArray[np.int64]
    targets: Float[Tensor, "events 2"]
    dom_ranks: npt.NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        n_pulses, n_events = int(self.lengths.sum()), self.lengths.size
        expected = {
            "pulse_features": (n_pulses, 4),
            "event_ids": (n_events,),
            "targets": (n_events, 2),
            "dom_ranks": (n_pulses,),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and tuple(array.shape) != shape:
                raise ValueError(
                    f"EventBlock.{name}: expected shape {shape}, got {tuple(array.shape)}"
                )

    @classmethod
    def of(cls, events: Sequence[Event]) -> "EventBlock":
        """The block of some events, at least one; the block itself if it is one."""
        if isinstance(events, EventBlock):
            return events
        return cls(
            pulse_features=torch.cat([event.pulse_features for event in events]),
            lengths=np.array([event.pulse_features.shape[0] for event in events]),
            event_ids=np.array([event.event_id for event in events], np.int64),
            targets=torch.cat([event.target for event in events]).view(len(events), 2),
        )

    def __len__(self) -> int:
        return self.lengths.size

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        """An event, or some, as views of the block's pulses.

        Raises:
            IndexError: No such event.
        """
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            return [self[i] for i in chosen]
        stop = int(self.lengths[: chosen + 1].sum())
        return self._event(chosen, stop - int(self.lengths[chosen]), stop)

    def __iter__(self) -> Iterator[Event]:
        stop = 0
        for i, length in enumerate(self.lengths.tolist()):
            stop += length
            yield self._event(i, stop - length, stop)

    def _event(self, i: int, start: int, stop: int) -> Event:
        return Event(
            pulse_features=self.pulse_features[start:stop],
            event_id=int(self.event_ids[i]),
            target=self.targets[i],
        )
