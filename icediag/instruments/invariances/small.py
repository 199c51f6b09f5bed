"""Small cases: a batch of one event, an event without rows, an event of one row."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.running.lab import call, outputs_of, slopes_of, weights_of
from icediag.instruments.running.reasons import reason_of
from icediag.instruments.trees.walk import leaves
from icediag.recording import Location
from icediag.records.invariances import SmallCase

from .samples import Ragged, indexed, with_rows
from .trials import Setting


def small_cases(setting: Setting, samples: Sequence[Any], ragged: Ragged) -> list[SmallCase]:
    """Try the batches at the edge that can be made of these samples."""
    found = [_one_event(setting)]
    usual = _through(setting, setting.samples)
    if not ragged or usual.failed or not usual.gradient_finite or not usual.loss_finite:
        return found  # what is not finite without a small event tells nothing with one
    for case, rows in (("no rows", 0), ("one row", 1)):
        occurs = sum(_shortest(sample, ragged) == rows for sample in samples)
        # Rows that others point at cannot be left out one by one.
        if rows and indexed(samples[0], ragged):
            continue
        cut = with_rows(setting.samples[-1], ragged, lambda n, m=rows: torch.arange(min(m, n)))  # type: ignore[misc]
        if _shortest(cut, ragged) != rows:
            continue
        batch = [cut, *setting.samples[:-1]]
        found.append(replace(_through(setting, batch), case=case, occurs=occurs))  # type: ignore[arg-type]
    return found


def _shortest(sample: Any, ragged: Ragged) -> int:
    """Rows of a sample along the ragged axis on which it has most."""
    return max(
        (
            t.shape[axis]
            for path, t in leaves(sample)
            for at, axis in ragged
            if at == path and axis < t.ndim
        ),
        default=0,
    )


def _one_event(setting: Setting) -> SmallCase:
    """Each probe alone: does it come through, and do the outputs keep their axis of events?"""
    case = _through(setting, setting.samples[:1])
    one = setting.alone[0]
    for path, rows in setting.rows.items():
        if one is None or rows.kind != "events" or path not in one:
            continue
        expected = list(setting.whole[path].shape)
        expected[rows.axis] = 1
        if one[path].ndim < len(expected):
            return replace(
                case, lacks_axis=path, shape=tuple(one[path].shape), expected=tuple(expected)
            )
    return case


def _through(setting: Setting, samples: Sequence[Any]) -> SmallCase:
    """Forward and backward in evaluation; the first sample is the small one."""
    lab = setting.lab
    case = SmallCase(case="one event")
    at = "collate"
    try:
        with lab.ready(samples, native=True) as model, torch.enable_grad():
            batch = lab.batch(samples)
            at = "model"
            predictions = call(lab.pipeline, model, batch)
            own, others = _unfinite(setting, outputs_of(predictions), len(samples))
            case = replace(case, nonfinite=own, others_nonfinite=others)
            at = "loss"
            loss = lab.pipeline.loss(predictions, batch)
            case = replace(case, loss_finite=math.isfinite(float(loss.detach())))
            weights = [weight for weight in weights_of(model) if weight.requires_grad]
            if weights and loss.requires_grad:
                case = replace(case, gradient_finite=_all_finite(slopes_of(loss, weights)))
    except Exception as error:
        reason = reason_of(error, lab.pipeline)
        return replace(case, failed=reason, at=at, location=_line_in(reason))
    return case


def _unfinite(setting: Setting, outputs: dict[str, Tensor], n: int) -> tuple[int, int]:
    """How many values of the first sample, and of the others, are not finite."""
    first = others = 0
    for path, output in outputs.items():
        rows = setting.rows.get(path)
        if rows is None or rows.kind != "events" or output.ndim <= rows.axis:
            continue
        if output.shape[rows.axis] != n:
            continue
        if not setting.whole[path].isfinite().all():
            continue  # scores beside -inf, as of what is masked
        bad = ~output.detach().isfinite()
        # In another order than the samples' it cannot be told which row is the small one's.
        own = int((bad if setting.reordered else bad.select(rows.axis, 0)).sum())
        first += own
        others += int(bad.sum()) - own
    return first, others


def _all_finite(slopes: Sequence[Tensor | None]) -> bool:
    return all(slope is None or bool(slope.isfinite().all()) for slope in slopes)


def _line_in(reason: str) -> Location | None:
    """The place that a reason names: "ValueError at pkg/net.py:12: ..."."""
    place = reason.partition(" at ")[2].split(": ")[0]
    file, _, line = place.rpartition(":")
    return Location(file=file, line=int(line)) if file and line.isdigit() else None
