"""Projection: a training step on a device that is not at hand, by two clocks.

The host's clock moves by a launch for every dispatched operation, and a little for every line of
the user's own; the device's by the longer of
what its bytes and its arithmetic take, and at least by a kernel. The device cannot begin before the
host has issued; a sync makes the host wait for the device. Counts of a batch that is too large to
be counted are extended from smaller ones, operation by operation: how often it is called, and how
large it is then, each follow an axis of the batch, mostly without a remainder.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from icediag.devices import DeviceModel
from icediag.records.projection import Bound, LineProjection, ProjectionRecord, StageProjection
from icediag.records.work import (
    LINE_S,
    PHASES,
    Growth,
    LinesRecord,
    OperationRecord,
    OperationsRecord,
    Phase,
    at_axes,
)

#: Parts of a step that run on the host whatever the device.
HOST_PHASES: tuple[Phase, ...] = ("dataset item", "collate", "transfer")
#: A size that meets no axis within this share in all runs follows the samples.
NEAR = 0.05
#: Of a stage that comes more than once, what is added up.
_SUMS = (
    *("time_s", "host_s", "device_s", "operations", "syncs", "loop_s", "launches", "bytes"),
    "padding_bytes",
)
#: A stage with more syncs than this is stepped through in this many parts.
MOST_PARTS = 50_000


@dataclass(frozen=True)
class Work:
    """One counted operation at the size of the batch.

    Attributes:
        record: What was counted.
        calls: How often it is dispatched.
        launches: Kernels.
        syncs: Syncs.
        bytes: Read and written, of all calls.
        flops: Of all calls.
        useful: Share that is no padding, 0..1; None where it does not follow a padded size.
        fitted: Whether all of this follows known axes.
        host_s: Of the host, beside issuing operations: its lines of Python.
    """

    record: OperationRecord
    calls: float
    launches: float
    syncs: float
    bytes: float
    flops: float
    useful: float | None = None
    fitted: bool = True
    host_s: float = 0.0

    def device_s(self, device: DeviceModel) -> float:
        """What the device takes, every kernel of the same size."""
        if self.launches <= 0:
            return 0.0
        return max(
            self.bytes / device.bandwidth,
            self.flops / device.rate(self.record.dtype),
            self.launches * device.kernel_s,
        )

    @property
    def follows(self) -> bool:
        """Whether its number of calls follows the batch."""
        return self.record.growth is not None

    def issue_s(self, device: DeviceModel) -> float:
        """What the host takes, waits apart."""
        return self.calls * device.launch_s + self.host_s


def project(
    operations: OperationsRecord, device: DeviceModel, lines: LinesRecord | None = None
) -> ProjectionRecord | None:
    """Project the step that was counted; None where nothing was.

    Args:
        operations: Of the step.
        device: Constants of the device.
        lines: The user's own lines that it runs; without, Python takes no time of its own.
    """
    if not operations.runs or not operations.operations:
        return None
    works = [
        work
        for record in operations.operations
        if record.phase not in HOST_PHASES
        for work in [extended(record, operations)]
    ]
    stages = [
        list(group) for _, group in groupby(works, lambda w: (w.record.phase, w.record.stage))
    ]
    _add_python(stages, lines)
    times = _two_clocks(stages, device)
    step = sum(times)

    def without(changed: list[list[Work]], model: DeviceModel = device, wait: bool = True) -> float:
        return max(0.0, step - sum(_two_clocks(changed, model, wait=wait)))

    padded = any(work.useful is not None for work in works)
    unpadded = [[_unpadded(work) for work in group] for group in stages]
    last = operations.runs[-1].samples
    total = sum(work.record.calls[-1] for work in works) or 1
    return ProjectionRecord(
        device=device.name,
        title=device.title,
        source=device.source,
        constants={
            "bandwidth": device.bandwidth,
            "kernel_s": device.kernel_s,
            "launch_s": device.launch_s,
            "sync_s": device.sync_s,
        },
        rates=device.rates,
        batch_size=operations.batch_size,
        counted_at=tuple(run.samples for run in operations.runs),
        extrapolated=last != operations.batch_size,
        stages=tuple(_merged(map(_stage, stages, times, [device] * len(stages)))),
        lines=tuple(_lines(works, device)),
        step_s=step,
        device_busy_s=sum(work.device_s(device) for work in works),
        lost_launches_s=without(stages, replace(device, launch_s=1e-12)),
        lost_python_s=without([[w for w in group if not w.host_s] for group in stages]),
        lost_syncs_s=without(stages, wait=False),
        lost_padding_s=without(unpadded) if padded else None,
        loops_s=without([[work for work in group if not work.follows] for group in stages]),
        unfitted=sum(work.record.calls[-1] for work in works if not work.fitted) / total,
    )


def _add_python(stages: list[list[Work]], lines: LinesRecord | None) -> None:
    """Add the lines of each stage to its operations, or where it has none, to its phase."""
    for one in lines.python if lines is not None else ():
        if one.phase in HOST_PHASES:
            continue
        # The growth is not asked for what it is, but whether there is one.
        growth = Growth(axis="", order=1, slope=1.0, intercept=0.0) if one.grows else None
        record = OperationRecord(phase=one.phase, stage=one.stage, op="python", growth=growth)
        work = Work(record, 0, 0, 0, 0, 0, host_s=one.lines * LINE_S)
        at = [i for i, group in enumerate(stages) if group[0].record.phase == one.phase]
        same = [i for i in at if stages[i][0].record.stage == one.stage]
        if same:
            stages[same[0]].append(work)
        else:
            order = PHASES.index(one.phase)
            later = [i for i, g in enumerate(stages) if PHASES.index(g[0].record.phase) > order]
            stages.insert(at[-1] + 1 if at else min(later, default=len(stages)), [work])


# Extending counts to the size of the batch.


def extended(record: OperationRecord, operations: OperationsRecord) -> Work:
    """An operation at the size of the batch that is diagnosed."""
    runs, target = operations.runs, operations.axes
    moved = tuple(a + b for a, b in zip(record.bytes_read, record.bytes_written, strict=True))
    if runs[-1].samples == operations.batch_size:
        # Counted as it is; only whether it is padded is still to be told.
        _, useful, _ = _sized(_each(moved, record.calls), operations)
        return Work(
            record=record,
            calls=record.calls[-1],
            launches=record.launches[-1],
            syncs=record.syncs[-1],
            bytes=moved[-1],
            flops=record.flops[-1],
            useful=useful,
        )
    last = record.calls[-1]
    calls, fitted = float(last), True
    if record.growth is not None:
        law = at_axes(record.growth, target)
        if law is None:
            fitted = False
            calls = last * operations.batch_size / runs[-1].samples
        else:
            calls = max(0.0, law)
    elif len(set(record.calls)) > 1:
        sized, _, fitted = _sized(tuple(map(float, record.calls)), operations)
        calls = sized
    size, useful, size_fits = _sized(_each(moved, record.calls), operations)
    flops, _, flops_fit = _sized(_each(record.flops, record.calls), operations)
    per_call = calls / last if last else 0.0
    return Work(
        record=record,
        calls=calls,
        launches=record.launches[-1] * per_call,
        syncs=record.syncs[-1] * per_call,
        bytes=size * calls,
        flops=flops * calls,
        useful=useful,
        fitted=fitted and size_fits and flops_fit,
    )


def _each(totals: tuple[int, ...], calls: tuple[int, ...]) -> tuple[float, ...]:
    """Of one call, by run; where there was none, nothing."""
    return tuple(total / n if n else 0.0 for total, n in zip(totals, calls, strict=True))


def _sized(
    sizes: tuple[float, ...], operations: OperationsRecord
) -> tuple[float, float | None, bool]:
    """A size by run -> what it is in the batch, the share of it that is no padding, if it fits.

    The first axis, or product of two, on which all runs lie on a line that rises from 0 or above.
    """
    known = [i for i, size in enumerate(sizes) if size > 0]
    if not known:
        return 0.0, None, True
    values = [sizes[i] for i in known]
    if max(values) == min(values):
        return values[-1], None, True
    runs = [operations.runs[i].axes for i in known]
    best: tuple[float, float, float | None] | None = None
    if len(known) > 2:
        for here, target, useful in _candidates(runs, operations.axes):
            fit = _line(here, values)
            if fit is None:
                continue
            slope, intercept, off = fit
            if best is None or off < 0.5 * best[0]:
                best = off, intercept + slope * target, useful
            if off < 1e-9:
                break
    if best is not None and best[0] <= NEAR:
        return best[1], best[2] if best[0] < 1e-9 else None, True
    ratio = operations.batch_size / operations.runs[known[-1]].samples
    return values[-1] * ratio, None, False


def _candidates(
    runs: list[dict[str, int]], target: dict[str, int]
) -> Iterator[tuple[list[float], float, float | None]]:
    """(size by run, size in the batch, share that is no padding), simplest first.

    A rectangle of events by the longest of them, with or without a token more, is padded.
    """
    names = [name for name in target if all(name in here for here in runs)]
    plain = [name for name in names if "^2" not in name and not name.startswith("distinct ")]
    for name in names:
        useful = None
        if name == "slots" and "padding" in target and target[name]:
            useful = 1 - target["padding"] / target[name]
        yield [float(here[name]) for here in runs], float(target[name]), useful
    for i, first in enumerate(plain):
        for second in plain[i:]:
            for more in (0, 1):
                useful = None
                if second == f"longest {first}" or second.startswith("longest "):
                    inner, _, outer = second.removeprefix("longest ").partition("/")
                    if f"{outer}s" == first and inner in target:
                        slots = target[first] * (target[second] + more)
                        useful = min(1.0, (target[inner] + more * target[first]) / slots)
                yield (
                    [float(here[first] * (here[second] + more)) for here in runs],
                    float(target[first] * (target[second] + more)),
                    useful,
                )


def _line(sizes: list[float], values: list[float]) -> tuple[float, float, float] | None:
    """(slope, intercept, largest distance by the largest value) of the line through the ends."""
    low = min(range(len(sizes)), key=sizes.__getitem__)
    high = max(range(len(sizes)), key=sizes.__getitem__)
    if sizes[high] == sizes[low]:
        return None
    slope = (values[high] - values[low]) / (sizes[high] - sizes[low])
    intercept = values[low] - slope * sizes[low]
    top = max(values)
    if slope <= 0 or intercept < -1e-9 * top - slope * 2:
        return None
    off = max(abs(intercept + slope * s - v) for s, v in zip(sizes, values, strict=True)) / top
    return slope, intercept, off


def _unpadded(work: Work) -> Work:
    if work.useful is None:
        return work
    return replace(work, bytes=work.bytes * work.useful, flops=work.flops * work.useful)


# The two clocks.


def _two_clocks(stages: list[list[Work]], device: DeviceModel, *, wait: bool = True) -> list[float]:
    """By how much each stage moves the end of the step, when they run one after the other."""
    host = ready = 0.0
    times = []
    for group in stages:
        before = max(host, ready)
        issue = sum(work.issue_s(device) for work in group)
        busy = sum(work.device_s(device) for work in group)
        syncs = sum(work.syncs for work in group) if wait else 0.0
        parts = max(1, min(MOST_PARTS, round(syncs)))
        cost = device.sync_s * syncs / parts
        for _ in range(parts):
            start = host
            host += issue / parts
            # What is issued bit by bit is begun bit by bit, and not done before the last is issued.
            if busy > 0:
                ready = max(max(ready, start) + busy / parts, host)
            if syncs > 0:
                host = max(host, ready) + cost
        times.append(max(host, ready) - before)
    return times


def _stage(group: list[Work], time_s: float, device: DeviceModel) -> StageProjection:
    record = group[0].record
    syncs = sum(work.syncs for work in group)
    host = sum(work.issue_s(device) for work in group) + syncs * device.sync_s
    busy = sum(work.device_s(device) for work in group)
    return StageProjection(
        phase=record.phase,
        stage=record.stage,
        time_s=time_s,
        host_s=host,
        device_s=busy,
        bound=_bound(group, host, busy, device),
        operations=sum(work.calls for work in group),
        syncs=syncs,
        loop_s=_longer([work for work in group if work.follows], device),
        launches=sum(work.launches for work in group),
        bytes=sum(work.bytes for work in group),
        padding_bytes=sum(
            work.bytes * (1 - work.useful) for work in group if work.useful is not None
        ),
    )


def _bound(group: list[Work], host: float, busy: float, device: DeviceModel) -> Bound:
    if host >= busy:
        return "host"
    by_bytes = sum(work.bytes for work in group) / device.bandwidth
    by_flops = sum(work.flops / device.rate(work.record.dtype) for work in group)
    return "compute" if by_flops > by_bytes else "bandwidth"


def _longer(works: list[Work], device: DeviceModel) -> float:
    host = sum(work.issue_s(device) for work in works)
    host += sum(work.syncs for work in works) * device.sync_s
    return max(host, sum(work.device_s(device) for work in works))


def _merged(stages: Iterator[StageProjection]) -> Iterator[StageProjection]:
    """Stages that come more than once in a phase as one, where they came first."""
    found: dict[tuple[str, str], StageProjection] = {}
    for stage in stages:
        key = stage.phase, stage.stage
        before = found.get(key)
        if before is None:
            found[key] = stage
            continue
        larger = max(before, stage, key=lambda s: s.time_s)
        found[key] = replace(
            before,
            bound=larger.bound,
            **{name: getattr(before, name) + getattr(stage, name) for name in _SUMS},
        )
    yield from found.values()


def _lines(works: list[Work], device: DeviceModel) -> Iterator[LineProjection]:
    lines: dict[tuple[str, int], list[Work]] = {}
    for work in works:
        place = work.record.location
        if work.follows and place is not None:
            lines.setdefault((place.file, place.line), []).append(work)
    found = []
    for group in lines.values():
        steepest = max(
            group, key=lambda w: (w.record.growth.order, w.calls) if w.record.growth else (0, 0)
        )
        growth, place = steepest.record.growth, steepest.record.location
        assert growth is not None and place is not None
        back = [work for work in group if work.record.phase == "backward"]
        found.append(
            LineProjection(
                location=place,
                stage=steepest.record.stage,
                axis=growth.axis,
                order=growth.order,
                operations=sum(work.calls for work in group),
                syncs=sum(work.syncs for work in group),
                forward_s=_longer([w for w in group if w.record.phase != "backward"], device),
                backward_s=_longer(back, device),
            )
        )
    yield from sorted(found, key=lambda line: -(line.forward_s + line.backward_s))
