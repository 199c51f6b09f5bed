"""Points: predictions at which a loss is put to the test, and what it gives there."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from icediag.records.births import Birth
from icediag.records.loss import Point, Targets, Where

from .probe import Probe, Values
from .spaces import Space, width_of
from .targets import plain

#: Steps down the slope towards the best predictions, at most.
STEPS = 240
#: Length of the first step, relative to the size of predictions, and of the last.
FIRST, LAST = 0.3, 1e-7
#: Relative distances from a point at which slopes are looked at.
WIDTHS = (1e-7, 3e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
#: Rows that are tried by themselves.
MOST_ROWS = 16
#: Draws at each distance.
DRAWS = 3


class Finder:
    """Looks for predictions at which the loss is smallest or largest.

    Args:
        probe: The loss.
        spaces: What predictions may be.
        targets: What of the batch the loss goes by.
    """

    def __init__(self, probe: Probe, spaces: Mapping[str, Space], targets: Targets | None) -> None:
        self.probe, self.spaces, self.targets = probe, spaces, targets

    def exact(self) -> Iterator[Values]:
        """Targets put in the place of predictions of the same shape, and labels as logits."""
        if self.targets is None:
            return
        tensors = plain(self.probe.batch)
        names = [*self.targets.read, *self.targets.shared]
        for path, value in self.probe.values.items():
            for name in names:
                target = tensors.get(name)
                if target is None:
                    continue
                made = _as_prediction(value, target, self.spaces[path])
                if made is not None:
                    yield {**self.probe.values, path: made}

    def matched(self) -> None:
        """Let what can be held against targets as it is go as far as targets and predictions go."""
        if self.targets is None:
            return
        tensors = plain(self.probe.batch)
        names = [*self.targets.read, *self.targets.shared]
        for path, space in self.spaces.items():
            value = self.probe.values[path]
            for target in [tensors[name] for name in names if name in tensors]:
                made = _as_prediction(value, target, space)
                if made is None or not self._is_least({**self.probe.values, path: made}):
                    continue
                space.positive, space.bounds = frozenset(), {}
                if target.is_floating_point():
                    both = torch.cat(
                        [made.reshape(-1, width_of(made)), value.reshape(-1, width_of(value))]
                    )
                    ends = zip(both.amin(0).tolist(), both.amax(0).tolist(), strict=True)
                    space.bounds = dict(enumerate(ends))

    def _is_least(self, values: Values) -> bool:
        """Whether a percent in any direction makes the loss no smaller, or it is not finite."""
        least = self._value(values)
        if least is None:
            return False
        for draw in range(DRAWS):
            generator = torch.Generator().manual_seed(draw)
            for sign in (1, -1):
                moved = {
                    path: value
                    + sign
                    * 0.01
                    * value.abs().mean()
                    * torch.randn(value.shape, generator=generator).to(value)
                    for path, value in values.items()
                }
                there = self._value(moved)
                if there is not None and there < least:
                    return False
        return True

    def _value(self, values: Values) -> float | None:
        """The loss; None where it takes no such predictions."""
        try:
            return self.probe.value(values)
        except Exception:
            return None

    def walk(self, sign: float, steps: int) -> tuple[Values, list[Values]]:
        """Go down (`sign` 1) or up (-1) the slope of the loss.

        Returns:
            Where it ended, and the predictions on the way at which a slope was not finite.
        """
        probe, spaces = self.probe, self.spaces
        shapes = {path: value.shape for path, value in probe.values.items()}
        inner = {path: spaces[path].enter(value) for path, value in probe.values.items()}
        means = {path: torch.zeros_like(value) for path, value in inner.items()}
        squares = {path: torch.zeros_like(value) for path, value in inner.items()}
        met: list[Values] = []
        outer = probe.values
        for step in range(steps):
            rate = FIRST * (LAST / FIRST) ** (step / max(1, steps - 1))
            leaf = {path: value.detach().requires_grad_() for path, value in inner.items()}
            with torch.enable_grad():
                made = {path: spaces[path].leave(leaf[path], shapes[path]) for path in leaf}
            outer = {path: value.detach() for path, value in made.items()}
            _, slopes = probe.slopes(outer)
            if any(not bool(slope.isfinite().all()) for slope in slopes.values()):
                met.append(outer)
            for path, slope in slopes.items():
                # What is not finite holds its row still; the others go on.
                kept = torch.where(slope.isfinite(), slope, 0.0)
                with torch.enable_grad():
                    # By a sum: slopes handed to `grad` have it import torch's symbolic shapes.
                    total = (made[path] * kept).sum()
                [back] = torch.autograd.grad(total, leaf[path])
                back = sign * torch.where(back.isfinite(), back, 0.0)
                # Adam, Kingma and Ba (2015), with its customary constants.
                means[path] = 0.9 * means[path] + 0.1 * back
                squares[path] = 0.99 * squares[path] + 0.01 * back * back
                mean = means[path] / (1 - 0.9 ** (step + 1))
                root = (squares[path] / (1 - 0.99 ** (step + 1))).sqrt()
                move = mean / root.clamp(min=1e-30)
                inner[path] = inner[path] - rate * spaces[path].scale * move
        return outer, met

    def best(self, steps: int) -> list[Values]:
        """Predictions that the loss is smallest for, exact ones first where they are."""
        start = self.probe.value(self.probe.values)
        found = []
        for values in self.exact():
            value = self._value(values)
            if value is not None and (value < start or not math.isfinite(value)):
                found.append(values)
        ended, met = self.walk(1.0, steps)
        met = [*met, *([ended] if self.probe.value(ended) < start else [])]
        return [*found, *met[:1], *(met[-1:] if len(met) > 1 else [])]


def _as_prediction(value: Tensor, target: Tensor, space: Space) -> Tensor | None:
    """A target in the form of a prediction; None where it has another form."""
    if target.is_floating_point() and target.numel() == value.numel():
        if target.shape == value.shape and space.kind == "columns":
            return target.detach().to(value.dtype).clone()
        if target.squeeze().shape == value.squeeze().shape and space.kind == "columns":
            return target.detach().to(value.dtype).reshape(value.shape).clone()
        return None
    labels = target.dtype in (torch.int64, torch.int32) and target.numel() > 0
    if labels and value.ndim >= 2 and space.kind == "columns":
        if value.shape[:-1] != target.shape or not value.shape[-1] > 1:
            return None
        if int(target.min()) < 0 or int(target.max()) >= value.shape[-1]:
            return None
        one_hot = torch.nn.functional.one_hot(target.long(), value.shape[-1])
        return 20.0 * one_hot.to(value) - 10.0
    return None


def look_at(probe: Probe, where: Where, values: Values, spaces: Mapping[str, Space]) -> Point:
    """The loss and its slopes at some predictions and near them."""
    loss, slopes = probe.slopes(values)
    point = Point(
        where=where,
        loss=loss,
        scale=probe.value(probe.values),
        slopes=sum(slope.numel() for slope in slopes.values()),
    )
    at = values
    for distance in (0.0, *WIDTHS):
        for near in _near(probe, values, distance, spaces):
            value, slopes = probe.slopes(near)
            bad, lost = _bad(slopes), int(not math.isfinite(value))
            if bad or lost:
                at = near if point.width is None else at
                point = replace(
                    point,
                    width=distance,
                    bad_slopes=max(point.bad_slopes, bad),
                    bad_values=max(point.bad_values, lost),
                )
    if point.width is None:
        return point
    point = replace(point, alone=_alone(probe, at))
    birth = first_birth(probe, at)
    if birth is None:
        return point
    return replace(
        point,
        operation=birth.op,
        argument=next((i.at for i in birth.inputs if i.at is not None), None),
        location=birth.location,
        backward=birth.phase == "backward",
    )


def _alone(probe: Probe, at: Values) -> bool | None:
    """Whether a row of these predictions among the model's own is enough."""
    if set(probe.rows) != set(probe.values):
        return None
    n = probe.values[probe.rows[0]].shape[0]
    for row in range(min(n, MOST_ROWS)):
        mixed = {path: value.clone() for path, value in probe.values.items()}
        for path in mixed:
            mixed[path][row] = at[path][row]
        value, slopes = probe.slopes(mixed)
        if _bad(slopes) or not math.isfinite(value):
            return True
    return False


def first_birth(probe: Probe, values: Values) -> Birth | None:
    """The first operation that gives what is not finite; None where that cannot be told."""
    try:
        births = probe.births(values)
    except Exception:  # looking may fail where the loss does not
        return None
    return next((birth for birth in births if not birth.constant), None)


def _bad(slopes: Values) -> int:
    return sum(int((~slope.isfinite()).sum()) for slope in slopes.values())


def _near(
    probe: Probe, values: Values, distance: float, spaces: Mapping[str, Space]
) -> Iterator[Values]:
    """Predictions at a relative distance, within what they may be; from 0, of the model's size."""
    if not distance:
        yield values
        return
    sizes = {
        path: float(value.abs().mean() or probe.values[path].detach().abs().mean())
        for path, value in values.items()
    }
    for draw in range(DRAWS):
        yield away(values, distance, spaces, seed=draw, sizes=sizes)


def away(
    values: Values,
    distance: float,
    spaces: Mapping[str, Space],
    *,
    seed: int = 0,
    sizes: Mapping[str, float] | None = None,
) -> Values:
    """Predictions that are off others by some share of their size, within what they may be.

    Args:
        values: The others.
        distance: The share.
        spaces: What they may be.
        seed: Of the direction.
        sizes: Sizes, if not theirs.
    """
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for path, value in values.items():
        noise = torch.randn(value.shape, generator=generator).to(value)
        size = value.abs().mean() if sizes is None else sizes[path]
        found[path] = spaces[path].back(value + distance * size * noise, value)
    return found
