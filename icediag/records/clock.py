"""What the clock saw of training steps: times, memory, loading and file access. Facts only."""

import statistics
from dataclasses import dataclass, field
from typing import Literal

from icediag.place import Location

StageKind = Literal[
    "item", "collate", "transfer", "module", "function", "loss", "backward", "clip", "optimizer"
]


def middle(samples: tuple[float, ...]) -> float:
    """Median; 0 of nothing."""
    return statistics.median(samples) if samples else 0.0


def spread(samples: tuple[float, ...]) -> float:
    """Half the distance between the quartiles; 0 of fewer than two."""
    if len(samples) < 2:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / 2


@dataclass(frozen=True, kw_only=True)
class StageClock:
    """One stage of a step.

    Attributes:
        name: Path of a module, qualified name of a function, or what the step does.
        kind: What it is.
        depth: How many stages it ran inside of.
        calls: How often it ran in a step.
        total_s: Seconds in it, stages inside of it included; one entry a repeat, over all calls.
        self_s: The same without stages inside of it.
        location: Where it is defined.
    """

    name: str
    kind: StageKind
    depth: int
    calls: int
    total_s: tuple[float, ...]
    self_s: tuple[float, ...]
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Memory of tensors at one stage of a step.

    Attributes:
        name: As in `StageClock`.
        depth: As there.
        peak_bytes: Most that was allocated at once while it ran, beyond what was before the step.
        kept_bytes: By how much it left more allocated than it found.
    """

    name: str
    depth: int
    peak_bytes: int
    kept_bytes: int


@dataclass(frozen=True, kw_only=True)
class GrowingPlace:
    """A container of the model that gets longer with every step.

    Attributes:
        stage: Path of the module that holds it, "model" for the whole.
        attribute: Its name there.
        per_step: By how many entries it grows.
        location: Where the module's class is.
    """

    stage: str
    attribute: str
    per_step: int
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class MemoryRecord:
    """Memory of tensors over steps on the same batch, counted by the allocator; no noise.

    Attributes:
        batch_size: Samples in the batch.
        peak_bytes: Most that was allocated at once in a step, beyond what was before it.
        stages: By stage, in the order in which they began.
        left_bytes: After each step, how much more was allocated than before it.
        left_tensors: After each step, how many more tensors were alive than before it.
        left_graphs: Of these, how many carry the graph they come from (`grad_fn`).
        growing: Containers of the model that grew with every step.
    """

    batch_size: int
    peak_bytes: int
    stages: tuple[StageMemory, ...] = ()
    left_bytes: tuple[int, ...] = ()
    left_tensors: tuple[int, ...] = ()
    left_graphs: tuple[int, ...] = ()
    growing: tuple[GrowingPlace, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LoaderClock:
    """Batches from a DataLoader, each followed by a training step on it.

    Attributes:
        workers: Worker processes.
        own: Whether it is the pipeline's own loader, as it is.
        wait_s: Seconds that the step waited for each batch, the first ones left out.
        step_s: Seconds of each step.
    """

    workers: int
    own: bool
    wait_s: tuple[float, ...]
    step_s: tuple[float, ...]

    @property
    def waiting(self) -> float:
        """Share of the time that went into waiting, 0..1."""
        whole = sum(self.wait_s) + sum(self.step_s)
        return sum(self.wait_s) / whole if whole else 0.0


@dataclass(frozen=True, kw_only=True)
class CollateClock:
    """Collate beside joining the same rows, in turn.

    Attributes:
        samples: Samples in the batch.
        rows: Rows of the longest column that was joined.
        bytes_in: Of all tensors of the samples.
        bytes_out: Of all tensors of the batch.
        collate_s: Seconds of each run.
        joined_s: Seconds of `torch.cat` (`torch.stack` where all are of one shape) of the same
            tensors.
        location: Where collate is defined.
    """

    samples: int
    rows: int
    bytes_in: int
    bytes_out: int
    collate_s: tuple[float, ...]
    joined_s: tuple[float, ...]
    location: Location | None = None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Collate by joining, pair by pair."""
        pairs = zip(self.collate_s, self.joined_s, strict=True)
        return tuple(a / b for a, b in pairs if b > 0)


@dataclass(frozen=True, kw_only=True)
class AccessRecord:
    """What reading single samples does, after the first, which may open and cache.

    Attributes:
        samples: Samples read.
        opens: Files opened, each time counted.
        files: Different files among these.
        most_opened: Name of the file that was opened most often, without its folder.
        most_opens: How often.
        read_calls: Read calls of the process; None where the system does not count them.
        read_bytes: What they read, from the page cache or not; memory-mapped files do not count.
        sample_bytes: Bytes of the tensors of these samples.
        decodes: Calls into libraries that read or decode files, or cut tables: name -> how often.
        tables: Objects of such libraries that were made on the way: type -> how many.
        item_s: Seconds of reading each sample.
        copied_s: Seconds of copying its tensors.
        batched: Whether the data set takes many indices at once (`__getitems__`), as a DataLoader
            then does.
        batched_opens: Files opened where it reads the same samples at once.
        batched_tables: Objects of such libraries that were made then, by type.
        location: Where the data set reads a sample.
    """

    samples: int
    opens: int = 0
    files: int = 0
    most_opened: str | None = None
    most_opens: int = 0
    read_calls: int | None = None
    read_bytes: int | None = None
    sample_bytes: int = 0
    decodes: dict[str, int] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)
    item_s: tuple[float, ...] = ()
    copied_s: tuple[float, ...] = ()
    batched: bool = False
    batched_opens: int = 0
    batched_tables: dict[str, int] = field(default_factory=dict)
    location: Location | None = None


@dataclass(frozen=True, kw_only=True)
class ClockRecord:
    """Training steps by the clock.

    Attributes:
        device: Such as `cpu` or `cuda:0`.
        machine: What kind of machine: times of two kinds are not compared.
        timer: What was read: a clock on the host, or events on the device.
        batch_size: Samples in the batch that was timed.
        wanted: Samples asked for; more than `batch_size` where steps of that many take too long.
        stages: In the order in which they began.
        step_s: Seconds of whole steps without marks on stages, from reading samples to the
            optimizer; one entry a repeat.
        processor_s: Processor time of the same steps, of all threads.
        marked_s: Seconds of steps with marks, each next to one without.
        yardstick_s: Seconds of a fixed piece of work, each next to a step: how fast the machine was
            just then.
        yardstick_processor_s: Processor time of that.
        rounds: In how many rounds, with other measurements between them, and how many steps each.
        other_s: Seconds of the marked steps in no stage.
        optimizer: Class of the optimizer; None where the pipeline names none.
        own_step: Whether the pipeline's own `train_step` was run.
        collate: Collate beside joining the same rows.
        loader: Waiting for a DataLoader.
        access: What reading single samples does.
        memory: Memory by stage and from step to step.
        missing: What could not be seen -> why.
    """

    device: str
    machine: str
    timer: Literal["host clock", "CUDA events"]
    batch_size: int
    wanted: int
    stages: tuple[StageClock, ...] = ()
    step_s: tuple[float, ...] = ()
    processor_s: tuple[float, ...] = ()
    marked_s: tuple[float, ...] = ()
    yardstick_s: tuple[float, ...] = ()
    yardstick_processor_s: tuple[float, ...] = ()
    rounds: tuple[int, ...] = ()
    other_s: tuple[float, ...] = ()
    optimizer: str | None = None
    own_step: bool = False
    collate: CollateClock | None = None
    loader: tuple[LoaderClock, ...] = ()
    access: AccessRecord | None = None
    memory: MemoryRecord | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def fetch_s(self) -> float:
        """Seconds of reading samples and collating them, by the fastest repeat of each."""
        kinds = ("item", "collate")
        return sum(
            min(s.total_s) for s in self.stages if s.kind in kinds and s.depth == 0 and s.total_s
        )

    @property
    def crowding(self) -> float:
        """How many times as long the yardstick took as its processor time: what else runs."""
        used = sum(self.yardstick_processor_s)
        return max(1.0, sum(self.yardstick_s) / used) if used > 0 else 1.0

    @property
    def overhead(self) -> float | None:
        """What the marks cost: median ratio of neighbouring steps with and without them."""
        pairs = zip(self.marked_s, self.step_s, strict=False)
        ratios = [marked / bare for marked, bare in pairs if bare > 0]
        return statistics.median(ratios) if ratios else None
