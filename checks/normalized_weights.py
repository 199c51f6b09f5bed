"""The weights of a pooling are normalised, and may be negative.

What it looks at:
    Arguments that the pipeline declares to be raw columns (`contracts`, with `Raw`), of stages that
    give fewer rows than they take: what is raw there weighs the rows that are summed. What arrives
    is held against the raw columns of the batch and recognised to rounding. And, declared or not,
    every weighted mean that the model takes: a sum of products, divided by the sum of one factor.
Why it hurts:
    A logarithm of a charge is negative below one photo-electron. Weights of one DOM then cancel,
    their sum can come close to 0, and the weighted mean is thrown anywhere.
A bad run:
    Charge-weighted pooling over log10(charge + 1e-8) / 3.
What to do:
    Weigh by the raw, non-negative column, or by a softmax.
Limits:
    A map that is not recognised is not judged. A mean that is not declared is a warning where in a
    group of this batch nine tenths of the weights or more cancel, else a note. It is shown that
    weights are negative, not what it costs the training.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.provenance import OriginRecord
from icediag.records.weighing import WeighedMean

from .normalized_relative import broken_contracts, place_of, unjudged_contracts

CODE = "N02"
NAME = "normalized-weights"
NEEDS = ("provenance", "weighing")


def _sums(seen: OriginRecord) -> str:
    """How near the weights of a group come to cancelling."""
    if seen.smallest_sum is None or seen.cancelled is None or not seen.negative:
        return ""
    return (
        f"; of a group of {seen.groups} with two or more, the sum is as small as "
        f"{seen.smallest_sum:.2g}, {seen.cancelled:.2g} of the sum of magnitudes"
    )


def _signed(mean: WeighedMean) -> Finding:
    """A weighted mean whose weights have both signs."""
    assert mean.cancelled is not None and mean.smallest_sum is not None
    hurts = mean.cancelled_groups > 0
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning" if hurts else "note",
        stage=mean.stage,
        message=(
            f"A mean is weighed by values of which {100 * mean.negative:.3g} % are negative; of "
            f"{mean.groups:,} groups with two or more, the sum is as small as "
            f"{mean.smallest_sum:.2g}, {mean.cancelled:.2g} of the sum of magnitudes"
            + (
                f", and in {mean.cancelled_groups:,} nine tenths or more of it cancel."
                if hurts
                else "."
            )
        ),
        evidence={
            "negative_share": mean.negative,
            "weights": mean.rows,
            "groups": mean.groups,
            "smallest_sum": mean.smallest_sum,
            "smallest_share_left": mean.cancelled,
            "cancelled_groups": mean.cancelled_groups,
        },
        remedy="Weigh by what is never negative: the raw column, or a softmax or softplus of it.",
        location=Location(file=mean.file, line=mean.line) if mean.file and mean.line else None,
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each weight that is declared raw and is not."""
    if recording.provenance is None:
        return Unjudged(name=NAME, reason="provenance was not recorded")
    findings = []
    for contract, seen in broken_contracts(recording, pools=True):
        origin = seen.origin
        assert origin is not None
        unit = f" in {contract.unit}" if contract.unit else ""
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="error",
                stage=seen.stage,
                message=(
                    f"{contract.argument} is to be raw {contract.column}{unit} and is "
                    f"{origin.formula}; {100 * seen.negative:.3g} % of {origin.compared:,} weights "
                    f"are negative{_sums(seen)}."
                ),
                evidence={
                    "argument": contract.argument,
                    "declared": contract.column,
                    "unit": contract.unit,
                    "map": origin.formula,
                    "kind": origin.map,
                    "negative_share": seen.negative,
                    "groups": seen.groups,
                    "smallest_sum": seen.smallest_sum,
                    "smallest_share_left": seen.cancelled,
                    "residual": origin.residual,
                    "rows": origin.compared,
                },
                remedy=f"Weigh by the raw {contract.column}, which is never negative.",
                location=place_of(seen),
            )
        )
    # What is declared and broken is named above, with the column that it should be.
    if not findings and recording.weighing is not None:
        findings = [
            _signed(mean) for mean in recording.weighing.means if mean.negative and mean.groups
        ]
    unknown = unjudged_contracts(recording, pools=True, name=NAME)
    return unknown if unknown is not None and not findings else tuple(findings)
