"""Sections of the Markdown report between the issues and the next steps; absent without facts."""

from collections.abc import Callable, Iterator

from icediag.recording import Recording

from .learning import early_of, effects_of, interval_of, told, trials_of
from .markup import cell, code, heading, plain, table
from .numbers import counted, duration, number, percent, share
from .timing import growth_of, losses_of, strips_of, without_loops

#: Parts of a step below this share are left out; lines that are listed.
SMALL, MOST_LINES = 0.01, 12


def performance(recording: Recording) -> Iterator[str]:
    """Where the time of a step goes: measured shares, projected shares, and what it loses."""
    strips = strips_of(recording)
    if not strips:
        return
    yield heading(2, "Performance analysis")
    yield "\n".join(
        f"- **{plain(strip.title)}**: {duration(strip.total_s)} a step of {plain(strip.remark)}"
        for strip in strips
    )
    known = [{one.name: one for one in strip.slices} for strip in strips]
    order = list(dict.fromkeys(one.name for strip in strips for one in strip.slices))
    rows = []
    for name in order:
        here = [slices.get(name) for slices in known]
        if any(one is not None and one.share >= SMALL for one in here):
            cells = [
                cell
                for one in here
                for cell in ((duration(one.seconds), percent(one.share)) if one else ("", ""))
            ]
            rows.append([code(name), *cells])
    if rows:
        head = [words for strip in strips for words in (strip.kind, "share")]
        yield table(["part of a step", *head], rows, right=range(1, 1 + 2 * len(strips)))
        yield f"Parts below {percent(SMALL)} of a step are left out."
    losses = losses_of(recording)
    if losses:
        yield "What the projected step loses; the shares overlap:"
        yield "\n".join(
            f"{i}. **{row.what}**: {duration(row.seconds)}, {percent(row.share)} ({row.why})"
            for i, row in enumerate(losses, start=1)
        )
    if recording.projection is not None and recording.projection.lines:
        yield "Lines whose operations grow with the batch, costliest first, projected:"
        yield table(
            ["line", "stage", "grows with", "operations", "syncs", "forward", "backward"],
            [
                [
                    code(f"{line.location.file}:{line.location.line}"),
                    code(line.stage),
                    plain(growth_of(line)),
                    f"{line.operations:,.0f}",
                    f"{line.syncs:,.0f}",
                    duration(line.forward_s),
                    duration(line.backward_s),
                ]
                for line in recording.projection.lines[:MOST_LINES]
            ],
            right=range(3, 7),
        )
    if rest := without_loops(recording):
        yield f"**Expected**: {plain(rest)}"


def learning(recording: Recording) -> Iterator[str]:
    """Whether one batch can be learnt by heart, and what repairs were seen to win."""
    trials, effects = trials_of(recording), effects_of(recording)
    if trials or effects:
        yield heading(2, "Does it learn?")
    if trials:
        yield "Trained on the same events over and over:"
        rows = [
            [
                plain(trial.name),
                plain(trial.failure or told(trial)),
                f"{trial.events:,}",
                f"{trial.steps:,}",
                number(trial.losses[0] if trial.losses else None),
                number(trial.last),
                number(trial.baseline),
            ]
            for trial in trials
        ]
        head = ["trained on", "it", "events", "steps", "first loss", "last loss", "baseline"]
        yield table(head, rows, right=range(2, 7))
    if sentence := early_of(recording):
        yield f"{plain(sentence)}."
    if effects:
        record = recording.effects
        assert record is not None
        yield (
            f"The same short training with and without each repair, made in flight: "
            f"{counted(record.steps, 'step')} of {counted(record.events, 'event')}, "
            f"{counted(record.seeds, 'seed')}; the loss is the mean over the last third."
        )
        rows = [
            [
                plain(one.repair),
                code(one.stage),
                number(sum(one.as_it_is) / len(one.as_it_is) if one.as_it_is else None),
                number(sum(one.repaired) / len(one.repaired) if one.repaired else None),
                interval_of(one),
                one.answer,
            ]
            for one in effects
        ]
        head = ["repair", "stage", "loss as it is", "repaired", "wins, 95 %", "shown to hurt"]
        yield table(head, rows, right=range(2, 5))


def lengths(recording: Recording) -> Iterator[str]:
    """Lengths along ragged axes, and padding."""
    if not recording.ragged and not recording.padding:
        return
    yield heading(2, "Lengths and padding")
    if recording.ragged:
        keys = {"0": "min", "0.5": "P50", "0.75": "P75", "0.9": "P90", "0.99": "P99", "1": "max"}
        rows = [
            [
                cell(axis.title),
                *(number(axis.quantiles[key]) if key in axis.quantiles else "-" for key in keys),
                number(axis.mean),
            ]
            for axis in recording.ragged
        ]
        yield table(["lengths", *keys.values(), "mean"], rows, right=range(1, 8))
    if recording.padding:
        yield "\n".join(
            f"- {share(record.slots - record.used, record.slots)} of {record.slots:,} slots are "
            f"padding ({code(record.stage)}, {code(record.path)}); {record.used:,} hold "
            f"{plain(record.holds)}"
            for record in recording.padding
        )


def gradients(recording: Recording) -> Iterator[str]:
    """Weights and gradients by part of the model."""
    if not recording.parameters:
        return
    yield heading(2, "Gradient flow")
    rows = [
        [
            code(part.stage),
            f"{part.parameters:,}",
            number(part.weight_norm),
            number(part.gradient_norm),
            share(part.without_gradient, part.parameters) if part.without_gradient else "",
        ]
        for part in recording.parameters
    ]
    head = ["part", "weights", "weight norm", "gradient norm", "without gradient"]
    yield table(head, rows, right=range(1, 5))


def bounds(recording: Recording) -> Iterator[str]:
    """Domains of the outputs and what was proved of them."""
    if recording.bounds is None or not recording.bounds.outputs:
        return
    yield heading(2, "Bounds of the outputs")
    rows = []
    for output in recording.bounds.outputs:
        seen = "-"
        if output.attained_low is not None:
            seen = f"{number(output.attained_low)} … {number(output.attained_high)}"
        rows.append(
            [
                code(output.column),
                f"{number(output.domain_low)} … {number(output.domain_high)}",
                f"{number(output.low)} … {number(output.high)}",
                "inside" if output.proved else "not proved",
                seen,
            ]
        )
    yield table(["output", "domain", "for any input", "proved", "on this batch"], rows)


def origins(recording: Recording) -> Iterator[str]:
    """Which raw column reached which stage."""
    if recording.provenance is None:
        return
    inner = {stage.name for stage in recording.stages if stage.depth > 1}
    rows = [
        [
            code(seen.stage),
            code(seen.path if seen.column is None else f"{seen.path}[{seen.column}]"),
            code(seen.origin.formula),
        ]
        for seen in recording.provenance.origins
        if seen.role == "in" and seen.origin is not None and seen.stage not in inner
    ]
    if rows:
        yield heading(2, "What reached which stage")
        yield table(["stage", "takes", "which is"], rows)


#: In their order; each gives blocks of text.
SECTIONS: tuple[Callable[[Recording], Iterator[str]], ...] = (
    performance,
    learning,
    lengths,
    gradients,
    bounds,
    origins,
)
