"""A module uses tensors or weights that torch does not know of.

What it looks at:
    Plain tensors among a module's attributes, and modules and weights in plain lists and dicts,
    that the forward pass uses. Then everything that torch does know of is moved to another device,
    in effect, and the operation that meets tensors of both devices is named.
Why it hurts:
    `model.to(device)` leaves them behind, so that the first step on a GPU fails; `state_dict()`
    leaves them out, so that a loaded model has others; and weights that `parameters()` does not
    list are never trained.
A bad run:
    self.shift = torch.tensor([...]) in a normaliser; layers in a Python list.
What to do:
    register_buffer for tensors, nn.ModuleList, nn.ModuleDict or nn.Parameter for weights.
Limits:
    A tensor that the code takes along itself (`.to(x.device)`) and single numbers are in order.
    Weights in a container that are used without gradients, such as a teacher that is hidden on
    purpose, are not named. Where the moved run does not come through, that is said.
"""

from icediag.finding import Finding, Severity
from icediag.recording import Recording, Unjudged
from icediag.records.features import LooseState

from .unnormalized_input import place_of

CODE = "V05"
NAME = "unregistered-tensor"
NEEDS = ("features",)


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Name the state that would be left behind."""
    if recording.features is None:
        return Unjudged(name=NAME, reason="features were not recorded")
    findings, unknown = [], []
    weights: dict[tuple[str, str], list[LooseState]] = {}
    for state in recording.features.loose:
        if state.asks:
            container = state.attribute.split("[")[0].split(".")[0]
            weights.setdefault((state.module, container), []).append(state)
        elif state.kind == "tensor" and state.mixes is not None:
            findings.append(_left_behind(state))
        elif state.kind == "tensor" and not state.followed and state.numbers > 1:
            unknown.append(f"{state.module}.{state.attribute}")
    findings.extend(_untrained(module, name, found) for (module, name), found in weights.items())
    if unknown and not findings:
        reason = f"the moved run did not come through; not known of {', '.join(unknown[:4])}"
        return Unjudged(name=NAME, reason=reason)
    return tuple(findings)


def _left_behind(state: LooseState) -> Finding:
    severity: Severity = "warning"
    return Finding(
        code=CODE,
        name=NAME,
        severity=severity,
        stage=state.module,
        message=(
            f"{state.attribute}, {state.numbers:,} numbers, is a plain tensor: with the model on "
            f"another device, {state.mixes} meets tensors of both devices, and state_dict() leaves "
            "it out."
        ),
        evidence={
            "attribute": state.attribute,
            "numbers": state.numbers,
            "operation": state.mixes,
        },
        remedy=f'self.register_buffer("{state.attribute.split("[")[0]}", ...).',
        location=place_of(state),
    )


def _untrained(module: str, name: str, found: list[LooseState]) -> Finding:
    numbers = sum(state.numbers for state in found)
    return Finding(
        code=CODE,
        name=NAME,
        severity="error",
        stage=module,
        message=(
            f"{numbers:,} weights in {name} are used with gradients and are not among "
            "parameters(): an optimizer of parameters() never trains them, to() does not move them "
            "and state_dict() leaves them out."
        ),
        evidence={
            "attribute": name,
            "tensors": [state.attribute for state in found][:20],
            "numbers": numbers,
        },
        remedy="Hold them in nn.ModuleList, nn.ModuleDict or nn.Parameter.",
        location=place_of(found[0]),
    )
