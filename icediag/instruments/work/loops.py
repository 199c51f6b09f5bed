"""Loops: from executions of lines to the loops that take more rounds in a larger batch.

A loop is named where it does more each time it begins. One over layers does not, nor does one over
layers inside of a function that is called for every event: there the call is what repeats.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

from icediag.place import Location
from icediag.records.work import LoopKind, LoopRecord, Phase, Span

from .fit import Laws
from .syntax import Function, Loop, Source, read_source
from .tracer import COMPREHENSIONS, Counts

#: By run.
Vector = tuple[int, ...]


@dataclass(eq=False)
class _Found:
    kind: LoopKind
    function: str
    code_line: tuple[str, int]
    span: tuple[str, int, int]
    counts: Vector
    entries: Vector


class Loops:
    """The loops of one phase.

    Args:
        phase: Which part of the step this is.
        runs: What was counted in it, by run.
        laws: How counts may grow.
        shown: Code object -> how its file is shown.
    """

    def __init__(self, phase: Phase, runs: list[Counts], laws: Laws, shown: dict[str, str]) -> None:
        self._phase = phase
        self._runs = runs
        self._laws = laws
        self._shown = shown
        self._sources: dict[str, Source] = {}
        self._lines: dict[tuple[str, int, bool], list[int]] = {}
        self._calls: dict[tuple[str, int, bool], list[int]] = {}
        self._edges: dict[tuple[str | None, int, str, int, bool], list[int]] = {}
        self._callers: dict[tuple[str | None, int, str, int, bool], CodeType | None] = {}
        n = len(runs)
        for i, counts in enumerate(runs):
            for (code, line), count in counts.lines.items():
                key = code.co_filename, line, code.co_name in COMPREHENSIONS
                self._lines.setdefault(key, [0] * n)[i] += count
            for code, count in counts.calls.items():
                if code.co_name not in COMPREHENSIONS:
                    self._calls.setdefault(_of(code), [0] * n)[i] += count
            for (caller, line, code), count in counts.edges.items():
                if code.co_name not in COMPREHENSIONS:
                    site = (caller.co_filename if caller else None, line, *_of(code))
                    self._edges.setdefault(site, [0] * n)[i] += count

    @property
    def lines(self) -> dict[tuple[str, int], Vector]:
        """(file, line) -> executions."""
        found: dict[tuple[str, int], list[int]] = {}
        for (file, line, _), counts in self._lines.items():
            total = found.setdefault((file, line), [0] * len(counts))
            for i, count in enumerate(counts):
                total[i] += count
        return {key: tuple(total) for key, total in found.items()}

    def source(self, file: str) -> Source:
        """A file's loops and functions, read once."""
        if file not in self._sources:
            self._sources[file] = read_source(file)
        return self._sources[file]

    def _at(self, file: str, line: int, comprehension: bool) -> Vector:
        return tuple(self._lines.get((file, line, comprehension), [0] * len(self._runs)))

    def _begun(self, file: str, function: Function) -> Vector:
        if function.name == "<module>":
            return (1,) * len(self._runs)
        key = file, function.begins, function.is_lambda
        return tuple(self._calls.get(key, [0] * len(self._runs)))

    def _rounds(self, file: str, loop: Loop, entries: Vector) -> Vector:
        if loop.kind == "comprehension":
            # Before Python 3.12 a comprehension is a code object of its own; a generator is always.
            apart = any(
                (file, line, True) in self._lines for line in range(loop.first, loop.last + 1)
            )
            first, last = loop.body or (loop.first, loop.last)
            seen = [self._at(file, line, apart) for line in range(first, last + 1)]
        else:
            first, last = loop.body or (loop.first, loop.first)
            seen = [self._at(file, line, False) for line in range(first, last + 1)]
        # A statement over several lines comes back to its first: the line that ran least counts it.
        ran = [counts for counts in seen if any(counts)]
        if not ran:
            return (0,) * len(self._runs)
        least = min(ran, key=sum)
        if loop.body is not None:
            return least
        return tuple(max(0, n - begun) for n, begun in zip(least, entries, strict=True))

    def _of_statements(self) -> Iterator[_Found]:
        files = {file for file, _, _ in self._lines}
        for file in sorted(files):
            rounds: dict[Loop, Vector] = {}
            for loop in self.source(file).loops:
                if loop.around is None:
                    entries = self._begun(file, loop.function)
                else:
                    entries = rounds[loop.around]
                counts = rounds[loop] = self._rounds(file, loop, entries)
                if any(counts) and _more_each_time(counts, entries):
                    yield _Found(
                        loop.kind,
                        loop.function.name,
                        (file, loop.first),
                        (file, loop.first, loop.last),
                        counts,
                        entries,
                    )

    def _of_calls(self) -> Iterator[_Found]:
        """Functions of the user's own that something else calls again and again."""
        for (site, line, file, begins, is_lambda), counts in self._edges.items():
            function = next(
                (
                    f
                    for f in self.source(file).functions
                    if (f.begins, f.is_lambda) == (begins, is_lambda)
                ),
                None,
            )
            if function is None:
                continue
            vector = tuple(counts)
            span = file, function.begins, function.last
            if site is None:
                # Of the parts of a step themselves each sample is one call.
                ones = (1,) * len(self._runs)
                if self._phase == "backward" and _more_each_time(vector, ones):
                    place = file, function.begins
                    yield _Found("backward", function.name, place, span, vector, ones)
                continue
            inside = site == file and function.first <= line <= function.last
            if inside and not function.is_lambda:
                all_calls = self._begun(file, function)
                outside = tuple(n - m for n, m in zip(all_calls, vector, strict=True))
                if _more_each_time(vector, outside):
                    yield _Found("recursion", function.name, (site, line), span, vector, outside)
                continue
            both = zip(self._at(site, line, False), self._at(site, line, True), strict=True)
            ran = tuple(max(a, b) for a, b in both)
            if _more_each_time(vector, ran):
                at = self._function_at(site, line)
                yield _Found("call", at, (site, line), span, vector, ran)

    def _function_at(self, file: str, line: int) -> str:
        holding = [f for f in self.source(file).functions if f.first <= line <= f.last]
        holding = [f for f in holding if not f.is_lambda]
        return min(holding, key=lambda f: f.last - f.first).name if holding else "<module>"

    def records(self, stages: dict[tuple[str, int], str]) -> list[LoopRecord]:
        """The loops that grow, outer ones first.

        Args:
            stages: (file, first line of a function) -> the stage it ran in.
        """
        found = []
        for loop in [*self._of_statements(), *self._of_calls()]:
            growth = self._laws.growth_of(loop.counts)
            if growth is not None:
                found.append((loop, growth))
        spans = {id(loop): self._reached(loop) for loop, _ in found}
        records = []
        for loop, growth in found:
            file, line = loop.code_line
            around = [
                other
                for other, _ in found
                if other is not loop
                and any(_within((file, line), span) for span in spans[id(other)])
                and not (other.code_line == loop.code_line and other.span == loop.span)
                and sum(other.counts) <= sum(loop.counts)
                and not any(_within(other.code_line, span) for span in spans[id(loop)])
            ]
            outer = max(around, key=lambda other: sum(other.counts), default=None)
            records.append(
                LoopRecord(
                    phase=self._phase,
                    stage=self._stage(file, line, stages) or _default(self._phase),
                    kind=loop.kind,
                    function=loop.function,
                    location=self._place(file, line),
                    counts=loop.counts,
                    entries=loop.entries,
                    growth=growth,
                    lines=self._executed(spans[id(loop)]),
                    spans=tuple(
                        Span(file=self._shown.get(f, f), first=a, last=b)
                        for f, a, b in spans[id(loop)]
                    ),
                    inside=self._place(*outer.code_line) if outer is not None else None,
                    text=self._text(file, line),
                )
            )
        unique: dict[tuple[Location, str], LoopRecord] = {}
        for record in records:
            # Several functions that one line has called: the one that is called most.
            known = unique.get((record.location, record.kind))
            if known is None or sum(known.counts) < sum(record.counts):
                unique[record.location, record.kind] = record
        return list(unique.values())

    def _place(self, file: str, line: int) -> Location:
        return Location(file=self._shown.get(file, file), line=line)

    def _text(self, file: str, line: int) -> str:
        lines = self.source(file).lines
        return lines[line - 1].strip() if 0 < line <= len(lines) else ""

    def _stage(self, file: str, line: int, stages: dict[tuple[str, int], str]) -> str | None:
        holding = [
            function
            for function in self.source(file).functions
            if function.first <= line <= function.last and (file, function.begins) in stages
        ]
        if not holding:
            return None
        inner = min(holding, key=lambda function: function.last - function.first)
        return stages[file, inner.begins]

    def _reached(self, loop: _Found) -> list[tuple[str, int, int]]:
        """Lines of a loop, and of functions that are called in it alone."""
        spans = [loop.span]
        if loop.kind == "recursion":
            return spans
        grew = True
        while grew:
            grew = False
            for file, begins, is_lambda in self._calls:
                sites = [
                    (site, line)
                    for site, line, *callee in self._edges
                    if callee == [file, begins, is_lambda]
                ]
                known = any(_within((file, begins), span) for span in spans)
                if known or not sites:
                    continue
                if all(
                    site is not None and any(_within((site, line), span) for span in spans)
                    for site, line in sites
                ):
                    function = next(
                        (
                            f
                            for f in self.source(file).functions
                            if (f.begins, f.is_lambda) == (begins, is_lambda)
                        ),
                        None,
                    )
                    if function is not None:
                        spans.append((file, function.begins, function.last))
                        grew = True
        return spans

    def _executed(self, spans: list[tuple[str, int, int]]) -> Vector:
        total = [0] * len(self._runs)
        for (file, line), counts in self.lines.items():
            if any(_within((file, line), span) for span in spans):
                for i, count in enumerate(counts):
                    total[i] += count
        return tuple(total)


def _of(code: CodeType) -> tuple[str, int, bool]:
    return code.co_filename, code.co_firstlineno, code.co_name == "<lambda>"


def _within(place: tuple[str, int], span: tuple[str, int, int]) -> bool:
    file, first, last = span
    return place[0] == file and first <= place[1] <= last


def _default(phase: Phase) -> str:
    return "model" if phase == "forward" else phase


def _more_each_time(counts: Vector, entries: Vector) -> bool:
    """Whether there are not as many rounds each time: not the same multiple in all runs."""
    pairs = [(n, m) for n, m in zip(counts, entries, strict=True) if m]
    if len(pairs) < 2:
        return False
    n, m = pairs[0]
    return any(n * other_m != other_n * m for other_n, other_m in pairs)
