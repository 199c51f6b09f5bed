"""A tensor is not what the signature declares.

What it looks at:
    Every argument, result and field that has a contract: shape and dtype by jaxtyping, range by
    annotated-types, or any of these by `Pipeline.contracts`. Within one call a name of an axis
    means one size. Ranges are held against the values of the batch.
Why it hurts:
    What a stage computes from a tensor of another shape, type or range than it was written for has
    another meaning, and broadcasting hides it: no exception, a loss, and no learning.
A bad run:
    A pooling that is to weigh by charges >= 0 gets logarithms; an index of DOMs goes in where the
    index of pulses belongs.
What to do:
    Follow the tensor back from the stage that is named to where it was made. Where the code is
    right, correct the declaration.
Limits:
    Only what is declared is judged, in the first 32 calls of a stage within another, and ranges in
    the first 8. A range that a raw column breaks because it arrives normalised is the finding of
    normalized-relative or normalized-weights, one of a tensor in another unit that of wrong-unit,
    one that an output breaks that of unbounded-output, and NaN that of non-finite-value; they are
    not told twice. A value within four roundings of a limit counts as the limit itself.
"""

from collections import Counter
from collections.abc import Iterator

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.contracts import Breach, Contract

from . import non_finite_value
from .wrong_unit import name_of, raw_broken, told_elsewhere, unit_breaches

CODE = "C01"
NAME = "contract-broken"
NEEDS = ("contracts",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each tensor that breaks what is declared of it."""
    assert recording.contracts is not None
    findings = (*_conflicts(recording), *_others(recording))
    unread = recording.contracts.unread
    if unread and not findings:
        reason = "; ".join(f"{place}: {why}" for place, why in unread.items())
        return Unjudged(name=NAME, reason=reason)
    return findings


def _finding(contract: Contract, message: str, remedy: str, **evidence: object) -> Finding:
    common = {
        "tensor": contract.path,
        "role": contract.role,
        "declared": contract.declared,
        "declared_by": contract.holder or contract.owner,
    }
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=contract.stage,
        message=message,
        evidence=common | evidence,
        remedy=remedy,
        location=contract.location,
    )


def _named(breach: Breach) -> str | None:
    """The axis of `pulses = 56`, where a tensor disagrees with another one of the call."""
    name = breach.expected.partition(" = ")[0]
    return name if breach.kind == "shape" and breach.beside and name.isidentifier() else None


def _conflicts(recording: Recording) -> Iterator[Finding]:
    """Tensors of one call that have different sizes under one name: one finding a name."""
    assert recording.contracts is not None
    contracts = recording.contracts.contracts
    told: set[tuple[int, str]] = set()
    done: set[tuple[str, str, str | None]] = set()
    for contract in contracts:
        for breach in contract.breaches:
            name = _named(breach)
            place = (contract.stage, name or "", contract.holder)
            if name is None or place in done:
                continue
            done.add(place)
            sizes = {
                other: size
                for other in contracts
                if (other.stage, other.holder) == (contract.stage, contract.holder)
                for axis, size in zip(other.axes, other.sizes, strict=False)
                if axis == name
            }
            usual = _usual_size(contracts, contract, name, list(sizes.values()))
            odd = [c for c, size in sizes.items() if size != usual] or [contract]
            first = odd[0]
            if first.number is not None and (first.number, name) in told:
                continue  # handed on to a stage within
            told |= {(c.number, name) for c in odd if c.number is not None}
            size = sizes.get(first, breach.got)
            others = ", ".join(name_of(c) for c, n in sizes.items() if n == usual)
            several = len([c for c, n in sizes.items() if n == usual]) > 1
            yield _finding(
                first,
                f"{' and '.join(map(name_of, odd))} {'have' if len(odd) > 1 else 'has'} {size} "
                f"along {name}, where {others or 'the same call'} {'have' if several else 'has'} "
                f"{usual}: {first.path or 'the result'} is declared {first.declared}.",
                f"Pass to {first.stage} tensors that have the same {name}, or name the axis of "
                f"{name_of(first)} otherwise.",
                kind="shape",
                axis=name,
                size=size,
                expected=usual,
                sizes={c.path or "return": n for c, n in sizes.items()},
                call=breach.call,
            )


def _usual_size(
    contracts: tuple[Contract, ...], here: Contract, name: str, sizes: list[int]
) -> int | str:
    """The size that a name has in the rest of the flow, else the most frequent one of the call."""
    elsewhere = Counter(
        size
        for other in contracts
        if (other.stage, other.holder) != (here.stage, here.holder)
        for axis, size in zip(other.axes, other.sizes, strict=False)
        if axis == name and size in sizes
    )
    known = elsewhere or Counter(sizes)
    return known.most_common(1)[0][0] if known else "another size"


def _others(recording: Recording) -> Iterator[Finding]:
    assert recording.contracts is not None
    elsewhere = told_elsewhere(recording) | {
        contract.number for contract, *_ in unit_breaches(recording) if contract.number is not None
    }
    broken = raw_broken(recording)
    outputs = _outputs_of_bounds(recording)
    nan = non_finite_value.check(recording)
    told: dict[tuple[object, ...], str] = {}
    for contract in recording.contracts.contracts:
        for breach in contract.breaches:
            if _named(breach):
                continue
            if breach.kind == "range" and (
                contract.number in elsewhere
                or (contract.owner, contract.path) in broken
                or (contract.role == "out" and contract.path.rpartition(".")[2] in outputs)
            ):
                continue
            if breach.kind == "finite" and nan and not isinstance(nan, Unjudged):
                continue
            key = (contract.number, breach.kind, breach.expected)
            if contract.number is not None and key in told:
                continue  # the same tensor, handed on
            told[key] = contract.stage
            yield _of(contract, breach)


def _outputs_of_bounds(recording: Recording) -> set[str]:
    """Output columns of which the bounds are judged: their range is told by unbounded-output."""
    if recording.bounds is None:
        return set()
    return {output.column for output in recording.bounds.outputs if not output.proved}


def _of(contract: Contract, breach: Breach) -> Finding:
    what = name_of(contract)
    share = (
        f" {breach.count:,} of {breach.total:,} values break it."
        if breach.count is not None and breach.total
        else ""
    )
    numbers = {
        "kind": breach.kind,
        "expected": breach.expected,
        "got": breach.got,
        "call": breach.call,
        "count": breach.count,
        "values": breach.total,
        "shape": list(contract.sizes),
    }
    if breach.kind == "shape":
        message = f"{what} is declared {contract.declared}: expected {breach.expected}, got "
        message += f"{breach.got}" + (f" in shape {contract.sizes}." if contract.sizes else ".")
        remedy = f"Pass a tensor of the declared shape to {contract.stage}, or correct what is "
        remedy += "declared."
    elif breach.kind == "dtype":
        message = f"{what} is declared {contract.declared} and is {breach.got}."
        remedy = f"Convert {what} where it is made, or declare the dtype that is meant."
    elif breach.kind == "range":
        end = "least" if breach.expected.startswith(">") else "most"
        message = f"{what} is declared {breach.expected} and is {breach.got} at the {end}.{share}"
        remedy = f"Follow {what} back to what gives values outside of the range; it is made before "
        remedy += f"{contract.stage}." if contract.role == "in" else f"{contract.stage} ends."
    else:
        message = f"{what} is declared {breach.expected} and holds {breach.got}.{share}"
        remedy = f"Follow {what} back to where these values arise."
    return _finding(contract, message, remedy, **numbers)
