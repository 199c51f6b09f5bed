"""Steps: what a training step, the user's own or a plain one, makes of the gradient."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.reasons import reason_of
from icediag.instruments.running.stages import FunctionStage, resolve, wrapped
from icediag.instruments.running.workbench import Batches, Workbench, rate_of, wants_closure
from icediag.records.gradients import StepFlow

#: Parameters whose gradient is followed value by value.
FOLLOWED = 6
#: Of the largest of them, so many values.
VALUES = 1 << 16
#: A loop that adds up gradients over several calls is followed until its optimizer has stepped so
#: often, or has not stepped in so many calls; and no longer than so many seconds.
OFTEN, CALLS, LIMIT_S = 3, 64, 10.0
#: How far a gradient may be off the sum of what came back, relative to it.
ROUNDING = 1e-3


class _Followed:
    """What came back to some parameters since the last step, and since the beginning.

    Args:
        parameters: Those that are followed value by value.
        named: All of them: which values have a gradient as the optimizer steps is noted.
    """

    def __init__(self, parameters: list[nn.Parameter], named: dict[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.named = named
        self.pushed: dict[str, Tensor] = {}
        self.since: list[Tensor | None] = [None] * len(parameters)
        self.ever: list[Tensor | None] = [None] * len(parameters)
        self.arrived = 0
        self.steps = 0
        self._products: Tensor | None = None

    @contextmanager
    def hooked(self, optimizer: Any) -> Iterator[None]:
        with ExitStack() as hooks:
            for i, parameter in enumerate(self.parameters):

                def came(gradient: Tensor, i: int = i) -> None:
                    self.arrived += 1
                    piece = _piece(gradient)
                    for kept in (self.since, self.ever):
                        before = kept[i]
                        kept[i] = piece.clone() if before is None else before + piece

                hooks.callback(parameter.register_hook(came).remove)  # type: ignore[no-untyped-call]
            # One that evaluates a closure gets its gradient after this hook.
            if isinstance(optimizer, torch.optim.Optimizer) and not wants_closure(optimizer):
                hooks.callback(optimizer.register_step_pre_hook(self._stepping).remove)
            yield

    def _stepping(self, *_: Any) -> None:
        self.steps += 1
        for name, parameter in self.named.items():
            if parameter.grad is not None and not parameter.grad.is_sparse:
                pushed = parameter.grad.detach() != 0
                self.pushed[name] = self.pushed[name] | pushed if name in self.pushed else pushed
        self._products = self._products_now()
        self.since = [None] * len(self.parameters)

    def _products_now(self) -> Tensor | None:
        """Products of gradients as they are with what came since the last step, and ever."""
        sums = None
        for parameter, since, ever in zip(self.parameters, self.since, self.ever, strict=True):
            if parameter.grad is None or since is None or ever is None:
                continue
            grad = _piece(parameter.grad)
            pairs = ((grad, since), (grad, ever), (since, since), (ever, ever), (grad, grad))
            products = torch.stack([(a * b).sum() for a, b in pairs])
            sums = products if sums is None else sums + products
        return sums

    @property
    def adding_up(self) -> bool:
        """Whether gradients are the sum, up to a factor, of all that came since the last step."""
        products = self._products_now()
        if products is None:
            return False
        gs, _, ss, _, gg = products.tolist()
        return bool(gg > 0 and ss > 0 and 1 - gs * gs / (ss * gg) < ROUNDING**2)

    def taken(self) -> list[float] | None:
        """grad.since, grad.ever, since.since, ever.ever, grad.grad at the last step, read once."""
        products, self._products = self._products, None
        return None if products is None else products.tolist()


def _piece(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    return tensor.reshape(-1)[:VALUES].double()


def _followed(model: nn.Module, held: set[int]) -> list[nn.Parameter]:
    """A few of the parameters that the optimizer has, spread over the model."""
    able = [p for p in model.parameters() if p.requires_grad and id(p) in held]
    # A sparse gradient has other rows each time.
    sparse = {
        id(m.weight)
        for m in model.modules()
        if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse
    }
    able = [p for p in able if id(p) not in sparse]
    stride = max(1, len(able) // FOLLOWED)
    return able[::stride][:FOLLOWED]


@contextmanager
def _clipping(norms: list[tuple[Any, Any]]) -> Iterator[None]:
    """Have torch's clipping functions tell what they found."""

    def stand_in(stage: FunctionStage) -> Callable[..., Any]:
        def clip(*args: Any, **kwargs: Any) -> Any:
            limit = args[1] if len(args) > 1 else next(iter(kwargs.values()), None)
            limit = kwargs.get("max_norm", kwargs.get("clip_value", limit))
            found = stage.function(*args, **kwargs)
            norms.append((found, limit))
            return found

        return clip

    names = ("clip_grad_norm_", "clip_grad_value_")
    with wrapped([resolve(f"torch.nn.utils.clip_grad:{name}") for name in names], stand_in):
        yield


def take_steps(
    bench: Workbench, batches: list[Batches], n: int, notes: list[str]
) -> tuple[tuple[StepFlow, ...], dict[str, tuple[float, bool, float]], Any]:
    """Take some steps from the weights as they are found.

    Args:
        bench: The pipeline.
        batches: What to step on, in turn.
        n: How many calls; more where a loop steps once in several.
        notes: What could not be seen is added here.

    Returns:
        The steps; parameter -> (norm of its largest change, whether all steps left it bit for bit,
        share of values that the last one left although they had a gradient); the settings of the
        optimizer: parameter's identity -> weight decay.
    """
    flows: list[StepFlow] = []
    moved: dict[str, tuple[float, bool, float]] = {}
    decays: dict[int, float | None] = {}
    turn = [0]
    on_turn = _InTurn(batches, turn)
    named = dict(bench.model.named_parameters())
    try:
        with torch.enable_grad(), bench.stepping(on_turn) as (step, optimizer):
            for group in getattr(optimizer, "param_groups", ()):
                for parameter in group["params"]:
                    decays[id(parameter)] = group.get("weight_decay")
            followed = _Followed(_followed(bench.model, set(decays)), named)
            first = {name: p.detach().clone() for name, p in named.items()}
            end = time.monotonic() + LIMIT_S
            for i in range(max(n, CALLS)):
                # Most loops step in every call; others are followed until they have.
                if i >= n and (
                    followed.steps >= min(i, OFTEN)
                    or (not followed.steps and not followed.adding_up)
                    or time.monotonic() > end
                ):
                    break
                turn[0] = i % len(batches)
                before = {name: p.detach().clone() for name, p in named.items()}
                flow = _one(step, optimizer, followed)
                flows.append(flow)
                if flow.loss is not None and not math.isfinite(flow.loss):
                    break
                pushed, followed.pushed = followed.pushed, {}
                for name, (change, off, lost) in _moved(named, first, before, pushed).items():
                    before_that = moved[name][0] if name in moved else 0.0
                    largest = change if change > before_that else before_that
                    moved[name] = (largest, off, lost)
    except Exception as error:
        notes.append(f"steps: {reason_of(error, bench.pipeline)}")
    return tuple(flows), moved, decays


class _InTurn(Batches):
    """Batches one after the other."""

    def __init__(self, batches: list[Batches], turn: list[int]) -> None:
        super().__init__(lambda: None)
        self._batches, self._turn = batches, turn

    def __call__(self) -> Any:
        """The batch whose turn it is."""
        return self._batches[self._turn[0]]()


def _one(step: Callable[[], float], optimizer: Any, followed: _Followed) -> StepFlow:
    norms: list[tuple[Any, Any]] = []
    arrived, stepped = followed.arrived, followed.steps
    followed.taken()
    with followed.hooked(optimizer), _clipping(norms):
        loss = step()
    scale = since = ever = None
    products = followed.taken()
    if products is not None:
        gs, ge, ss, ee, gg = products
        if gg > 0 and ss > 0 and ee > 0:
            scale = gs / ss
            since = math.sqrt(max(0.0, 1 - gs * gs / (ss * gg)))
            ever = math.sqrt(max(0.0, 1 - ge * ge / (ee * gg)))
    norm, limit = norms[-1] if norms else (None, None)
    return StepFlow(
        loss=loss,
        backward=followed.arrived > arrived,
        steps=followed.steps - stepped,
        rate=rate_of(optimizer),
        scale=scale,
        since=since,
        ever=ever,
        norm=float(norm) if isinstance(norm, (Tensor, float, int)) else None,
        limit=float(limit) if isinstance(limit, (Tensor, float, int)) else None,
    )


def _moved(
    named: dict[str, nn.Parameter],
    first: dict[str, Tensor],
    before: dict[str, Tensor],
    pushed: dict[str, Tensor],
) -> dict[str, tuple[float, bool, float]]:
    """What the steps did to each parameter, with one copy from the device."""
    numbers = []
    for name, parameter in named.items():
        now = parameter.detach()
        change = torch.linalg.vector_norm((now - before[name]).double().abs())
        off = (now != first[name]).any().double()
        lost = torch.zeros_like(change)
        if name in pushed and now.numel():
            # What has no gradient stays by right: behind a ReLU, or at a border that is always 0.
            lost = ((now == before[name]) & pushed[name]).double().mean()
        numbers.append(torch.stack([change, off, lost]).cpu())
    table = torch.stack(numbers).tolist() if numbers else []
    return {
        name: (change, off == 0, lost)
        for name, (change, off, lost) in zip(named, table, strict=True)
    }
