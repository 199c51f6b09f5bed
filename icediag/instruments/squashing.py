"""Squashing: whether what a loss takes for logits is a softmax or sigmoid already.

Results of softmax and sigmoid, also where they come from `exp` of their logarithms, are followed
through views, casts, clamps and choices of rows by their storage, from the model into the loss; any
other arithmetic on the way ends that.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from icediag.pipeline import Pipeline
from icediag.records.squashing import Squashed, SquashingRecord, Start, Takes

from .bounds.dispatch import name_of
from .bounds.places import line_of_user
from .recorder.following import (
    SAME_VALUES,
    FollowingMode,
    follow_values,
    key_of,
    storage_of,
    writes,
)

#: More samples do not tell more.
MOST_SAMPLES = 8
MAKERS = {"_softmax": "softmax", "sigmoid": "sigmoid"}
#: What gives their logarithms, and the logarithm's name: `exp` of it is what it is a logarithm of.
LOGARITHMS = {"_log_softmax": "softmax", "log_sigmoid_forward": "sigmoid"}
#: Operations that give the values they take, or some of them.
KEPT = SAME_VALUES | {"clamp_max", "index", "index_select", "select", "slice"}
#: Operation -> its name for a person, what it takes, and the axis of classes (argument 1 or fixed).
LOSSES: dict[str, tuple[str, Takes]] = {
    "_log_softmax": ("log_softmax", "logits"),
    "binary_cross_entropy_with_logits": ("binary_cross_entropy_with_logits", "logits"),
    "nll_loss_forward": ("nll_loss", "log-probabilities"),
    "nll_loss2d_forward": ("nll_loss", "log-probabilities"),
}
#: A logarithm of a probability that is above this is no matter of rounding.
ROUNDING = 1e-3


@dataclass(eq=False)
class _Made:
    """Values in 0..1: what made them, where, and the tensor that keeps their storage."""

    by: str
    axis: int | None
    at: str
    kept: Tensor
    logarithm: bool = False


class _Squashing(FollowingMode):  # type: ignore[no-untyped-call]
    """Follows what was squashed while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = 0
        self.found: dict[Any, Squashed] = {}
        self.starts: dict[Any, Start] = {}
        self._made: dict[tuple[Any, ...], _Made] = {}
        self._names: dict[Any, str] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        out = func(*args, **(kwargs or {}))
        if not self.armed or not args or not isinstance(args[0], Tensor):
            return out
        name = self._names.get(func)
        if name is None:
            name = self._names[func] = name_of(func)
        given = args[0]
        if given.layout != torch.strided or given.is_nested or given.is_meta:
            return out
        logarithm = self._made.get(key_of(given))
        if writes(func) and name not in KEPT:
            storage = storage_of(given)
            self._made = {key: made for key, made in self._made.items() if key[0] != storage}
        if name in MAKERS and isinstance(out, Tensor):
            axis = int(args[1]) % max(given.ndim, 1) if name == "_softmax" else None
            self._made[key_of(out)] = _Made(MAKERS[name], axis, self._here(), out)
        elif name in KEPT and isinstance(out, Tensor):
            made = self._made.get(key_of(given))
            if made is not None:
                self._made[key_of(out)] = replace(made, kept=out)
        elif name in ("exp", "exp_") and isinstance(out, Tensor):
            if logarithm is not None and logarithm.logarithm:
                squashed = replace(logarithm, at=self._here(), kept=out, logarithm=False)
                self._made[key_of(out)] = squashed
        elif name in LOSSES:
            self._look(name, given, args)
            self._begin(name, given, args)
        result = out[0] if name == "log_sigmoid_forward" else out
        if name in LOGARITHMS and isinstance(result, Tensor):
            axis = int(args[1]) % max(given.ndim, 1) if name == "_log_softmax" else None
            made = _Made(LOGARITHMS[name], axis, self._here(), result, logarithm=True)
            self._made[key_of(result)] = made
        return out

    def _here(self) -> str:
        place = line_of_user()
        return f"{self.stage()} ({place[0]}:{place[1]})" if place else self.stage()

    @torch.no_grad()
    def _look(self, name: str, given: Tensor, args: Any) -> None:
        if not given.numel() or not given.is_floating_point():
            return
        op, takes = LOSSES[name]
        made = self._made.get(key_of(given))
        if made is not None and made.logarithm:
            made = None  # a softmax of logarithms of probabilities is these again
        high = float(given.max())
        if op == "log_softmax":
            axis = int(args[1]) % max(given.ndim, 1)
            classes = given.shape[axis] if given.ndim else 1
            # A softmax over another axis leaves something to be decided over this one.
            if made is not None and made.by == "softmax":
                sums = given.double().sum(axis)
                if not bool(((sums - 1).abs() < ROUNDING).all()):
                    made = None
        elif op == "nll_loss":
            classes = given.shape[1] if given.ndim > 1 else given.shape[0]
        else:
            classes = 1
        self.looked += 1
        wrong_size = takes == "log-probabilities" and high > ROUNDING
        if classes < 2 and op != "binary_cross_entropy_with_logits":
            return
        if made is None and not wrong_size:
            return
        stage, place = self.stage(), line_of_user()
        self.found.setdefault(
            (op, stage, place),
            Squashed(
                op=op,
                takes=takes,
                given=made.by if made is not None else None,
                stage=stage,
                rows=given.numel() // max(classes, 1),
                classes=classes,
                high=high,
                above=float((given > 0).double().mean()),
                before=made.at if made is not None else None,
                file=place[0] if place else None,
                line=place[1] if place else None,
            ),
        )

    @torch.no_grad()
    def _begin(self, name: str, given: Tensor, args: Any) -> None:
        """What a cross entropy makes of its scores, as they are."""
        op, _ = LOSSES[name]
        stage, place = self.stage(), line_of_user()
        if op == "log_softmax" or (op, stage, place) in self.starts:
            return
        if not given.numel() or not given.is_floating_point() or not isinstance(args[1], Tensor):
            return
        found = _of_one(given, args[1]) if op != "nll_loss" else _of_classes(given, args[1])
        if found is None:
            return
        loss, uninformed, sure, spread = (values.double() for values in found)
        if len(loss) and bool(loss.isfinite().all()):
            self.starts[op, stage, place] = Start(
                op=op,
                stage=stage,
                rows=len(loss),
                classes=1 if op != "nll_loss" else given.shape[min(1, given.ndim - 1)],
                loss=float(loss.mean()),
                uninformed=float(uninformed.mean()),
                sure=float(sure.median()),
                spread=float(spread.median()),
                file=place[0] if place else None,
                line=place[1] if place else None,
            )


def _of_classes(logs: Tensor, labels: Tensor) -> tuple[Tensor, ...] | None:
    """Of logarithms of probabilities and their labels: loss, that of knowing nothing, and so on."""
    axis = min(1, logs.ndim - 1)
    rows = logs.movedim(axis, -1).reshape(-1, logs.shape[axis]).double()
    wanted = labels.reshape(-1)
    if len(wanted) != len(rows) or rows.shape[1] < 2:
        return None
    # Whatever lies outside is left out of the loss.
    kept = (wanted >= 0) & (wanted < rows.shape[1])
    rows, wanted = rows[kept], wanted[kept]
    if not len(rows) or float((rows.logsumexp(1)).abs().max()) > ROUNDING:
        return None
    there = rows.isfinite()
    spread = torch.where(there, rows, rows.amax(1, keepdim=True)).std(1)
    loss = -rows.gather(1, wanted[:, None])[:, 0]
    return loss, there.sum(1).log(), rows.amax(1).exp(), spread


def _of_one(scores: Tensor, truth: Tensor) -> tuple[Tensor, ...] | None:
    """Of scores that stand alone, and what is true, 0..1."""
    if truth.shape != scores.shape or not 0 <= float(truth.min()) <= float(truth.max()) <= 1:
        return None
    x, y = scores.reshape(-1).double(), truth.reshape(-1).double()
    loss = torch.nn.functional.softplus(x) - x * y
    return loss, torch.full_like(loss, math.log(2)), x.abs().sigmoid(), x.abs()


def record_squashing(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> SquashingRecord:
    """Look at what the loss takes for logits, and at what it takes for logarithms.

    The model, its gradients, flags and all random generators are left as they were found.

    Args:
        pipeline: What to look at.
        batch_size: Samples; without, that of the pipeline; no more than 8 are taken.
        device: Where the model is.
        seed: Of the random generators.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    mode = _Squashing()
    not_judged = follow_values(
        mode,
        pipeline,
        most=MOST_SAMPLES,
        batch_size=batch_size,
        device=device,
        seed=seed,
        loss=True,
    )
    return SquashingRecord(
        looked=mode.looked,
        squashed=tuple(mode.found.values()),
        starts=tuple(mode.starts.values()),
        not_judged=not_judged,
    )
