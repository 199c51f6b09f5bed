"""The learning curve, drawn from the metrics."""

import io
import math
from pathlib import Path
from typing import Any

from icediag.model.losses import UNINFORMED

from .files import atomic_write
from .metrics import read_metrics


def draw_curve(metrics: Path, out: Path) -> None:
    """Draw loss and angular error over the steps of a run, beside what knowing nothing scores.

    Args:
        metrics: JSON lines of `loop.train`; may have no scores yet.
        out: The PNG.

    Raises:
        DataError: `metrics` cannot be read, or `out` cannot be written.
    """
    # Without pyplot: no window, no global state, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_metrics(metrics)
    start = next((line for line in lines if line["kind"] == "start"), {})
    steps = [line for line in lines if line["kind"] == "step"]
    scores = [line for line in lines if line["kind"] in ("validation", "training")]
    held_out = bool(scores) and scores[-1]["kind"] == "validation"
    scored = "held-out events" if held_out else "training events"

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    _line(left, steps, "loss", "training steps", color="tab:blue", linewidth=1)
    if held_out:
        _line(left, scores, "loss", "held-out events", color="tab:orange", marker="o")
    baseline = start.get("baseline_loss")
    if isinstance(baseline, float) and math.isfinite(baseline):
        left.axhline(baseline, color="grey", linestyle="--", label=f"knows nothing: {baseline:.3f}")
    left.set(xlabel="step", ylabel="loss", title="Loss")

    _line(right, scores, "mean", f"mean, {scored}", color="tab:orange", marker="o")
    _line(right, scores, "median", f"median, {scored}", color="tab:green", marker="s")
    right.axhline(UNINFORMED, color="grey", linestyle="--", label="knows nothing: pi/2")
    right.set(xlabel="step", ylabel="angular error (rad)", title="Angular error")
    right.set_ylim(bottom=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")

    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    atomic_write(out, picture.getbuffer())


def _line(axes: Any, lines: list[dict[str, Any]], name: str, label: str, **style: Any) -> None:
    if lines:
        style.setdefault("markersize", 3)
        axes.plot([x["step"] for x in lines], [x[name] for x in lines], label=label, **style)
