"""The fixture `icediag` for pytest: a pipeline's diagnosis as a test.

    def test_pipeline(icediag):
        icediag.check("mypkg.diag:pipeline", select="N,B")

What the test does not say is taken from [tool.icediag] of pyproject.toml, as `icediag check` does.
Nothing heavy is imported before a test asks for it.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from icediag.finding import Diagnosis
    from icediag.pipeline import Pipeline
    from icediag.recording import Recording

#: Columns of a message: pytest indents nothing where there is no traceback.
WIDTH = 100


class Checker:
    """Runs checks for a test.

    Args:
        folder: The root of the project, whose pyproject.toml counts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(
        self,
        pipeline: "str | Pipeline | Callable[[], Pipeline] | None" = None,
        *,
        select: str | Sequence[str] | None = None,
        ignore: str | Sequence[str] | None = None,
        fail_on: str | None = None,
        baseline: str | Path | None = None,
        batch_size: int | None = None,
        device: str | None = None,
        seed: int | None = None,
        quick: bool | None = None,
        timeout: float | None = None,
    ) -> "Diagnosis":
        """Check a pipeline; the test fails with what is found.

        Args:
            pipeline: "module:factory", a pipeline, or a function that makes one; without, the one
                that pyproject.toml names.
            select: Only these checks: codes, their letters or names.
            ignore: All checks but these.
            fail_on: `error`, `warning`, `note` or `never`: findings from which on the test fails.
            baseline: File of accepted findings.
            batch_size: Samples a batch.
            device: Such as `cpu`.
            seed: Of everything random.
            quick: Leave out experiments that train the model.
            timeout: Seconds that each instrument may take.

        Returns:
            What was concluded, where the test did not fail.
        """
        from icediag.errors import IcediagError

        given = {key: value for key, value in locals().items() if key in SETTINGS}
        complaint = None
        try:
            recording, diagnosis, bar = self._run({k: v for k, v in given.items() if v is not None})
        except IcediagError as error:
            complaint = str(error)
        if complaint is not None:  # outside of the except: no chain of exceptions is shown
            pytest.fail(f"icediag: {complaint}", pytrace=False)
        if not recording.came_through or (bar != "never" and diagnosis.at_least(bar)):
            from icediag.reports.check import render_check

            text = render_check(recording, diagnosis, width=WIDTH)
            word = "icediag" if recording.came_through else "icediag could not run it"
            pytest.fail(f"{word}: {text}", pytrace=False)
        return diagnosis

    def _run(self, given: dict[str, Any]) -> "tuple[Recording, Diagnosis, Any]":
        """Recording, diagnosis, and from which severity on the test fails."""
        from icediag.baseline import Baseline
        from icediag.checks import chosen, judge, needs_of
        from icediag.instruments.examine import examine

        from .load import resolve_device

        settings = self._settings(given)
        checks = chosen(_words(settings["select"]), _words(settings["ignore"]))
        known = (
            None
            if settings["baseline"] is None
            else Baseline.load(self._folder / settings["baseline"])
        )
        made = self._made(settings["pipeline"])
        recording = examine(
            made,
            needs=needs_of(checks),
            batch_size=settings["batch_size"],
            device=resolve_device(settings["device"], made),
            seed=settings["seed"],
            experiments=not settings["quick"],
            timeout=settings["timeout"],
        )
        diagnosis = judge(recording, checks)
        if known is not None:
            diagnosis = known.apply(diagnosis)
        return recording, diagnosis, settings["fail_on"]

    def _settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """What the test says, else what pyproject.toml says, else the command's defaults."""
        from icediag.errors import IcediagError
        from icediag.finding import SEVERITIES

        from .check import check
        from .configuration import configured

        parameters = inspect.signature(check).parameters
        defaults = {key: parameters[key].default for key in SETTINGS}
        set_ = configured(check, self._folder).values
        settings = defaults | {k: v for k, v in set_.items() if k in SETTINGS} | given
        if settings["fail_on"] not in (*SEVERITIES, "never"):
            known = ", ".join((*SEVERITIES, "never"))
            raise IcediagError(f"fail_on: expected one of {known}, got {settings['fail_on']!r}")
        return settings

    def _made(self, pipeline: Any) -> "Pipeline":
        from icediag.errors import IcediagError
        from icediag.pipeline import Pipeline

        from .load import user_pipeline

        if isinstance(pipeline, str):
            if str(self._folder) not in sys.path:
                sys.path.insert(0, str(self._folder))
            return user_pipeline(pipeline)
        made = pipeline() if callable(pipeline) else pipeline
        if not isinstance(made, Pipeline):
            raise IcediagError(
                f"icediag.check: expected 'module:factory', an icediag.Pipeline or a function that "
                f"makes one, got {type(made).__name__}"
            )
        return made


#: Arguments of `Checker.check`, which are those of the command `check`.
SETTINGS = tuple(name for name in inspect.signature(Checker.check).parameters if name != "self")


def _words(text: str | Sequence[str]) -> list[str]:
    words = text.split(",") if isinstance(text, str) else list(text)
    return [word.strip() for word in words if word.strip()]


@pytest.fixture
def icediag(request: pytest.FixtureRequest) -> Checker:
    """`icediag.check("module:factory", select=...)` fails the test with what is found."""
    return Checker(request.config.rootpath)
