"""The letter of `icediag effects`: what each fault was measured to cost."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.effects import Answer, Effect, EffectsRecord

from .findings import diagnosis_parts
from .numbers import counted, number
from .paper import section, table_of, written
from .shapes import printable

STYLES: dict[Answer, str] = {
    "confirmed": "bold red",
    "not shown": "yellow",
    "refuted": "green",
    "too short": "dim",
}


def render_effects(
    recording: Recording, diagnosis: Diagnosis, *, width: int = 80, color: bool = False
) -> str:
    """Render.

    Args:
        recording: What was seen; its field `effects` is what is shown.
        diagnosis: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.

    Returns:
        The text, with a newline at its end.
    """
    recording, diagnosis = printable(recording), printable(diagnosis)
    return written(_parts(recording, diagnosis), width=width, color=color)


def _parts(recording: Recording, diagnosis: Diagnosis) -> Iterator[RenderableType]:
    record = recording.effects
    if record is None or record.reason is not None:
        reason = "not measured" if record is None else record.reason
        yield Text.assemble((recording.pipeline, "bold"), f": {reason}")
    else:
        yield Text.assemble(
            (recording.pipeline, "bold"),
            f": {counted(record.seeds, 'seed')}, {counted(record.steps, 'step')} of "
            f"{record.optimizer} on {counted(record.events, 'event')} of {record.pool}",
        )
        yield section("the loss as it is, and repaired; above 0 the fault hurts", _table(record))
        yield Text(
            "at most: what the fault may cost by the interval, of the way from the baseline of "
            f"{number(record.unit)} to the floor",
            "dim",
        )
    for reason in record.skipped if record is not None else ():
        yield Text(f"not tried: {reason}", "dim")
    yield from diagnosis_parts(diagnosis)


def _row(effect: Effect, name: str) -> tuple[Text | str, ...]:
    interval = effect.interval
    return (
        Text(name),
        Text(effect.repair),
        Text(effect.answer, STYLES[effect.answer]),
        f"{effect.mean:+.3f}",
        "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
        _at_most(effect),
        number(effect.fall),
    )


def _at_most(effect: Effect) -> str:
    """What it may cost at most; from the whole way on the interval is too wide to say."""
    if effect.at_most is None:
        return "-"
    return "unknown" if effect.at_most >= 1 else f"{effect.at_most:.0%}"


def _table(record: EffectsRecord) -> RenderableType:
    titles = ("stage", "repair", "hurts?", "difference", "95 % interval", "at most", "learnt")
    table = table_of(*titles, left=3)
    for effect in record.effects:
        table.add_row(*_row(effect, effect.stage))
    if record.together is not None:
        row = _row(record.together, "all at once")
        table.add_row(row[0], "", *row[2:])
    return table
