"""What a watch looks at in a sampled step, as tensors that are read from the device later."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.trees.walk import leaves

from .rules import Sample

#: How many small gradients are looked at in every step, and how small these are.
GLANCED, GLANCED_SIZE = 3, 1 << 16
#: Fewer rows than this say nothing of how predictions spread.
MIN_ROWS = 4
#: Layers whose rows of weights are units that can die.
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def layers_of(model: nn.Module) -> dict[str, Tensor]:
    """Weights of layers whose output units are rows, by the layers' names."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, _LAYERS) and module.weight.requires_grad:
            found[name or type(module).__name__] = module.weight
    return found


def names_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    """The parameters that the optimizer moves, with their names in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    return [(names.get(id(p), f"parameter {i} of the optimizer"), p) for i, p in enumerate(moved)]


def norms(tensors: Iterable[Tensor]) -> Tensor | None:
    """Euclidean norm of each tensor in one vector of doubles; None where there is none."""
    dense = [t.detach() for t in tensors if t.layout == torch.strided]
    if not dense:
        return None
    device = dense[0].device
    each = (torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in dense)
    return torch.stack([norm.to(device) for norm in each])


def spread(predictions: Any) -> Tensor | None:
    """How far rows of a prediction differ, over its size; a scalar on the device.

    Args:
        predictions: A tensor, or a tree whose first tensor of numbers counts, a row a sample.
    """
    for _, tensor in leaves(predictions):
        if tensor.is_floating_point() and tensor.ndim >= 1 and tensor.shape[0] >= MIN_ROWS:
            rows = tensor.detach().reshape(tensor.shape[0], -1).double()
            size = rows.square().mean().sqrt()
            return rows.std(0).max() / size.clamp(min=torch.finfo(torch.float64).tiny)
    return None


@dataclass(frozen=True)
class Glance:
    """Whether gradients are finite, from a few small ones: cheap enough for every step.

    What is not finite spreads from where it is born to all that comes before it in the flow; what
    comes before everything are the first parameters.

    Attributes:
        total: Sum of them all, on the device; not finite where one of them is not.
    """

    total: Tensor

    @classmethod
    def at(cls, parameters: list[tuple[str, Tensor]]) -> "Glance | None":
        """Look at the first few small parameters, and at the last one."""
        small = [
            p.grad
            for _, p in parameters
            if p.grad is not None and p.grad.layout == torch.strided and p.numel() <= GLANCED_SIZE
        ]
        if not small:
            return None
        with torch.no_grad():
            sums = [grad.sum(dtype=torch.float32) for grad in (*small[:GLANCED], small[-1])]
            device = sums[0].device
            return cls(torch.stack([one.to(device) for one in sums]).sum())

    def bad(self, parameters: list[tuple[str, Tensor]]) -> tuple[str, ...]:
        """Names of parameters whose gradient is not finite; on a GPU the loop may have gone on."""
        if abs(float(self.total)) < float("inf"):
            return ()
        grads = [(name, p.grad) for name, p in parameters if p.grad is not None]
        return tuple(
            name
            for name, grad in grads
            if grad.layout == torch.strided and not bool(torch.isfinite(grad).all())
        ) or ("a parameter",)


@dataclass
class Look:
    """A sampled step whose numbers may still lie on the device.

    Attributes:
        step: Its number.
        names: Of the parameters with a gradient, in the order of `gradients`.
        gradients: Norms of their gradients, as the optimizer got them.
        before: The weights before the step, to be held against those after.
        moved: Those parameters.
        dead: Layer -> flags of units without gradient.
        spread: See `spread`.
        update: Norms of weights' changes over norms of weights.
    """

    step: int
    names: list[str]
    gradients: Tensor | None
    before: list[Tensor]
    moved: list[Tensor]
    dead: dict[str, Tensor]
    spread: Tensor | None = None
    update: Tensor | None = None

    @classmethod
    def at(
        cls, step: int, parameters: list[tuple[str, Tensor]], layers: dict[str, Tensor]
    ) -> "Look":
        """Look at gradients, before the optimizer takes its step."""
        with_gradient = [(name, p, p.grad) for name, p in parameters if p.grad is not None]
        dead = {
            name: (weight.grad == 0).flatten(1).all(1)
            for name, weight in layers.items()
            if weight.grad is not None and weight.grad.layout == torch.strided
        }
        moved = [p for _, p, _ in with_gradient]
        return cls(
            step=step,
            names=[name for name, _, grad in with_gradient if grad.layout == torch.strided],
            gradients=norms(grad for _, _, grad in with_gradient),
            before=[p.detach().clone() for p in moved],
            moved=moved,
            dead=dead,
        )

    def after(self) -> None:
        """Look at the weights, after the optimizer took its step."""
        if self.moved:
            was = norms(self.before)
            change = norms(
                now.detach() - before for now, before in zip(self.moved, self.before, strict=True)
            )
            assert was is not None and change is not None
            tiny = torch.finfo(torch.float64).tiny
            self.update = change.norm() / was.norm().clamp(min=tiny)
        self.before = []

    def read(self) -> Sample:
        """Read it from the device, at one go."""
        parts: list[Tensor] = [
            part.reshape(-1).double()
            for part in (self.gradients, self.update, self.spread, *self.dead.values())
            if part is not None
        ]
        device = parts[0].device if parts else torch.device("cpu")
        flat = torch.cat([part.to(device) for part in parts]).tolist() if parts else []
        taken = 0

        def take(n: int) -> list[float]:
            nonlocal taken
            taken += n
            return flat[taken - n : taken]

        gradients = take(0 if self.gradients is None else self.gradients.numel())
        update = take(0 if self.update is None else 1)
        differ = take(0 if self.spread is None else 1)
        dead = {name: tuple(map(bool, take(flags.numel()))) for name, flags in self.dead.items()}
        bad = [
            name
            for name, norm in zip(self.names, gradients, strict=True)
            if not abs(norm) < float("inf")
        ]
        return Sample(
            step=self.step,
            gradient_norm=sum(norm * norm for norm in gradients) ** 0.5 if gradients else None,
            update=update[0] if update else None,
            spread=differ[0] if differ else None,
            dead=dead,
            bad_gradients=tuple(bad),
        )
