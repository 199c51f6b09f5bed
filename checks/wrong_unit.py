"""A tensor is not in the unit that is declared.

What it looks at:
    Arguments and results whose annotation has a `Unit`. What arrives is held against the raw
    columns of the batch and recognised to rounding; the units of raw columns are those of
    `Raw`, or of the field of the batch that has the column's name.
Why it hurts:
    A constant in nanoseconds or metres that meets a number of another scale has no meaning, and
    nothing raises.
A bad run:
    A stage that works in ns gets (time - 10000) / 30000, or the charge.
What to do:
    Pass the raw column, or declare that the argument has no unit.
Limits:
    A unit is judged where the column is recognised and its unit is known. Shifts keep a unit.
    Conversions between units (ns to us) are not judged, and of names for one unit only the common
    ones are known (ns and nanoseconds). What is declared `Raw` is judged by normalized-relative and
    normalized-weights.
"""

import math

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.contracts import Contract
from icediag.records.provenance import Origin, OriginRecord

from .normalized_relative import broken_contracts

CODE = "C03"
NAME = "wrong-unit"
NEEDS = ("contracts", "provenance")

#: Words for units, without dots, spaces and the plural's s.
WORDS = {
    "nanosecond": "ns",
    "nsec": "ns",
    "microsecond": "us",
    "usec": "us",
    "millisecond": "ms",
    "second": "s",
    "sec": "s",
    "metre": "m",
    "meter": "m",
    "centimetre": "cm",
    "centimeter": "cm",
    "kilometre": "km",
    "kilometer": "km",
    "radian": "rad",
    "degree": "deg",
    "photoelectron": "pe",
    "photo-electron": "pe",
    "npe": "pe",
    "electronvolt": "eV",
    "hertz": "Hz",
    "kelvin": "K",
    "volt": "V",
    "percent": "%",
}

#: Two slopes that differ by less are the same: rounding of a fit in float32.
SAME = 1e-4


def units_of_columns(recording: Recording) -> dict[str, str]:
    """Unit of each raw column: as a `Raw` states it, or the field of the batch of that name."""
    assert recording.provenance is not None
    assert recording.contracts is not None
    of_fields = {
        contract.path: contract.unit
        for contract in recording.contracts.contracts
        if contract.stage == "collate" and contract.unit is not None
    }
    of_raw = {c.column: c.unit for c in recording.provenance.contracts if c.unit is not None}
    return of_fields | of_raw


def _plain(unit: str) -> str:
    """One name for each unit: "nanoseconds" is "ns", "p.e." is "pe"."""
    bare = unit.replace("\u00b5", "u").replace("\u03bc", "u").replace(".", "").replace(" ", "")
    word = bare.lower()
    return WORDS.get(word) or WORDS.get(word.removesuffix("s")) or bare


def _keeps_unit(origin: Origin) -> bool:
    """Whether a map leaves the size of a difference as it is."""
    if origin.map in ("logarithm", "scaled by group"):
        return False
    return math.isclose(abs(origin.slope), 1.0, rel_tol=SAME)


def name_of(contract: Contract) -> str:
    """What a sentence calls the tensor."""
    return contract.path or "its result"


def raw_broken(recording: Recording) -> set[tuple[str, str]]:
    """(owner, argument) of what is declared raw and arrives as another map of a raw column."""
    if recording.provenance is None:
        return set()
    found = [
        *broken_contracts(recording, pools=False),
        *broken_contracts(recording, pools=True),
    ]
    return {(contract.owner, contract.argument) for contract, _ in found}


def told_elsewhere(recording: Recording) -> set[int]:
    """Numbers of the tensors of which another check says that they arrive normalised."""
    assert recording.contracts is not None
    broken = raw_broken(recording)
    return {
        contract.number
        for contract in recording.contracts.contracts
        if (contract.owner, contract.path) in broken and contract.number is not None
    }


def unit_breaches(recording: Recording) -> tuple[tuple[Contract, OriginRecord, Origin, str], ...]:
    """Contracts whose tensor is in another unit: with what was recognised, and the column's unit.

    A tensor that is handed on to a stage within is listed once.
    """
    if recording.contracts is None or recording.provenance is None:
        return ()
    units = units_of_columns(recording)
    elsewhere = told_elsewhere(recording)
    seen = {
        (o.owner, o.role, o.path): o for o in recording.provenance.origins if o.origin is not None
    }
    breaches = []
    told: set[int] = set()
    # What a stage gives from raw arguments that are none is a consequence.
    consequences = {owner for owner, _ in raw_broken(recording)}
    for contract in recording.contracts.contracts:
        found = seen.get((contract.owner, contract.role, contract.path))
        if contract.unit is None or contract.column is not None or found is None:
            continue
        if contract.number is not None and contract.number in elsewhere | told:
            continue
        if contract.role == "out" and contract.owner in consequences:
            continue
        origin = found.origin
        assert origin is not None
        unit = units.get(origin.column)
        if unit is None or (_plain(unit) == _plain(contract.unit)) == _keeps_unit(origin):
            continue  # in order, or a conversion
        if contract.number is not None:
            told.add(contract.number)
        breaches.append((contract, found, origin, unit))
    return tuple(breaches)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each tensor that carries another unit than declared."""
    return tuple(_finding(*breach) for breach in unit_breaches(recording))


def _finding(contract: Contract, found: OriginRecord, origin: Origin, unit: str) -> Finding:
    what = name_of(contract)
    has = f"{origin.column} in {unit}" if _keeps_unit(origin) else "which has no unit"
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=contract.stage,
        message=(
            f"{what} is declared in {contract.unit} and is {origin.formula}, {has}: all "
            f"{origin.compared:,} rows agree to {origin.residual:.2g}; its spread is "
            f"{found.spread:.3g}"
            + (f", and {100 * found.negative:.3g} % are negative." if found.negative else ".")
        ),
        evidence={
            "tensor": contract.path,
            "role": contract.role,
            "declared": contract.unit,
            "column": origin.column,
            "column_unit": unit,
            "map": origin.formula,
            "kind": origin.map,
            "slope": origin.slope,
            "offset": origin.offset,
            "residual": origin.residual,
            "tolerance": origin.tolerance,
            "rows": origin.compared,
            "negative_share": found.negative,
            "spread": found.spread,
        },
        remedy=f"Pass {contract.path or 'it'} in {contract.unit}, or declare what it is.",
        location=contract.location,
    )
