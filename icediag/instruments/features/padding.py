"""Padding: which statistic changes when nothing but padding is added.

The batch is sent through twice, the second time with a few more padded slots for every sample. An
operation whose arguments agree on all slots that were there before, and whose result does not, is
where the padding enters. Only if the loss changes too is it noted.
"""

# B samples, L slots of a sample

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.bounds.dispatch import name_of, tensors_of
from icediag.instruments.running.operations import OperationMode
from icediag.instruments.shapes.slots import Slots, padded_leaves
from icediag.records.features import PaddedStatistic

from .labels import Line

#: Padded slots that are added.
EXTRA = 3
#: Change beside which rounding is small: sums over more zeros are taken in another order.
RELATIVE = 1e-4
#: Operations that take a statistic, or divide by a number of slots.
STATISTICS = {
    "mean", "sum", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min", "median",
    "logsumexp", "linalg_vector_norm", "norm", "native_layer_norm", "native_batch_norm",
    "_native_batch_norm_legit", "_batch_norm_with_update", "native_group_norm", "mse_loss",
    "smooth_l1_loss", "huber_loss", "nll_loss_forward", "nll_loss2d_forward", "div",
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "_adaptive_avg_pool2d",
}  # fmt: skip


@dataclass(eq=False)
class Taken:
    """One operation of a run."""

    name: str
    at: Line
    arguments: list[Tensor]
    results: list[Tensor]


class Statistics(OperationMode):
    """Keeps what statistics were taken of, and what they gave."""

    def __init__(self, line: Callable[[], Line]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken: list[Taken] = []
        self._line = line
        self._names: dict[Any, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        kwargs = kwargs or {}
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = name_of(func)
        if name not in STATISTICS:
            return func(*args, **kwargs)
        before = [tensor.detach().clone() for tensor in tensors_of((args, kwargs))]
        out = func(*args, **kwargs)
        results = [tensor.detach().clone() for tensor in tensors_of(out)][:1]
        self.taken.append(Taken(name, self._line(), before, results))
        return out


def longer(batch: Any, slots: Slots) -> list[tuple[Tensor, Tensor]]:
    """Add padding to a batch in place; gives what to undo: (tensor, what it held).

    What is added is what the padding of that tensor holds already.
    """
    undo = []
    for _, tensor, (b, n) in list(padded_leaves(batch, slots)):
        kept = torch.from_numpy(slots.of[b, n]).to(tensor.device)
        row, slot = (int(i) for i in (~kept).nonzero()[0])
        pad = tensor.detach()[row, slot].expand(b, EXTRA, *tensor.shape[2:])
        undo.append((tensor, tensor.data))
        tensor.data = torch.cat([tensor.detach(), pad], dim=1)
    return undo


def still(model: Any) -> None:
    """Switch off what is random in training; statistics of the batch are taken as ever."""
    if not isinstance(model, nn.Module):
        return
    for module in model.modules():
        name = type(module).__name__.lower()
        if "dropout" in name or "droppath" in name or isinstance(module, nn.MultiheadAttention):
            module.training = False
        if isinstance(module, nn.RNNBase):
            module.dropout = 0.0


def compare(
    first: list[Taken],
    second: list[Taken],
    sizes: tuple[int, int],
    losses: tuple[float, float],
) -> tuple[PaddedStatistic, ...]:
    """Statistics that follow the padding.

    Args:
        first: Of the batch as it is.
        second: With more padding.
        sizes: Samples, and slots of a sample before.
        losses: Of both runs.
    """
    if not abs(losses[1] - losses[0]) > RELATIVE * max(abs(losses[0]), 1e-6):
        return ()
    if [t.name for t in first] != [t.name for t in second]:
        return ()
    found: dict[tuple[Any, ...], PaddedStatistic] = {}
    for one, other in zip(first, second, strict=True):
        pairs = list(zip(one.arguments, other.arguments, strict=False))
        grown = any(a.shape != b.shape for a, b in pairs) or one.name == "div"
        if not grown or not all(_change(a, b) <= RELATIVE for a, b in pairs):
            continue
        change = max(
            (_change(a, b) for a, b in zip(one.results, other.results, strict=True)),
            default=0.0,
        )
        key = (one.at.stage, one.at.file, one.at.line, one.name)
        if change > RELATIVE and key not in found:
            found[key] = PaddedStatistic(
                stage=one.at.stage,
                op=one.name.removesuffix("_forward").removeprefix("native_"),
                extra=EXTRA,
                slots=sizes[1],
                change=change,
                loss=losses[0],
                padded_loss=losses[1],
                file=one.at.file,
                line=one.at.line,
            )
    return tuple(found.values())


def _change(a: Tensor, b: Tensor) -> float:
    """Largest difference on the slots that both have, over the largest value; inf if none fit."""
    if a.ndim != b.ndim:
        return float("inf")
    return min((_difference(a, cut) for cut in _cuts(a, b)), default=float("inf"))


def _cuts(a: Tensor, b: Tensor) -> list[Tensor]:
    """`b` without what was added, in each order in which flattened slots may lie.

    An axis that grew by 3 m holds m runs of slots: m is 1, or the number of samples, or of heads.
    """
    cuts = [b]
    for axis in range(a.ndim):
        if a.shape[axis] == b.shape[axis]:
            continue
        more = []
        for cut in cuts:
            # Slots alone, or slots of the first sample and then of the next flattened after it.
            more.append(cut.narrow(axis, 0, min(a.shape[axis], cut.shape[axis])))
            many, rest = divmod(b.shape[axis] - a.shape[axis], EXTRA)
            if rest == 0 and many > 1 and a.shape[axis] % many == 0:
                n = a.shape[axis] // many
                apart = torch.unflatten(cut, axis, (many, n + EXTRA)).narrow(axis + 1, 0, n)
                more.append(apart.flatten(axis, axis + 1))
        cuts = more
    return [cut for cut in cuts if cut.shape == a.shape]


def _difference(a: Tensor, b: Tensor) -> float:
    if not a.numel():
        return 0.0
    if not a.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    a, b = a.double(), b.double()
    both = a.isfinite() & b.isfinite()
    if not bool((a[~both].nan_to_num() == b[~both].nan_to_num()).all()):
        return float("inf")
    if not bool(both.any()):
        return 0.0
    size = float(a[both].abs().max())
    return float((a[both] - b[both]).abs().max()) / max(size, 1e-12)
