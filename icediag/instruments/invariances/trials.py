"""Trials: one change to a batch, and what it does to the events that it must not touch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from icediag.instruments.running.lab import Lab, Outputs, call, comparable, outputs_of, scale_of
from icediag.instruments.trees.rebuild import rebuilt
from icediag.records.invariances import Change, Trial

from .rows import Rows, apart, find_rows
from .samples import mutated

#: Share of an event's slope by its own input that another event's may have for rounding: sums that
#: cancel, as of running totals over the whole batch. In float64, and at the precision of training.
SLOPE_PRECISE, SLOPE_NATIVE = 1e-9, 1e-4
#: Events whose slopes are looked at.
SLOPES = 4

#: Outputs of two events that are nearer than so many times the rounding cannot be told apart.
DISTINCT = 100

#: Runs a batch: (samples, native) -> outputs.
Runner = Callable[..., Outputs]


class Setting:
    """The probes, their batches, and how events lie in the outputs.

    Args:
        lab: Runs them.
        samples: The probes.
        numbers: Their indices in the data set.
    """

    def __init__(self, lab: Lab, samples: Sequence[Any], numbers: Sequence[int]) -> None:
        self.lab, self.samples, self.numbers = lab, list(samples), list(numbers)
        self.n = len(self.samples)
        self.whole = lab.run(self.samples)
        self.fewer = lab.run(self.samples[:-1])
        self.alone: list[Outputs | None] = []
        self.failed: BaseException | None = None
        for sample in self.samples:
            try:
                self.alone.append(lab.run([sample]))
            except Exception as error:
                self.alone.append(None)
                self.failed = self.failed or error
        self.rows = find_rows(self.whole, self.fewer, self.alone, self.n)
        #: For each row of the outputs the probe it is of; None where that cannot be told.
        self.owners = owners(self, self.whole)

    @property
    def reordered(self) -> bool:
        """Whether the outputs are those of each event alone, in another order than the samples'."""
        known = [k for k in self.owners if k is not None]
        return sorted(known) == list(range(self.n)) and known != list(range(self.n))

    def extent(self, path: str, k: int) -> Tensor | None:
        """An output of the k-th probe alone: what of it is not padding."""
        one = self.alone[k]
        return None if one is None or path not in one else self.rows[path].alone(one[path])

    def compare(
        self,
        change: Change,
        one: Callable[[str, int, bool], Tensor | None],
        other: Callable[[str, int, bool], Tensor | None],
        events: Sequence[int],
    ) -> Iterator[Trial]:
        """Compare two ways to get the outputs of some probes.

        Args:
            change: What differs between the two.
            one: (output, probe, native) -> its values.
            other: The same, the other way.
            events: Which probes.
        """
        for path, reference in self.whole.items():
            if path not in self.rows:
                continue
            limit = self.lab.rounding(path, reference)
            moved: dict[int, float] = {}
            compared = 0
            largest = 0.0
            for k in events:
                size = self._apart(path, k, one, other, native=False)
                if size is None:
                    continue
                compared += 1
                largest = max(largest, size)
                if size > limit:
                    moved[k] = size
            if not compared:
                continue
            trial = Trial(
                change=change,
                output=path,
                events=compared,
                moved=len(moved),
                size=largest,
                rounding=self.lab.rounding(path, reference, native=True),
                scale=scale_of(reference),
                precise=self.lab.twin is not None,
            )
            if moved:
                worst = max(moved, key=lambda k: moved[k])
                native = self._apart(path, worst, one, other, native=True)
                trial = replace(trial, event=self.numbers[worst], native=native)
            yield trial

    def _apart(
        self,
        path: str,
        k: int,
        one: Callable[[str, int, bool], Tensor | None],
        other: Callable[[str, int, bool], Tensor | None],
        *,
        native: bool,
    ) -> float | None:
        first, second, extent = one(path, k, native), other(path, k, native), self.extent(path, k)
        if first is None or second is None or not comparable(first, second):
            return None
        if extent is None or not extent.ndim == first.ndim == second.ndim:
            return apart(first, second)
        # Beyond what the event fills alone there is padding, of any value, at one end or the other.
        short = [min(sizes) for sizes in zip(extent.shape, first.shape, second.shape, strict=True)]
        head = tuple(slice(0, size) for size in short)
        tails = [
            tuple(slice(n - size, n) for n, size in zip(t.shape, short, strict=True))
            for t in (first, second)
        ]
        return min(apart(first[head], second[head]), apart(first[tails[0]], second[tails[1]]))


def owners(setting: Setting, given: Outputs) -> list[int | None]:
    """For each row of some outputs the probe it is of, by what each gives alone.

    Args:
        setting: The probes.
        given: Outputs of a batch of all of them, in any order.

    Returns:
        One entry a row, None where no probe fits or two are too near each other.
    """
    outputs = [path for path, rows in setting.rows.items() if rows.kind == "events"]
    found: list[int | None] = []
    for r in range(setting.n):
        fits, near = set(range(setting.n)), set(range(setting.n))
        for path in outputs:
            if path not in given or given[path].shape[setting.rows[path].axis] != setting.n:
                continue
            piece = setting.rows[path].piece(given[path], r)
            limit = setting.lab.rounding(path, setting.whole[path])
            for k in range(setting.n):
                extent = setting.extent(path, k)
                distance = torch.inf if extent is None else apart(extent, piece)
                if not distance <= limit:
                    fits.discard(k)
                if not distance <= DISTINCT * limit:
                    near.discard(k)
        found.append(fits.pop() if outputs and len(fits) == len(near) == 1 else None)
    return found


def cached(lab: Lab, samples: Sequence[Any]) -> Callable[[bool], Outputs | None]:
    """Outputs of a list of samples, run when asked for; None where the user's code raises."""
    kept: dict[bool, Outputs | None] = {}

    def outputs(native: bool) -> Outputs | None:
        if native not in kept:
            try:
                kept[native] = lab.run(samples, native=native)
            except Exception:
                kept[native] = None
        return kept[native]

    return outputs


def part(
    setting: Setting, outputs: Callable[[bool], Outputs | None], position: Callable[[int], int]
) -> Callable[[str, int, bool], Tensor | None]:
    """A way to get the outputs of a probe from a run in which it stands at another place."""

    def get(path: str, k: int, native: bool) -> Tensor | None:
        found = outputs(native)
        if found is None or path not in found:
            return None
        try:
            return setting.rows[path].piece(found[path], position(k))
        except (IndexError, RuntimeError):
            return None

    return get


def single(
    setting: Setting, runs: Sequence[Callable[[bool], Outputs | None]]
) -> Callable[[str, int, bool], Tensor | None]:
    """A way to get the outputs of a probe from a run of its own."""

    def get(path: str, k: int, native: bool) -> Tensor | None:
        found = runs[k](native)
        if found is None or path not in found:
            return None
        return setting.rows[path].alone(found[path])

    return get


def content(setting: Setting) -> list[Trial]:
    """Other values in the neighbours: do the outputs of the first half of the probes move?"""
    lab, half = setting.lab, setting.n // 2
    changed = [
        *setting.samples[:half],
        *(mutated(sample, k) for k, sample in enumerate(setting.samples[half:])),
    ]
    before, after = cached(lab, setting.samples), cached(lab, changed)
    here = part(setting, before, lambda k: k)
    there = part(setting, after, lambda k: k)
    found = []
    for trial in setting.compare("content", here, there, range(half)):
        if trial.broken:
            trial = _neighbour(setting, trial, changed)
        found.append(trial)
    return found


def _neighbour(setting: Setting, trial: Trial, changed: Sequence[Any]) -> Trial:
    """The one neighbour that moves the event most."""
    at = setting.numbers.index(trial.event) if trial.event is not None else 0
    sizes: dict[int, float] = {}
    before = part(setting, cached(setting.lab, setting.samples), lambda k: k)
    for j in range(setting.n // 2, setting.n):
        mixed = [*setting.samples]
        mixed[j] = changed[j]
        after = part(setting, cached(setting.lab, mixed), lambda k: k)
        one, other = before(trial.output, at, False), after(trial.output, at, False)
        if one is not None and other is not None:
            sizes[j] = apart(one, other)
    if not sizes or not max(sizes.values()):
        return trial
    return replace(trial, neighbour=setting.numbers[max(sizes, key=lambda j: sizes[j])])


def company(setting: Setting) -> list[Trial]:
    """Alone against together with all; where that differs, with itself and with the longest."""
    lab, samples = setting.lab, setting.samples
    alone = single(setting, [cached(lab, [sample]) for sample in samples])
    together = part(setting, cached(lab, samples), lambda k: k)
    found = list(setting.compare("company", alone, together, range(setting.n)))
    broken = [trial for trial in found if trial.broken]
    if not broken:
        return found
    twice = [cached(lab, [sample, sample]) for sample in samples]
    beside = [cached(lab, [sample, samples[-1]]) for sample in samples]

    def first_of(
        runs: Sequence[Callable[[bool], Outputs | None]],
    ) -> Callable[[str, int, bool], Tensor | None]:
        def get(path: str, k: int, native: bool) -> Tensor | None:
            found = runs[k](native)
            if found is None or path not in found:
                return None
            rows = setting.rows[path]
            # Of rows one after the other, those of the first event are as many as it has.
            if rows.kind == "rows":
                return found[path].narrow(0, 0, rows.sizes[k])
            return rows.piece(found[path], 0)

        return get

    events = range(setting.n - 1)
    found += setting.compare("batch size", alone, first_of(twice), events)
    found += setting.compare("padding", first_of(twice), first_of(beside), events)
    return found


def gradient(setting: Setting, batch_rows: dict[str, Rows]) -> list[Trial]:
    """Slopes of outputs by inputs of other events, which are 0 where events are independent.

    Args:
        setting: The probes.
        batch_rows: How events lie in the tensors of the batch.

    Raises:
        Exception: Whatever the user's code raises.
    """
    found = []
    ratios = _ratios(setting, batch_rows, native=False)
    limit = SLOPE_PRECISE if setting.lab.twin is not None else SLOPE_NATIVE
    for path, pairs in ratios.items():
        moved = {k for (k, _), ratio in pairs.items() if ratio > limit}
        (k, j), worst = max(pairs.items(), key=lambda item: item[1])
        trial = Trial(
            change="gradient",
            output=path,
            events=len({k for k, _ in pairs}),
            moved=len(moved),
            size=worst,
            rounding=SLOPE_NATIVE if setting.lab.twin is None else SLOPE_PRECISE,
            scale=1.0,
            precise=setting.lab.twin is not None,
        )
        if moved:
            native = _ratios(setting, batch_rows, native=True).get(path, {}).get((k, j))
            trial = replace(
                trial,
                native=native,
                rounding=SLOPE_NATIVE,
                event=setting.numbers[k],
                neighbour=setting.numbers[j],
            )
        found.append(trial)
    return found


def _ratios(
    setting: Setting, batch_rows: dict[str, Rows], *, native: bool
) -> dict[str, dict[tuple[int, int], float]]:
    """For each output: (event, other) -> slope by the other's input over that by its own."""
    lab = setting.lab
    found: dict[str, dict[tuple[int, int], float]] = {}
    with lab.ready(setting.samples, native=native) as model, torch.enable_grad():
        inputs: dict[str, Tensor] = {}

        def watch(path: str, leaf: Any) -> Any:
            if path not in batch_rows or not isinstance(leaf, Tensor):
                return leaf
            if not leaf.is_floating_point() or leaf.layout != torch.strided:
                return leaf
            inputs[path] = leaf.detach().clone().requires_grad_()
            # The model may write to what it gets; to a leaf it must not.
            return inputs[path].clone()

        batch = rebuilt(lab.batch(setting.samples, native=native), watch)
        if not inputs:
            return found
        outputs = outputs_of(call(lab.pipeline, model, batch))
        step = max(1, setting.n // SLOPES)
        probes = list(range(0, setting.n, step))[:SLOPES]
        for path, output in outputs.items():
            if path not in setting.rows or not output.requires_grad:
                continue
            # Of further outputs, which mostly come of the same vector, one event.
            for k in probes if not found else probes[-1:]:
                piece = setting.rows[path].piece(output, k)
                extent = setting.extent(path, k)
                if extent is not None and extent.shape != piece.shape:
                    if extent.ndim != piece.ndim:
                        continue
                    piece = piece[tuple(slice(0, size) for size in extent.shape)]
                generator = torch.Generator().manual_seed(k)
                weights = torch.rand(piece.shape, generator=generator).to(piece) + 0.5
                slopes: Sequence[Tensor | None] = torch.autograd.grad(
                    (piece * weights).sum(),
                    list(inputs.values()),
                    retain_graph=True,
                    allow_unused=True,
                )
                by = [0.0] * setting.n
                for name, slope in zip(inputs, slopes, strict=True):
                    if slope is None:
                        continue
                    for j in range(setting.n):
                        by[j] = max(by[j], scale_of(batch_rows[name].piece(slope, j)))
                if by[k] > 0:
                    pairs = found.setdefault(path, {})
                    pairs |= {(k, j): by[j] / by[k] for j in range(setting.n) if j != k}
    return found


def batch_layout(setting: Setting) -> dict[str, Rows]:
    """How events lie in the tensors of the batch, where each holds what it holds alone."""
    lab = setting.lab
    whole, fewer = lab.collate(setting.samples), lab.collate(setting.samples[:-1])
    alone: list[dict[str, Tensor] | None] = []
    for sample in setting.samples:
        try:
            alone.append(lab.collate([sample]))
        except Exception:
            alone.append(None)
    found = find_rows(whole, fewer, alone, setting.n)
    sure: dict[str, Rows] = {}
    for path, rows in found.items():
        pieces = [
            (rows.alone(one[path]), rows.piece(whole[path], k))
            for k, one in enumerate(alone)
            if one is not None and path in one
        ]
        # A batch that normalises over its events, or packs them, does not hold them as they are.
        if pieces and all(apart(a, b) == 0 for a, b in pieces):
            sure[path] = rows
    return sure
