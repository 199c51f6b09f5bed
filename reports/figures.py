"""Figures for files: the overfit curve, and the flow of the gradient by depth."""

import io
import math

from icediag.records.gradients import GradientsRecord
from icediag.records.overfit import OverfitRecord, Trial

#: Stages that have room on one axis.
MOST_STAGES = 60


def overfit_figure(record: OverfitRecord, title: str) -> bytes:
    """Loss over steps of each trial, beside the baseline and the floor, as PNG."""
    # Without pyplot: no window, no global state, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    attempts = record.attempts
    tried: tuple[Trial, ...] = ()
    if attempts is not None:
        others = (attempts.plain, attempts.blind, attempts.shuffled, attempts.double)
        tried = (*attempts.rates, *(trial for trial in others if trial is not None))
    for trial in (*record.trials, *tried):
        whole = trial.name == "batch"
        axes.plot(
            range(len(trial.losses)),
            trial.losses,
            label=_plain(f"{trial.name}: {trial.verdict}"),
            linewidth=2.2 if whole else 1,
            linestyle="-" if trial in record.trials else ":",
            color="black" if whole else None,
        )
    batch = record.batch
    if batch is not None:
        for name, value in (("baseline", batch.baseline), ("floor", batch.floor)):
            if value is not None and math.isfinite(value):
                axes.axhline(value, color="grey", linestyle="--", linewidth=1)
                axes.annotate(f"{name} {value:.4g}", (0, value), fontsize="small", color="grey")
    axes.set(xlabel="step", ylabel="loss", title=_plain(title))
    axes.grid(alpha=0.3)
    if record.trials:
        axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def gradients_figure(record: GradientsRecord, title: str) -> bytes:
    """Signal and gradient by depth, and the size of a step beside each weight, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    stages = [s for s in record.stages if s.stage != "model"]
    # Where there are too many, those nearest to the root, in the order of the flow.
    nearest = sorted(stages, key=lambda s: s.stage.count("."))[:MOST_STAGES]
    stages = [s for s in stages if s in nearest]
    names = [_plain(s.stage) for s in stages]
    at = range(len(stages))
    left.plot(at, [_positive(s.signal) for s in stages], "o-", label="signal", markersize=3)
    left.plot(at, [_positive(s.gradient) for s in stages], "s-", label="gradient", markersize=3)
    left.set_xticks(list(at), names, rotation=90, fontsize=6)
    left.set(ylabel="root mean square", title=_plain(title))
    matrices = [p for p in record.parameters if p.axes >= 2 and p.ratio]
    right.plot(range(len(matrices)), [_positive(p.ratio) for p in matrices], "o", markersize=4)
    right.axhline(1e-3, color="grey", linestyle="--", linewidth=1, label="1e-3")
    if len(matrices) <= MOST_STAGES:
        labels = [_plain(p.name) for p in matrices]
        right.set_xticks(list(range(len(matrices))), labels, rotation=90, fontsize=6)
    right.set(ylabel="step / weight", title="size of a step beside the weight")
    for axes, some in ((left, bool(stages)), (right, bool(matrices))):
        axes.grid(alpha=0.3)
        if some:
            axes.set_yscale("log")
        axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def _positive(value: float | None) -> float:
    """What a logarithmic axis can show."""
    return value if value is not None and value > 0 and math.isfinite(value) else math.nan


def _plain(text: str) -> str:
    """Text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def _png(figure: object) -> bytes:
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    return picture.getvalue()
