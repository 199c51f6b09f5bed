"""The letter of `icediag profile`: the step by stage, measured and projected, and what slows it."""

import io
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.console import Group as Together
from rich.padding import Padding
from rich.text import Text

from icediag.finding import Finding
from icediag.records.profile import LoaderRow, LoopRow, Profile, ProfileRow, Projected

from .check import finding_lines
from .grid import Group, Row, grid
from .numbers import amount, bytes_of, counted, duration, milliseconds, percent
from .shapes import printable

#: From this width on there are columns for memory and the source.
WIDE = 120
#: From this width on a loop takes one line.
WIDEST = 140
#: Stages below this share of the measured and of the projected step are added up in one line.
SMALL = 0.01
BOUND_STYLES = {"host": "yellow", "bandwidth": "cyan", "compute": "green"}
#: In a narrow table.
BOUND_NAMES = {"host": "host", "bandwidth": "bytes", "compute": "flops"}


def render_profile(
    profile: Profile,
    *,
    findings: Sequence[Finding] = (),
    width: int = 80,
    color: bool = False,
    depth: int = 2,
    small: bool = False,
) -> str:
    """Render.

    Args:
        profile: What was counted, timed and projected.
        findings: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.
        depth: Stages nested deeper than this are left out.
        small: Whether to show stages that hardly take part in the step.

    Returns:
        The text, with a newline at its end.
    """
    profile, findings = printable(profile), printable(tuple(findings))
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
    parts: list[RenderableType | None] = [
        _head(profile),
        _stages(profile, width, depth, small),
        _projection(profile.projected) if profile.projected is not None else None,
        _loops(profile.loops, width),
        _loader(profile, width),
        _memory(profile),
        *(finding_lines(finding) for finding in findings),
        _missing(profile),
    ]
    for part in parts:
        if part is not None:
            console.print(part)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _head(profile: Profile) -> Text:
    text = Text.assemble(
        (profile.pipeline, "bold"), f": a training step of {counted(profile.batch_size, 'sample')}"
    )
    projected = profile.projected
    if projected is not None and projected.extrapolated:
        at = ", ".join(map(str, sorted(set(projected.counted_at))))
        text.append("\ncounted ", "bold")
        text.append(f"on {at} samples: what is said of {profile.batch_size:,} is ")
        text.append("foreseen", "bold")
        text.append(" from how these counts grow")
    if profile.step_s is None:
        return text
    text.append("\nmeasured ", "bold")
    text.append(f"{duration(profile.step_s)} ± {duration(profile.step_spread_s)}", "bold")
    n = counted(profile.timed, "sample")
    few = "" if profile.timed == profile.batch_size else f" on {n}, as a step of all takes too long"
    text.append(f"{few} (median and half the quartiles' distance of ")
    text.append(f"{counted(profile.repeats, 'step')}; {profile.timer}; {profile.device}; ")
    text.append(f"{profile.machine}")
    if profile.overhead is not None:
        text.append(f"; marks on stages make it {profile.overhead:.2f} times as long")
    text.append(")")
    return text


# The step by stage.


def _label(row: ProfileRow, parents: list[str]) -> str:
    """Its name without that of the stage it is in."""
    name = row.name
    for parent in reversed(parents):
        if parent not in ("", "model") and name.startswith(f"{parent}."):
            name = name.removeprefix(f"{parent}.")
            break
    return "  " * row.depth + name + (f" ×{row.calls}" if row.calls > 1 else "")


def _is_small(row: ProfileRow, projected: Projected | None) -> bool:
    if row.share >= SMALL:
        return False
    whole = projected.step_s if projected is not None else 0.0
    return (row.forward_s or 0.0) + (row.backward_s or 0.0) < SMALL * whole


def _stages(profile: Profile, width: int, depth: int, small: bool) -> RenderableType | None:
    if not profile.rows:
        return None
    wide = width >= WIDE
    groups = [
        Group(title="", columns=("stage",)),
        Group(title=f"measured on {profile.device}", columns=("ms", "±", "%")),
    ]
    projected = profile.projected
    if projected is not None:
        last = ("padding",) if wide else ("pad",)
        groups.append(
            Group(
                title=f"projected on {projected.title}",
                columns=(
                    *(("forward", "back", "bound by") if wide else ("fwd", "back", "by")),
                    *("launches", "syncs", "bytes"),
                    *last,
                ),
                style="bold magenta",
            )
        )
    if wide:
        groups.append(Group(title="", columns=("memory",)))
        groups.append(Group(title="", columns=("where",), left=True))
    rows: list[Row] = []
    parents: list[str] = []
    hidden = 0
    for row in profile.rows:
        del parents[row.depth :]
        label = _label(row, parents)
        parents.append(row.name)
        if row.depth > depth or (row.depth and not small and _is_small(row, projected)):
            hidden += 1
            continue
        rows.append(Row(cells=_cells(row, label, wide, projected is not None)))
    text = grid(groups, rows, width)
    notes = []
    if profile.other_s:
        notes.append(f"in no stage: {duration(profile.other_s)}")
    if hidden:
        notes.append(
            f"{counted(hidden, 'stage')} nested deeper or below 1 % of both steps not shown "
            "(--depth, --all)"
        )
    if projected is not None:
        notes.append(
            "projected times in ms; launches, syncs and bytes both ways"
            + ("" if wide else "; by: what it waits for")
        )
    for note in notes:
        text.append(f"\n{note}", "dim")
    return Padding(text, (1, 0, 0, 0))


def _cells(row: ProfileRow, label: str, wide: bool, projected: bool) -> list[Text]:
    share = 100 * row.share
    cells = [
        Text(label, "bold" if row.depth == 0 else ""),
        Text(milliseconds(row.median_s)),
        Text(milliseconds(row.spread_s), "dim"),
        Text(f"{share:.0f}" if share >= 0.5 else "-", "bold" if share >= 20 else ""),
    ]
    if projected:
        bound = row.bound or ""
        style = BOUND_STYLES.get(bound, "")
        host = row.forward_s is None
        cells += [
            Text("-" if host else milliseconds(row.forward_s or 0.0), "magenta"),
            Text("-" if host else milliseconds(row.backward_s or 0.0), "magenta"),
            Text((bound if wide else BOUND_NAMES.get(bound, "")) or "-", style),
            Text("-" if row.launches is None else amount(row.launches)),
            Text(
                "-" if not row.syncs else amount(row.syncs), "bold red" if row.syncs else "default"
            ),
            Text("-" if row.bytes is None else bytes_of(row.bytes)),
            Text(
                "-" if row.padding is None else percent(row.padding),
                "yellow" if row.padding and row.padding > 0.5 else "",
            ),
        ]
    if wide:
        place = row.location
        cells.append(Text("-" if row.peak_bytes is None else bytes_of(row.peak_bytes)))
        cells.append(Text(f"{place.file}:{place.line}" if place else "", "dim"))
    return cells


# Under the table.


def _projection(projected: Projected) -> RenderableType:
    text = Text.assemble(("projected", "bold magenta"), f" on {projected.title}, never measured")
    rate = f"{projected.samples_per_s:,.0f} samples a second, reading and collating apart"
    lines: list[tuple[str, str, str, str]] = [
        ("step", duration(projected.step_s), "bold magenta", rate),
        ("device", percent(projected.busy), "bold", "of the step it works; else it waits"),
    ]
    for what, share, meaning in (
        ("launches", projected.lost_launches, "shorter if issuing an operation took no time"),
        ("python", projected.lost_python, "shorter if your lines took none beside what they call"),
        ("syncs", projected.lost_syncs, "shorter if the host never waited for the device"),
        ("padding", projected.lost_padding, "shorter if nothing were padded"),
        ("loops", projected.loops, "shorter without operations whose number follows the batch"),
    ):
        if share is None:
            lines.append((what, "-", "dim", "no size of a padded batch was recognised"))
        else:
            lines.append((what, percent(share), "bold red" if share >= 0.2 else "bold", meaning))
    for what, value, style, meaning in lines:
        text.append(f"\n  {what:10}")
        text.append(f"{value:>8}", style)
        text.append(f"  {meaning}")
    constants = projected.constants
    rates = ", ".join(
        f"{name} {rate / 1e12:.3g}"
        for name, rate in projected.rates.items()
        if name in ("float32", "bfloat16")
    )
    text.append(
        f"\n  constants: {constants['bandwidth'] / 1e12:.3g} TB/s; {rates} TFLOP/s; "
        f"{duration(constants['launch_s'])} an operation, {duration(constants['kernel_s'])} a "
        f"kernel at least, {duration(constants['sync_s'])} a sync",
        "dim",
    )
    text.append(f"\n  from: {projected.source}", "dim")
    if projected.extrapolated:
        at = ", ".join(map(str, sorted(set(projected.counted_at))))
        text.append(f"\n  counts are extended from batches of {at} samples", "dim")
        if projected.unfitted >= 0.005:
            text.append(
                f"; {percent(projected.unfitted)} of the operations follow no axis that is known "
                "and are taken to grow as the samples do",
                "yellow",
            )
    return Padding(text, (1, 0, 0, 0))


def _loops(loops: tuple[LoopRow, ...], width: int) -> RenderableType:
    if not loops:
        return Text("\nno loop of your code follows the batch", "green")
    wide = width >= WIDEST
    groups = [
        Group(title="loops of your code that follow the batch", columns=("line",)),
        Group(title="rounds", columns=("a step", "as")),
        Group(
            title="projected" if not wide else "projected, both ways",
            columns=("operations", "syncs", "ms"),
            style="bold magenta",
        ),
    ]
    if wide:
        groups.append(Group(title="", columns=("in", "source"), left=True))
    rows = []
    for loop in loops:
        indent = "  " if loop.inside else ""
        axis = loop.axis + ("²" if loop.order == 2 and "^2" not in loop.axis else "")
        both = (loop.forward_s or 0.0) + (loop.backward_s or 0.0)
        stage = loop.phase if loop.stage in ("", loop.phase) else f"{loop.phase}, {loop.stage}"
        what = Text(loop.text.strip() if loop.kind is not None else "(no loop of its own)", "cyan")
        cells = [
            Text(f"{indent}{loop.location.file}:{loop.location.line}"),
            Text(amount(loop.rounds)),
            Text(axis, "bold red" if loop.order > 1 else ""),
            Text("-" if loop.operations is None else amount(loop.operations)),
            Text("-" if not loop.syncs else amount(loop.syncs)),
            Text("-" if loop.forward_s is None else milliseconds(both), "bold magenta"),
        ]
        under = None
        if wide:
            cells += [Text(stage, "dim"), what]
        else:
            under = Text.assemble(f"  {indent}", (f"{stage}: ", "dim"), what)
            under.truncate(width, overflow="ellipsis")
        rows.append(Row(cells=cells, under=under))
    return Padding(grid(groups, rows, width), (1, 0, 0, 0))


def _loader(profile: Profile, width: int) -> RenderableType | None:
    projected = profile.projected
    parts: list[Text] = []
    if projected is not None and projected.fetch_s is not None and projected.workers is not None:
        needed = projected.workers
        text = Text.assemble(
            "loading: reading and collating a batch takes ",
            (duration(projected.fetch_s), "bold"),
            " here, in one process, by the fastest repeat. The ",
            ("projected", "magenta"),
            " step takes ",
            duration(projected.step_s),
        )
        if needed <= 1:
            text.append(": one worker keeps up.")
        else:
            text.append(": it takes ").append(f"{needed:,.0f} workers", "bold").append(
                " to keep up."
            )
        parts.append(text)
    if profile.loader:
        parts.append(_loader_table(profile.loader, width))
    return Padding(Together(*parts), (1, 0, 0, 0)) if parts else None


def _loader_table(loader: tuple[LoaderRow, ...], width: int) -> Text:
    rows = [
        Row(
            cells=[
                Text(
                    f"{counted(row.workers, 'worker')}" + (" (your own loader)" if row.own else "")
                ),
                Text(milliseconds(row.wait_s)),
                Text(milliseconds(row.wait_spread_s), "dim"),
                Text(milliseconds(row.step_s)),
                Text(percent(row.waiting), "bold red" if row.waiting > 0.3 else ""),
                Text(f"{row.batches}"),
            ]
        )
        for row in loader
    ]
    groups = [
        Group(title="", columns=("DataLoader",)),
        Group(title="measured", columns=("wait ms", "±", "step ms", "waiting", "batches")),
    ]
    return grid(groups, rows, width)


def _memory(profile: Profile) -> Text | None:
    if profile.peak_bytes is None:
        return None
    text = Text(f"\nmemory of tensors: {bytes_of(profile.peak_bytes)} at most in a step of ")
    text.append(counted(profile.timed, "sample"))
    if any(profile.left_bytes):
        left = ", ".join(bytes_of(n) for n in profile.left_bytes)
        text.append(f"; left after each step: {left}", "yellow")
    else:
        text.append("; nothing is left after a step")
    return text


def _missing(profile: Profile) -> Text | None:
    if not profile.missing:
        return None
    text = Text("\nnot seen", "bold")
    for item in profile.missing:
        text.append(f"\n  {item.name}: {item.reason}", "not bold")
    return text
