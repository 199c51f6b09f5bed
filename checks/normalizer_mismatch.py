"""A normaliser's constants do not fit the data.

What it looks at:
    Divisions of features by constants that the model carries, after a shift by constants that it
    carries: what comes out, column by column. And batch normalisations whose running statistics
    have seen 20 batches or more: these statistics against those of the batch.
Why it hurts:
    The constants were fitted to other data, other units or another column order: what should be
    centred with unit spread is neither. A batch normalisation gives something else in evaluation
    than it gave in training.
A bad run:
    Mean and deviation of pixels from 0 to 1, on pixels from 0 to 255.
What to do:
    Fit the constants again, on the data as they reach the normaliser.
Limits:
    One batch. Off by less than a factor 20 in spread, or 5 in place, it is left to the checks of
    features. Running statistics that have seen few batches are not judged.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import ColumnFacts, NormalizerFacts, RunningFacts

from .unnormalized_input import ROWS, place_of

CODE = "N04"
NAME = "normalizer-mismatch"
NEEDS = ("features",)

#: What comes out has a spread outside of 1/50 .. 20, or its median this far from 0.
LEAST, MOST, PLACE = 0.02, 20.0, 5.0
#: Batches after which running statistics have settled, at the usual momentum of 0.1.
SETTLED = 20
#: Share of the channels that must be far off.
HALF = 0.5


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name normalisers that do not normalise."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for normalizer in recording.features.normalizers:
        off = [i for i, column in enumerate(normalizer.columns) if _off(column)]
        if off:
            findings.append(_constants(normalizer, off))
    findings.extend(
        _running(running)
        for running in recording.features.running
        if running.tracked >= SETTLED and running.far >= HALF
    )
    return tuple(findings)


def _off(column: ColumnFacts) -> bool:
    if not column.measure or column.rows < ROWS:
        return False
    spread = column.spread
    return not LEAST <= spread <= MOST or abs(column.median) > PLACE * max(1.0, spread)


def _constants(normalizer: NormalizerFacts, off: list[int]) -> Finding:
    worst = off[0]
    column = normalizer.columns[worst]
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=normalizer.stage,
        message=(
            f"After shift and scale by the model's constants, {len(off)} of "
            f"{len(normalizer.columns)} columns are far from normalised: column {worst} has median "
            f"{column.median:.4g} and spread {column.spread:.3g}, its scale is "
            f"{normalizer.scale[worst]:.6g} where {normalizer.scale[worst] * column.spread:.4g} "
            "would give 1."
        ),
        evidence={
            "columns": [
                {
                    "column": i,
                    "median": normalizer.columns[i].median,
                    "spread": normalizer.columns[i].spread,
                    "scale": normalizer.scale[i],
                }
                for i in off
            ],
            "rows": column.rows,
        },
        remedy="Fit the constants again, on the data as they reach the normaliser.",
        location=place_of(normalizer),
    )


def _running(running: RunningFacts) -> Finding:
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=running.stage,
        message=(
            f"The running statistics of {running.stage}, of {running.tracked:,} batches, do not "
            f"fit this batch in {running.far:.0%} of {running.channels} channels: its means are "
            f"{running.offset:.3g} running deviations away (median), its variances differ by a "
            f"factor {running.ratio:.3g}."
        ),
        evidence={
            "tracked": running.tracked,
            "channels": running.channels,
            "far_share": running.far,
            "offset_in_deviations": running.offset,
            "variance_ratio": running.ratio,
        },
        remedy="Train, and keep statistics, on data prepared as these are.",
        location=place_of(running),
    )
