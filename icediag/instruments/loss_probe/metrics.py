"""Metrics: whether they find worse what the loss finds worse.

Of predictions that fit their events two rows are exchanged, so that each of the two events gets the
prediction of the other. The loss grows. A metric then grows too, or falls, always the same; one of
the wrong columns, rows or units does this time the one and that time the other.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.trees.outputs import numbers_of
from icediag.instruments.trees.rebuild import rebuilt
from icediag.instruments.trees.walk import leaves
from icediag.records.loss import MetricSeen, Targets

from .probe import Probe, Values, with_targets
from .targets import plain

#: Exchanges of two rows that are tried, at most.
EXCHANGES = 60
#: Rows below which there are too few exchanges.
FEWEST = 5
#: Relative changes below this are rounding.
ROUNDING = 1e-5


def look_at_metrics(
    probe: Probe,
    targets: Targets | None,
    best: Values | None,
    fitted: Callable[[], Any],
) -> tuple[MetricSeen, ...]:
    """Evaluate loss and metrics where two rows of predictions are exchanged.

    Args:
        probe: The loss.
        targets: What of the batch it goes by; None where that is not known.
        best: Predictions that the loss is smallest for; None where they were not found.
        fitted: Gives predictions of the model after a brief training on the batch: for metrics that
            go by tensors of the predictions that the loss does not go by.

    Raises:
        ValueError: There is nothing to be exchanged.
        Exception: Whatever the user's metric raises.
    """
    if set(probe.rows) != set(probe.values):
        raise ValueError("the predictions have no rows in common that could be exchanged")
    own = _Exchanged(probe, probe.predictions)
    names = list(own.metrics(own.order))
    if own.n < FEWEST:
        raise ValueError(f"{own.n} rows of predictions are too few")
    wider = [name for name in names if own.goes_by_others(name)]
    found: dict[str, MetricSeen] = {}
    if set(names) - set(wider):
        if best is None:
            raise ValueError("no predictions were found that the loss is smallest for")
        given = rebuilt(probe.predictions, lambda path, leaf: best.get(path, leaf))
        one = _Exchanged(probe, given)
        found |= {name: one.seen(name, own, targets, True) for name in names if name not in wider}
    if wider:
        one = _Exchanged(probe, fitted())
        found |= {name: one.seen(name, own, targets, False) for name in wider}
    return tuple(found[name] for name in names)


class _Exchanged:
    """Predictions, rows of which are exchanged in all tensors alike.

    Args:
        probe: The loss.
        predictions: The predictions.
    """

    def __init__(self, probe: Probe, predictions: Any) -> None:
        self._probe, self._predictions = probe, predictions
        values = [t for path, t in leaves(predictions) if path in probe.values]
        self.n = values[0].shape[0] if all(value.ndim for value in values) else 0
        self.order = torch.arange(self.n)
        self._changes: list[tuple[float, dict[str, float]]] | None = None

    def _has_rows(self, value: Any) -> bool:
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_nested:
            return False
        return bool(value.ndim) and value.shape[0] == self.n

    def _given(self, order: Tensor, more: Mapping[str, Tensor] | None = None) -> Any:
        def change(path: str, leaf: Any) -> Any:
            value = (more or {}).get(path, leaf)
            if self._has_rows(value):
                return value.detach()[order.to(value.device)]
            return value.detach() if isinstance(value, Tensor) else value

        return rebuilt(self._predictions, change)

    def loss(self, order: Tensor) -> float:
        """The loss."""
        values = {p: t for p, t in leaves(self._given(order)) if p in self._probe.values}
        return self._probe.value(values)

    def metrics(
        self, order: Tensor, more: Mapping[str, Tensor] | None = None, batch: Any = None
    ) -> dict[str, float]:
        """The metrics, by name."""
        metric = self._probe.pipeline.metric
        assert metric is not None
        self._probe.begin()
        with torch.no_grad():
            held = self._probe.batch if batch is None else batch
            return numbers_of(metric(self._given(order, more), held))

    def noisy(self, seed: int) -> dict[str, float]:
        """The metrics of predictions with noise on all their tensors."""
        generator = torch.Generator().manual_seed(seed)
        more = {
            path: value
            + (0.3 * seed * (value.abs().mean() + 0.1))
            * torch.randn(value.shape, generator=generator).to(value)
            for path, value in self._probe.every.items()
        }
        return self.metrics(self.order, more)

    def goes_by_others(self, name: str) -> bool:
        """Whether a metric changes with tensors of the predictions that the loss does not go by."""
        before = self.metrics(self.order)[name]
        turned = self.order.roll(1)
        for path, tensor in leaves(self._predictions):
            if path in self._probe.values or not self._has_rows(tensor):
                continue
            after = self.metrics(self.order, {path: tensor[turned.to(tensor.device)]})[name]
            if repr(after) != repr(before):
                return True
        return False

    def changes(self) -> list[tuple[float, dict[str, float]]]:
        """For exchanges of two rows, the loss and the metrics."""
        if self._changes is None:
            pairs = list(itertools.combinations(range(self.n), 2))
            generator = torch.Generator().manual_seed(0)
            chosen = torch.randperm(len(pairs), generator=generator)[:EXCHANGES].tolist()
            self._changes = []
            for i, j in (pairs[k] for k in chosen):
                order = self.order.clone()
                order[i], order[j] = j, i
                self._changes.append((self.loss(order), self.metrics(order)))
        return self._changes

    def seen(
        self, name: str, own: "_Exchanged", targets: Targets | None, from_best: bool
    ) -> MetricSeen:
        """One metric: how often it grew where the loss grew, and how often it fell."""
        loss, first = self.loss(self.order), self.metrics(self.order)[name]
        rows = self.changes()
        values = [row[name] for _, row in rows]
        size = max(map(abs, (first, *values)), default=0.0)
        worse = [v for (one, _), v in zip(rows, values, strict=True) if _above(one, loss)]
        shifted = [v - first for v in worse if abs(v - first) > ROUNDING * size]
        elsewhere = [own.noisy(1)[name], own.noisy(2)[name], own.metrics(own.order)[name]]
        return MetricSeen(
            name=name,
            from_best=from_best,
            loss=loss,
            first=first,
            exchanges=len(rows),
            worse=len(worse),
            better=sum(_above(loss, one) for one, _ in rows),
            larger=sum(change > 0 for change in shifted),
            smaller=sum(change < 0 for change in shifted),
            follows=len({repr(v) for v in (first, *values, *elsewhere)}) > 1,
            paired=bool(shifted)
            or any(abs(v - first) > ROUNDING * size for v in self._turned(name)),
            by_targets=self._by_targets(name, targets),
        )

    def _turned(self, name: str) -> list[float]:
        """The metric where all rows are exchanged: one exchange may be too little for a median."""
        return [self.metrics(self.order.roll(k))[name] for k in (1, self.n // 2)]

    def _by_targets(self, name: str, targets: Targets | None) -> bool:
        """Whether it changes where all rows have the target of one."""
        tensors = plain(self._probe.batch)
        before = repr(self.metrics(self.order)[name])
        for path in targets.moving if targets is not None else ():
            tensor = tensors.get(path)
            if tensor is None or not tensor.ndim:
                continue
            for row in (0, len(tensor) // 2):
                changed = {path: tensor[row : row + 1].expand_as(tensor).clone()}
                batch = with_targets(self._probe.batch, changed)
                if repr(self.metrics(self.order, batch=batch)[name]) != before:
                    return True
        return False


def _above(value: float, than: float) -> bool:
    return value - than > ROUNDING * max(abs(value), abs(than))
