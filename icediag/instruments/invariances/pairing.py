"""Pairing: whether a row of the predictions and the same row of the targets are of one event."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icediag.instruments.running.lab import call
from icediag.instruments.trees.reads import Reads
from icediag.instruments.trees.walk import leaves
from icediag.records.invariances import Pairing

from .rows import Rows, apart, find_rows
from .trials import Setting, owners


def targets_of(setting: Setting) -> list[str]:
    """Tensors of the batch that the loss reads and the model does not.

    Raises:
        Exception: Whatever the user's code raises.
    """
    lab = setting.lab
    with lab.ready(setting.samples, native=True) as model, torch.no_grad():
        batch = lab.batch(setting.samples)
        with Reads(batch) as by_model:
            predictions = call(lab.pipeline, model, batch)
        with Reads(batch) as by_loss:
            lab.pipeline.loss(predictions, batch)
    return [path for path, _ in leaves(batch) if path in by_loss.seen - by_model.seen]


def orders(n: int) -> list[list[int]]:
    """Orders of n samples: as they are, reversed, and two others."""
    generator = torch.Generator().manual_seed(0)
    found = [list(range(n)), list(range(n))[::-1]]
    found += [torch.randperm(n, generator=generator).tolist() for _ in range(2)]
    return found


def pairings(setting: Setting, targets: Sequence[str]) -> list[Pairing]:
    """Compare rows of predictions and targets with those of each event alone, in some orders.

    Args:
        setting: The probes, of which each gives the same alone as in company.
        targets: Paths of targets in the batch.

    Raises:
        Exception: Whatever the user's code raises.
    """
    lab, n = setting.lab, setting.n
    outputs = [path for path, rows in setting.rows.items() if rows.kind == "events"]
    alone_targets = [lab.collate([sample]) for sample in setting.samples]
    whole, fewer = lab.collate(setting.samples), lab.collate(setting.samples[:-1])
    layout = find_rows(whole, fewer, list(alone_targets), n)
    targets = [path for path in targets if path in layout and layout[path].kind == "events"]
    if not outputs or not targets:
        return []
    arrangements = orders(n)
    given = [lab.run([setting.samples[k] for k in order]) for order in arrangements]
    predicted = [owners(setting, out) for out in given]
    found = []
    for path in targets:
        rows = layout[path]
        own = [rows.alone(one[path]) for one in alone_targets]
        if _held_elsewhere(path, layout, whole, own):
            continue  # the truth stands in its row, and this is that of others, for comparison
        seen = Pairing(output=outputs[0], targets=path, batches=0, rows=0, astray=0)
        for order, owner in zip(arrangements, predicted, strict=True):
            samples = [setting.samples[k] for k in order]
            held = lab.collate(samples).get(path)
            if held is None or held.ndim <= rows.axis or held.shape[rows.axis] != n:
                continue
            pieces = [rows.piece(held, r) for r in range(n)]
            holders = [_same(piece, own) for piece in pieces]
            # Targets that are not those of the events alone are made of the whole batch.
            if not all(holders):
                continue
            compared = [r for r in range(n) if owner[r] is not None]
            wrong = [r for r in compared if owner[r] not in holders[r]]
            seen = _with(seen, setting, order, owner, holders, compared, wrong)
        if seen.rows:
            found.append(seen)
    return found


def _with(
    seen: Pairing,
    setting: Setting,
    order: Sequence[int],
    owner: Sequence[int | None],
    holders: Sequence[list[int]],
    compared: Sequence[int],
    wrong: Sequence[int],
) -> Pairing:
    """Add one batch to what was seen."""
    row, event, other = seen.row, seen.event, seen.owner
    if wrong and row is None:
        at = owner[wrong[0]]
        assert at is not None
        row, event = wrong[0], setting.numbers[at]
        other = setting.numbers[holders[wrong[0]][0]]
    return Pairing(
        output=seen.output,
        targets=seen.targets,
        batches=seen.batches + 1,
        rows=seen.rows + len(compared),
        astray=seen.astray + len(wrong),
        reordered=seen.reordered + sum(owner[r] != order[r] for r in compared),
        row=row,
        event=event,
        owner=other,
    )


def _held_elsewhere(
    path: str, layout: Mapping[str, Rows], whole: Mapping[str, Tensor], own: Sequence[Tensor]
) -> bool:
    """Whether another tensor of the batch holds, in their rows, what is each event's own."""

    def holds(other: str) -> bool:
        rows = layout[other]
        return rows.kind == "events" and all(
            piece.dtype == one.dtype and apart(piece, one) == 0
            for piece, one in ((rows.piece(whole[other], k), one) for k, one in enumerate(own))
        )

    return not holds(path) and any(holds(other) for other in layout if other != path)


def _same(piece: Tensor, own: Sequence[Tensor]) -> list[int]:
    return [
        k for k, other in enumerate(own) if piece.dtype == other.dtype and apart(other, piece) == 0
    ]
