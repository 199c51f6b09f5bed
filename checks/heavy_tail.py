"""A feature has a heavy tail that nothing compresses.

What it looks at:
    Columns of features at the first learned layer that takes them: the furthest value from the
    median, in spreads of the middle half, and how much of the summed squared distance from the
    median one hundredth of the rows holds. What a logarithm would make of it is computed beside.
Why it hurts:
    A few rows make most of the layer's output and of its gradients. Scaled so that these fit, all
    others lie in a heap around 0.
A bad run:
    Charges from 0.1 to 2,000 photo-electrons divided by their standard deviation.
What to do:
    Take the logarithm, or another compressing map, before scaling.
Limits:
    One batch of 500 rows at least. Columns within -1..1, sparse ones and images are not judged.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import FeatureColumn, FeatureTable

from .unnormalized_input import measures, place_of, tables_of

CODE = "F07"
NAME = "heavy-tail"
NEEDS = ("features",)

#: A tail is told from chance in so many rows.
ENOUGH = 500
#: Furthest value, in robust spreads. Of a thousand values of a normal distribution it is 3, of an
#: exponential one 9, of a log-normal one with unit sigma 25.
LONG = 50.0
#: Share of the summed squares that one hundredth of the rows holds: 9 % in a normal distribution.
HELD = 0.5


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name columns with tails."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    return tuple(
        _finding(table, column)
        for table in tables_of(recording)
        if not table.image
        for column in measures(table)
        if column.facts.rows >= ENOUGH
        and not column.facts.in_unit
        and column.facts.tail >= LONG
        and column.facts.top_share >= HELD
    )


def _finding(table: FeatureTable, column: FeatureColumn) -> Finding:
    facts, logged = column.facts, column.logged
    would = ""
    if logged is not None and logged.tail < facts.tail / 4:
        would = f" Its logarithm reaches {logged.tail:.3g} spreads."
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=table.stage,
        message=(
            f"C{column.text[1:]} reaches "
            f"{facts.high:.4g} where its middle half lies within {facts.robust:.3g} of "
            f"{facts.median:.4g}: {facts.tail:.0f} spreads, and 1 % of the rows hold "
            f"{facts.top_share:.0%} of its power.{would}"
        ),
        evidence={
            "column": column.index,
            "map": column.origin.formula if column.origin else None,
            "median": facts.median,
            "robust_spread": facts.robust,
            "low": facts.low,
            "high": facts.high,
            "tail_in_spreads": facts.tail,
            "share_of_top_percent": facts.top_share,
            "tail_of_logarithm": logged.tail if logged else None,
            "rows": facts.rows,
        },
        remedy=(
            "Take the logarithm before scaling."
            if logged is not None
            else "Compress it before scaling, e.g. by sign(x) log(1 + |x|)."
        ),
        location=place_of(table),
    )
