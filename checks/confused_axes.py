"""An axis has the size of another one.

What it looks at:
    Names of axes in signatures and in the fields of the batch (jaxtyping), over the whole flow, on
    two batches of different size. It speaks where a stage's axis has in both batches exactly the
    size that another name stands for, and not its own.
Why it hurts:
    Rows of one kind are taken for rows of another. Layers that work row by row do not mind: nothing
    raises, and what comes out belongs to something else.
A bad run:
    A stage that is declared to take `pulses` is given the rows of `doms`.
What to do:
    Hand on the tensor with the rows that are declared, or name the axis for what it is.
Limits:
    A name may mean something else in each stage, and in code of others often does. So it is judged
    only where both sizes are axes of the batch itself, where the function or class that declares
    the name uses it for one size alone, and where the name is not one for rows of any kind (`n`,
    `batch`, `rows`, ...). Levels that the model makes, as by pooling or flattening, are not judged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged
from icediag.records.contracts import Contract

from .wrong_unit import name_of, unit_breaches

CODE = "C02"
NAME = "confused-axes"
NEEDS = ("contracts",)

#: Names that say only that there are rows, or how wide they are.
ANY_ROWS = frozenset(
    {
        *("any", "batch", "batches", "bs", "channels", "cols", "columns", "dim", "dims"),
        *("elements", "features", "groups", "heads", "height", "hidden", "in", "input"),
        *("inputs", "items", "keys", "len", "length", "num", "other", "out", "output"),
        *("outputs", "queries", "rest", "row", "rows", "samples", "seq", "sequence", "size"),
        *("src", "steps", "tgt", "time", "tokens", "values", "width"),
    }
)
#: Below this size two axes may well agree by chance in both batches.
SMALLEST = 6

Sizes = tuple[int, int]


@dataclass(frozen=True)
class Use:
    """One use of a name: where, and for which sizes in the two batches."""

    contract: Contract
    name: str
    sizes: Sizes

    @property
    def by(self) -> str:
        """Who names the axis."""
        return self.contract.holder or self.contract.owner


def uses(recording: Recording) -> Iterator[Use]:
    """All uses of names for axes that follow the data."""
    assert recording.contracts is not None
    for contract in recording.contracts.contracts:
        if any(breach.kind == "shape" for breach in contract.breaches):
            continue  # contract-broken tells what is wrong there
        rows = zip(contract.axes, contract.sizes, contract.small_sizes, strict=False)
        for name, large, small in rows:
            if name is not None and large != small:
                yield Use(contract, name, (large, small))


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name each stage whose axis is another stage's."""
    assert recording.contracts is not None
    of_batch = {(sizes[0], sizes[1]) for sizes in recording.contracts.batch_axes}
    found = [use for use in uses(recording) if not (len(use.name) < 3 or use.name in ANY_ROWS)]
    by_owner: dict[tuple[str, str], set[Sizes]] = defaultdict(set)
    for use in found:
        by_owner[use.by, use.name].add(use.sizes)
    found = [use for use in found if len(by_owner[use.by, use.name]) == 1]
    meaning = _meanings(found)
    # Another tensor altogether is told by wrong-unit, with what it is.
    others_told = {contract.stage for contract, *_ in unit_breaches(recording)}
    findings = []
    told: set[tuple[str, str]] = set()
    for use in found:
        own = meaning[use.name]
        if use.contract.stage in others_told:
            continue
        if use.sizes == own.sizes or not {use.sizes, own.sizes} <= of_batch:
            continue
        if min(*use.sizes, *own.sizes) < SMALLEST and use.sizes[0] < 4 * SMALLEST:
            continue
        # A name with the sizes of yet another name from the start is one for several things.
        alias = any(
            other != use.name and there.sizes == own.sizes for other, there in meaning.items()
        )
        if alias and own.contract.holder is None:
            continue
        others = [
            (other, there)
            for other, there in meaning.items()
            if other != use.name and there.sizes == use.sizes
        ]
        if not others or (use.name, others[0][0]) in told:
            continue
        other, there = others[0]
        told.add((use.name, other))
        findings.append(_finding(use, own, other, there, found))
    return tuple(findings)


def _meanings(found: list[Use]) -> dict[str, Use]:
    """For each name the use that tells its size: a field of the batch, else the most frequent."""
    meaning: dict[str, Use] = {}
    for name in dict.fromkeys(use.name for use in found):
        these = [use for use in found if use.name == name]
        fields = [use for use in these if use.contract.holder and use.contract.stage == "collate"]
        votes = Counter(sizes for _, sizes in {(use.by, use.sizes) for use in fields or these})
        most = max(votes.values())
        # Of several, the one that was met first.
        meaning[name] = next(u for u in fields or these if votes[u.sizes] == most)
    return meaning


def _finding(use: Use, own: Use, other: str, there: Use, found: list[Use]) -> Finding:
    contract = use.contract
    also = dict.fromkeys(
        u.contract.stage
        for u in found
        if (u.name, u.sizes) == (use.name, use.sizes) and u.contract.stage != contract.stage
    )
    large, small = use.sizes
    return Finding(
        code=CODE,
        name=NAME,
        severity="warning",
        stage=contract.stage,
        message=(
            f"{name_of(contract)} is declared to have {use.name} and has the rows of {other}: "
            f"{large:,} (and {small:,} in a smaller batch), as {name_of(there.contract)} of "
            f"{there.contract.stage} has {other}; {use.name} is {own.sizes[0]:,} (and "
            f"{own.sizes[1]:,}) in {name_of(own.contract)} of {own.contract.stage}."
        ),
        evidence={
            "tensor": contract.path,
            "role": contract.role,
            "axis": use.name,
            "axis_of": other,
            "sizes": list(use.sizes),
            "expected": list(own.sizes),
            "expected_in": own.contract.stage,
            "axis_of_in": there.contract.stage,
            "also": list(also),
        },
        remedy=f"Pass {use.name} to {contract.stage}, or declare {name_of(contract)} as {other}.",
        location=contract.location,
    )
