"""Bench: parts of the built-in training step, each timed in turn with its yardstick.

Part and yardstick take turns within one run, so that a machine that slows down slows both; the
ratio is taken pair by pair. Nothing here passes or fails.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from icediag.icecube import pipeline
from icediag.model.faults.packing_loop import pack_one_by_one
from icediag.model.packing import pack, plan_packing

from .provenance import record_with_origins
from .record import record

Clock = Callable[[], float]


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
        pairs: Number of pairs.
    """

    part: str
    yardstick: str
    part_ms: float
    yardstick_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int


def compare(
    part: str,
    yardstick: str,
    run_part: Callable[[], Any],
    run_yardstick: Callable[[], Any],
    *,
    repeats: int,
    clock: Clock = time.perf_counter,
) -> BenchRow:
    """Time two functions in turn, after one run of each that is not counted.

    Args:
        part: Name of the first.
        yardstick: Name of the second.
        run_part: The first.
        run_yardstick: The second.
        repeats: Pairs of timings.
        clock: Seconds; passed in for tests.
    """
    run_part()
    run_yardstick()
    pairs = []
    for _ in range(repeats):
        start = clock()
        run_part()
        middle = clock()
        run_yardstick()
        pairs.append((middle - start, clock() - middle))
    ratios = [first / second for first, second in pairs]
    low, middle_ratio, high = statistics.quantiles(ratios, n=4)
    return BenchRow(
        part=part,
        yardstick=yardstick,
        part_ms=1e3 * statistics.median(first for first, _ in pairs),
        yardstick_ms=1e3 * statistics.median(second for _, second in pairs),
        ratio=middle_ratio,
        ratio_low=low,
        ratio_high=high,
        pairs=repeats,
    )


def measure(n_events: int, *, repeats: int, seed: int = 0) -> list[BenchRow]:
    """Time collate, packing and recording on one batch of simulated events.

    Args:
        n_events: Events in the batch.
        repeats: Pairs of timings; for the slow ones, a tenth of them, at least 3.
        seed: Of the simulation and the weights.
    """
    built = pipeline(n_events=n_events, batch_size=n_events, seed=seed)
    events = [built.dataset[i] for i in range(n_events)]
    batch = built.collate(events)
    network = built.model
    width = network.config.d_model
    few = max(3, repeats // 10)

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
                repeats=few,
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
                repeats=few,
            )
        )
    return rows
