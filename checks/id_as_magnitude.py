"""A name is fed as if it were a magnitude.

What it looks at:
    Columns of features that are whole numbers up to a shift and a scale, with many different
    values, and that are used as names elsewhere: as an index into a table or an embedding, as
    classes of the loss. Or that the pipeline itself calls an id.
Why it hurts:
    Sensor 17 is not between sensors 16 and 18. A layer that takes the number sees an order that is
    none, and cannot tell neighbours apart once the number is scaled to 0..1.
A bad run:
    sensor_id / 5160 beside times and charges.
What to do:
    Look the name up: in an embedding, or in a table of what it stands for (a position).
Limits:
    A number that is used in no other way and whose name says nothing is not recognised. Where a
    table rises or falls throughout, its index is an order and not judged. Numbers that run from 0
    or 1 without a gap may be positions, and count only if they are names row by row.
"""

import re

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import FeatureColumn, FeatureTable

from .unnormalized_input import place_of, tables_of

CODE = "F08"
NAME = "id-as-magnitude"
NEEDS = ("features",)

#: With fewer different values it is a category, which is often fed as it is.
MANY = 8
#: What people call names; an index may be an order.
CALLED = re.compile(r"(^|[_.])ids?$", re.IGNORECASE)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the columns that are names."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for table in tables_of(recording):
        for column in table.columns:
            why = _why(column)
            if why:
                findings.append(_finding(table, column, why))
    return tuple(findings)


def _why(column: FeatureColumn) -> str:
    """What shows that a column is a name; "" for nothing."""
    if column.facts.distinct < MANY:
        return ""
    if column.named is not None:
        at = f" ({column.file}:{column.line})" if column.file else ""
        return f"the same numbers are {column.named}{at}"
    origin, source = column.origin, column.source
    if origin is None or source is None or origin.map not in ("identity", "cast", "affine"):
        return ""
    if source.whole and source.distinct >= MANY and CALLED.search(origin.column):
        return f"the data call it {origin.column}"
    return ""


def _finding(table: FeatureTable, column: FeatureColumn, why: str) -> Finding:
    called = column.origin.formula if column.origin else "whole numbers"
    source = column.source or column.facts
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=table.stage,
        message=(
            f"Column {column.index} of what {table.stage} takes is {called}, with "
            f"{source.distinct:,} different values, fed as if they had an order: {why}."
        ),
        evidence={
            "column": column.index,
            "map": column.origin.formula if column.origin else None,
            "distinct": source.distinct,
            "low": source.low,
            "high": source.high,
            "used_as": column.named,
            "rows": column.facts.rows,
        },
        remedy="Look it up in an embedding or in a table of what it stands for.",
        location=place_of(table),
    )
