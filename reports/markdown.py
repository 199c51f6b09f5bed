"""The letter as Markdown: the note on a failed run that somebody would have written by hand.

Problem, flow stage by stage, issues by priority, where the time goes, and what to do next.
"""

import re
from collections.abc import Iterator

from icediag.finding import Diagnosis, Finding
from icediag.ranking import LARGE, cost_of
from icediag.recording import Recording, TensorRecord

from .answers import answers
from .markdown_parts import SECTIONS
from .markup import cell, code, fenced, heading, plain, table
from .numbers import counted, number, percent
from .views import (
    StageView,
    effect_of,
    excerpt_of,
    groups_of,
    place_of,
    range_of,
    shape_of,
    sizes_of,
    title_of,
    views_of,
)

PRIORITIES = (
    "High priority: shown to be wrong, or a large part of a step",
    "Medium priority: shown to hurt",
    "Worth knowing",
)
#: Tensors of a stage that are listed.
MOST_TENSORS = 30
#: Stages nested deeper are counted, not told.
DEPTH = 2


def render_markdown(recording: Recording, diagnosis: Diagnosis) -> str:
    """Render.

    Returns:
        A document in GitHub's dialect.
    """
    blocks = [
        *_head(recording, diagnosis),
        *_problem(recording, diagnosis),
        *_flow(recording, diagnosis),
        *_issues(recording, diagnosis),
        *(block for section in SECTIONS for block in section(recording)),
        *_open(diagnosis),
        *_next(diagnosis),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _head(recording: Recording, diagnosis: Diagnosis) -> Iterator[str]:
    yield heading(1, f"{recording.pipeline}: data flow, shapes and faults")
    versions = ", ".join(f"{name} {version}" for name, version in recording.versions.items())
    yield f"**Verdict**: {plain(diagnosis.verdict)}" + (f" · {plain(versions)}" if versions else "")


def _problem(recording: Recording, diagnosis: Diagnosis) -> Iterator[str]:
    yield heading(2, "Problem statement")
    lines = []
    if recording.loss is not None:
        line = (
            f"**Loss** of one batch of {counted(recording.batch_size, 'sample')}, before training: "
        )
        line += number(recording.loss)
        if recording.baseline_loss is not None:
            line += f"; a predictor that knows nothing scores {number(recording.baseline_loss)}"
        lines.append(line)
    lines += [
        f"**{answer.about.capitalize()}**: {plain(answer.text)}"
        for answer in answers(recording, diagnosis)
        if answer.about != "values"
    ]
    worst = [f for f in diagnosis.findings if f.severity != "note" and f.cause is None]
    if worst:
        names = ", ".join(dict.fromkeys(f"{plain(f.name)} at {code(f.stage)}" for f in worst))
        lines.append(f"**Found**: {names}")
    elif recording.came_through:
        lines.append("**Found**: no fault")
    if not recording.came_through:
        lines.append("**The batch did not come through**: what was seen until then is below")
    yield "\n".join(f"- {line}" for line in lines)


def _flow(recording: Recording, diagnosis: Diagnosis) -> Iterator[str]:
    if not recording.stages:
        return
    yield heading(2, "Data flow")
    if recording.axes:
        rows = [
            [code(name), f"{size:,}", cell(recording.axis_notes.get(name, ""))]
            for name, size in recording.axes.items()
        ]
        yield "Axes of this batch, by the names that the shapes below use:"
        yield table(["axis", "size", "what"], rows, right=(1,))
    for i, view in enumerate(views_of(recording, diagnosis), start=1):
        yield from _stage(view, f"{i}", 0)


def _stage(view: StageView, label: str, depth: int) -> Iterator[str]:
    record = view.record
    yield heading(
        min(3 + depth, 6), f"{label}. {record.name}" + (f": {record.type}" if record.type else "")
    )
    notes = [place_of(record.location)] if record.location else []
    if record.calls > 1:
        notes.append(counted(record.calls, "sample" if record.kind == "item" else "call"))
    if notes:
        yield " · ".join(
            code(note) if i == 0 and record.location else note for i, note in enumerate(notes)
        )
    taken = [t for t in record.tensors if t.role == "in"]
    given = [t for t in record.tensors if t.role == "out"]
    if taken:
        yield "**Input**"
        yield _tensors(taken)
    elif record.kind in WITHOUT_INPUT:
        yield f"**Input**: {WITHOUT_INPUT[record.kind]}"
    if view.summary or view.body is not None:
        yield f"**Process**: {plain(view.summary)}".rstrip(" :")
    if view.body is not None:
        more = [f"... {counted(view.body.left_out, 'line')} more"] if view.body.left_out else []
        yield "\n".join(fenced([*view.body.lines, *more], "python"))
    if given:
        yield "**Output**"
        yield _tensors(given)
    for finding in view.findings:
        yield f"> **{_kind(finding)}**: {plain(finding.message)}"
    if depth + 1 <= DEPTH - 1:
        for i, inner in enumerate(view.inner, start=1):
            yield from _stage(inner, f"{label}.{i}", depth + 1)
        return
    found = [f for inner in view.inner for f in inner.all_findings]
    for finding in found:
        yield f"> **{_kind(finding)}** in {code(finding.stage)}: {plain(finding.message)}"
    if view.inner:
        yield "Inside: " + ", ".join(code(inner.record.name) for inner in view.inner)


def _kind(finding: Finding) -> str:
    return f"{finding.severity} {finding.code} {plain(finding.name)}"


#: What goes into a stage whose arguments are no tensors.
WITHOUT_INPUT = {
    "item": "the index of a sample",
    "collate": "the samples of a batch",
    "module": "the batch",
}


def _tensors(tensors: list[TensorRecord]) -> str:
    rows = []
    for tensor in tensors[:MOST_TENSORS]:
        names = [name or "" for name in tensor.column_names]
        shape = shape_of(tensor)
        rows.append(
            [
                code(title_of(tensor)),
                cell(shape),
                cell(sizes_of(tensor)),
                cell(tensor.dtype),
                cell(_ranges(tensor, names)),
            ]
        )
    text = table(["tensor", "shape", "sizes", "type", "range (median)"], rows)
    if len(tensors) > MOST_TENSORS:
        text += f"\n\n{counted(len(tensors) - MOST_TENSORS, 'tensor')} more"
    return text


def _ranges(tensor: TensorRecord, names: list[str]) -> str:
    """The range of all, or of each column where the columns have names."""
    if tensor.columns and any(names):
        return "; ".join(
            f"{name or f'[{i}]'} {number(facts.minimum)} … {number(facts.maximum)} "
            f"({number(facts.median)})"
            for i, (name, facts) in enumerate(zip(names, tensor.columns, strict=True))
        )
    if tensor.facts is None:
        return tensor.unseen or ""
    if tensor.facts.count == 0:
        return "empty"
    bad = tensor.facts.nans + tensor.facts.positive_infs + tensor.facts.negative_infs
    ends = range_of(tensor) or "no finite value"
    middle = f" ({number(tensor.facts.median)})" if tensor.facts.median is not None else ""
    return (
        ends + middle + (f", {bad:,} not finite" if bad and not tensor.facts.additive_mask else "")
    )


def _issues(recording: Recording, diagnosis: Diagnosis) -> Iterator[str]:
    yield heading(2, "Issues found")
    if not diagnosis.findings:
        yield f"None by {counted(len(diagnosis.checks), 'check')}."
    groups = groups_of(diagnosis)
    count = 0
    for priority, title in enumerate(PRIORITIES):
        here = [group for group in groups if _priority(group.finding) == priority]
        if here:
            yield heading(3, title)
        for group in here:
            count += 1
            yield from _issue(recording, group.finding, f"{count}. ")
            for other in group.consequences:
                yield from _issue(recording, other, "- With the same cause: ")
    if diagnosis.accepted:
        yield heading(3, "Accepted by the baseline")
        yield "\n".join(
            f"- {f.code} {plain(f.name)} at {code(f.stage)}: {plain(f.message)}"
            for f in diagnosis.accepted
        )


def _priority(finding: Finding) -> int:
    """Which of `PRIORITIES` it has."""
    if finding.severity == "note":
        return 2
    return 0 if finding.severity == "error" or (cost_of(finding) or 0.0) >= LARGE else 1


def _issue(recording: Recording, finding: Finding, bullet: str) -> Iterator[str]:
    where = f" ({code(place_of(finding.location))})" if finding.location else ""
    indent = "   "
    lines = [
        f"{bullet}**{finding.code} {plain(finding.name)} at {code(finding.stage)}**{where}",
        "",
        f"{indent}{plain(finding.message)}",
    ]
    excerpt = excerpt_of(recording, finding.location)
    if excerpt is not None:
        lines += ["", *(f"{indent}{one}" for one in fenced(excerpt.lines, "python"))]
    lines += ["", f"{indent}**Fix**: {plain(finding.remedy)}"]
    if effect := effect_of(finding):
        lines += ["", f"{indent}**Measured**: {plain(effect)}"]
    yield "\n".join(lines)


def _open(diagnosis: Diagnosis) -> Iterator[str]:
    if diagnosis.not_judged:
        yield heading(2, "Could not be judged")
        yield "\n".join(f"- {code(i.name)}: {plain(i.reason)}" for i in diagnosis.not_judged)


def _next(diagnosis: Diagnosis) -> Iterator[str]:
    remedies: dict[str, list[Finding]] = {}
    for finding in diagnosis.findings:
        remedies.setdefault(finding.remedy, []).append(finding)
    if not remedies:
        return
    yield heading(2, "Next steps")
    yield (
        "In the order of what each is expected to gain: what keeps it from learning, what takes "
        "much of a step, then by severity:"
    )
    steps = []
    for i, (remedy, findings) in enumerate(remedies.items(), start=1):
        stages = ", ".join(dict.fromkeys(code(f.stage) for f in findings))
        codes = ", ".join(dict.fromkeys(f.code for f in findings))
        costs = [cost for f in findings if (cost := cost_of(f)) is not None and cost >= 0.01]
        gain = f"; up to {percent(max(costs))} of a step" if costs else ""
        steps.append(f"{i}. {plain(re.sub(r'[.]$', '', remedy))} ({codes} at {stages}{gain})")
    steps.append(f"{len(remedies) + 1}. Run `icediag check` again: it says what is left")
    yield "\n".join(steps)
