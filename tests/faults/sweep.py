"""The sweep: the built-in pipeline as it should be, in every make, raises no error and no warning.

`python -m tests.faults.sweep` builds the default model, its three heads, six sizes and both
backends, each with 20 seeds, runs the checks of learning and gradients, and prints a table.
`--seeds 2 --only heads` for less.
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table

from icediag.checks import CHECKS, judge
from icediag.icecube import pipeline
from icediag.instruments.gradient_flow.run import record_gradients
from icediag.instruments.overfit.run import record_overfit
from icediag.model.network import NetworkConfig
from icediag.model.scatter import resolve_backend
from icediag.recording import Recording

#: Width, heads and layers: the third is the default.
SIZES = ((16, 2, 1), (64, 4, 2), (128, 4, 4), (128, 8, 6), (192, 6, 4), (256, 8, 4))
EVENTS = 16


@dataclass
class Row:
    """One make over all seeds.

    Attributes:
        name: Of the make.
        seeds: How many came through.
        verdicts: Of the overfit test.
        alarms: Errors and warnings by name.
        unjudged: Checks that could not judge.
        seconds: Processor time.
        left_out: Why it was not tried; empty where it was.
    """

    name: str
    seeds: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    unjudged: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    left_out: str = ""


def makes() -> Iterator[tuple[str, str, NetworkConfig]]:
    """(group, name, configuration)."""
    yield "default", "default", NetworkConfig()
    yield "heads", "head bounded_angles", NetworkConfig(head="bounded_angles")
    yield "heads", "head angles", NetworkConfig(head="angles")
    for d, heads, layers in SIZES:
        if (d, heads, layers) != (128, 4, 4):
            config = NetworkConfig(d_model=d, n_heads=heads, n_layers=layers)
            yield "sizes", f"width {d}, {heads} heads, {layers} layers", config
    yield "backends", "backend native", NetworkConfig(backend="native")
    yield "backends", "backend torch-scatter", NetworkConfig(backend="torch-scatter")


def one(config: NetworkConfig, seed: int, row: Row) -> None:
    """Build, train and judge."""
    began = time.process_time()
    made = pipeline(n_events=EVENTS, batch_size=EVENTS, seed=seed, config=config)
    recording = Recording(
        pipeline=made.name,
        batch_size=EVENTS,
        overfit=record_overfit(made, seed=seed),
        gradients=record_gradients(made, seed=seed),
    )
    diagnosis = judge(recording, [check for check in CHECKS if check.CODE[0] in "LG"])
    row.seeds += 1
    batch = recording.overfit.batch if recording.overfit is not None else None
    row.verdicts[batch.verdict if batch is not None else "none"] += 1
    row.alarms.update(f"{f.severity} {f.name}" for f in diagnosis.at_least("warning"))
    row.unjudged.update(item.name for item in diagnosis.not_judged)
    row.seconds += time.process_time() - began


def render(rows: list[Row]) -> Table:
    """A row a make."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for title in ("make", "seeds", "verdicts", "errors and warnings", "not judged", "s processor"):
        table.add_column(title, overflow="fold")
    for row in rows:
        counts = [_counts(of) for of in (row.verdicts, row.alarms, row.unjudged)]
        if row.left_out:
            counts = ["left out", "", ""]
        table.add_row(row.name, str(row.seeds), *counts, f"{row.seconds:.0f}")
    return table


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counter.most_common()) or "none"


def main() -> int:
    """Run seed by seed, a line for each; then the table, also of what Ctrl-C left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", action="append", help="default, heads, sizes, backends")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    console = Console()
    chosen = [one for one in makes() if not options.only or one[0] in options.only]
    rows = {name: Row(name) for _, name, _ in chosen}
    try:
        for seed in range(options.seeds):
            for _, name, config in chosen:
                _one_more(config, seed, rows[name])
            sys.stderr.write(f"{seed + 1} seeds: {_summary(rows.values())}\n")
    except KeyboardInterrupt:
        console.print("interrupted: what was done until then")
    console.print(render(list(rows.values())))
    console.print(_summary(rows.values()))
    done = [row for row in rows.values() if not row.left_out]
    clean = all(row.verdicts["learns"] == row.seeds and not row.alarms for row in done)
    return 0 if done and clean else 1


def _one_more(config: NetworkConfig, seed: int, row: Row) -> None:
    """Another seed, where the make can be built."""
    if row.left_out:
        return
    try:
        resolve_backend(config.backend)
        one(config, seed, row)
    except (ImportError, ValueError) as error:
        row.left_out = str(error)
        sys.stderr.write(f"{row.name}: left out: {error}\n")


def _summary(rows: Iterable[Row]) -> str:
    held = list(rows)
    done = sum(row.seeds for row in held)
    alarms = sum(sum(row.alarms.values()) for row in held)
    learnt = sum(row.verdicts["learns"] for row in held)
    return f"{done} builds, {learnt} learn a batch by heart, {alarms} errors and warnings"


if __name__ == "__main__":
    sys.exit(main())
