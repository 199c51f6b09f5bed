"""Every format that `icediag check` can write: one explicit tuple, in the order of `--format`.

A format is a pure function of recording and diagnosis. To add one, write its file and a line here.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module

from icediag.finding import Diagnosis
from icediag.recording import Recording


@dataclass(frozen=True, kw_only=True)
class Format:
    """A way to tell a diagnosis.

    Attributes:
        name: As `--format` takes it.
        file: What it is called in the folder of `--out`; None for what is always printed.
        function: "module:function" below `icediag.reports`, imported when it is first used.
        default: Whether `--out` writes it when nobody asks.
        needs: Fields of `Recording` that it draws and no check may have asked for.
    """

    name: str
    file: str | None
    function: str
    default: bool = False
    needs: tuple[str, ...] = ()

    def render(self, recording: Recording, diagnosis: Diagnosis) -> str:
        """The text, for a file or for standard output."""
        module, _, name = self.function.partition(":")
        make: Callable[[Recording, Diagnosis], str]
        make = getattr(import_module(f"icediag.reports.{module}"), name)
        return make(recording, diagnosis)


FORMATS: tuple[Format, ...] = (
    Format(name="console", file=None, function="check:render_check", default=True),
    Format(
        name="html",
        file="report.html",
        function="html:render_html",
        default=True,
        needs=("histograms", "clock", "projection"),
    ),
    Format(
        name="markdown",
        file="report.md",
        function="markdown:render_markdown",
        default=True,
        needs=("clock", "projection"),
    ),
    Format(name="json", file="diagnosis.json", function="formats:as_json", default=True),
    Format(name="sarif", file="report.sarif", function="sarif:render_sarif"),
    Format(name="junit", file="junit.xml", function="junit:render_junit"),
    Format(name="github", file=None, function="github:render_github"),
)


def needs_of_reports(formats: Iterable[Format]) -> frozenset[str]:
    """Fields of the recording that these formats draw."""
    return frozenset(need for one in formats for need in one.needs)


def as_json(_: Recording, diagnosis: Diagnosis) -> str:
    """The diagnosis itself: `Diagnosis.from_json` reads it."""
    return diagnosis.to_json()
