"""A feature is normalised twice.

What it looks at:
    Features at the first learned layer that takes them: a logarithm of a logarithm, followed
    operation by operation; the same shift and scale applied twice, recognised from the constants;
    two divisions in a row by constants of the model, the second of which leaves values that are
    neither centred nor of unit spread; and a column that is standardised in the data already
    (median near 0, spread near 1) and is shifted and scaled again to something that is not.
Why it hurts:
    Constants that were right for raw values squeeze normalised ones into a point beside 0, where
    their differences are below the resolution of the type, or below that of the training.
A bad run:
    A data set that gives (time - 10000) / 30000, and a model that does it again.
What to do:
    Normalise in one place.
Limits:
    What happened before the data set gave its samples is not seen: that a column is standardised
    there is told from its values. A second normalisation by the batch's own statistics changes
    nothing and is not named.
"""

import math

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.features import (
    ColumnFacts,
    FeatureColumn,
    FeatureTable,
    NormalizerFacts,
    RepeatedLog,
)
from icediag.records.provenance import Origin, OriginRecord

from .unnormalized_input import evidence_of, place_of, tables_of

CODE = "N03"
NAME = "double-normalization"
NEEDS = ("features", "provenance")

#: Constants of two maps agree to this, relatively; the second is recovered from what rounding left.
AGREE = 0.02


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name features that were normalised twice."""
    if recording.features is None or recording.provenance is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings = [_of_log(log) for log in recording.features.logs]
    findings.extend(
        _of_constants(normalizer)
        for normalizer in recording.features.normalizers
        if normalizer.before is not None and any(_off(c) for c in normalizer.columns)
    )
    for table in tables_of(recording):
        again = []
        for column in table.columns:
            first = _same_twice(column, recording.provenance.origins)
            if first is not None:
                findings.append(_of_map(table, column, first))
            elif _again(column):
                again.append(column)
        if again:
            findings.append(_of_values(table, again))
    return tuple(findings)


def _same_twice(column: FeatureColumn, origins: tuple[OriginRecord, ...]) -> OriginRecord | None:
    """The stage that gave a map of which the column's is the square."""
    twice = column.origin
    if twice is None or twice.map != "affine":
        return None
    for record in origins:
        once = record.origin
        if once is None or once.map != "affine" or once.column != twice.column:
            continue
        if abs(once.slope - 1) < AGREE or not once.offset:
            continue
        slope, offset = once.slope**2, once.slope * once.offset + once.offset
        if math.isclose(slope, twice.slope, rel_tol=AGREE) and math.isclose(
            offset, twice.offset, rel_tol=AGREE
        ):
            return record
    return None


def _again(column: FeatureColumn) -> bool:
    """Whether standardised values were shifted and scaled to something that is not."""
    origin, source, facts = column.origin, column.source, column.facts
    if origin is None or source is None or origin.map != "affine" or not source.measure:
        return False
    shifted = abs(origin.offset) > 0.05 * max(abs(origin.slope), 1e-12) and origin.offset != 0
    if not shifted or not facts.spread > 0:
        return False
    standard = abs(source.median) < 0.3 and 0.7 < source.spread < 1.4
    # Normalised with the constants of the field, which leave a smaller spread.
    nearly = abs(source.median) < 1 and 0.02 < source.spread < 2 and not source.in_unit
    nearly |= source.in_unit and source.low < 0 and source.spread > 0.02
    off = facts.spread < 0.5 or facts.spread > 2 or abs(facts.median) > 1
    far = facts.spread < 0.01 or facts.spread > 100
    return (standard and off) or (nearly and far)


def _of_log(log: RepeatedLog) -> Finding:
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=log.stage,
        message=(
            f"{log.op} is taken of what is a logarithm already, from {log.before}; the result "
            f"reaches {log.reaches}."
        ),
        evidence={"operation": log.op, "first": log.before, "reaches": log.reaches},
        remedy="Take one logarithm.",
        location=place_of(log),
    )


def _off(facts: ColumnFacts) -> bool:
    """Whether values are neither centred nor of unit spread."""
    return facts.measure and (not 0.5 < facts.spread < 2 or abs(facts.median) > 1)


def _of_constants(normalizer: NormalizerFacts) -> Finding:
    i = next(i for i, facts in enumerate(normalizer.columns) if _off(facts))
    facts = normalizer.columns[i]
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=normalizer.stage,
        message=(
            f"Values that {normalizer.before} has shifted and divided by constants of the model "
            f"are shifted and divided again: column {i} has median {facts.median:.4g} and spread "
            f"{facts.spread:.3g}."
        ),
        evidence={
            "first": normalizer.before,
            "column": i,
            "median": facts.median,
            "spread": facts.spread,
            "scale": list(normalizer.scale),
        },
        remedy="Normalise in one place.",
        location=place_of(normalizer),
    )


def _text(origin: Origin | None) -> str:
    return origin.formula if origin else ""


def _of_map(table: FeatureTable, column: FeatureColumn, first: OriginRecord) -> Finding:
    facts = column.facts
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=table.stage,
        message=(
            f"Column {column.index} of what {table.stage} takes is {_text(first.origin)} applied "
            f"twice, the first time by {first.stage}: its spread is {facts.spread:.3g} around "
            f"{facts.median:.4g}."
        ),
        evidence=evidence_of(column) | {"once": _text(first.origin), "first": first.stage},
        remedy="Normalise in one place.",
        location=place_of(table),
    )


def _of_values(table: FeatureTable, columns: list[FeatureColumn]) -> Finding:
    column = columns[0]
    source, facts = column.source, column.facts
    assert source is not None
    more = f"; and {len(columns) - 1} more like it" if len(columns) > 1 else ""
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=table.stage,
        message=(
            f"Column {column.index} of what {table.stage} takes is {_text(column.origin)}, of data "
            f"that are normalised already (median {source.median:.3g}, spread "
            f"{source.spread:.3g}): it has median {facts.median:.4g} and spread "
            f"{facts.spread:.3g}{more}."
        ),
        evidence=evidence_of(column)
        | {
            "data_median": source.median,
            "data_spread": source.spread,
            "columns": [column.index for column in columns],
        },
        remedy="Normalise in one place: leave out this shift and scale, or that of the data set.",
        location=place_of(table),
    )
