"""Facts of a pipeline that are neither right nor wrong: order of rows, shift of all times."""

import torch

from icediag.instruments.running.lab import call, outputs_of, scale_of
from icediag.records.invariances import Trial

from .samples import Ragged, indexed, with_rows
from .trials import Setting, cached, part

#: A shift by a tenth of the spread of the times, in whole units, shows and stays plausible.
SHIFT = 0.1


def order_of_rows(setting: Setting, ragged: Ragged) -> list[Trial]:
    """The rows of each event in another order: do its outputs move?

    Not tried where whole numbers of a sample may point at its rows.
    """
    if not ragged or any(indexed(sample, ragged) for sample in setting.samples):
        return []
    generator = torch.Generator().manual_seed(0)

    def shuffled(n: int) -> torch.Tensor:
        order = torch.randperm(n, generator=generator)
        # Of two rows, half of all orders are no change.
        return order if n < 2 or not torch.equal(order, torch.arange(n)) else order.flip(0)

    moved = [with_rows(sample, ragged, shuffled, count=False) for sample in setting.samples]
    before, after = cached(setting.lab, setting.samples), cached(setting.lab, moved)
    one = part(setting, before, lambda k: k)
    other = part(setting, after, lambda k: k)
    lengths = [max(sizes[i] for sizes in ragged.values()) for i in setting.numbers]
    several = [k for k in range(setting.n) if lengths[k] > 1]
    found = []
    for path in setting.rows:
        # Of one output at a time: each event by itself, to tell which moved.
        if setting.rows[path].kind != "events":
            continue
        trials = [
            (k, trial)
            for k in several
            for trial in setting.compare("order of rows", one, other, [k])
            if trial.output == path
        ]
        if not trials:
            continue
        largest = max((trial for _, trial in trials), key=lambda trial: trial.size)
        found.append(
            Trial(
                change="order of rows",
                output=path,
                events=len(trials),
                moved=sum(trial.moved for _, trial in trials),
                size=largest.size,
                rounding=largest.rounding,
                scale=largest.scale,
                precise=largest.precise,
                native=largest.native,
                event=largest.event,
                moved_rows=tuple(sorted(lengths[k] for k, trial in trials if trial.moved)),
                still_rows=tuple(sorted(lengths[k] for k, trial in trials if not trial.moved)),
            )
        )
    return found


def shift_of_time(setting: Setting) -> list[Trial]:
    """All raw times of the batch moved by one amount, where the pipeline says which they are.

    Raises:
        Exception: Whatever the user's code raises.
    """
    lab = setting.lab
    names = [name for name in lab.pipeline.raw if "time" in name.lower().split("_")]
    found = []
    for name in names:
        with lab.ready(setting.samples) as model, torch.no_grad():
            batch = lab.batch(setting.samples, native=False)
            times = lab.pipeline.raw[name](batch)
            if not times.is_floating_point() or times.numel() < 2:
                continue
            shift = max(1.0, float((SHIFT * times.std()).round()))
            times += shift
            if float((lab.pipeline.raw[name](batch) - times).abs().max()):
                continue  # a copy of the times, not the times themselves
            after = outputs_of(call(lab.pipeline, model, batch))
            for path, out in setting.whole.items():
                if path not in after or after[path].shape != out.shape:
                    continue
                size = scale_of(after[path] - out)
                limit = lab.rounding(path, out)
                found.append(
                    Trial(
                        change="shift of time",
                        output=path,
                        events=setting.n,
                        moved=setting.n if size > limit else 0,
                        size=size,
                        rounding=limit,
                        scale=scale_of(out),
                        precise=lab.twin is not None,
                    )
                )
    return found
