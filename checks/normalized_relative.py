"""A stage that works on raw values gets normalised ones.

What it looks at:
    Arguments that the pipeline declares to be raw columns (`contracts`, with `Raw`), of stages that
    give as many rows as they take, such as an encoder of times and charges relative to their DOM.
    What arrives is held against the raw columns of the batch and recognised to rounding.
Why it hurts:
    Differences shrink with the scale: 10 ns become 3e-4 after (t - 10000) / 30000, beside features
    of order 1. A difference or ratio of logarithms is not one of charges.
A bad run:
    Features are normalised first, and the relative encoder takes its times and charges from the
    normalised table.
What to do:
    Pass the raw columns to this stage and scale what comes out of it.
Limits:
    Only what is declared is judged. A map that is not recognised (tanh, a learned one) is not
    judged. It is shown that the contract is broken, not what it costs the training.
"""

import math

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.provenance import Origin, OriginRecord, RawContract

CODE = "N01"
NAME = "normalized-relative"
NEEDS = ("provenance",)

LOG_2 = math.log10(2)


def broken_contracts(
    recording: Recording, *, pools: bool
) -> list[tuple[RawContract, OriginRecord]]:
    """Declared raw arguments that carry another map of a raw column, one entry each."""
    assert recording.provenance is not None
    found = []
    for contract in recording.provenance.contracts:
        if contract.pools != pools:
            continue
        for seen in recording.provenance.origins:
            here = (seen.owner, seen.role, seen.path) == (contract.owner, "in", contract.argument)
            if here and seen.origin is not None:
                # Fewer bits are another fault than another map.
                same = seen.origin.map in ("identity", "cast")
                if not (same and seen.origin.column == contract.column):
                    found.append((contract, seen))
                break
    return found


def unjudged_contracts(recording: Recording, *, pools: bool, name: str) -> Unjudged | None:
    """Declared raw arguments of which nothing could be recognised, or that were not seen."""
    assert recording.provenance is not None
    known = {
        (seen.owner, seen.path)
        for seen in recording.provenance.origins
        if seen.role == "in" and seen.origin is not None
    }
    unknown = [
        f"{contract.argument} of {contract.owner} "
        + ("carries no map of a raw column that is known" if contract.reached else "was not seen")
        for contract in recording.provenance.contracts
        if contract.pools == pools and (contract.owner, contract.argument) not in known
    ]
    return Unjudged(name=name, reason="; ".join(unknown)) if unknown else None


def place_of(seen: OriginRecord) -> Location | None:
    """Where the stage is defined."""
    if seen.file is None or seen.line is None:
        return None
    return Location(file=seen.file, line=seen.line)


def _left_of(origin: Origin, contract: RawContract) -> str:
    """What becomes of a difference, or of a ratio, of raw values."""
    if origin.column != contract.column:
        return ""  # of another quantity altogether
    if origin.map == "logarithm":
        return f"a factor of 2 arrives as a difference of {origin.slope * LOG_2:.3g}, and "
    one = f"1 {contract.unit}" if contract.unit else "1"
    return f"a difference of {one} arrives as {origin.slope:.3g}, and "


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each argument that is declared raw and is not."""
    if recording.provenance is None:
        return Unjudged(name=NAME, reason="provenance was not recorded")
    findings = []
    for contract, seen in broken_contracts(recording, pools=False):
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
                    f"{origin.formula}: all {origin.compared:,} rows agree to "
                    f"{origin.residual:.2g}; {_left_of(origin, contract)}its spread is "
                    f"{seen.spread:.3g}."
                ),
                evidence={
                    "argument": contract.argument,
                    "declared": contract.column,
                    "unit": contract.unit,
                    "map": origin.formula,
                    "kind": origin.map,
                    "slope": origin.slope,
                    "factor_of_two": origin.slope * LOG_2 if origin.map == "logarithm" else None,
                    "offset": origin.offset,
                    "floor": origin.floor,
                    "residual": origin.residual,
                    "tolerance": origin.tolerance,
                    "rows": origin.compared,
                    "spread": seen.spread,
                },
                remedy=f"Pass the raw {contract.column} to {seen.stage}; scale what it gives.",
                location=place_of(seen),
            )
        )
    unknown = unjudged_contracts(recording, pools=False, name=NAME)
    return unknown if unknown is not None and not findings else tuple(findings)
