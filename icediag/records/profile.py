"""The table of `icediag profile`: what was measured of a stage beside what is projected. Plain."""

from dataclasses import dataclass, field

from icediag.place import Location, Unjudged
from icediag.records.clock import StageKind
from icediag.records.projection import Bound
from icediag.records.work import LoopKind, Phase


@dataclass(frozen=True, kw_only=True)
class ProfileRow:
    """One stage; stages inside of it are part of its numbers.

    Attributes:
        name: As in the clock.
        kind: As there.
        depth: As there.
        calls: How often it runs in a step.
        median_s: Median over repeats.
        spread_s: Half the distance between their quartiles.
        self_s: Median of the time that no stage inside of it took.
        share: Of the step, 0..1.
        peak_bytes: Most memory while it ran; None where that was not counted.
        kept_bytes: What it left allocated.
        forward_s: Projected time on the way forward; None where nothing was projected.
        backward_s: Projected time of the way back through it.
        bound: What it would wait for there, by its longest part.
        operations: Operations that it dispatches, both ways.
        launches: Kernels that these start.
        syncs: How often the host waits for the device.
        bytes: Read and written.
        padding: Share of these that is padding, 0..1; None where none was recognised.
        location: Where it is defined.
    """

    name: str
    kind: StageKind
    depth: int
    calls: int
    median_s: float
    spread_s: float
    self_s: float
    share: float
    peak_bytes: int | None = None
    kept_bytes: int | None = None
    forward_s: float | None = None
    backward_s: float | None = None
    bound: Bound | None = None
    operations: float | None = None
    launches: float | None = None
    syncs: float | None = None
    bytes: float | None = None
    padding: float | None = None
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class LoopRow:
    """A loop of the user's own that takes more rounds in a larger batch, or a line like one.

    Attributes:
        location: Its first line.
        phase: Part of the step.
        stage: Innermost stage in which it stands.
        kind: What repeats; None of a line whose operations follow the batch, in no loop of the
            user's own.
        axis: What the rounds follow.
        order: 1 where they grow as the batch, 2 where as its square.
        rounds: In the batch; of a line alone its operations.
        operations: Operations in it a step, both ways; None in parts that run on the host whatever
            the device.
        syncs: Syncs in it a step.
        forward_s: Projected: the longer of the host's and the device's time on the way forward.
        backward_s: The same on the way back.
        inside: The growing loop around it, if any.
        text: Source of its first line.
    """

    location: Location
    phase: Phase
    stage: str
    kind: LoopKind | None
    axis: str
    order: int
    rounds: float
    operations: float | None = None
    syncs: float | None = None
    forward_s: float | None = None
    backward_s: float | None = None
    inside: Location | None = None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class LoaderRow:
    """A DataLoader with a training step after each batch.

    Attributes:
        workers: Worker processes.
        own: Whether it is the pipeline's own, as it is.
        wait_s: Median of waiting for a batch.
        wait_spread_s: Half the distance between the quartiles of that.
        step_s: Median of a step.
        waiting: Share of the time that went into waiting, 0..1.
        batches: Batches that were timed.
    """

    workers: int
    own: bool
    wait_s: float
    wait_spread_s: float
    step_s: float
    waiting: float
    batches: int


@dataclass(frozen=True, kw_only=True)
class Projected:
    """The step on the device that is not at hand.

    Attributes:
        title: What the device is called.
        source: Where its constants are from.
        constants: As in `ProjectionRecord`.
        rates: Floating point operations a second, by dtype.
        step_s: The whole step, without reading samples and collating them.
        samples_per_s: Samples in a second of such steps.
        busy: Share of it in which the device works, 0..1.
        lost_launches: Share that would go if issuing an operation took no time.
        lost_python: The same if your own lines took none beside the operations they call.
        lost_syncs: The same if the host never waited.
        lost_padding: The same if nothing were padded; None where no padding was recognised.
        loops: Share of operations whose number follows the batch.
        counted_at: Samples of the batches that were counted.
        extrapolated: Whether counts were extended from smaller batches.
        unfitted: Share of operations that were extended as the samples grow, for lack of a law.
        fetch_s: Reading and collating as many samples, on this machine, in one process.
        workers: Worker processes that would keep up with the projected step: fetch by step.
    """

    title: str
    source: str
    constants: dict[str, float]
    rates: dict[str, float]
    step_s: float
    samples_per_s: float
    busy: float
    lost_launches: float
    lost_syncs: float
    lost_padding: float | None
    loops: float
    counted_at: tuple[int, ...]
    extrapolated: bool
    unfitted: float
    fetch_s: float | None = None
    workers: float | None = None
    lost_python: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All that the table and its surroundings show.

    Attributes:
        pipeline: Its name.
        batch_size: Samples of the batch that counts and the projection are of.
        timed: Samples of the batch that was timed; fewer where a step of all takes too long.
        device: Where it was timed.
        machine: What kind of machine.
        timer: What was read.
        repeats: Steps that were timed, with marks and without.
        step_s: Median of steps without marks; None where none was timed.
        step_spread_s: Half the distance between their quartiles.
        overhead: What the marks cost: ratio of steps with and without; None where not known.
        other_s: Median of what was in no stage.
        rows: By stage.
        peak_bytes: Most memory of tensors in a step; None where that was not counted.
        left_bytes: What steps on the same batch left behind, after each.
        projected: On the device that is not at hand; None where nothing could be counted.
        loops: Costliest first.
        loader: Waiting for DataLoaders.
        missing: What could not be seen, and why.
    """

    pipeline: str
    batch_size: int
    timed: int = 0
    device: str = ""
    machine: str = ""
    timer: str = ""
    repeats: int = 0
    step_s: float | None = None
    step_spread_s: float = 0.0
    overhead: float | None = None
    other_s: float = 0.0
    rows: tuple[ProfileRow, ...] = ()
    peak_bytes: int | None = None
    left_bytes: tuple[int, ...] = ()
    projected: Projected | None = None
    loops: tuple[LoopRow, ...] = ()
    loader: tuple[LoaderRow, ...] = ()
    missing: tuple[Unjudged, ...] = field(default=())
