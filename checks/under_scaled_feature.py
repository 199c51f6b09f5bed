"""A feature varies far less than by 1.

What it looks at:
    Columns of features at the first learned layer that takes them: their spread, with the map from
    the raw column where that is recognised, and the share of the variance of what the layer gives
    that comes from them, through the weights as they are.
Why it hurts:
    The column is drowned by others of order 1, and its weights get gradients as much smaller. A
    little too small is compensated by training, a hundred times too small for long is not.
A bad run:
    Times in nanoseconds divided by a second.
What to do:
    Divide by the spread; the finding proposes constants.
Limits:
    One batch. Below 1 but above a hundredth it is a note: the constants of the field,
    (time - 10000) / 30000 and log10(charge) / 3, give a spread around 0.1 and train. Flags,
    categories, sparse columns and images are not judged, nor is a column of unknown origin that
    lies next to one value but for some rows, as each of a set of basis functions does, nor one
    whose ranks another column with ten times its spread has, as the longest of a set of waves.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

from .unnormalized_input import even, finding_of, measures, tables_of

CODE = "F03"
NAME = "under-scaled-feature"
NEEDS = ("features",)

#: A spread below this is worth knowing.
SMALL = 0.2
#: Below this a column of order 1 beside it has ten thousand times its variance.
TINY = 0.01
#: Of wider tables no note is made: embeddings of unit length have small entries.
WIDE = 16


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name columns that hardly vary."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for table in tables_of(recording):
        if table.image:
            continue
        for severe in (True, False):
            if not severe and table.width > WIDE:
                continue
            columns = [
                column
                for column in measures(table)
                if 0 < column.facts.std < SMALL
                and column.twin is None
                and (column.facts.std < TINY) == severe
                and (even(column) or (severe and column.origin is not None))
            ]
            if columns:
                columns.sort(key=lambda column: column.facts.spread)
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
