"""Effects: does the loss depend on parameters that no gradient came to?

What is not used has no gradient by right. Weights that are moved by their own size, and move the
loss, ought to have one.
"""

import dataclasses

import torch

from icediag.instruments.running.workbench import Batches, Workbench
from icediag.records.gradients import GradientsRecord

#: Parts that are tried at most.
MOST_PARTS = 12


def with_effects(bench: Workbench, batch: Batches, record: GradientsRecord) -> GradientsRecord:
    """Move each part without a gradient, and note by how much the loss changes."""
    without = {
        p.name for p in record.parameters if p.trained and (p.gradient is None or not p.gradient)
    }
    parts = record.parts(without)
    if not parts:
        return record
    if "model" in parts:
        # Where nothing has a gradient, the parts are what there is to tell apart.
        tops = {p.name: p.stage.split(".")[0] for p in parts.pop("model")}
        for top in dict.fromkeys(tops.values()):
            parts[top] = tuple(p for p in record.parameters if tops.get(p.name) == top)
    named = dict(bench.model.named_parameters())
    effects: dict[str, float] = {}
    with bench.from_here(), torch.no_grad():
        before = float(bench.loss(batch()))
    for part in list(parts)[:MOST_PARTS]:
        names = [p.name for p in parts[part]]
        generator = torch.Generator().manual_seed(bench.seed)
        with bench.from_here(), torch.no_grad():
            for name in names:
                weight = named[name]
                size = weight.detach().double().square().mean().sqrt()
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                scale = torch.where(size > 0, size, 0.1).cpu()
                weight.add_((noise * scale).to(weight))
            try:
                after = float(bench.loss(batch()))
            except Exception:  # noqa: S112 - a part that does not bear to be moved
                continue
        change = abs(after - before) / max(abs(before), 1e-30)
        effects |= dict.fromkeys(names, change)
    return dataclasses.replace(
        record,
        parameters=tuple(
            dataclasses.replace(p, effect=effects.get(p.name)) for p in record.parameters
        ),
    )
