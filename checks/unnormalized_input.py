"""A feature reaches the network as it is in the data, far from order 1.

What it looks at:
    Values that come from the batch and through no weight, at the first learned layer that takes
    them, column by column; which of them are a raw column as it is; and which share of the variance
    of what the layer gives comes from each, through the weights as they are. Of a table of more
    than 64 columns, and of images, the size of all values.
Why it hurts:
    Weights are drawn for inputs of order 1. A column a hundred times larger makes up all that the
    layer gives, its gradients are as much larger, and a learning rate that suits it leaves the
    others where they are.
A bad run:
    Times of 10,000 ns and pixels from 0 to 255 straight into the first layer.
What to do:
    Shift and scale by the constants that the finding proposes, fixed once from the training set.
Limits:
    One batch. Flags, small categories and sparse columns are not judged, nor is what a batch
    normalisation takes. A batch normalisation behind the layer takes back most of the harm.
"""

from collections.abc import Iterable, Iterator

from icediag.finding import Finding, Severity
from icediag.recording import Location, Recording, Unjudged
from icediag.records.features import FeatureColumn, FeatureTable

CODE = "F01"
NAME = "unnormalized-input"
NEEDS = ("features",)

#: Fewer rows say little about spread and median.
ROWS = 32
#: Root of median squared plus spread squared, from which on a raw column is named.
LARGE = 10.0
#: From which on its share of what the layer gives leaves next to nothing to columns of order 1.
HUGE = 50.0


def tables_of(recording: Recording) -> Iterator[FeatureTable]:
    """Tables of features at layers that mix their columns by weights, with enough rows."""
    assert recording.features is not None
    for table in recording.features.tables:
        if table.consumer != "layer norm" and table.rows >= ROWS:
            yield table


def measures(table: FeatureTable) -> tuple[FeatureColumn, ...]:
    """Columns that are quantities, and no names."""
    return tuple(
        column for column in table.columns if column.facts.measure and column.named is None
    )


def even(column: FeatureColumn) -> bool:
    """Whether its spread is that of all rows: no few of them lie far off.

    What lies next to one value but for some rows, as each of a set of basis functions does, has a
    middle that is small and is large where it matters.
    """
    return column.facts.spread == column.facts.std


def raw(column: FeatureColumn) -> bool:
    """Whether a column is one of the data as it is."""
    return column.origin is not None and column.origin.map in ("identity", "cast")


def place_of(thing: object) -> Location | None:
    """The user's line of something that was seen."""
    file, line = getattr(thing, "file", None), getattr(thing, "line", None)
    return Location(file=file, line=line) if file is not None and line is not None else None


def proposal(column: FeatureColumn) -> tuple[str, float, float]:
    """Constants that give median 0 and spread 1: as a formula, and as shift and scale."""
    origin, facts = column.origin, column.facts
    x, median, spread = "value", facts.median, facts.spread
    if origin is not None and origin.map == "logarithm" and origin.slope:
        floor = f" + {origin.floor:.3g}" if origin.floor else ""
        x = f"log10({origin.column}{floor})"
        median = (facts.median - origin.offset) / origin.slope
        spread = facts.spread / abs(origin.slope)
    elif origin is not None and column.source is not None and "group" not in origin.map:
        x, median, spread = origin.column, column.source.median, column.source.spread
    shift, scale = float(f"{median:.4g}"), float(f"{spread:.4g}")
    shifted = f"({x} {'-' if shift >= 0 else '+'} {abs(shift):.6g})" if shift else x
    return f"{shifted} / {scale:.6g}", shift, scale


def evidence_of(column: FeatureColumn) -> dict[str, object]:
    """Numbers of a column."""
    text, shift, scale = proposal(column)
    return {
        "column": column.index,
        "map": column.origin.formula if column.origin else None,
        "median": column.facts.median,
        "spread": column.facts.spread,
        "std": column.facts.std,
        "low": column.facts.low,
        "high": column.facts.high,
        "share_of_output": column.weighs,
        "proposed": text,
        "proposed_shift": shift,
        "proposed_scale": scale,
    }


def sentences(columns: Iterable[FeatureColumn], most: int = 3) -> str:
    """What the columns are and what would be right; of many, the first few."""
    columns = list(columns)
    parts: list[str] = []
    for column in columns[:most]:
        facts = column.facts
        text = column.text if not parts else f"C{column.text[1:]}"
        parts.append(
            f"{text} has median {facts.median:.4g} and spread {facts.spread:.3g}; "
            f"{proposal(column)[0]} would give 0 and 1"
        )
    more = len(columns) - most
    return ". ".join(parts) + (f"; and {more} more." if more > 0 else ".")


def finding_of(
    table: FeatureTable,
    columns: list[FeatureColumn],
    *,
    code: str,
    name: str,
    severity: Severity,
    remedy: str,
    before: str = "",
    after: str = "",
) -> Finding:
    """One finding for the columns of one table."""
    text = sentences(columns) + after
    return Finding(
        code=code,
        name=name,
        severity=severity,
        stage=table.stage,
        message=before + text[0].upper() + text[1:] if not before else before + text,
        evidence={"rows": table.rows, "columns": [evidence_of(column) for column in columns]},
        remedy=remedy,
        location=place_of(table),
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name raw columns that are far from order 1."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = []
    for table in tables_of(recording):
        if not table.columns:
            if table.size >= HUGE:
                findings.append(_whole(table))
            continue
        large = [c for c in measures(table) if raw(c) and c.facts.size >= LARGE]
        codes = [c for c in table.columns if _code(c)]
        large += codes
        if not large:
            continue
        large.sort(key=lambda column: -column.facts.size)
        severe = large[0].facts.size >= HUGE
        share = large[0].weighs
        shown = ""
        if share is not None and share > 0.5 and table.width > 1:
            shown = (
                f" {share:.4g} of the variance of what {table.stage} gives comes from column "
                f"{large[0].index}."
            )
        findings.append(
            finding_of(
                table,
                large,
                code=CODE,
                name=NAME,
                severity="warning" if severe else "note",
                before=f"Columns of the batch reach {table.stage} as they are: ",
                after=shown,
                remedy=f"Shift and scale before {table.stage}, e.g. {proposal(large[0])[0]}"
                + ("; what is a code wants an embedding." if codes else "."),
            )
        )
    return tuple(findings)


def _code(column: FeatureColumn) -> bool:
    """Whether a column holds a few large whole numbers, as codes of particles are."""
    facts = column.facts
    few = not facts.measure and not facts.constant and facts.whole and abs(facts.median) >= HUGE
    return few and column.named is None and raw(column)


def _whole(table: FeatureTable) -> Finding:
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=table.stage,
        message=(
            f"The {table.width:,} columns that reach {table.stage} have a root mean square of "
            f"{table.size:.4g}, where weights are drawn for 1."
        ),
        evidence={"width": table.width, "rows": table.rows, "root_mean_square": table.size},
        remedy=f"Divide what goes into {table.stage} by its spread.",
        location=place_of(table),
    )
