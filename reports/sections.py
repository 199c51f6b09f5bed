"""Sections under the table of the flow: lengths, padding, gradients, origins, bounds."""

from collections.abc import Callable

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from icediag.recording import Recording

from .numbers import number, share


def ragged(recording: Recording) -> Padding | None:
    """Quantiles of the lengths along ragged axes."""
    if not recording.ragged:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("lengths", overflow="fold")
    labels = {"0": "min", "0.5": "P50", "0.75": "P75", "0.9": "P90", "0.99": "P99", "1": "max"}
    for label in labels.values():
        table.add_column(label, justify="right", overflow="fold")
    table.add_column("mean", justify="right", overflow="fold")
    for axis in recording.ragged:
        table.add_row(
            axis.title,
            *(number(int(axis.quantiles[key])) for key in labels),
            number(axis.mean),
        )
    return Padding(table, (1, 0, 0, 0))


def padding(recording: Recording) -> Text | None:
    """How much of each padding mask is empty."""
    if not recording.padding:
        return None
    text = Text()
    for record in recording.padding:
        mask = "" if record.padding_is is None else f", {record.padding_is} is padding"
        text.append(
            f"\npadding: {100 * record.padding_share:.1f} % of {record.slots:,} slots are empty, "
            f"{record.used:,} hold {record.holds} ({record.stage}: {record.path}{mask})"
        )
    return text


def gradients(recording: Recording) -> Padding | None:
    """Weights and gradients by part of the model."""
    if not recording.parameters:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column("parameters of", overflow="fold")
    for name in ("weights", "|weight|", "|gradient|", "without"):
        table.add_column(name, justify="right", overflow="fold")
    for part in recording.parameters:
        without = Text(share(part.without_gradient, part.parameters))
        if part.without_gradient:
            without.stylize("bold red")
        if part.frozen:
            without.append(f" ({share(part.frozen, part.parameters)} frozen)")
        table.add_row(
            part.stage,
            f"{part.parameters:,}",
            number(part.weight_norm),
            number(part.gradient_norm),
            without if part.without_gradient or part.frozen else "-",
        )
    return Padding(table, (1, 0, 0, 0))


def origins(recording: Recording) -> Padding | None:
    """What reached each stage, where it was recognised as a raw column."""
    if recording.provenance is None or not recording.provenance.origins:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("stage", "takes", "which is"):
        table.add_column(name, overflow="fold")
    inner = {stage.name for stage in recording.stages if stage.depth > 1}
    for seen in recording.provenance.origins:
        if seen.role != "in" or seen.origin is None or seen.stage in inner:
            continue
        path = seen.path if seen.column is None else f"{seen.path}[{seen.column}]"
        table.add_row(Text(seen.stage), Text(path), Text(seen.origin.formula))
    return Padding(table, (1, 0, 0, 0))


def bounds(recording: Recording) -> Padding | None:
    """What was proved of each output."""
    if recording.bounds is None or not recording.bounds.outputs:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("output", "domain", "for any input", "on this batch", "last bounded by"):
        table.add_column(name, overflow="fold")
    for output in recording.bounds.outputs:
        inside = Text("inside", "green") if output.proved else Text("not proved", "bold red")
        reached = [number(end) for end in (output.attained_low, output.attained_high)]
        place = output.last.place if output.last is not None else None
        table.add_row(
            Text(output.column),
            f"{number(output.domain_low)}..{number(output.domain_high)}",
            Text.assemble(f"{number(output.low)}..{number(output.high)}, ", inside),
            "..".join(reached) if output.attained_low is not None else "-",
            "-"
            if place is None
            else f"{place.op} {place.file or ''}:{place.line or ''}".rstrip(":"),
        )
    return Padding(table, (1, 0, 0, 0))


#: In the order of display; each gives None where there is nothing to show.
SECTIONS: tuple[Callable[[Recording], Padding | Text | None], ...] = (
    ragged,
    padding,
    gradients,
    origins,
    bounds,
)
