"""Features of one layer differ in scale by more than a hundred.

What it looks at:
    The spread of all columns that one learned layer, or one layer normalisation, takes together:
    the largest over the smallest.
Why it hurts:
    One learning rate has to serve weights whose gradients differ by the same factor. A layer
    normalisation over such columns leaves the largest alone, and turns the others into noise.
A bad run:
    Metres beside kilometres; raw times beside logarithms, under a LayerNorm.
What to do:
    Bring every column to unit spread before they are joined.
Limits:
    One batch. Flags, categories and sparse columns are not judged. Where a single column is named
    by F01, F03 or F04 already, this is their consequence and not repeated.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import FeatureTable

from . import over_scaled_feature, under_scaled_feature, unnormalized_input
from .unnormalized_input import ROWS, even, evidence_of, measures, place_of

CODE = "F05"
NAME = "uneven-scales"
NEEDS = ("features",)

#: Largest over smallest spread that is worth knowing.
UNEVEN = 30.0
#: From which on the variances differ by ten thousand.
FACTOR = 100.0


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name tables whose columns differ in scale."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    named = set()
    for other in (unnormalized_input, under_scaled_feature, over_scaled_feature):
        answer = other.check(recording)
        assert isinstance(answer, tuple)
        named |= {finding.stage for finding in answer if finding.severity == "warning"}
    findings = []
    for table in recording.features.tables:
        found = _finding(table)
        if found is not None and table.rows >= ROWS and table.stage not in named:
            findings.append(found)
    return tuple(findings)


def _finding(table: FeatureTable) -> Finding | None:
    columns = [column for column in measures(table) if column.facts.spread > 0]
    columns = [column for column in columns if column.twin is None]
    if len(columns) < 2:
        return None
    known = [column for column in columns if even(column) or column.origin is not None]
    # By its middle a column is small that some rows make large where it matters; by its standard
    # deviation one is large that has an outlier.
    small = min(known or columns, key=lambda column: column.facts.std)
    large = max(columns, key=lambda column: column.facts.spread)
    factor = large.facts.spread / small.facts.std
    if factor < UNEVEN:
        return None
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning" if factor >= FACTOR else "note",
        stage=table.stage,
        message=(
            f"The columns that {table.stage} takes together differ in spread by a factor "
            f"{factor:.3g}: {large.text} {large.facts.spread:.3g}, {small.text} "
            f"{small.facts.std:.3g}."
        ),
        evidence={
            "factor": factor,
            "consumer": table.consumer,
            "largest": evidence_of(large),
            "smallest": evidence_of(small),
        },
        remedy=f"Bring each column to unit spread before {table.stage}.",
        location=place_of(table),
    )
