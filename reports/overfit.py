"""The letter of `icediag overfit`: the verdict, the curve, and what was tried."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from icediag.finding import Diagnosis
from icediag.recording import Recording
from icediag.records.overfit import Attempts, OverfitRecord, Trial, Verdict

from .curve import drawn_curve
from .findings import diagnosis_parts
from .learning import early_of
from .numbers import counted, number
from .paper import section, table_of, written
from .shapes import printable

STYLES: dict[Verdict, str] = {"learns": "bold green", "slow": "yellow", "not judged": "yellow"}
#: Stages that the table shows; those nearest to the model come first.
MOST_STAGES = 40


def render_overfit(
    recording: Recording, diagnosis: Diagnosis, *, width: int = 80, color: bool = False
) -> str:
    """Render.

    Args:
        recording: What was seen; its field `overfit` is what is shown.
        diagnosis: What was concluded from it.
        width: Columns of the terminal.
        color: Whether to use colours.

    Returns:
        The text, with a newline at its end.
    """
    recording, diagnosis = printable(recording), printable(diagnosis)
    return written(_parts(recording, diagnosis, width), width=width, color=color)


def _parts(recording: Recording, diagnosis: Diagnosis, width: int) -> Iterator[RenderableType]:
    record = recording.overfit
    if record is None or record.batch is None:
        reason = record.reason if record is not None else None
        yield Text.assemble((recording.pipeline, "bold"), ": no batch was trained on")
        if reason:
            yield Text(f"  {reason}")
        yield from diagnosis_parts(diagnosis)
        return
    batch = record.batch
    yield Text.assemble(
        (recording.pipeline, "bold"),
        f": one batch of {counted(batch.events, 'event')} ",
        (batch.verdict, STYLES.get(batch.verdict, "bold red")),
        f" after {counted(batch.steps, 'step')}",
    )
    yield Padding(Text(_how(record, batch), "dim"), (0, 0, 1, 0))
    marks = {
        name: value
        for name, value in (("baseline", batch.baseline), ("floor", batch.floor))
        if value is not None
    }
    picture = drawn_curve(batch.losses, marks, width=width)
    if picture is not None:
        yield picture
    yield section("trials", _trials(record.trials))
    yield Text(_yardsticks(record, batch), "dim")
    if batch.outputs:
        yield section("predictions over the events", _outputs(batch))
    if sentence := early_of(recording):
        yield Text(sentence)
    if record.attempts is not None:
        yield from _attempts(record.attempts)
    yield from diagnosis_parts(diagnosis)


def _how(record: OverfitRecord, batch: Trial) -> str:
    rate = "" if batch.learning_rate is None else f" at {batch.learning_rate:g}"
    whose = " (none was given)" if record.default_optimizer else ""
    parts = [f"{batch.optimizer or 'no optimizer'}{rate}{whose}"]
    parts.append("the pipeline's own step" if record.own_step else "a plain step")
    parts.append(f"{number(1e3 * record.step_seconds)} ms a step")
    return " · ".join((*parts, *record.modes))


def _yardsticks(record: OverfitRecord, batch: Trial) -> str:
    lines = []
    if batch.baseline is not None:
        lines.append(f"baseline {number(batch.baseline)}: {record.baseline_from}")
    if record.declared_baseline is not None:
        lines.append(f"declared baseline {number(record.declared_baseline)}")
    if batch.floor is not None:
        lines.append(f"floor {number(batch.floor)}: {record.floor_from}")
    return "\n".join(lines)


def _row(trial: Trial) -> tuple[str | Text, ...]:
    progress = trial.progress
    return (
        Text(trial.name),
        Text(trial.verdict, STYLES.get(trial.verdict, "red")),
        number(trial.events),
        number(trial.steps),
        number(trial.losses[0] if trial.losses else None),
        number(trial.last),
        "-" if progress is None else f"{100 * progress:.0f} %",
    )


def _trials(trials: tuple[Trial, ...]) -> RenderableType:
    titles = ("trained on", "verdict", "events", "steps", "first", "last", "learnt")
    table = table_of(*titles, left=2)
    for trial in trials:
        table.add_row(*_row(trial))
        if trial.failure is not None:
            table.add_row(Text(f"  {trial.failure}", "red"))
    return table


def _outputs(batch: Trial) -> RenderableType:
    table = table_of("output", "mean before", "sd before", "mean after", "sd after")
    for output in batch.outputs:
        table.add_row(
            Text(output.name),
            number(output.mean_first),
            number(output.spread_first),
            number(output.mean_last),
            number(output.spread_last),
        )
    return table


def _attempts(attempts: Attempts) -> Iterator[RenderableType]:
    others = (attempts.plain, attempts.blind, attempts.shuffled, attempts.double)
    tried = [*attempts.rates, *(trial for trial in others if trial is not None)]
    if tried:
        yield section("what was tried", _trials(tuple(tried)))
    if attempts.blinded:
        yield Text(f"set to 0: {', '.join(attempts.blinded)}", "dim")
    if attempts.targets:
        yield Text(f"targets: {', '.join(attempts.targets)}", "dim")
    if attempts.stages:
        table = table_of("stage", "spread in", "spread out", "gradient", "linear probe")
        nearest = sorted(attempts.stages, key=lambda s: s.stage.count("."))[:MOST_STAGES]
        shown = {stage.stage for stage in nearest}
        for stage in attempts.stages:
            if stage.stage in shown:
                table.add_row(
                    Text(stage.stage),
                    number(stage.spread_in),
                    number(stage.spread_out),
                    number(stage.gradient),
                    number(stage.probe_loss),
                )
        yield section("events alone, stage by stage", table)
        if len(shown) < len(attempts.stages):
            yield Text(f"{len(attempts.stages) - len(shown)} stages nested deeper not shown", "dim")
    for reason in attempts.not_tried:
        yield Text(f"could not try {reason}", "dim")
