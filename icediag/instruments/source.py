"""Source: reads the lines that a diagnosis speaks of, so that reports need not read files."""

import ast
import linecache
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from icediag.finding import Diagnosis
from icediag.place import Location
from icediag.recording import Recording
from icediag.records.source import Excerpt, SourceRecord, place_key

from .running.stages import relative_file

#: Lines before and after the line that is meant.
BEFORE, AFTER = 3, 6
#: Lines of a function's body that are kept.
BODY = 20
#: Longer lines are cut: a report is no place for embedded data.
LONGEST = 200
#: Text in quotes that is a path of this machine: it says whose machine it is, not what is wrong.
_ABSOLUTE = re.compile(r"""(?<=["'])(?:/|~/|[A-Za-z]:[\\/])[^"'\n]*[\\/][^"'\n]*(?=["'])""")


def read_source(places: Iterable[Location]) -> SourceRecord:
    """Read excerpts and summaries of places in modules that are loaded.

    Args:
        places: Lines, with files as recordings name them.

    Returns:
        What was found; a place whose source is not there, or not Python, is passed over.
    """
    wanted: dict[str, set[int]] = {}
    for place in places:
        wanted.setdefault(place.file, set()).add(place.line)
    excerpts: dict[str, Excerpt] = {}
    summaries: dict[str, str] = {}
    bodies: dict[str, Excerpt] = {}
    files: dict[str, str] = {}
    here = Path.cwd().resolve()
    for name, file in _files(set(wanted)):
        if Path(file).is_relative_to(here):
            files[name] = Path(file).relative_to(here).as_posix()
        lines = [line.rstrip("\r\n") for line in linecache.getlines(file)]
        functions = _functions(lines)
        for number in sorted(wanted[name]):
            if not 1 <= number <= len(lines):
                continue
            excerpts[place_key(name, number)] = _excerpt(lines, number)
            if number in functions:
                said, span = functions[number]
                if said:
                    summaries[place_key(name, number)] = said
                if span is not None:
                    bodies[place_key(name, number)] = _body(lines, *span)
    return SourceRecord(excerpts=excerpts, summaries=summaries, bodies=bodies, files=files)


def with_source(recording: Recording, diagnosis: Diagnosis) -> Recording:
    """The recording with the source of all that its stages and the findings speak of."""
    findings = (*diagnosis.findings, *diagnosis.accepted)
    places = [
        place
        for place in (*(s.location for s in recording.stages), *(f.location for f in findings))
        if place is not None
    ]
    source = replace(read_source(places), texts=read_texts(counted_places(recording)))
    return replace(recording, source=source)


def counted_places(recording: Recording) -> set[Location]:
    """The lines that counts of a recording are of."""
    found: set[Location | None] = set()
    if recording.operations is not None:
        found |= {operation.location for operation in recording.operations.operations}
    if recording.lines is not None:
        found |= {line.location for line in recording.lines.lines}
        found |= {loop.location for loop in recording.lines.loops}
    return {place for place in found if place is not None}


def read_texts(places: Iterable[Location]) -> dict[str, str]:
    """What stands in lines of modules that are loaded; keys are `place_key`."""
    wanted: dict[str, set[int]] = {}
    for place in places:
        wanted.setdefault(place.file, set()).add(place.line)
    texts: dict[str, str] = {}
    for name, file in sorted(_files(set(wanted))):
        lines = linecache.getlines(file)
        for number in sorted(wanted[name]):
            if 1 <= number <= len(lines):
                texts[place_key(name, number)] = _clean(lines[number - 1].strip())
    return texts


def _files(names: set[str]) -> Iterator[tuple[str, str]]:
    """(name in a recording, file) of loaded modules. A name that means two files means none."""
    found: dict[str, set[str]] = {}
    last = {Path(name).name for name in names}
    for module, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        if isinstance(file, str) and os.path.basename(file) in last:  # noqa: PTH119 - of thousands
            name = relative_file(file, module)
            if name in names:
                found.setdefault(name, set()).add(str(Path(file).resolve()))
    for name, files in found.items():
        if len(files) == 1:
            yield name, files.pop()


def _excerpt(lines: list[str], number: int) -> Excerpt:
    first = max(1, number - BEFORE)
    shown = lines[first - 1 : number + AFTER]
    while len(shown) > number - first + 1 and not shown[-1].strip():
        shown.pop()
    while first < number and not shown[0].strip():
        first, shown = first + 1, shown[1:]
    return Excerpt(first=first, lines=tuple(_clean(line) for line in shown))


def _clean(line: str) -> str:
    line = _ABSOLUTE.sub("...", line.expandtabs(4))
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def _body(lines: list[str], first: int, last: int) -> Excerpt:
    kept = textwrap.dedent("\n".join(lines[first - 1 : min(last, first + BODY - 1)])).split("\n")
    return Excerpt(
        first=first,
        lines=tuple(_clean(line) for line in kept),
        left_out=max(0, last - first + 1 - BODY),
    )


#: Methods whose class says what they do, and mostly more.
_PLAIN = frozenset({"forward", "__call__", "__getitem__", "__getitems__", "__iter__"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(lines: list[str]) -> dict[int, tuple[str, tuple[int, int] | None]]:
    """First line of each function -> (its summary, first and last line of what it does).

    The first line is that of its decorators, as Python counts.
    """
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[int, tuple[str, tuple[int, int] | None]] = {}
    stack: list[tuple[ast.AST, str]] = [(tree, "")]
    while stack:
        node, above = stack.pop()
        inherited = ""
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            said = (ast.get_docstring(node) or "").strip()
            own = said.splitlines()[0].strip() if said else ""
            own = above if above and (node.name in _PLAIN or not own) else own
            if isinstance(node, Function):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found[first] = _clean(own), _span(node)
            # A method speaks with its class's words, a function within a function with none.
            inherited = own if isinstance(node, ast.ClassDef) else ""
        stack.extend((child, inherited) for child in ast.iter_child_nodes(node))
    return found


def _span(node: Function) -> tuple[int, int] | None:
    """First and last line of what a function does; None where it does nothing."""
    does = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not does or does[0].lineno == node.lineno:  # a function in one line is its own excerpt
        return None
    return does[0].lineno, node.end_lineno or does[-1].lineno
