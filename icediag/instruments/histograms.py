"""Histograms of what goes in and out of stages: one forward pass, for reports to draw."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from icediag.pipeline import Pipeline
from icediag.records.histograms import Histogram, HistogramsRecord

from .recorder.flow import FEW_COLUMNS, Flow, SeenStage
from .recorder.record import follow
from .recorder.values import EXACT_MEDIAN

#: Bins of a histogram.
BINS = 32
#: Share of the values beyond each end of the bins, where a few far ones would fill all but one.
TAIL = 0.002
#: The whole range is taken where it is at most so many times what lies between the tails.
WHOLE = 4.0
#: Histograms that are kept: a recording is to stay small.
MOST = 400

#: (low, high, counts, below, above, sampled)
_Counted = tuple[float, float, tuple[int, ...], int, int, int]


class HistogramFlow(Flow):
    """A flow that counts values in bins."""

    def __init__(self) -> None:
        super().__init__(None)
        self.histograms: list[Histogram] = []
        self.left_out = 0
        self._counted: Any = WeakTensorKeyDictionary()

    def note_tensor(
        self, stage: SeenStage, role: Any, path: str, tensor: Tensor, annotation: Any = None
    ) -> None:
        """Count one tensor of floating-point numbers, at the first call of its stage."""
        super().note_tensor(stage, role, path, tensor, annotation)
        if role == "grad" or stage.calls > 1 or stage.kind == "item":
            return
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_nested:
            return
        if tensor.is_meta or tensor.numel() < 2:
            return
        if len(self.histograms) >= MOST:
            self.left_out += 1
            return
        known, version = self._counted.get(tensor, (None, None))
        now = -1 if tensor.is_inference() else tensor._version  # noqa: SLF001 - the only way
        if known is None or version != now:
            known = counted(tensor)
            self._counted[tensor] = (known, now)
        self.histograms.extend(
            Histogram(
                stage=stage.name,
                role=role,
                path=path,
                column=column,
                low=low,
                high=high,
                counts=counts,
                below=below,
                above=above,
                sampled=sampled,
            )
            for column, (low, high, counts, below, above, sampled) in known
        )


@torch.no_grad()
def counted(tensor: Tensor) -> list[tuple[int | None, _Counted]]:
    """The histograms of a tensor: one, or one for each column of a table of a few."""
    tensor = tensor.detach()
    columns: list[tuple[int | None, Tensor]] = [(None, tensor)]
    if tensor.ndim > 1 and 1 < tensor.shape[-1] <= FEW_COLUMNS:
        columns = list(enumerate(tensor.unbind(-1)))
    found = []
    for column, part in columns:
        try:
            values = _sample(part).double().cpu().numpy()
        except (RuntimeError, TypeError, NotImplementedError):
            continue  # a subclass of the user's own, a type torch only half knows
        values = values[np.isfinite(values)]
        if values.size:
            found.append((column, binned(values)))
    return found


def _sample(tensor: Tensor) -> Tensor:
    """At most about `EXACT_MEDIAN` of the values, evenly spread."""
    flat = tensor.reshape(-1)
    step = -(-flat.numel() // EXACT_MEDIAN)
    # A step that shares a factor with the last axis would look at some columns only.
    while math.gcd(step, max(tensor.shape[-1] if tensor.ndim else 1, 1)) != 1:
        step += 1
    return flat[::step]


def binned(values: NDArray[np.float64]) -> _Counted:
    """Count finite values in bins.

    Args:
        values: At least one.

    Returns:
        (low, high, counts, below, above, number of values); the range is that of the values, or
        where a few of them are far away that of all but these.
    """
    low, high = float(values.min()), float(values.max())
    first, last = (float(end) for end in np.quantile(values, (TAIL, 1 - TAIL)))
    if high / 2 - low / 2 > WHOLE * (last / 2 - first / 2) > 0:
        low, high = first, last
    if not low < high or not math.isfinite(high - low):
        # One value, or a range that a double cannot hold: all in one bin.
        return low, high, (values.size,), 0, 0, values.size
    inside = np.clip(values, low, high)
    places = ((inside - low) / (high - low) * BINS).astype(np.int64).clip(0, BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    below, above = int((values < low).sum()), int((values > high).sum())
    return low, high, tuple(counts.tolist()), below, above, values.size


def record_histograms(
    pipeline: Pipeline, *, batch_size: int | None = None, device: str = "cpu", seed: int = 0
) -> HistogramsRecord:
    """Count the values of one batch in bins, stage by stage.

    Arguments and errors as for `record`; everything is left as it was found.
    """
    flow = HistogramFlow()
    follow(pipeline, flow, batch_size=batch_size, device=device, seed=seed)
    return HistogramsRecord(histograms=tuple(flow.histograms), left_out=flow.left_out)
