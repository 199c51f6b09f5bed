"""A feature lies far from 0, measured by its own spread.

What it looks at:
    Columns of features at the first learned layer that takes them: the distance of the median from
    0 beside the spread, with the map from the raw column where that is recognised.
Why it hurts:
    What varies is small beside what is constant: the layer sees a constant, and its bias and the
    column's weights have to cancel before the variation shows. Gradients of all weights of a unit
    then point the same way.
A bad run:
    A year divided by 1000; a log-energy between 10 and 11; a shift that was forgotten.
What to do:
    Subtract the median before scaling; the finding proposes constants.
Limits:
    One batch. A raw column that is large is another check's, and so is a column that is constant.
    Flags, categories, sparse columns and columns within -1..1 are not judged, and channels of
    images only where they lie ten standard deviations off: background is often most of an image.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .unnormalized_input import HUGE, finding_of, measures, raw, tables_of

CODE = "F02"
NAME = "off-centre-feature"
NEEDS = ("features",)

#: Median in spreads from which on it is worth knowing.
FAR = 3.0
#: From which on, and with a median of `LARGE` at least, nine tenths of each value are constant.
VERY_FAR = 10.0
LARGE = 2.0


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name columns that lie far from 0."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for table in tables_of(recording):
        for severe in (True, False) if not table.image else (True,):
            columns = []
            for column in measures(table):
                facts = column.facts
                spread = facts.std if table.image else facts.spread
                far = abs(facts.median) / spread if spread > 0 else 0.0
                very = far >= VERY_FAR and abs(facts.median) >= LARGE
                # Scaled to 0..1 by its range, a column is off 0 on purpose.
                if far < FAR or very != severe or facts.in_unit:
                    continue
                if raw(column) and facts.size >= HUGE:
                    continue
                columns.append(column)
            if columns:
                columns.sort(key=lambda c: -abs(c.facts.median) / c.facts.spread)
                findings.append(
                    finding_of(
                        table,
                        columns,
                        code=CODE,
                        name=NAME,
                        severity="warning" if severe else "note",
                        remedy="Subtract the median before scaling, with the constants proposed.",
                    )
                )
    return tuple(findings)
