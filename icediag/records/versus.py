"""Parts timed side by side: what each way took, and why some were not run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class VersusRow:
    """One way to do one thing, on one batch.

    Attributes:
        what: What is done: `collate`, `packing` and so on.
        way: Who does it, or how.
        n_events: Events it was done for.
        ms: Median, milliseconds; None where it was not run.
        low_ms: Lower quartile.
        high_ms: Upper quartile.
        times: Median of its time an event over ours, pair by pair in the same round; 1 for ours. Of
            what was not run here, of the medians.
        repeats: Rounds it took part in.
        note: What else there is to say of it, or why it was not run.
    """

    what: str
    way: str
    n_events: int
    ms: float | None = None
    low_ms: float | None = None
    high_ms: float | None = None
    times: float | None = None
    repeats: int = 0
    note: str = ""

    @property
    def events_per_second(self) -> float | None:
        """Events it did in a second, by the median."""
        return 1e3 * self.n_events / self.ms if self.ms else None


@dataclass(frozen=True, kw_only=True)
class VersusRecord:
    """A table of them, from one run.

    Attributes:
        rows: By what is done, then by size; ours first.
        threads: Threads torch used.
        load: Processes that wanted a core in the minute before the run, on average; None where the
            system does not say.
        cores: Cores there are.
        versions: Packages that took part, with their versions.
        processor: Whether times are those of the processor, not of the clock on the wall.
    """

    rows: tuple[VersusRow, ...]
    threads: int
    load: float | None
    cores: int
    versions: tuple[str, ...]
    processor: bool = False
