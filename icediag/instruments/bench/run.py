"""Bench: parts of the built-in training step, each timed in turn with its yardstick.

Part and yardstick take turns within one run, each of them first in every other pair, so that a
machine that slows down slows both. Ratios are taken pair by pair, by the clock on the wall and by
the processor's, which other programs disturb less. Nothing here passes or fails.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from icediag.icecube import pipeline
from icediag.instruments.provenance.run import record_with_origins
from icediag.instruments.recorder.record import record
from icediag.model.faults.packing_loop import pack_one_by_one
from icediag.model.packing import pack, plan_packing

Clock = Callable[[], float]

#: Seconds after which slow parts are not timed again, and pairs that they are timed at least.
SECONDS, FEWEST = 60.0, 5


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One comparison.

    Attributes:
        part: What is timed.
        yardstick: What it is compared to.
        part_ms: Median of the part, milliseconds.
        yardstick_ms: Median of the yardstick, milliseconds.
        ratio: Median of the ratios part / yardstick, pair by pair.
        ratio_low: Their lower quartile.
        ratio_high: Their upper quartile.
        processor_ratio: Median of the ratios in processor time, of all threads together.
        pairs: Number of pairs.
    """

    part: str
    yardstick: str
    part_ms: float
    yardstick_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    processor_ratio: float
    pairs: int


def compare(
    part: str,
    yardstick: str,
    run_part: Callable[[], Any],
    run_yardstick: Callable[[], Any],
    *,
    repeats: int,
    rounds: int = 1,
    seconds: float = SECONDS,
    clock: Clock = time.perf_counter,
    processor: Clock = time.process_time,
) -> BenchRow:
    """Time two functions in turn, after one run of each that is not counted.

    Args:
        part: Name of the first.
        yardstick: Name of the second.
        run_part: The first.
        run_yardstick: The second.
        repeats: Pairs of timings, at most.
        rounds: How often each runs in a pair, in turn: what happens to a machine for a second
            happens to both.
        seconds: After so many there are no more pairs than `FEWEST`.
        clock: Seconds; passed in for tests.
        processor: Seconds of work, on all threads; passed in for tests.
    """
    runs = (run_part, run_yardstick)
    for run in runs:
        run()
    # (seconds, seconds of work) of part and yardstick, pair by pair
    pairs: list[list[tuple[float, float]]] = []
    began = clock()
    while len(pairs) < repeats and (len(pairs) < FEWEST or clock() - began < seconds):
        pair = [(0.0, 0.0), (0.0, 0.0)]
        for taken in range(rounds):
            for i in (0, 1) if (len(pairs) + taken) % 2 == 0 else (1, 0):
                start, worked = clock(), processor()
                runs[i]()
                passed, done = clock() - start, processor() - worked
                pair[i] = (pair[i][0] + passed, pair[i][1] + done)
        pairs.append(pair)
    # A clock that ticks slowly may show nothing at all.
    tick = 1e-9
    ratios = [[(part[i] + tick) / (stick[i] + tick) for part, stick in pairs] for i in (0, 1)]
    low, middle, high = statistics.quantiles(ratios[0], n=4)
    return BenchRow(
        part=part,
        yardstick=yardstick,
        part_ms=1e3 * statistics.median(part[0] for part, _ in pairs),
        yardstick_ms=1e3 * statistics.median(stick[0] for _, stick in pairs),
        ratio=middle,
        ratio_low=low,
        ratio_high=high,
        processor_ratio=statistics.median(ratios[1]),
        pairs=len(pairs),
    )


def measure(n_events: int, *, repeats: int, seed: int = 0) -> list[BenchRow]:
    """Time collate, packing and recording on one batch of simulated events.

    Args:
        n_events: Events in the batch.
        repeats: Pairs of timings, at least 2; of slow parts fewer, see `compare`.
        seed: Of the simulation and the weights.
    """
    built = pipeline(n_events=n_events, batch_size=n_events, seed=seed)
    events = [built.dataset[i] for i in range(n_events)]
    batch = built.collate(events)
    network = built.model
    width = network.config.d_model

    def rows_and_index() -> None:
        torch.cat([event.pulse_features for event in events])
        lengths = torch.tensor([event.n_pulses for event in events])
        torch.repeat_interleave(torch.arange(n_events), lengths)

    doms = torch.randn(batch.num_doms, width)
    cls = torch.randn(width)
    rectangle = plan_packing(batch.event_dom_counts, ratio=np.inf)

    def step(model: Any = network) -> None:
        built.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
        model.zero_grad()

    def whole_step() -> None:
        built.collate([built.dataset[i] for i in range(n_events)])
        step()

    rows = [
        compare(
            "collate",
            "torch.cat of the same rows and an event index",
            lambda: built.collate(events),
            rows_and_index,
            repeats=repeats,
        )
    ]
    for name, plan in (("in buckets", batch.packing), ("in one rectangle", rectangle)):
        with torch.no_grad():
            rows.append(
                compare(
                    f"packing {name} ({plan.n_slots:,} slots)",
                    "torch.zeros of its own output",
                    lambda plan=plan: pack(doms, cls, plan),  # type: ignore[misc]
                    lambda plan=plan: torch.zeros(plan.n_slots, width),  # type: ignore[misc]
                    repeats=repeats,
                )
            )
    with torch.no_grad():
        rows.append(
            compare(
                "the case's packing loop",
                "packing in one rectangle",
                lambda: pack_one_by_one(doms, cls, batch),
                lambda: pack(doms, cls, rectangle),
                repeats=repeats,
            )
        )
    recordings: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("shapes alone", lambda: record(built, values=False)),
        ("shapes and values", lambda: record(built)),
        ("everything: also raw columns", lambda: record_with_origins(built)),
    )
    for name, recorded in recordings:
        rows.append(
            compare(
                f"recording {name}",
                "forward and backward, unrecorded",
                recorded,
                whole_step,
                repeats=repeats,
            )
        )
    return rows
