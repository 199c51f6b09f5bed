"""What a training step would take on a device that is not at hand: projected, never measured."""

from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Location
from icediag.records.work import Phase

#: What a stage waits for: the host that issues it, the memory of the device, or its arithmetic.
Bound = Literal["host", "bandwidth", "compute"]


@dataclass(frozen=True, kw_only=True)
class StageProjection:
    """One stage in one phase of a step.

    Attributes:
        phase: Part of the step.
        stage: As in the counts.
        time_s: By how much it moves the end of the step.
        host_s: What the host takes to issue it, syncs included.
        device_s: What the device takes to do it.
        bound: What it waits for.
        operations: Operations that are dispatched.
        syncs: How often the host waits for the device.
        loop_s: Of the host's and the device's time together, that of operations whose number
            follows the batch.
        launches: Kernels that are started.
        bytes: Read and written.
        padding_bytes: Of these, what is padding, where that was recognised.
    """

    phase: Phase
    stage: str
    time_s: float
    host_s: float
    device_s: float
    bound: Bound
    operations: float
    syncs: float
    loop_s: float = 0.0
    launches: float = 0.0
    bytes: float = 0.0
    padding_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LineProjection:
    """One line of the user's whose operations follow the batch.

    Attributes:
        location: Where.
        stage: In which stage.
        axis: What the number of operations follows.
        order: 1 where it grows as the batch, 2 where as its square.
        operations: Operations a step, on the way forward and back.
        syncs: Syncs a step.
        forward_s: The longer of the host's and the device's time on the way forward.
        backward_s: The same on the way back.
    """

    location: Location
    stage: str
    axis: str
    order: int
    operations: float
    syncs: float
    forward_s: float
    backward_s: float


@dataclass(frozen=True, kw_only=True)
class ProjectionRecord:
    """A training step on another device, from its counted operations, by two clocks.

    Reading samples, collating and the copy to the device are not part of it.

    Attributes:
        device: Its name.
        title: What it is called.
        source: Where its constants are from.
        constants: The constants: bytes a second, seconds a kernel, a launch, a sync.
        batch_size: Samples in the batch.
        counted_at: Samples of the batches that were counted.
        extrapolated: Whether the counts of this batch were extended from those.
        stages: In the order of the step.
        lines: Lines whose operations follow the batch, costliest first.
        step_s: The whole step.
        device_busy_s: Of it, what the device works.
        lost_launches_s: What it would be shorter by if issuing an operation took no time.
        lost_python_s: The same if lines of the user's own took none beside what they call.
        lost_syncs_s: The same if the host never waited.
        lost_padding_s: The same if nothing were padded; None where no padding was recognised.
        loops_s: The same without operations whose number follows the batch.
        unfitted: Share of the operations of the largest counted batch whose growth follows nothing
            that is known; they are taken to grow as the samples do.
    """

    device: str
    title: str
    source: str
    constants: dict[str, float]
    batch_size: int
    counted_at: tuple[int, ...] = ()
    extrapolated: bool = False
    stages: tuple[StageProjection, ...] = ()
    lines: tuple[LineProjection, ...] = ()
    step_s: float = 0.0
    device_busy_s: float = 0.0
    lost_launches_s: float = 0.0
    lost_python_s: float = 0.0
    lost_syncs_s: float = 0.0
    lost_padding_s: float | None = None
    loops_s: float = 0.0
    unfitted: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
