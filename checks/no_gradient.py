"""Parameters get no gradient.

What it looks at:
    Every parameter that asks for a gradient, over several micro-batches. Where none came, or
    nothing but zeros, the part is moved by its own size: if the loss follows, a gradient ought
    to have come. Parameters that ask for none are looked at too: torch layers that are frozen,
    in training mode, between trained ones or with weights as torch draws them.
Why it hurts:
    What gets no gradient stays as it was drawn. The rest of the model learns around it, and
    nothing is raised.
A bad run:
    A `detach()`, `.item()`, `.data` or `no_grad` between two stages; a comparison, a rounding
    or an argmax in the flow; a layer frozen and forgotten; a layer that is built and never
    called.
What to do:
    Take out what cuts the graph at the stage that is named; train or remove what is frozen or
    unused.
Limits:
    Parts that the loss does not depend on are a note: unused, or behind a weight of 0 as it is
    initialised. A part that is frozen in evaluation mode, with weights that were learnt, or that
    is most of the model, is taken for deliberate. A frozen last layer of fewer than 64 values is
    not told from one that was learnt.
"""

from icediag.finding import Finding
from icediag.recording import Location, Recording, Unjudged
from icediag.records.gradients import GradientsRecord, ParameterFlow

CODE = "G01"
NAME = "no-gradient"
NEEDS = ("gradients",)

#: Relative change of the loss above which it depends on a part that was moved.
DEPENDS = 1e-5
#: Layers of torch that learn; a norm that is frozen is a habit of its own.
LAYERS = ("Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "LSTM", "GRU", "RNN")
#: Frozen layers that hold a larger share of all values are a backbone.
BACKBONE = 0.5


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the parts that nothing comes back to."""
    record = recording.gradients
    if record is None:
        return Unjudged(name=NAME, reason="gradients were not recorded")
    if record.reason is not None:
        return Unjudged(name=NAME, reason=record.reason)
    findings: list[Finding] = []
    trained = [p for p in record.parameters if p.trained]
    if trained and not record.loss_depends:
        return (_cut_off(record, trained),)
    without = {p.name for p in trained if not p.gradient}
    for part, inside in record.parts(without).items():
        effect = max((p.effect for p in inside if p.effect is not None), default=None)
        if effect is not None and effect > DEPENDS:
            findings.append(_detached(record, part, inside, effect))
        elif all(p.gradient is None for p in inside):
            findings.append(_unused(record, part, inside, effect))
    findings.extend(_frozen(record))
    return tuple(findings)


def _cut_off(record: GradientsRecord, trained: list[ParameterFlow]) -> Finding:
    effects = {p.stage: p.effect for p in trained if p.effect is not None}
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage="model",
        message=(
            f"The loss depends on none of the {len(trained)} parameters: nothing to go back "
            "through."
        ),
        evidence={"parameters": len(trained), "loss": record.loss, "effect_of_moving": effects},
        remedy="Look for detach(), .item(), numpy or no_grad between the model and the loss.",
        location=_place(record, "model"),
    )


def _parameters(inside: tuple[ParameterFlow, ...]) -> str:
    return f"{len(inside)} parameter{'' if len(inside) == 1 else 's'}"


def _detached(
    record: GradientsRecord, part: str, inside: tuple[ParameterFlow, ...], effect: float
) -> Finding:
    none = all(p.gradient is None for p in inside)
    values = sum(p.values for p in inside)
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=part,
        message=(
            f"{values:,} values in {_parameters(inside)} of {part} get "
            f"{'no gradient' if none else 'a gradient of exactly 0'}, while moving them by their "
            f"own size changes the loss by {effect:.2g} of itself."
        ),
        evidence={
            "parameters": len(inside),
            "values": values,
            "gradient": None if none else 0.0,
            "effect_of_moving": effect,
            "micro_batches": record.micro_batches,
        },
        remedy=(
            f"Look for detach(), .data, .item() or no_grad in or after {part}."
            if none
            else f"Look for a rounding, comparison, clamp or hook in or after {part}."
        ),
        location=_place(record, part),
    )


def _unused(
    record: GradientsRecord,
    part: str,
    inside: tuple[ParameterFlow, ...],
    effect: float | None,
) -> Finding:
    ran = any(p.order is not None for p in inside)
    return Finding(
        code=CODE,
        name=NAME,
        severity="note",
        stage=part,
        message=(
            f"{sum(p.values for p in inside):,} values in {_parameters(inside)} of {part} are "
            f"not used: {'it ran, but' if ran else 'it never ran, and'} the loss does not depend "
            "on them."
        ),
        evidence={"parameters": len(inside), "ran": ran, "effect_of_moving": effect},
        remedy=f"Use {part} in forward, or remove it.",
        location=_place(record, part),
    )


def _forgotten(record: GradientsRecord) -> dict[str, list[ParameterFlow]]:
    """Frozen torch layers that are no backbone: between trained parts, or as torch draws them."""
    total = sum(p.values for p in record.parameters)
    orders = [p.order for p in record.parameters if p.trained and p.order is not None]
    frozen: dict[str, list[ParameterFlow]] = {}
    for parameter in record.parameters:
        if not parameter.trained:
            frozen.setdefault(parameter.stage, []).append(parameter)
    values = sum(p.values for layer in frozen.values() for p in layer)
    if not orders or values > BACKBONE * total:
        return {}
    partly = {p.stage for p in record.parameters if p.trained}
    found: dict[str, list[ParameterFlow]] = {}
    for stage, layer in frozen.items():
        first = layer[0]
        if first.type not in LAYERS or not first.training or first.order is None:
            continue
        between = min(orders) < first.order < max(orders)
        if stage not in partly and (between or any(p.drawn for p in layer)):
            found[stage] = layer
    return found


def _frozen(record: GradientsRecord) -> list[Finding]:
    """One finding for each part of which all layers were forgotten."""
    forgotten = _forgotten(record)
    findings = []
    for part, stages in _together(record, forgotten).items():
        layers = [p for stage in stages for p in forgotten[stage]]
        values = sum(p.values for p in layers)
        drawn = any(p.drawn for p in layers)
        findings.append(
            Finding(
                code=CODE,
                name=NAME,
                severity="warning",
                stage=part,
                message=(
                    f"{part} asks for no gradient ({values:,} values) and is in training mode"
                    + (
                        ": its weights are still as torch draws them, and stay so."
                        if drawn
                        else ", between parts that are trained: it stays as it is."
                    )
                ),
                evidence={"values": values, "as_drawn": drawn, "layers": stages},
                remedy=(
                    f"Set requires_grad of {part}, or put it into evaluation mode if that is meant."
                ),
                location=_place(record, part),
            )
        )
    return findings


def _together(
    record: GradientsRecord, forgotten: dict[str, list[ParameterFlow]]
) -> dict[str, list[str]]:
    """Forgotten layers by the largest part of the model that holds no trained parameter."""
    trained = [p.stage for p in record.parameters if p.trained]
    parts: dict[str, list[str]] = {}
    for stage in forgotten:
        part = stage
        while "." in part:
            larger = part.rpartition(".")[0]
            if any(other == larger or other.startswith(f"{larger}.") for other in trained):
                break
            part = larger
        parts.setdefault(part, []).append(stage)
    return parts


def _place(record: GradientsRecord, stage: str) -> Location | None:
    found = record.place_of(stage)
    return None if found is None else Location(file=found[0], line=found[1])
