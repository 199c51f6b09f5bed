"""Repairs: what findings claim to be wrong, put right while a training runs, and taken out again.

The user's code stays as it is: hooks and stand-ins hand a stage what its contract asks for, bring a
head's columns into their domains, or replace a learning rate.
"""

import inspect
import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.running.stages import FunctionStage, resolve, wrapped
from icediag.instruments.running.workbench import Batches, Workbench
from icediag.instruments.trees.outputs import output_columns
from icediag.recording import Recording
from icediag.records.gradients import GradientsRecord
from icediag.records.provenance import OriginRecord

from .feature_repairs import rescaled, standardised
from .repair import Repair

#: A step that changes weights by more or less than this is replaced by one of `RATIO`.
MOST, LEAST, RATIO = 1.0, 1e-7, 1e-3
#: Learning rate in place of one that is 0.
RATE = 1e-3


def repairs_of(
    bench: Workbench,
    batch: Batches,
    recording: Recording,
    skipped: list[str],
    *,
    thorough: bool = False,
) -> list[Repair]:
    """What can be put right of what was recorded.

    Args:
        bench: The pipeline.
        batch: Any batch of it.
        recording: What the other instruments saw.
        skipped: What cannot be put right is added here, with the reason.
        thorough: Also what is but a note: features of order 1 that are off-centre or hardly vary.
    """
    found: list[Repair] = []
    makes = (_raw, _bounded, standardised, *((rescaled,) if thorough else ()))
    for make in makes:
        try:
            found += make(bench, batch, recording, skipped)
        except Exception as error:  # what the user's code does not bear is not tried
            skipped.append(f"{make.__name__.strip('_')}: {type(error).__name__}: {error}")
    found += _steps(bench, recording.gradients)
    return found


# ---- raw values


def _raw(
    bench: Workbench,
    batch: Batches,  # noqa: ARG001 - as the others
    recording: Recording,
    skipped: list[str],
) -> list[Repair]:
    """Arguments that are declared raw and carry something else, stage by stage."""
    record = recording.provenance
    if record is None:
        return []
    stages: dict[tuple[str, str, bool], list[tuple[str, str, OriginRecord]]] = {}
    for contract in record.contracts:
        seen = next(
            (
                o
                for o in record.origins
                if (o.owner, o.role, o.path) == (contract.owner, "in", contract.argument)
                and o.origin is not None
            ),
            None,
        )
        if seen is None or seen.origin is None:
            continue
        same = seen.origin.map in ("identity", "cast") and seen.origin.column == contract.column
        if same:
            continue
        key = (contract.owner, seen.stage, contract.pools)
        stages.setdefault(key, []).append((contract.argument, contract.column, seen))
    repairs = []
    for (owner, stage, pools), arguments in stages.items():
        text = ", ".join(f"raw {column} as {argument}" for argument, column, _ in arguments)
        gathered = [a for a, _, seen in arguments if seen.origin and seen.origin.rows is not None]
        if gathered or any("." in argument for argument, _, _ in arguments):
            skipped.append(
                f"{text} into {stage}: its rows are gathered, or it is a field of a tree"
            )
            continue
        columns = {argument: column for argument, column, _ in arguments}
        repairs.append(
            Repair(
                kind="raw weights" if pools else "raw values",
                stage=stage,
                text=f"{text} into {stage}",
                force=_Substitution(bench, owner, stage, columns).force,
            )
        )
    return repairs


class _Substitution:
    """Hands a stage raw columns of the batch that is under way."""

    def __init__(self, bench: Workbench, owner: str, stage: str, columns: dict[str, str]) -> None:
        self._bench, self._owner, self._stage, self._columns = bench, owner, stage, columns

    def _raw_like(self, column: str, given: Any) -> Any:
        with torch.no_grad():
            raw = self._bench.pipeline.raw[column](self._bench.current)
        if not isinstance(given, Tensor) or raw.numel() != given.numel():
            raise ValueError(f"raw {column} does not have the rows of what it is to replace")
        return raw.detach().reshape(given.shape).to(given)

    def _with_raw(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = inspect.signature(function).bind(*args, **kwargs)
        for argument, column in self._columns.items():
            bound.arguments[argument] = self._raw_like(column, bound.arguments[argument])
        return bound.args, bound.kwargs

    @contextmanager
    def force(self) -> Iterator[None]:
        """Replace the arguments while this lasts."""
        modules = dict(self._bench.model.named_modules())
        module = modules.get("" if self._stage == "model" else self._stage)
        if module is not None:

            def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
                return self._with_raw(module.forward, args, kwargs)

            handle = module.register_forward_pre_hook(before, with_kwargs=True)
            try:
                yield
            finally:
                handle.remove()
            return

        def stand_in(stage: FunctionStage) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                args, kwargs = self._with_raw(stage.function, args, kwargs)
                return stage.function(*args, **kwargs)

            return call

        with wrapped([resolve(self._owner)], stand_in, self._bench.model):
            yield


# ---- bounded outputs


def _bounded(
    bench: Workbench, batch: Batches, recording: Recording, skipped: list[str]
) -> list[Repair]:
    """Outputs that were seen to leave their domain, where the module that gives them is found."""
    record = recording.bounds
    if record is None:
        return []
    loose = {o.column: o for o in record.outputs if not o.proved and o.witness is not None}
    if not loose:
        return []
    givers = _givers(bench, batch, list(bench.pipeline.outputs), set(loose))
    skipped.extend(
        f"{column} into its domain: no module gives it as it is"
        for column in sorted(set(loose) - set(givers))
    )
    if not givers:
        return []
    domains = {column: bench.pipeline.outputs[column] for column in givers}
    ends = {c: (givers[c], (d.low + d.high) / 2, (d.high - d.low) / 2) for c, d in domains.items()}
    if not all(math.isfinite(half) for _, _, half in ends.values()):
        skipped.append("outputs into their domains: a domain without an end")
        return []

    @contextmanager
    def force() -> Iterator[None]:
        with ExitStack() as hooks:
            for module in {id(m): m for (m, _), _, _ in ends.values()}.values():
                mine = [(at, mid, half) for (m, at), mid, half in ends.values() if m is module]

                def after(_: nn.Module, __: Any, output: Tensor, mine: Any = mine) -> Tensor:
                    columns = list(output.unbind(-1))
                    for at, mid, half in mine:
                        # Slope 1 in the middle, where a head begins: the bounds alone differ.
                        columns[at] = mid + half * torch.tanh(columns[at] / half)
                    return torch.stack(columns, -1)

                hooks.callback(module.register_forward_hook(after).remove)
            yield

    stage = next(iter(loose.values())).stage
    text = ", ".join(f"{c} squashed into {d.low:.4g}..{d.high:.4g}" for c, d in domains.items())
    return [Repair(kind="bounded outputs", stage=stage, text=text, force=force)]


def _givers(
    bench: Workbench, batch: Batches, names: list[str], wanted: set[str]
) -> dict[str, tuple[nn.Module, int]]:
    """For each output the last module that gives its values as a column of a table."""
    seen: list[tuple[nn.Module, Tensor]] = []
    with bench.from_here(), torch.no_grad(), ExitStack() as hooks:
        for module in bench.model.modules():

            def after(module: nn.Module, _: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.is_floating_point() and output.ndim == 2:
                    seen.append((module, output.detach()))

            hooks.callback(module.register_forward_hook(after).remove)
        columns, _ = output_columns(bench.predict(batch()), names)
    givers: dict[str, tuple[nn.Module, int]] = {}
    for name in (column for column in columns if column in wanted):
        values = columns[name].detach().double().reshape(-1)
        for module, table in seen:
            if table.shape[0] != len(values):
                continue
            same = [
                i
                for i in range(table.shape[1])
                if torch.allclose(table[:, i].double(), values, rtol=1e-5, atol=1e-7)
            ]
            if same:
                givers[name] = (module, same[0])
    return givers


# ---- optimizer and step


def _steps(bench: Workbench, record: GradientsRecord | None) -> list[Repair]:
    """A learning rate that is 0 or absurd, and a step of the user's that does something else."""
    if record is None or not record.steps:
        return []
    repairs = []
    rates = [step.rate for step in record.steps if step.rate is not None]
    ratios = [
        p.ratio for p in record.parameters if p.trained and p.held and p.axes >= 2 and p.ratio
    ]
    ratio = statistics.median(ratios) if ratios else 0.0
    rate = None
    if rates and all(one == 0 for one in rates):
        rate = RATE
    elif rates and ratio and not LEAST <= ratio <= MOST and math.isfinite(ratio):
        rate = RATE if record.adaptive else rates[-1] * RATIO / ratio
    if rate is not None and bench.pipeline.optimizer is not None:
        text = f"{record.optimizer} at {rate:.3g} in place of {rates[-1]:g}"
        repairs.append(Repair(kind="rate", stage="optimizer", text=text, how={"rate": rate}))
    odd = any(
        not step.steps
        or not step.backward
        or (step.since or 0.0) > 0.1
        or (step.scale is not None and step.scale < 0.1)
        for step in record.steps
    )
    if bench.pipeline.train_step is not None and odd:
        text = "a plain step in place of its own"
        repairs.append(Repair(kind="plain step", stage="train step", text=text, how={"own": False}))
    return repairs


def changes_something(bench: Workbench, batch: Batches, repair: Repair) -> str | None:
    """Why a repair cannot be tried: it fails, or the loss stays the same to the last bit."""
    if repair.how:
        return None
    try:
        with bench.from_here(), torch.no_grad():
            before = float(bench.loss(batch()))
            with repair.force():
                after = float(bench.loss(batch()))
    except Exception as error:  # the user's code does not bear it
        return f"{type(error).__name__}: {error}"
    return "the loss does not depend on it" if before == after else None


def shuffled(model: nn.Module, seed: int) -> None:
    """Weights drawn anew from their own values: the user's way to begin, another draw of it.

    What asks for no gradient, vectors, and tables of names keep their values.
    """
    named = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 or not parameter.requires_grad or id(parameter) in named:
                continue
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
