"""The sections of the HTML report below the findings: each from facts to plain rows of a template.

A section whose facts were not recorded is absent.
"""

import math
from collections.abc import Callable

from markupsafe import Markup

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.histograms import Histogram

from . import charts
from .html_learning import gradients, learning
from .html_part import Part
from .html_time import time
from .numbers import counted, number, share


def histograms_of(recording: Recording) -> dict[tuple[str, str, str, int | None], Markup]:
    """(stage, role, path, column) -> its histogram."""
    if recording.histograms is None:
        return {}
    return {
        (one.stage, one.role, one.path, one.column): _drawn(one)
        for one in reversed(recording.histograms.histograms)
    }


def _drawn(one: Histogram) -> Markup:
    label = f"{sum(one.counts):,} values from {number(one.low)} to {number(one.high)}"
    for count, where in ((one.below, "below"), (one.above, "above")):
        if count:
            label += f", {count:,} of them {where} that"
    inside = one.low < 0 < one.high
    return charts.histogram(
        one.counts, label, mark=-one.low / (one.high - one.low) if inside else None
    )


def features(recording: Recording, _: Diagnosis) -> Part | None:
    """Each raw column, and what it was made into on the way."""
    if recording.histograms is None:
        return None
    known: dict[tuple[str, str, str, int | None], Histogram] = {
        (h.stage, h.role, h.path, h.column): h for h in recording.histograms.histograms
    }
    rows: list[tuple[str, list[tuple[str, str, Histogram, Markup]]]] = []
    told: dict[str, list[tuple[str, str, Histogram, Markup]]] = {}
    seen: set[tuple[str, str]] = set()
    if recording.provenance is not None:
        for origin in recording.provenance.origins:
            if origin.origin is None or origin.origin.rows is not None:
                continue
            one = known.get((origin.stage, origin.role, origin.path, origin.column))
            if one is None or (origin.origin.column, origin.origin.formula) in seen:
                continue
            seen.add((origin.origin.column, origin.origin.formula))
            told.setdefault(origin.origin.column, []).append(
                (origin.origin.formula, f"{origin.stage}: {_path(one)}", one, _drawn(one))
            )
        rows = list(told.items())
    names = {
        (tensor.path, i): name
        for stage in recording.stages
        if stage.kind == "collate"
        for tensor in stage.tensors
        for i, name in enumerate(tensor.column_names)
    }
    others = [
        (
            names.get((one.path, one.column or 0)) or _path(one),
            f"collate: {_path(one)}",
            one,
            _drawn(one),
        )
        for one in recording.histograms.histograms
        if one.stage == "collate" and names.get((one.path, one.column or 0)) not in told
    ]
    if others:
        rows.append(("in the batch", others[:MOST_CARDS]))
    if not rows:
        return None
    return Part(
        id="features",
        title="Features, raw and as they are used",
        short="Features",
        template="part_features.html",
        values={"rows": rows},
    )


#: Histograms of columns of the batch that are shown.
MOST_CARDS = 24


def _path(one: Histogram) -> str:
    name = one.path or "output"
    return name if one.column is None else f"{name}[{one.column}]"


def glance(recording: Recording) -> list[tuple[str, str, str]]:
    """(what, value, remark) for the head of the report: the few numbers that everybody wants."""
    cards: list[tuple[str, str, str]] = []
    if recording.loss is not None:
        remark = "loss of this batch, before training"
        if recording.baseline_loss is not None:
            remark = f"knowing nothing gives {number(recording.baseline_loss)}"
        cards.append(("loss", number(recording.loss), remark))
    if recording.axes:
        rows = [f"{size:,} {name}" for name, size in list(recording.axes.items())[:3]]
        cards.append(("one batch", counted(recording.batch_size, "sample"), " · ".join(rows)))
    if recording.padding:
        worst = max(recording.padding, key=lambda record: record.padding_share)
        cards.append(
            (
                "padding",
                share(worst.slots - worst.used, worst.slots),
                f"of {worst.slots:,} slots hold nothing ({worst.stage})",
            )
        )
    if recording.bounds is not None and recording.bounds.outputs:
        outputs = recording.bounds.outputs
        proved = sum(output.proved for output in outputs)
        cards.append(
            (
                "outputs",
                f"{proved} of {len(outputs)}",
                "proved to stay in their domain for any input",
            )
        )
    return cards


def lengths(recording: Recording, _: Diagnosis) -> Part | None:
    """Lengths along ragged axes, and padding."""
    if not recording.ragged and not recording.padding:
        return None
    rows = []
    for axis in recording.ragged:
        most = math.log1p(max(1.0, axis.quantiles.get("1", 1.0)))
        cells = [
            (label, number(_whole(value)), math.log1p(max(0.0, value)) / most)
            for key, label in QUANTILES
            if (value := axis.quantiles.get(key)) is not None
        ]
        rows.append((axis.title, cells, number(axis.mean)))
    padding = [
        (
            record,
            charts.stacked(
                [
                    (f"used: {record.holds}", 1 - record.padding_share, "used"),
                    ("padding", record.padding_share, "padding"),
                ],
                f"{record.used:,} of {record.slots:,} slots are used",
            ),
            share(record.slots - record.used, record.slots),
        )
        for record in recording.padding
    ]
    return Part(
        id="lengths",
        title="Lengths and padding",
        short="Padding",
        template="part_lengths.html",
        values={
            "rows": [
                (
                    title,
                    [
                        (label, value, charts.bar(part, f"{label} {value}"))
                        for label, value, part in cells
                    ],
                    mean,
                )
                for title, cells, mean in rows
            ],
            "padding": padding,
        },
    )


QUANTILES = (
    ("0", "min"),
    ("0.5", "P50"),
    ("0.75", "P75"),
    ("0.9", "P90"),
    ("0.99", "P99"),
    ("1", "max"),
)


def _whole(value: float) -> float | int:
    return int(value) if value == int(value) else value


def outputs(recording: Recording, _: Diagnosis) -> Part | None:
    """Domains of the outputs, what was reached, and what was proved."""
    if recording.bounds is None or not recording.bounds.outputs:
        return None
    rows = []
    for output in recording.bounds.outputs:
        seen = (output.attained_low, output.attained_high)
        ends = [output.domain_low, output.domain_high]
        ends += [end for end in (*seen, output.low, output.high) if end is not None]
        ends = [end for end in ends if math.isfinite(end)]
        span = output.domain_high - output.domain_low
        low = max(min(ends), output.domain_low - 3 * span) if ends else 0.0
        high = min(max(ends), output.domain_high + 3 * span) if ends else 1.0
        marks = [(output.domain_low, output.domain_high, "domain")]
        marks.append((output.low, output.high, "proved" if output.proved else "unproved"))
        if seen[0] is not None and seen[1] is not None:
            marks.append((seen[0], seen[1], "attained"))
        label = (
            f"{output.column}: domain {number(output.domain_low)} to {number(output.domain_high)}, "
            f"bounds {number(output.low)} to {number(output.high)}"
        )
        rows.append((output, charts.interval(low, high, marks, label)))
    return Part(
        id="outputs",
        title="Bounds of the outputs",
        short="Bounds",
        template="part_outputs.html",
        values={"rows": rows},
    )


def origins(recording: Recording, _: Diagnosis) -> Part | None:
    """Which raw column reached which stage, and by what map."""
    if recording.provenance is None:
        return None
    inner = {stage.name for stage in recording.stages if stage.depth > 1}
    declared = {
        (contract.owner, contract.argument): contract for contract in recording.provenance.contracts
    }
    rows = [
        (
            seen,
            seen.path if seen.column is None else f"{seen.path}[{seen.column}]",
            declared.get((seen.owner, seen.path)),
        )
        for seen in recording.provenance.origins
        if seen.role == "in" and seen.origin is not None and seen.stage not in inner
    ]
    if not rows:
        return None
    return Part(
        id="origins",
        title="What reached which stage",
        short="Origins",
        template="part_origins.html",
        values={"rows": rows},
    )


#: In the order of the report.
PARTS: tuple[Callable[[Recording, Diagnosis], Part | None], ...] = (
    time,
    learning,
    features,
    lengths,
    gradients,
    outputs,
    origins,
)
