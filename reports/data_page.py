"""A page of plots for `icediag data`."""

import io

import numpy as np

from icediag.records.data import DataRecord, Distribution

#: Distribution -> whether its axis is logarithmic.
_PANELS = {
    "pulses per event": True,
    "DOMs per event": True,
    "pulses per DOM": True,
    "time": False,
    "first pulse": False,
    "last pulse": False,
    "charge": True,
    "azimuth": False,
    "zenith": False,
}


def draw_data(record: DataRecord, kind: str = "png") -> bytes:
    """Draw the distributions of an audit.

    Args:
        record: What the audit saw.
        kind: png, pdf or svg.

    Returns:
        The content of the file.
    """
    # Not pyplot: it would choose a window system, and keep every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{record.name}: {record.events:,} events, {record.pulses:,} pulses")
    panels = figure.subplots(3, 3)
    for axes, (name, logarithmic) in zip(panels.flat, _PANELS.items(), strict=True):
        one = record.distribution(name)
        axes.set_title(name)
        if one is None or not one.counts:
            axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
            continue
        edges, density = _density(one, logarithmic)
        axes.stairs(density, edges, fill=True, alpha=0.6)
        axes.set_xlabel(one.unit)
        if logarithmic:
            axes.set_xscale("log")
        if name not in ("azimuth", "zenith"):
            axes.set_yscale("log")
        for quantile, style in (("0.5", "-"), ("0.99", ":")):
            at = one.quantiles.get(quantile)
            if at is not None and (at > 0 or not logarithmic):
                axes.axvline(at, color="k", linewidth=0.8, linestyle=style)
    figure.supxlabel("solid: median; dotted: 99 %", fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=110)
    return stream.getvalue()


def _density(one: Distribution, logarithmic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Counts by width of the bin, on the axis that is drawn."""
    edges, counts = np.asarray(one.edges), np.asarray(one.counts, dtype=float)
    if logarithmic:
        keep = edges[:-1] > 0
        edges, counts = edges[np.append(keep, True)], counts[keep]
        if not len(counts):
            return np.array([1.0, 2.0]), np.array([0.0])
        return edges, counts / np.maximum(np.diff(np.log10(edges)), 1e-12)
    return edges, counts / np.maximum(np.diff(edges), 1e-12)
