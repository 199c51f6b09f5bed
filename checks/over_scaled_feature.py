"""A feature varies far more than by 1, although it was mapped.

What it looks at:
    Columns of features at the first learned layer that takes them, other than raw columns: their
    spread, with the map from the raw column where that is recognised.
Why it hurts:
    It makes up most of what the layer gives, saturates what follows, and its weights get gradients
    as much larger than those of the others.
A bad run:
    Times in nanoseconds divided by 10; a logarithm multiplied by 100.
What to do:
    Divide by the spread; the finding proposes constants.
Limits:
    One batch. Raw columns are another check's. Flags, categories and sparse columns are not judged.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .unnormalized_input import finding_of, measures, raw, tables_of

CODE = "F04"
NAME = "over-scaled-feature"
NEEDS = ("features",)

#: A spread above this is worth knowing.
LARGE = 10.0
#: Above this columns of order 1 have less than a thousandth of its variance.
HUGE = 50.0


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name columns that vary too much."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for table in tables_of(recording):
        for severe in (True, False):
            columns = [
                column
                for column in measures(table)
                if not raw(column)
                and column.facts.spread >= LARGE
                and (column.facts.spread >= HUGE) == severe
            ]
            if columns:
                columns.sort(key=lambda column: -column.facts.spread)
                findings.append(
                    finding_of(
                        table,
                        columns,
                        code=CODE,
                        name=NAME,
                        severity="warning" if severe else "note",
                        remedy="Scale with the constants proposed.",
                    )
                )
    return tuple(findings)
