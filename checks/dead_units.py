"""Units of a layer are dead.

What it looks at:
    Rectifiers (ReLU, GELU, SiLU): units that give nothing on any row of several micro-batches.
Why it hurts:
    A unit that is 0 everywhere gets no gradient, and its weights do not come back; the layer is
    narrower than it seems.
A bad run:
    A bias of -10 before a ReLU; a learning rate that threw the weights to one side.
What to do:
    Look at what goes in: its offset, the bias, the learning rate. A leaky rectifier lets a
    slope through.
Limits:
    Up to four units in five may be dead in a healthy layer: where all rows are alike, half of
    them are by chance. Fewer than 32 rows are not judged.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.gradients import ActivationFlow

CODE = "G06"
NAME = "dead-units"
NEEDS = ("gradients",)

#: Share of dead units, least units, and least rows, from which on it is judged.
SHARE = 0.8
UNITS = 4
ROWS = 32
#: Rows that will do where all units are dead.
FEW = 4


def enough(seen: ActivationFlow) -> bool:
    """Whether enough rows were seen: few will do where no unit of many has given anything."""
    return seen.rows >= ROWS or (seen.dead == seen.units and seen.rows >= FEW)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the layers of which most is dead."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return ()
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="error" if seen.dead == seen.units else "warning",
            stage=seen.stage,
            message=(
                f"{seen.dead} of {seen.units} units of {seen.op} give nothing on any of "
                f"{seen.rows:,} rows."
            ),
            evidence={"dead": seen.dead, "units": seen.units, "rows": seen.rows, "op": seen.op},
            remedy="Look at the offset of what goes in: bias, normalisation, learning rate.",
            location=(
                Location(file=seen.file, line=seen.line)
                if seen.file is not None and seen.line is not None
                else None
            ),
        )
        for seen in record.activations
        if seen.kind == "rectifier"
        and seen.units >= UNITS
        and enough(seen)
        and seen.dead > SHARE * seen.units
    )
