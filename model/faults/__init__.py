"""Faults of the case, as switches: each replaces one part by a wrong one and leaves the rest.

They exist to be diagnosed. The right parts are in the files above this folder and know nothing of
these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from icediag.model.event import EventDataset, FileDataset
from icediag.model.network import Parts

from .normalized_charge_weights import normalized_charge_weights
from .normalized_relative import normalized_relative
from .packing_loop import packing_loop
from .per_event_slicing import PerEventSlicing
from .rank_loop import rank_loop
from .unbounded_output import unbounded_output


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A switch.

    Attributes:
        name: As given on the command line.
        title: What is wrong, in half a line.
        parts: Replaces parts of the network.
        dataset: Replaces the data set.
    """

    name: str
    title: str
    parts: Callable[[Parts], Parts] | None = None
    dataset: Callable[[FileDataset], EventDataset] | None = None


FAULTS: tuple[Fault, ...] = (
    Fault(
        name="normalized-relative",
        title="the relative encoder gets normalised times and log-charges",
        parts=normalized_relative,
    ),
    Fault(
        name="normalized-charge-weights",
        title="pooling is weighted by log-charges, which are negative",
        parts=normalized_charge_weights,
    ),
    Fault(
        name="packing-loop",
        title="DOMs are packed one by one, with two reads from the device each",
        parts=packing_loop,
    ),
    Fault(
        name="rank-loop",
        title="ranks are computed DOM by DOM, each with a mask over all pulses",
        parts=rank_loop,
    ),
    Fault(
        name="unbounded-output",
        title="azimuth and zenith come from a bare linear layer",
        parts=unbounded_output,
    ),
    Fault(
        name="per-event-slicing",
        title="each event is cut out of an Arrow table and converted by itself",
        dataset=PerEventSlicing,
    ),
)

#: What the case's own report names. Its author did not know of a loop over ranks.
CASE: tuple[str, ...] = (
    "normalized-relative",
    "normalized-charge-weights",
    "packing-loop",
    "unbounded-output",
    "per-event-slicing",
)


def chosen_faults(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults that are named, each once, in the order of the table; `case` stands for `CASE`.

    Raises:
        ValueError: A name that is not in the table.
    """
    known = {fault.name for fault in FAULTS}
    wanted: set[str] = set()
    for name in names:
        if name != "case" and name not in known:
            raise ValueError(f"fault: expected case, {', '.join(sorted(known))}; got {name!r}")
        wanted.update(CASE if name == "case" else (name,))
    return tuple(fault for fault in FAULTS if fault.name in wanted)
