"""The weights of a pooling are normalised, and may be negative.

What it looks at:
    Arguments that the pipeline declares to be raw columns (`contracts`, with `Raw`), of stages that
    give fewer rows than they take: what is raw there weighs the rows that are summed. What arrives
    is held against the raw columns of the batch and recognised to rounding.
Why it hurts:
    A logarithm of a charge is negative below one photo-electron. Weights of one DOM then cancel,
    their sum can come close to 0, and the weighted mean is thrown anywhere.
A bad run:
    Charge-weighted pooling over log10(charge + 1e-8) / 3.
What to do:
    Weigh by the raw, non-negative column, or by a softmax.
Limits:
    Only what is declared is judged. A map that is not recognised is not judged. It is shown that
    the contract is broken, not what it costs the training.
"""

from icediag.finding import Finding
from icediag.provenance_record import OriginRecord
from icediag.recording import Recording, Unjudged

from .normalized_relative import broken_contracts, place_of, unjudged_contracts

CODE = "N02"
NAME = "normalized-weights"
NEEDS = ("provenance",)


def _sums(seen: OriginRecord) -> str:
    """How near the weights of a group come to cancelling."""
    if seen.smallest_sum is None or seen.cancelled is None or not seen.negative:
        return ""
    return (
        f"; of a group of {seen.groups} with two or more, the sum is as small as "
        f"{seen.smallest_sum:.2g}, {seen.cancelled:.2g} of the sum of magnitudes"
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
    unknown = unjudged_contracts(recording, pools=True, name=NAME)
    return unknown if unknown is not None and not findings else tuple(findings)
