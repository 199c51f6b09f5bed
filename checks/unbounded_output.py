"""An output is not bounded to its domain.

What it looks at:
    Every column of `Pipeline.outputs`, for any finite input: intervals are carried through the
    model, and where they do not show that the column stays inside its domain, an input on which it
    leaves is searched for: on the batch, along the gradient, with the weights of the last module
    multiplied.
Why it hurts:
    An azimuth of -0.3 or a zenith of 4 means nothing to what comes after. Training can drive the
    output away without being told, and losses that fold angles hide it.
A bad run:
    A head that ends in a bare linear layer: azimuth and zenith are any real numbers.
What to do:
    Predict a vector and take its direction (atan2), or end in a bounded function that spans the
    domain.
Limits:
    The weights are those of the moment, and so are whole numbers of the batch but for the bytes of
    images. Bounds hold in real arithmetic with rounding allowed for;
    overflow to NaN is not spoken of. Where no witness is found and no operation bounds the output,
    it is a warning: the intervals may be too wide. Operations without a rule prove nothing.
"""

from typing import Any

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.bounds import OutputBounds, Witness

CODE = "B01"
NEEDS = ("bounds",)
NAME = "unbounded-output"


def _domain(output: OutputBounds) -> str:
    return f"[{output.domain_low:g}, {output.domain_high:g}]"


def _where(witness: Witness) -> str:
    if witness.how == "batch":
        return f"in row {witness.row} of the batch as it is"
    if witness.how == "ascent":
        moved = ", ".join(
            f"{path} in {ends[0]:.3g}..{ends[1]:.3g}" for path, ends in witness.inputs.items()
        )
        return f"in row {witness.row} of the batch moved along the gradient ({moved})"
    return (
        f"in row {witness.row} of the batch with the weights of {witness.module} multiplied by "
        f"{witness.factor:g}"
    )


def _bounded_by(output: OutputBounds) -> str:
    if output.last is None:
        return "no operation bounds it"
    place = output.last.place
    at = f" ({place.file}:{place.line})" if place.file else ""
    return (
        f"the last operation that bounds it is {place.op.removeprefix('aten::')} in {place.stage}"
        f"{at}, and after it the bounds are [{output.low:.4g}, {output.high:.4g}]"
    )


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the outputs that leave their domain, or that nothing keeps there."""
    bounds = recording.bounds
    if bounds is None:
        return Unjudged(name=NAME, reason="bounds were not recorded")
    if not bounds.outputs:
        reasons = [f"{note.name}: {note.reason}" for note in bounds.not_judged]
        return Unjudged(name=NAME, reason="; ".join(reasons) or "no outputs declared")
    findings = tuple(
        finding for output in bounds.outputs if (finding := _finding(output)) is not None
    )
    unclear = [output for output in bounds.outputs if output.why_not and output.witness is None]
    if not findings and unclear:
        named = "; ".join(f"{output.column}: {output.why_not}" for output in unclear)
        return Unjudged(name=NAME, reason=named)
    return findings


def _finding(output: OutputBounds) -> Finding | None:
    witness = output.witness
    if output.proved or (witness is None and not _loose(output)):
        return None
    if witness is not None:
        seen = f"is {witness.value:.4g} {_where(witness)}"
    else:
        seen = (
            "could not be shown to stay there, and no input was found that leaves it "
            f"(tried: {output.searched})"
        )
    evidence: dict[str, Any] = {
        "column": output.column,
        "domain": [output.domain_low, output.domain_high],
        "bounds": [output.low, output.high],
        "searched": output.searched,
    }
    if witness is not None:
        evidence |= {
            "value": witness.value,
            "row": witness.row,
            "how": witness.how,
            "inputs": {path: list(ends) for path, ends in witness.inputs.items()},
            "module": witness.module,
            "factor": witness.factor,
        }
    location = None
    if output.file is not None and output.line is not None:
        location = Location(file=output.file, line=output.line)
    return Finding(
        code=CODE,
        name=NAME,
        severity="error" if witness is not None else "warning",
        stage=output.stage,
        message=f"{output.column} belongs in {_domain(output)} and {seen}; {_bounded_by(output)}.",
        evidence=evidence,
        remedy=(
            "Predict a vector and take its direction with atan2, or end in a bounded function that "
            "spans the domain."
        ),
        location=location,
    )


def _loose(output: OutputBounds) -> bool:
    """Whether nothing but a normalisation, or nothing at all, bounds an output."""
    return output.why_not is None and (output.last is None or output.last.kind == "norm")
