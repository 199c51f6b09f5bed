"""A feature is the same everywhere.

What it looks at:
    Columns of features at the first learned layer that takes them, over all rows of the batch; and
    whether any raw column with as many rows is constant too.
Why it hurts:
    It carries nothing: its weights are one more bias. Where the data do vary, something on the way
    has wiped it out.
A bad run:
    A flag that a cast to whole numbers turned into 0; a column clipped to a bound that all values
    exceed.
What to do:
    Follow the column back to where it loses its values, or leave it out.
Limits:
    One batch: a flag that is rarely set may be constant in it, so 0 and 1 are a note where raw
    columns are constant too or where flags stand beside. A table of flags alone is not judged.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import FeatureColumn, FeatureTable

from .unnormalized_input import place_of, tables_of

CODE = "F06"
NAME = "constant-feature"
NEEDS = ("features",)

#: In fewer samples a column may be constant by chance.
SAMPLES = 8


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name constant columns beside others that vary."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for table in tables_of(recording):
        if table.samples < SAMPLES:
            continue
        constant = [column for column in table.columns if column.facts.constant]
        varying = [column for column in table.columns if column.facts.measure]
        lost = len(constant) == table.width > 1 and table.raw_columns and not table.raw_constant
        if not constant or (len(varying) < 2 and not lost):
            continue
        severe = [column for column in constant if _wiped_out(table, column)]
        others = [column for column in constant if column not in severe]
        if severe:
            findings.append(_finding(table, severe, born=True))
        if others:
            findings.append(_finding(table, others, born=False))
    return tuple(findings)


def _wiped_out(table: FeatureTable, column: FeatureColumn) -> bool:
    """Whether this is no flag that happens to be constant."""
    flags = any(c.facts.distinct == 2 and c.facts.in_unit for c in table.columns)
    flag = column.facts.median in (0, 1, -1)
    if flag:
        return table.raw_columns > 1 and not table.raw_constant and not flags
    return True


def _finding(table: FeatureTable, columns: list[FeatureColumn], *, born: bool) -> Finding:
    names = ", ".join(f"column {c.index} is {c.facts.median:.4g}" for c in columns[:4])
    more = f" and {len(columns) - 4} more" if len(columns) > 4 else ""
    data = (
        f"; of {table.raw_columns} raw columns none is constant"
        if table.raw_columns and not table.raw_constant
        else ""
    )
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning" if born else "note",
        stage=table.stage,
        message=(
            f"Of what {table.stage} takes, {names}{more} in all {table.rows:,} rows of "
            f"{table.samples} samples{data}."
        ),
        evidence={
            "rows": table.rows,
            "samples": table.samples,
            "columns": [{"column": c.index, "value": c.facts.median} for c in columns],
            "raw_columns": table.raw_columns,
            "raw_constant": table.raw_constant,
        },
        remedy="Follow the column back to where it loses its values, or leave it out.",
        location=place_of(table),
    )
