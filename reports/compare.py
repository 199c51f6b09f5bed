"""The letter of `icediag compare`: what got worse between two recordings or two diagnoses."""

import io
from collections.abc import Iterable

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from icediag.checks.slower_than_baseline import beyond, slower
from icediag.finding import Finding
from icediag.matching import Matched
from icediag.records.comparison import MEASURES, ComparisonRecord, CountChange

from .check import finding_lines
from .grid import Group, Row, grid
from .numbers import amount, bytes_of, counted, duration, milliseconds
from .shapes import SEVERITY_STYLES, printable


def render_comparison(
    comparison: ComparisonRecord | None,
    matched: Matched | None = None,
    *,
    findings: Iterable[Finding] = (),
    width: int = 80,
    color: bool = False,
) -> str:
    """Render.

    Args:
        comparison: Of two recordings, if there are any.
        matched: Findings of two diagnoses side by side, if there are any.
        findings: What was concluded from the comparison.
        width: Columns of the terminal.
        color: Whether to use colours.

    Returns:
        The text, with a newline at its end.
    """
    width = max(width, 72)
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
    )
    parts: list[RenderableType | None] = []
    if comparison is not None:
        comparison = printable(comparison)
        names = comparison.before
        if comparison.after != comparison.before:
            names = f"{comparison.before} -> {comparison.after}"
        parts += [Text(names, "bold"), _totals(comparison), _worse(comparison, width)]
        parts += [_times(comparison), _missing(comparison)]
    parts += [finding_lines(finding) for finding in printable(tuple(findings))]
    if matched is not None:
        parts.append(_findings(printable(matched)))
    for part in parts:
        if part is not None:
            console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _shown(measure: str, value: int) -> str:
    if measure == "bytes":
        return bytes_of(value)
    return f"{value:,}" if value < 1e7 else amount(value)


def _percent(before: int, after: int) -> Text:
    if before == after:
        return Text("as before", "dim")
    if before == 0:
        return Text("new", "bold red")
    if after >= 10 * before:
        return Text(f"× {amount(after / before)}", "bold red")
    change = 100 * (after - before) / before
    style = "red" if after > before else "green"
    return Text(f"{change:+.1f} %" if abs(change) < 99.95 else f"{change:+.0f} %", style)


def _totals(comparison: ComparisonRecord) -> RenderableType | None:
    if comparison.samples is None:
        return None
    rows = [
        Row(
            cells=[
                Text(measure),
                Text(_shown(measure, before)),
                Text(_shown(measure, after)),
                _percent(before, after),
            ]
        )
        for measure, (before, after) in comparison.totals.items()
    ]
    if comparison.memory:
        before, after = comparison.memory
        cells = [Text("memory, at most"), Text(bytes_of(before)), Text(bytes_of(after))]
        rows.append(Row(cells=[*cells, _percent(before, after)]))
    groups = [
        Group(title="", columns=(f"counted on the same {comparison.samples} samples",)),
        Group(title="", columns=("before", "after", "change")),
    ]
    return Padding(grid(groups, rows, 72), (1, 0, 0, 0))


def _worse(comparison: ComparisonRecord, width: int) -> RenderableType | None:
    if comparison.samples is None:
        return None
    risen = [change for change in comparison.counts if change.after > change.before]
    if not risen:
        return Text("\nno count rose in any stage", "green")
    bad = [change for change in risen if beyond(change)]
    within = len(risen) - len(bad)
    note = Text(f"\n{counted(within, 'count')} rose within the tolerance", "dim")
    if not bad:
        return note
    # Stages by what rose most in them, and in each the measure of which that is first.
    stages: dict[tuple[str, str], list[CountChange]] = {}
    for change in sorted(bad, key=lambda change: -change.share):
        stages.setdefault((change.phase, change.stage), []).append(change)
    rows = []
    for changes in stages.values():
        changes.sort(key=lambda change: MEASURES.index(change.measure))
        told = next((c for c in changes if c.measure == "syncs" and c.lines), None)
        told = told or max(changes, key=lambda change: len(change.lines))
        for i, change in enumerate(changes):
            last = i == len(changes) - 1
            rows.append(_row(change, first=i == 0, under=_lines(told, width) if last else None))
    groups = [
        Group(title="what got worse", columns=("where",)),
        Group(title="", columns=("count", "before", "after", "change")),
    ]
    table = grid(groups, rows, width)
    return Padding(Text("\n").join([table, note]) if within else table, (1, 0, 0, 0))


def _row(change: CountChange, *, first: bool, under: Text | None) -> Row:
    name = change.stage if change.stage and change.stage != change.phase else ""
    return Row(
        cells=[
            Text((f"{change.phase}, {name}" if name else change.phase) if first else "", "bold"),
            Text(change.measure),
            Text(_shown(change.measure, change.before)),
            Text(_shown(change.measure, change.after), "bold"),
            _percent(change.before, change.after),
        ],
        under=under,
    )


def _lines(change: CountChange, width: int) -> Text | None:
    """The lines that a count rose in most."""
    lines = []
    for line in change.lines[:3]:
        text = Text(f"  {line.location.file}:{line.location.line}  ", "dim")
        text.append(f"{change.measure} {_shown(change.measure, line.before)} -> ", "not dim")
        text.append(_shown(change.measure, line.after), "bold not dim")
        text.append(f"  {line.text}" if line.text else "", "cyan not dim")
        text.truncate(width, overflow="ellipsis")
        lines.append(text)
    return Text("\n").join(lines) if lines else None


def _times(comparison: ComparisonRecord) -> RenderableType | None:
    times = comparison.times
    if not times or comparison.before_s is None or comparison.after_s is None:
        return None
    bad = slower(times)
    text = Text.assemble(
        f"\ntime of a step: {duration(comparison.before_s)} -> {duration(comparison.after_s)}",
        " at the machine's speed of then: ",
        ("slower", "bold red") if bad else ("not shown to be slower", "green"),
    )
    text.append(
        f"\n  step by yardstick, new by old, by processor time and by the wall's clock, "
        f"{100 * comparison.confidence:.0f} % intervals:",
        "dim",
    )
    for time in times:
        text.append(
            f"\n  round {time.new_round + 1} by round {time.old_round + 1}, "
            f"{time.new_steps} by {time.old_steps} steps: "
            f"{time.ratio:.2f} [{time.low:.2f}, {time.high:.2f}], "
            f"{time.wall_ratio:.2f} [{time.wall_low:.2f}, {time.wall_high:.2f}]"
        )
    if bad:
        stages = [stage for stage in comparison.stages if stage.after_s > stage.before_s]
        for stage in sorted(stages, key=lambda stage: stage.before_s - stage.after_s)[:5]:
            place = f"  {stage.location.file}:{stage.location.line}" if stage.location else ""
            text.append(
                f"\n  {stage.name}: {milliseconds(stage.before_s)} -> "
                f"{milliseconds(stage.after_s)} ms"
            )
            text.append(place, "dim")
    return text


def _missing(comparison: ComparisonRecord) -> Text | None:
    if not comparison.missing:
        return None
    text = Text("\nnot compared", "bold")
    for item in comparison.missing:
        text.append(f"\n  {item.name}: {item.reason}", "not bold")
    return text


def _findings(matched: Matched) -> Text:
    text = Text(f"\nfindings: {len(matched.new)} new, {len(matched.gone)} gone, ")
    text.append(f"{len(matched.same)} as before")
    if matched.worse:
        text.append(f", {len(matched.worse)} of these more severe")
    for title, found in (("new", matched.new), ("gone", matched.gone)):
        for finding in found:
            text.append_text(_one(title, finding))
    for old, new in matched.worse:
        text.append_text(_one(f"{old.severity} before", new))
    return text


def _one(title: str, finding: Finding) -> Text:
    place = f"  {finding.location.file}:{finding.location.line}" if finding.location else ""
    style = "green" if title == "gone" else SEVERITY_STYLES[finding.severity]
    return Text.assemble(
        f"\n  {title}: ",
        (f"{finding.severity} {finding.code} {finding.name}", style),
        f" at {finding.stage}",
        (place, "dim"),
        f"\n    {finding.message}" if title != "gone" else "",
    )
