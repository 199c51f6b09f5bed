"""How gradients flow through a model and what a step makes of them: facts only, serializable."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class ParameterFlow:
    """One parameter.

    Attributes:
        name: Its path in the model.
        stage: Path of the module that holds it, "model" for the model itself.
        type: Class of that module.
        values: Number of values.
        axes: Number of axes.
        order: When that module ran first, counted from 0; None where it did not run.
        came: The how manieth its gradient was to come back, counted from 0: what is used last comes
            first. None where none came.
        gain: By how much it multiplies what goes through it, 1 where variance is kept: of a matrix
            the geometric mean of forth and back, of the weights of a norm their root mean square;
            None for biases and tables of names.
        trained: Whether it asks for a gradient.
        training: Whether its module was in training mode as it was found.
        gradient: Norm of its gradient, mean over the micro-batches; None where none came.
        zeros: Share of values whose gradient was 0 in all of them.
        noise: Variance of the gradient over micro-batches, over the square of their mean; infinite
            where the mean cannot be told from 0, which says that it is more than their number.
        weight: Norm.
        drawn: Whether it is as torch draws the weights of linear layers and convolutions: uniform
            up to the inverse root of what goes in.
        held: Whether the optimizer has it.
        decay: The weight decay it gets there; None where the optimizer knows of none.
        update: Norm of its largest change in a step; None where no step came through.
        unmoved: Whether all steps together left it bit for bit.
        lost: Share of values with a gradient that the last step left bit for bit.
        effect: Relative change of the loss when it, or the part of the model that it belongs to, is
            moved by its own size; None where that was not tried: where a gradient came.
    """

    name: str
    stage: str
    type: str = ""
    values: int = 0
    axes: int = 1
    order: int | None = None
    came: int | None = None
    gain: float | None = None
    trained: bool = True
    training: bool = True
    gradient: float | None = None
    zeros: float = 0.0
    noise: float | None = None
    weight: float = 0.0
    drawn: bool = False
    held: bool = True
    decay: float | None = None
    update: float | None = None
    unmoved: bool = False
    lost: float = 0.0
    effect: float | None = None

    @property
    def ratio(self) -> float | None:
        """Size of the largest update beside that of the weight."""
        if self.update is None or not self.weight:
            return None
        return self.update / self.weight


@dataclass(frozen=True, kw_only=True)
class StageSignal:
    """What goes through one stage, forth and back.

    Attributes:
        stage: Path of the module.
        type: Its class.
        order: When it ran first.
        file: Source file of its forward; None for torch's own.
        line: Its line.
        signal: Root mean square of its output.
        gradient: Root mean square of the loss's gradient by it; None where none came.
        zeros: Share of zeros in that gradient.
        weights: Whether it holds parameters itself.
    """

    stage: str
    type: str = ""
    order: int = 0
    file: str | None = None
    line: int | None = None
    signal: float = 0.0
    gradient: float | None = None
    zeros: float = 0.0
    weights: bool = False


@dataclass(frozen=True, kw_only=True)
class ActivationFlow:
    """One activation function.

    Attributes:
        stage: Module that it ran in.
        op: Such as `relu`.
        kind: `rectifier`: 0 on one side; `squash`: flat at both ends.
        units: Number of units, along the channel axis.
        dead: Units that gave nothing, or were at an end of their range, on every row.
        saturated: Share of values at an end.
        rows: Rows that were looked at.
        file: Source file of the call.
        line: Its line.
    """

    stage: str
    op: str
    kind: Literal["rectifier", "squash"]
    units: int
    dead: int
    saturated: float
    rows: int
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionFlow:
    """Attention weights of one stage.

    Attributes:
        stage: Module that it ran in.
        heads: Number of heads.
        keys: Most keys that a query may look at.
        entropy: Mean over heads and queries of the entropy of the weights, over that of equal
            weights: 1 looks everywhere alike, 0 at one key.
        lowest: Of the head with the lowest.
        highest: Of the head with the highest.
        file: Source file of the call.
        line: Its line.
    """

    stage: str
    heads: int
    keys: int
    entropy: float
    lowest: float
    highest: float
    file: str | None = None
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class StepFlow:
    """One training step, as the user takes it.

    Attributes:
        loss: Its loss; None where the step gave none.
        backward: Whether gradients came to the parameters that were watched.
        steps: How often the optimizer stepped in it.
        rate: Largest learning rate after it.
        scale: What the gradient that was stepped with is, over the one that came back since the
            last step: 1 as it came, below where it was clipped. None where it is no multiple of it.
        since: Distance of the gradient stepped with from a multiple of what came back since the
            last step, relative.
        ever: Distance from a multiple of what came back since the beginning, relative.
        norm: Norm that a clipping function of torch's found; None where none was called.
        limit: What it clips to.
    """

    loss: float | None = None
    backward: bool = False
    steps: int = 0
    rate: float | None = None
    scale: float | None = None
    since: float | None = None
    ever: float | None = None
    norm: float | None = None
    limit: float | None = None


@dataclass(frozen=True, kw_only=True)
class NonFiniteOp:
    """The operation at whose backward pass a gradient stopped being finite.

    Attributes:
        op: Such as `SqrtBackward0`.
        stage: Innermost module that it ran in.
        file: Source file of the user's line that called it.
        line: That line.
        value: `nan` or `inf`.
    """

    op: str
    stage: str
    file: str | None = None
    line: int | None = None
    value: str = "nan"


@dataclass(frozen=True, kw_only=True)
class GradientsRecord:
    """Gradients of a few micro-batches, and a few steps.

    Attributes:
        parameters: Each one, in the order of the model.
        stages: Each module that ran, in that order.
        activations: Activation functions.
        attention: Attention weights, where they could be had.
        steps: Training steps.
        micro_batches: How many were sent back and forth.
        events: Events in each.
        optimizer: Class of the optimizer.
        adaptive: Whether it scales each value by its own history, as Adam: then the learning rate
            alone sets the size of an update.
        default_optimizer: Whether Adam stood in for one that was not given.
        own_step: Whether the user's `train_step` was used.
        loss_depends: Whether the loss depends on any parameter.
        loss: Its value on the first micro-batch.
        noise: Gradient noise of all parameters together, see `ParameterFlow.noise`.
        non_finite: Where a gradient stopped being finite.
        reason: Why nothing could be seen.
        not_seen: What could not be seen, and why.
    """

    parameters: tuple[ParameterFlow, ...] = ()
    stages: tuple[StageSignal, ...] = ()
    activations: tuple[ActivationFlow, ...] = ()
    attention: tuple[AttentionFlow, ...] = ()
    steps: tuple[StepFlow, ...] = ()
    micro_batches: int = 0
    events: int = 0
    optimizer: str = ""
    adaptive: bool = False
    default_optimizer: bool = False
    own_step: bool = False
    loss_depends: bool = True
    loss: float | None = None
    noise: float | None = None
    non_finite: NonFiniteOp | None = None
    reason: str | None = None
    not_seen: tuple[str, ...] = ()

    def parts(self, names: set[str]) -> dict[str, tuple[ParameterFlow, ...]]:
        """The largest parts of the model all of whose trained parameters are among `names`.

        Example: with `a.0.weight`, `a.1.weight` and `b.weight` of `a.0, a.1, b, c` it gives `a` and
        `b`.
        """
        trained = [p for p in self.parameters if p.trained]
        found: dict[str, tuple[ParameterFlow, ...]] = {}
        paths = {"model"}
        for parameter in trained:
            pieces = parameter.stage.split(".")
            paths |= {".".join(pieces[: i + 1]) for i in range(len(pieces))}
        for path in sorted(paths, key=lambda path: (path != "model", path.count("."))):
            if any(path.startswith(f"{larger}.") or larger == "model" for larger in found):
                continue
            inside = tuple(p for p in trained if path == "model" or _within(p.stage, path))
            if inside and all(p.name in names for p in inside):
                found[path] = inside
        covered = {p.name for inside in found.values() for p in inside}
        for parameter in trained:
            if parameter.name in names - covered:
                found.setdefault(parameter.name, (parameter,))
        return found

    def place_of(self, stage: str) -> tuple[str, int] | None:
        """File and line of the innermost stage of the user's own that holds `stage`."""
        known = {s.stage: (s.file, s.line) for s in self.stages}
        while True:
            file, line = known.get(stage, (None, None))
            if file is not None and line is not None:
                return file, line
            if stage == "model":
                return None
            stage = stage.rpartition(".")[0] or "model"


def _within(stage: str, path: str) -> bool:
    return stage == path or stage.startswith(f"{path}.")
