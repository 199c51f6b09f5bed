"""`make check NAME=the-fault CODE=X01`: a check to be filled in, and its test.

It stays silent on every recording until it is written, and its test says so; both pass lint.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Letters of a title: `icediag checks` shows it in one line of an ordinary terminal.
LONGEST = 72
CHECK = '''"""{title}

What it looks at:
    Which facts of the recording.
Why it hurts:
    What it does to a training, with a figure where one is known.
A bad run:
    Code or values that have the fault.
What to do:
    The repair.
Limits:
    What it cannot see, and what it may take for the fault.
"""

from icediag.finding import Finding
from icediag.recording import Recording, Unjudged

CODE = "{code}"
NAME = "{name}"
#: Fields of the recording, none for the flow itself. An instrument fills each.
NEEDS: tuple[str, ...] = ()
#: From which on, and where that figure is from.
MOST_CALLS = 1_000


def check(recording: Recording) -> tuple[Finding, ...] | Unjudged:
    """Say where the fault is; an empty answer means that it was looked for and is not there."""
    if not recording.stages:
        return Unjudged(name=NAME, reason="no stage was recorded")
    return tuple(
        Finding(
            code=CODE,
            name=NAME,
            severity="warning",
            stage=stage.name,
            message=f"One sentence with its numbers, such as {{stage.calls:,}} calls.",
            evidence={{"calls": stage.calls, "most": MOST_CALLS}},
            remedy="What to do.",
            location=stage.location,
        )
        for stage in recording.stages
        if stage.calls > MOST_CALLS
    )
'''
TEST = '''"""{title_}: a run that fires and one that stays silent."""

from torch import nn

from icediag.checks import {module}
from icediag.instruments.recorder.record import record
from icediag.recording import Recording, Unjudged
from tests.pipelines import odd


def test_it_fires() -> None:
    recording = record(odd.on_numbers(nn.Linear(3, 1)))  # to be: a pipeline that has the fault
    answer = {module}.check(recording)
    assert not isinstance(answer, Unjudged)
    assert [finding.stage for finding in answer] == []  # to be: its stage; then its numbers


def test_it_stays_silent() -> None:
    recording = record(odd.on_numbers(nn.Linear(3, 1)))  # to be: its healthy twin
    assert {module}.check(recording) == ()


def test_it_says_what_it_cannot_judge() -> None:
    answer = {module}.check(Recording(pipeline="empty", batch_size=1))
    assert isinstance(answer, Unjudged) and answer.name == {module}.NAME
'''


def written(root: Path, name: str, code: str, title: str) -> list[Path]:
    """Write check and test, and put the check at the end of `CHECKS`.

    Raises:
        ValueError: Name, code or title will not do.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(f"NAME: expected words with hyphens, such as lost-events, got {name!r}")
    if not re.fullmatch(r"[A-Z]\d\d", code):
        raise ValueError(f"CODE: expected a letter and two digits, such as V07, got {code!r}")
    if len(title) >= LONGEST or not re.fullmatch(r"[A-Z][^\n\"\\\\]*\.", title):
        raise ValueError(
            f"TITLE: expected a sentence of less than {LONGEST} letters, got {title!r}"
        )
    module = name.replace("-", "_")
    folder = root / "checks"
    check, test = folder / f"{module}.py", root / "tests" / f"test_{module}.py"
    taken = [file for file in (check, test) if file.exists()]
    if taken:
        raise ValueError(f"{taken[0].relative_to(root)} is there already")
    for other in sorted(folder.glob("*.py")):
        if f'CODE = "{code}"' in other.read_text(encoding="utf-8"):
            raise ValueError(f"CODE: {code} is that of {other.name}")
    index = folder / "__init__.py"
    text = registered(index.read_text(encoding="utf-8"), module)
    check.write_text(CHECK.format(title=title, code=code, name=name), encoding="utf-8")
    test.write_text(TEST.format(title_=title.removesuffix("."), module=module), encoding="utf-8")
    index.write_text(text, encoding="utf-8")
    return [check, test, index]


def registered(text: str, module: str) -> str:
    """`checks/__init__.py` with one more check: imported in order, last on display.

    Raises:
        ValueError: The file is not as this expects it.
    """
    found = re.search(r"from \. import \(\n((?:    \w+,\n)+)\)\n", text)
    tuple_ = re.search(r"^CHECKS: [^\n]* = \(\n(?:    \w+,\n)+\)\n", text, re.MULTILINE)
    if found is None or tuple_ is None:
        raise ValueError("checks/__init__.py: expected the imports and CHECKS, one name a line")
    names = sorted([*re.findall(r"\w+", found[1]), module])
    imports = "".join(f"    {name},\n" for name in names)
    end = tuple_.end() - len(")\n")
    text = f"{text[:end]}    {module},\n{text[end:]}"
    return text[: found.start(1)] + imports + text[found.end(1) :]


def main() -> int:
    """Write what is asked for, and say what is left to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the fault, such as lost-events")
    parser.add_argument("code", help="a letter and two digits that no other check has")
    parser.add_argument("--title", help="one sentence; without, made of the name")
    options = parser.parse_args()
    words = options.name.replace("-", " ")
    title = options.title or f"{words[:1].upper()}{words[1:]}."
    try:
        files = written(ROOT, options.name, options.code, title)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for file in files:
        sys.stdout.write(f"{file.relative_to(ROOT)}\n")
    sys.stdout.write("Now fill in check and test, then `make readme` and `make lint`.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
