"""The letter of `icediag gradients`: the flow by depth, parameters, units, attention and steps."""

import math
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.gradients import GradientsRecord, ParameterFlow, StageSignal

from .findings import diagnosis_parts
from .numbers import counted, number
from .paper import section, table_of, written
from .shapes import printable

#: Letters of the longest bar, in a terminal wide enough for one.
BAR = 24
WIDE = 100
#: Rows of a table; more are counted.
MOST_ROWS = 60


def render_gradients(
    recording: Recording,
    diagnosis: Diagnosis,
    *,
    width: int = 80,
    color: bool = False,
    depth: int = 2,
    everything: bool = False,
) -> str:
    """Render.

    Args:
        recording: What was seen; its field `gradients` is what is shown.
        diagnosis: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.
        depth: Stages nested deeper than this are left out.
        everything: Show biases and norms too, and all rows.

    Returns:
        The text, with a newline at its end.
    """
    recording, diagnosis = printable(recording), printable(diagnosis)
    parts = _parts(recording, diagnosis, width, depth, everything)
    return written(parts, width=width, color=color)


def _parts(
    recording: Recording, diagnosis: Diagnosis, width: int, depth: int, everything: bool
) -> Iterator[RenderableType]:
    record = recording.gradients
    if record is None or record.reason is not None:
        yield Text.assemble((recording.pipeline, "bold"), ": no gradient was followed")
        if record is not None and record.reason:
            yield Text(f"  {record.reason}")
        yield from diagnosis_parts(diagnosis)
        return
    yield _head(recording, record)
    yield from _flow(record, width, depth)
    yield from _parameters(record, everything)
    yield from _units(record)
    yield from _attention(record)
    yield from _steps(record)
    for reason in record.not_seen:
        yield Text(f"could not see {reason}", "dim")
    yield from diagnosis_parts(diagnosis)


def _head(recording: Recording, record: GradientsRecord) -> Text:
    passes = f"{record.micro_batches} micro-batch" + ("" if record.micro_batches == 1 else "es")
    text = Text.assemble(
        (recording.pipeline, "bold"),
        f": {passes} of {counted(record.events, 'event')}, {counted(len(record.steps), 'step')} of "
        f"{record.optimizer or 'no optimizer'}",
    )
    if record.loss is not None:
        text.append(f"\nloss {number(record.loss)}")
    if record.noise is not None:
        text.append(
            f" · gradient noise {_noise(record.noise, record)} (variance between micro-batches "
            "over the square of the mean)"
        )
    return text


def _noise(value: float | None, record: GradientsRecord) -> str:
    """Gradient noise; where so few micro-batches do not tell a mean from 0, that it is more."""
    return f">{record.micro_batches}" if value == math.inf else number(value)


def _bar(value: float | None, low: float, high: float) -> str:
    """A bar on a logarithmic scale."""
    if not value or not math.isfinite(value):
        return ""
    share = (math.log10(value) - low) / (high - low) if high > low else 1.0
    return "━" * max(1, round(share * BAR))


def _shown(stages: tuple[StageSignal, ...], depth: int) -> list[StageSignal]:
    return [s for s in stages if s.stage != "model" and s.stage.count(".") < depth]


def _flow(record: GradientsRecord, width: int, depth: int) -> Iterator[RenderableType]:
    stages = _shown(record.stages, depth)
    if not stages:
        return
    wide = width >= WIDE
    table = table_of("stage", "signal", "gradient", "zeros", *(("",) if wide else ()))
    if wide:
        table.columns[-1].justify = "left"
    logs = [math.log10(s.gradient) for s in stages if s.gradient and math.isfinite(s.gradient)]
    low, high = (min(logs) - 0.5, max(logs)) if logs else (0.0, 1.0)
    for stage in stages:
        none = stage.gradient is None
        table.add_row(
            Text(stage.stage),
            number(stage.signal),
            Text("-" if none else number(stage.gradient), "" if not none else "dim"),
            "-" if none else f"{100 * stage.zeros:.0f} %",
            *((Text(_bar(stage.gradient, low, high), "cyan"),) if wide else ()),
        )
    yield section("flow by depth: root mean square of what a stage gives, and of ∂ by it", table)
    hidden = len(record.stages) - len(stages) - 1
    if hidden > 0:
        yield Text(f"{hidden} stages nested deeper not shown (--depth)", "dim")


def _remarks(parameter: ParameterFlow) -> list[str]:
    if not parameter.trained:
        return ["frozen"]
    remarks = []
    if parameter.gradient is None:
        remarks.append("no gradient")
    if not parameter.held:
        remarks.append("not in the optimizer")
    elif parameter.unmoved:
        remarks.append("not moved")
    return remarks


def _parameters(record: GradientsRecord, everything: bool) -> Iterator[RenderableType]:
    if not record.parameters:
        return
    of_interest = [p for p in record.parameters if everything or p.axes >= 2 or _remarks(p)]
    shown = of_interest if everything else of_interest[:MOST_ROWS]
    table = table_of("parameter", "values", "|w|", "|∂|", "zeros", "noise", "step/w")
    for p in shown:
        remarks = _remarks(p)
        name = Text(p.name)
        if remarks:
            name.append(f" ({', '.join(remarks)})", "bold red" if p.trained else "dim")
        table.add_row(
            name,
            f"{p.values:,}",
            number(p.weight),
            number(p.gradient),
            "-" if p.gradient is None else f"{100 * p.zeros:.0f} %",
            _noise(p.noise, record),
            number(p.ratio),
        )
    yield section("parameters", table)
    hidden = len(record.parameters) - len(shown)
    if hidden:
        yield Text(f"{hidden} more, biases and norms among them, not shown (--all)", "dim")


def _units(record: GradientsRecord) -> Iterator[RenderableType]:
    if not record.activations:
        return
    table = table_of("activation", "function", "units", "dead", "at an end", "rows", left=2)
    for unit in record.activations[:MOST_ROWS]:
        table.add_row(
            Text(unit.stage),
            unit.op,
            number(unit.units),
            Text(number(unit.dead), "bold red" if unit.dead else ""),
            "-" if unit.kind == "rectifier" else f"{100 * unit.saturated:.1f} %",
            number(unit.rows),
        )
    yield section("units", table)


def _attention(record: GradientsRecord) -> Iterator[RenderableType]:
    if not record.attention:
        return
    table = table_of("attention", "heads", "keys", "entropy", "lowest", "highest")
    for seen in record.attention[:MOST_ROWS]:
        table.add_row(
            Text(seen.stage),
            number(seen.heads),
            number(seen.keys),
            f"{seen.entropy:.3f}",
            f"{seen.lowest:.3f}",
            f"{seen.highest:.3f}",
        )
    yield section("attention: entropy of the weights, 1 looks everywhere alike, 0 at one", table)


def _steps(record: GradientsRecord) -> Iterator[RenderableType]:
    if not record.steps:
        return
    table = table_of("step", "loss", "rate", "norm", "clipped at", "scaled by")
    for i, step in enumerate(record.steps):
        table.add_row(
            f"{i + 1}",
            number(step.loss),
            number(step.rate),
            number(step.norm),
            number(step.limit),
            number(step.scale),
        )
    yield section("steps, as training takes them", table)
