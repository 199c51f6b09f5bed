"""Rotations: predicted and true directions turned together, which a loss on directions ignores."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from icediag.records.loss import Rotation, Targets

from .probe import Probe, Values, with_targets
from .spaces import Space, column_of, width_of
from .targets import plain

#: Share of the loss that angles in float32, there and back, explain.
ROUNDING = 3e-5
#: How far aside of the truth the loss has to be larger.
ASIDE = 0.2
ABOUT: tuple[Literal["about z", "about any axis"], ...] = ("about z", "about any axis")


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way to hold directions in a table.

    Attributes:
        columns: Which columns are azimuth and zenith; None for unit vectors.
    """

    columns: tuple[int, int] | None = None

    def read(self, table: Tensor) -> Tensor:
        """Unit vectors `(n, 3)`: (cos az sin ze, sin az sin ze, cos ze)."""
        if self.columns is None:
            return table.double()
        azimuth, zenith = (table[:, k].double() for k in self.columns)
        around = zenith.sin()
        return torch.stack([azimuth.cos() * around, azimuth.sin() * around, zenith.cos()], 1)

    def write(self, table: Tensor, vectors: Tensor) -> Tensor:
        """The table with other directions."""
        if self.columns is None:
            return vectors.to(table)
        made = table.clone()
        azimuth = torch.atan2(vectors[:, 1], vectors[:, 0])
        column = table[:, self.columns[0]]
        if not column.numel() or float(column.min()) >= 0:
            azimuth = azimuth % (2 * math.pi)
        made[:, self.columns[0]] = azimuth.to(table)
        made[:, self.columns[1]] = torch.atan2(vectors[:, :2].norm(dim=1), vectors[:, 2]).to(table)
        return made


#: Paths of the tensors that make up a table of directions -> how it holds them.
Forms = Mapping[tuple[str, ...], Form]


def rotations(
    probe: Probe, spaces: Mapping[str, Space], targets: Targets | None
) -> Iterator[Rotation]:
    """Turn both, where prediction and truth are directions that the loss brings together.

    Args:
        probe: The loss.
        spaces: What predictions may be.
        targets: What of the batch it goes by.
    """
    if targets is None:
        return
    predicted: Forms = {
        (path,): f for path, space in spaces.items() if (f := _of_prediction(probe, path, space))
    }
    if not predicted:
        predicted = _of_pair(probe, spaces)
    if not predicted:
        return
    tensors = plain(probe.batch)
    for name in targets.read:
        if name not in tensors:
            continue
        for form in _of_target(tensors[name], probe.n):
            truth = form.read(tensors[name])
            if _meets(probe, predicted, truth):
                for about, turn in zip(ABOUT, _turns(), strict=True):
                    yield _turned(probe, predicted, name, tensors[name], form, about, turn)
                return


def _of_prediction(probe: Probe, path: str, space: Space) -> Form | None:
    value = probe.values[path]
    if value.ndim != 2 or value.shape[0] != probe.n:
        return None
    if space.kind == "unit" and width_of(value) == 3:
        return Form()
    around = [k for k, d in space.domains.items() if d.periodic and _near(d.high - d.low, 2)]
    down = [k for k, d in space.domains.items() if not d.periodic and _near(d.high - d.low, 1)]
    return Form(columns=(around[0], down[0])) if len(around) == len(down) == 1 else None


def _of_pair(probe: Probe, spaces: Mapping[str, Space]) -> Forms:
    """Azimuth and zenith, a tensor each."""
    around, down = [], []
    for path, space in spaces.items():
        value, domain = probe.values[path], space.domains.get(0)
        if value.shape != (probe.n,) or domain is None:
            continue
        if domain.periodic and _near(domain.high - domain.low, 2):
            around.append(path)
        elif not domain.periodic and _near(domain.high - domain.low, 1):
            down.append(path)
    alone = len(around) == len(down) == 1
    return {(around[0], down[0]): Form(columns=(0, 1))} if alone else {}


def _near(length: float, times_pi: float) -> bool:
    return abs(length - times_pi * math.pi) < 1e-3


def _of_target(table: Tensor, n: int) -> Iterator[Form]:
    if not table.is_floating_point() or table.ndim != 2 or table.shape[0] != n:
        return
    if table.shape[1] == 3 and float((table.norm(dim=1) - 1).abs().max()) < 1e-3:
        yield Form()
    if table.shape[1] == 2:
        for columns in ((0, 1), (1, 0)):
            zenith = column_of(table, columns[1])
            if float(zenith.min()) >= 0 and float(zenith.max()) <= math.pi + 1e-3:
                yield Form(columns=columns)


def _put(probe: Probe, forms: Forms, change: Callable[[Tensor], Tensor]) -> Values:
    values = dict(probe.values)
    for paths, form in forms.items():
        several = len(paths) > 1
        table = torch.stack([values[p] for p in paths], 1) if several else values[paths[0]]
        table = form.write(table, change(form.read(table)))
        values |= zip(paths, table.unbind(1) if several else (table,), strict=True)
    return values


def _meets(probe: Probe, forms: Forms, truth: Tensor) -> bool:
    """Whether the loss is least where predictions are the truth: then both are read rightly."""
    there = probe.value(_put(probe, forms, lambda _: truth))
    for seed in range(3):
        noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(seed))
        aside = truth + ASIDE * noise.to(truth)
        aside = aside / aside.norm(dim=1, keepdim=True)
        if not there < probe.value(_put(probe, forms, lambda _, aside=aside: aside)):  # type: ignore[misc]
            return False
    return True


def _turns() -> tuple[Tensor, Tensor]:
    """Rotation matrices about z, and about no axis in particular."""
    a, b = 1.234, 0.789
    one = [[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0], [0.0, 0.0, 1.0]]
    other = [[1.0, 0.0, 0.0], [0.0, math.cos(b), -math.sin(b)], [0.0, math.sin(b), math.cos(b)]]
    about_z, about_x = (torch.tensor(rows, dtype=torch.float64) for rows in (one, other))
    return about_z, about_x @ about_z


def _turned(
    probe: Probe,
    forms: Forms,
    name: str,
    target: Tensor,
    form: Form,
    about: Literal["about z", "about any axis"],
    turn: Tensor,
) -> Rotation:
    turned = form.write(target, form.read(target) @ turn.T)
    batch = with_targets(probe.batch, {name: turned})
    before = probe.value(probe.values)
    after = probe.value(_put(probe, forms, lambda vectors: vectors @ turn.T), batch)
    return Rotation(
        about=about, size=abs(after - before), rounding=ROUNDING * abs(before), loss=before
    )
