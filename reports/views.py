"""The flow as reports tell it: stages in order, each with its findings, times and words."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from icediag.finding import SEVERITIES, Diagnosis, Finding, Severity
from icediag.recording import Facts, Location, Number, Recording, StageRecord, TensorRecord
from icediag.records.source import Excerpt, place_key

from .numbers import duration, number


@dataclass(frozen=True, kw_only=True)
class StageView:
    """A stage with what is known of it.

    Attributes:
        id: Its anchor in a document.
        record: What was recorded.
        summary: What its code says of itself, "" if nothing.
        body: The lines of its code, where they are known.
        findings: Those at this stage.
        inner: Stages that ran inside of it.
    """

    id: str
    record: StageRecord
    summary: str = ""
    body: Excerpt | None = None
    findings: tuple[Finding, ...] = ()
    inner: "tuple[StageView, ...]" = ()

    @property
    def all_findings(self) -> tuple[Finding, ...]:
        """Those at this stage and at the stages inside of it."""
        return (*self.findings, *(f for view in self.inner for f in view.all_findings))

    @property
    def worst(self) -> Severity | None:
        """The most severe of `all_findings`."""
        return min(
            (finding.severity for finding in self.all_findings),
            key=SEVERITIES.index,
            default=None,
        )

    @property
    def outputs(self) -> tuple[TensorRecord, ...]:
        """What it gives."""
        return tuple(t for t in self.record.tensors if t.role == "out")

    @property
    def main_output(self) -> TensorRecord | None:
        """The output that tells most: the largest one of floating-point values, else the largest.

        Of a batch that is the features, not one of the many indices beside them.
        """
        return max(
            self.outputs,
            key=lambda t: ("float" in t.dtype, size_of(t.shape)),
            default=None,
        )


def size_of(shape: tuple[int, ...]) -> int:
    """Number of values."""
    size = 1
    for length in shape:
        size *= length
    return size


def views_of(recording: Recording, diagnosis: Diagnosis) -> tuple[StageView, ...]:
    """The outermost stages, each with those inside of it."""
    names = {stage.name for stage in recording.stages}
    at: dict[str, list[Finding]] = {}
    for finding in diagnosis.findings:
        name = _nearest(finding.stage, names)
        if name is not None:
            at.setdefault(name, []).append(finding)
    # A stack of (depth, record, children so far); a stage closes when one of no more depth comes.
    roots: list[StageView] = []
    stack: list[tuple[int, StageRecord, list[StageView]]] = []
    told: set[str] = set()

    def close(depth: int) -> None:
        while stack and stack[-1][0] >= depth:
            _, record, inner = stack.pop()
            key = place_key(record.location.file, record.location.line) if record.location else ""
            view = StageView(
                id=f"stage-{ids[id(record)]}",
                record=record,
                summary=recording.source.summaries.get(key, "") if recording.source else "",
                body=recording.source.bodies.get(key) if recording.source else None,
                findings=tuple(owners.get(id(record), ())),
                inner=tuple(inner),
            )
            (stack[-1][2] if stack else roots).append(view)

    ids = {id(record): i + 1 for i, record in enumerate(recording.stages)}
    owners: dict[int, list[Finding]] = {}
    for record in recording.stages:
        # A stage that is listed twice, by two names of its callers, has its findings once.
        if record.name in at and record.name not in told:
            owners[id(record)] = at[record.name]
            told.add(record.name)
    for record in recording.stages:
        close(record.depth)
        stack.append((record.depth, record, []))
    close(-1)
    return tuple(roots)


def _nearest(stage: str, names: set[str]) -> str | None:
    """The stage itself, or the one of which it is a part: `head` for `head.bias`."""
    while stage:
        if stage in names:
            return stage
        stage = stage.rpartition(".")[0]
    return None


def elsewhere(recording: Recording, diagnosis: Diagnosis) -> tuple[Finding, ...]:
    """Findings at what is no stage of the flow, such as the optimizer."""
    names = {stage.name for stage in recording.stages}
    return tuple(f for f in diagnosis.findings if _nearest(f.stage, names) is None)


def walk(views: tuple[StageView, ...]) -> list[StageView]:
    """All of them, inner ones after the stage that holds them."""
    return [one for view in views for one in (view, *walk(view.inner))]


def shape_of(tensor: TensorRecord) -> str:
    """Symbolic shape: `pulses × 4`."""
    if not tensor.shape:
        return "scalar"
    axes = tensor.axes or (None,) * len(tensor.shape)
    return " × ".join(
        f"{size:,}" if name is None or name == "?" else name
        for name, size in zip(axes, tensor.shape, strict=False)  # a file may say anything
    )


def sizes_of(tensor: TensorRecord) -> str:
    """Sizes: `48,300 × 4`, "" where the symbolic shape says the same."""
    text = " × ".join(f"{size:,}" for size in tensor.shape)
    return "" if text == shape_of(tensor) else text


def columns_of(tensor: TensorRecord) -> list[tuple[str, Facts]]:
    """(label, facts): one for the tensor, or one for each of its columns."""
    if tensor.columns:
        names = tensor.column_names or (None,) * len(tensor.columns)
        return [
            (name or f"[{i}]", facts)
            for i, (name, facts) in enumerate(zip(names, tensor.columns, strict=True))
        ]
    return [("", tensor.facts)] if tensor.facts is not None else []


def range_of(tensor: TensorRecord | None, write: Callable[[Number], str] = number) -> str:
    """Smallest to largest value of all its columns: `0.025 … 1,234`.

    Args:
        tensor: Of which; None gives "".
        write: How a number is written.
    """
    facts = [facts for _, facts in columns_of(tensor)] if tensor is not None else []
    lows = [f.minimum for f in facts if f.minimum is not None]
    highs = [f.maximum for f in facts if f.maximum is not None]
    if not lows or not highs:
        return ""
    low, high = min(lows), max(highs)
    return write(low) if low == high else f"{write(low)} … {write(high)}"


def title_of(tensor: TensorRecord) -> str:
    """Its path, or what it is where it has none."""
    return tensor.path or ("gradient" if tensor.role == "grad" else "output")


def place_of(location: Location | None) -> str:
    """`file:line`, "" for none."""
    return f"{location.file}:{location.line}" if location is not None else ""


def excerpt_of(recording: Recording, location: Location | None) -> Excerpt | None:
    """The lines round a place, where they were recorded."""
    if recording.source is None or location is None:
        return None
    return recording.source.excerpts.get(place_key(location.file, location.line))


def evidence_of(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Entries as people read them; what is None is left out."""
    return [_entry(key, value) for key, value in values.items() if value is not None]


def _entry(key: str, value: object) -> tuple[str, str]:
    """Seconds, which end in `_s`, with the unit that suits."""
    timed = key.endswith("_s") and isinstance(value, (int, float))
    if timed and math.isfinite(cast("float", value)):
        return key.removesuffix("_s").replace("_", " "), duration(cast("float", value))
    return key.replace("_", " "), told(value)


def effect_of(finding: Finding) -> str:
    """What it was measured to cost, in words; "" where that was not measured."""
    if not finding.effect:
        return ""
    if isinstance(said := finding.effect.get("summary"), str):
        return said
    return ", ".join(f"{key} {value}" for key, value in evidence_of(finding.effect))


def told(value: object) -> str:
    """A value of an evidence: numbers as everywhere in the reports, lists and tables in a line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {told(item)}" for key, item in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(told, value)) or "none"
    return str(value)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A finding with those that follow from it."""

    finding: Finding
    consequences: tuple[Finding, ...] = ()


def groups_of(diagnosis: Diagnosis) -> tuple[Group, ...]:
    """Findings in their order; one whose cause is listed stands under it."""
    heads: list[tuple[Finding, list[Finding]]] = []
    labels: dict[str, list[Finding]] = {}
    for finding in diagnosis.findings:
        if finding.cause is not None and finding.cause in labels:
            labels[finding.cause].append(finding)
            labels.setdefault(finding.label, labels[finding.cause])
            continue
        consequences: list[Finding] = []
        heads.append((finding, consequences))
        labels.setdefault(finding.label, consequences)
    return tuple(Group(finding=head, consequences=tuple(rest)) for head, rest in heads)
