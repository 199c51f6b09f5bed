"""Write the reference's learning curve anew, from the first epoch of a run of `icediag train`.

`python -m tools.reference_curve RUN "icediag train ..."`: in the first epoch each batch is of
events that were never trained on, so the losses of its steps are those of held-out events.
"""

import json
import math
import sys
from pathlib import Path

from icediag.reference import FILE

#: Points lie apart by so much at least.
RATIO = 1.5
HEAD = """\
# How the built-in network gets better with the events it has seen. Written by
# `python -m tools.reference_curve RUN COMMAND`, from the first epoch of that run: each loss is the
# mean over batches of events that had not been trained on.
"""


def points_of(run: Path) -> tuple[float, list[tuple[int, float]]]:
    """The baseline, and (events seen, mean loss of the next ones), events growing by `RATIO`."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    start = next(line for line in lines if line["kind"] == "start")
    batch = json.loads((run / "run.json").read_text())["batch_size"]
    steps = [line for line in lines if line["kind"] == "step" and line["epoch"] == 1]
    points: list[tuple[int, float]] = []
    before, gathered = 0, list[float]()
    for line in steps:
        gathered.append(line["loss"])
        seen = line["step"] * batch
        if seen >= RATIO * before or line is steps[-1]:
            points.append(((before + seen) // 2, math.fsum(gathered) / len(gathered)))
            before, gathered = seen, []
    return start["baseline_loss"], points


def main() -> int:
    """Write the file."""
    run, command = Path(sys.argv[1]), sys.argv[2]
    baseline, points = points_of(run)
    rows = "\n".join(f"    [{seen}, {loss:.4f}]," for seen, loss in points)
    FILE.write_text(
        f'{HEAD}command = "{command}"\nbaseline = {baseline:.6f}\n'
        f"# events seen, mean angle between prediction and truth in rad\npoints = [\n{rows}\n]\n",
        encoding="utf-8",
    )
    sys.stdout.write(f"{FILE.name}: {len(points)} points\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
