"""The flow as a table: every stage, every tensor, shapes and ranges, for a terminal."""

import dataclasses
import io
from collections.abc import Iterator, Mapping
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from icediag.finding import Diagnosis, Finding
from icediag.recording import Facts, Recording, StageRecord, TensorRecord

from .numbers import counted, number, share
from .sections import SECTIONS

COLUMNS = (
    *("stage / tensor", "shape", "sizes", "dtype"),
    *("min", "median", "max", "mean", "sd", "zeros", "NaN, inf"),
)
#: Names and shapes are folded, but not into less than this.
NARROWEST = 14
#: From this width on every fact has a column of its own; below, a tensor takes two lines.
WIDE = 120
ROLE_MARKS = {"in": "→", "out": "←", "grad": "∂"}
KIND_STYLES = {"item": "cyan", "collate": "cyan", "function": "magenta", "loss": "yellow"}
SEVERITY_STYLES = {"error": "bold red", "warning": "yellow", "note": "blue"}


def render_shapes(
    recording: Recording,
    diagnosis: Diagnosis,
    *,
    width: int = 80,
    color: bool = False,
    depth: int = 2,
) -> str:
    """Render.

    Args:
        recording: What was seen.
        diagnosis: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.
        depth: Stages nested deeper than this are left out.

    Returns:
        The text, with a newline at its end.
    """
    recording, diagnosis = printable(recording), printable(diagnosis)
    stream = io.StringIO()
    width = max(width, 40)
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,  # names are the user's: "[red]" is four letters and two brackets
        emoji=False,
    )
    console.print(_head(recording))
    shown = [stage for stage in recording.stages if stage.depth <= depth]
    # Values of half a batch of calls are not those of the batch: the table says where.
    console.print((_wide(shown, width) if width >= WIDE else None) or _narrow(shown))
    hidden = len(recording.stages) - len(shown)
    console.print(_legend(hidden))
    for part in (make(recording) for make in SECTIONS):
        if part is not None:
            console.print(part)
    console.print(_tail(recording, diagnosis))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def printable(value: Any) -> Any:
    """The same with every character that would steer a terminal written as its number."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
    if isinstance(value, tuple):
        return tuple(printable(item) for item in value)
    if isinstance(value, Mapping):
        return {printable(key): printable(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: printable(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value


def _head(recording: Recording) -> Group:
    title = Text.assemble(
        (recording.pipeline, "bold"), f": one batch of {counted(recording.batch_size, 'sample')}"
    )
    lines = [title]
    if recording.axes:
        axes = Text("axes: ")
        for i, (name, size) in enumerate(recording.axes.items()):
            note = recording.axis_notes.get(name)
            axes.append(" · " if i else "")
            axes.append(name, "bold")
            axes.append(f" {size:,}" + (f" ({note})" if note else ""))
        lines.append(axes)
    return Group(*lines, Text())


def _shape(tensor: TensorRecord) -> str:
    """Symbolic shape: `pulses × 4`."""
    if not tensor.shape:
        return "scalar"
    axes = tensor.axes or (None,) * len(tensor.shape)
    return " × ".join(
        f"{size:,}" if name is None else name for name, size in zip(axes, tensor.shape, strict=True)
    )


def _sizes(tensor: TensorRecord) -> str:
    """Sizes: `48,300 × 4`; empty where the symbolic shape says the same."""
    varies = tensor.varies or (False,) * len(tensor.shape)
    text = " × ".join(
        f"{size:,}" + ("…" if changes else "")
        for size, changes in zip(tensor.shape, varies, strict=True)
    )
    return "" if text == _shape(tensor) else text


def _stage_title(stage: StageRecord) -> Text:
    title = Text("  " * stage.depth)
    title.append(stage.name, f"bold {KIND_STYLES.get(stage.kind, '')}".strip())
    if stage.type:
        title.append(f" {stage.type}")
    if stage.calls > 1:
        what = "sample" if stage.kind == "item" else "call"
        title.append(f" · {counted(stage.calls, what)}")
        if stage.valued_calls < stage.calls:
            title.append(f", values of the first {stage.valued_calls}")
    if stage.location:
        title.append(f" · {stage.location.file}:{stage.location.line}", "dim")
    return title


def _name(tensor: TensorRecord, depth: int) -> Text:
    mark = ROLE_MARKS[tensor.role]
    path = tensor.path or ("gradient" if tensor.role == "grad" else "output")
    style = {"grad": "dim", "in": ""}.get(tensor.role, "green")
    return Text("  " * depth + f"  {mark} {path}", style=style, overflow="fold")


def _alarm(facts: Facts) -> Text:
    """NaN and infinities; an additive mask of 0 and -inf is in order."""
    text = Text()
    if facts.nans:
        text.append(f"{facts.nans:,} NaN", "bold red")
    infinite = facts.positive_infs + facts.negative_infs
    if facts.additive_mask:
        text.append(f"mask, {share(facts.negative_infs, facts.count)} -inf", "dim")
    elif infinite:
        text.append(" " if text else "")
        text.append(f"{infinite:,} inf", "bold red")
    return text


def _median(facts: Facts) -> str:
    about = "~" if facts.median_of < facts.count and facts.median is not None else ""
    return about + number(facts.median)


def _rows(tensor: TensorRecord) -> list[tuple[str, Facts]]:
    """A line for the tensor, or one for each of its columns."""
    if tensor.columns:
        names = tensor.column_names or (None,) * len(tensor.columns)
        return [
            (name or f"[{i}]", facts)
            for i, (name, facts) in enumerate(zip(names, tensor.columns, strict=True))
        ]
    return [("", tensor.facts)] if tensor.facts else []


def _cells(stage: StageRecord) -> Iterator[list[str | Text]]:
    """The lines of a stage: a cell for each of `COLUMNS`, fewer where there is no more."""
    for tensor in stage.tensors:
        lead: list[str | Text] = [_name(tensor, stage.depth), _shape(tensor), _sizes(tensor)]
        lead.append(tensor.dtype if tensor.device == "cpu" else f"{tensor.dtype} {tensor.device}")
        rows = _rows(tensor)
        if tensor.columns or not rows:
            yield lead
            lead = [""] * 4
        if not rows and tensor.unseen:
            yield [Text("  " * stage.depth + f"      {tensor.unseen}", "dim")]
        for label, facts in rows:
            if label:
                lead[0] = Text("  " * stage.depth + f"      {label}", "dim")
            yield [*lead, *_facts(facts), *[""] * (0 if facts.count else 5), _alarm(facts)]


def _wide(stages: list[StageRecord], width: int) -> Group | None:
    """A column for every fact; None where they do not fit.

    Titles span the whole width, so each stage is a table of its own with the widths of all.
    """
    lines = {i: list(_cells(stage)) for i, stage in enumerate(stages)}
    # A line of one cell is a remark, which spans the width as titles do.
    tables = [cells for rows in lines.values() for cells in rows if len(cells) > 1]
    widths = [len(name) for name in COLUMNS]
    for cells in tables:
        for i, cell in enumerate(cells):
            widths[i] = max(widths[i], cell_len(str(cell)))
    while (excess := sum(widths) + 2 * (len(widths) - 1) - width) > 0:
        i = max(range(3), key=lambda i: widths[i])  # name, shape and sizes may fold
        if widths[i] <= NARROWEST:
            return None
        widths[i] = max(NARROWEST, widths[i] - excess, min(widths[i] - 1, sorted(widths[:3])[1]))

    def table() -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
        for i, (name, room) in enumerate(zip(COLUMNS, widths, strict=True)):
            style = "dim" if name in ("sizes", "dtype") else ""
            justify: JustifyMethod = "right" if 3 < i < len(COLUMNS) - 1 else "left"
            table.add_column(name, width=room, overflow="fold", style=style, justify=justify)
        return table

    head = table()
    head.add_row(*(Text(name, "dim") for name in COLUMNS))
    parts: list[Table | Text] = [head]
    for i, stage in enumerate(stages):
        parts.append(_stage_title(stage))
        for cells in lines[i]:
            if len(cells) == 1 and isinstance(cells[0], Text):
                parts.append(cells[0])
                continue
            if not isinstance(parts[-1], Table):
                parts.append(table())
            last = parts[-1]
            assert isinstance(last, Table)
            last.add_row(*cells)
    return Group(*parts)


def _facts(facts: Facts) -> list[str]:
    if facts.count == 0:
        return ["empty"]
    return [
        number(facts.minimum),
        _median(facts),
        number(facts.maximum),
        number(facts.mean),
        number(facts.std),
        share(facts.zeros, facts.count),
    ]


def _narrow(stages: list[StageRecord]) -> Group:
    parts: list[Text] = []
    for stage in stages:
        parts.append(_stage_title(stage))
        for tensor in stage.tensors:
            indent = "  " * stage.depth + "      "
            first = _name(tensor, stage.depth)
            first.append(f"  {_shape(tensor)}", "default")
            sizes = _sizes(tensor)
            dtype = tensor.dtype if tensor.device == "cpu" else f"{tensor.dtype} {tensor.device}"
            first.append(f"  {sizes + '  ' if sizes else ''}{dtype}", "dim")
            parts.append(first)
            rows = _rows(tensor)
            if not rows and tensor.unseen:
                parts.append(Text(f"{indent}{tensor.unseen}", "dim"))
            for label, facts in rows:
                low, *rest = _facts(facts)
                line = Text(indent + (f"{label}: " if label else ""))
                if not rest:
                    line.append(low)
                else:
                    middle, high, mean, sd, zeros = rest
                    line.append(f"{low} | {middle} | {high}")
                    line.append(f"  mean {mean}  sd {sd}  zeros {zeros}", "dim")
                alarm = _alarm(facts)
                if alarm:
                    line.append("  ").append_text(alarm)
                parts.append(line)
    return Group(*parts)


def _legend(hidden: int) -> Text:
    text = "→ in   ← out   ∂ gradient of the loss   ~ median of a sample   … differs between calls"
    if hidden:
        text += f"\n{counted(hidden, 'stage')} nested deeper not shown (--depth)"
    return Text(f"\n{text}", "dim")


def _at(finding: Finding) -> str:
    """The line, in brackets."""
    place = finding.location
    return f" ({place.file}:{place.line})" if place else ""


def _tail(recording: Recording, diagnosis: Diagnosis) -> Group:
    lines: list[Text] = [Text()]
    if recording.loss is not None:
        text = f"loss {number(recording.loss)}"
        if recording.baseline_loss is not None:
            text += f"; knowing nothing gives {number(recording.baseline_loss)}"
        lines.append(Text(text))
    for finding in diagnosis.findings:
        lines.append(
            Text.assemble(
                (
                    f"{finding.severity} {finding.code} {finding.name}",
                    SEVERITY_STYLES[finding.severity],
                ),
                f" at {finding.stage}{_at(finding)}: {finding.message}",
            )
        )
        lines.append(Text(f"  {finding.remedy}"))
    lines.extend(
        Text(f"could not see {item.name}: {item.reason}", "yellow") for item in diagnosis.not_judged
    )
    return Group(*lines)
