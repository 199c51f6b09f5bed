"""The entry point: finds the command, and is the one place where an error becomes text."""

import functools
import io
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from icediag.errors import StoppedError

from .baseline import baseline
from .bench import bench
from .check import check
from .checks import checks, explain
from .compare import compare
from .data import data
from .effects import effects
from .gradients import gradients
from .invariances import invariances
from .overfit import overfit
from .prepare import prepare
from .profile import profile
from .report import report
from .schema import schema
from .shapes import shapes
from .simulate import simulate
from .threads import wait_politely
from .train import train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Tells why a training run on ragged events is slow or does not learn.",
)
#: In the order in which `--help` lists them.
COMMANDS = (
    check,
    overfit,
    gradients,
    effects,
    report,
    profile,
    compare,
    shapes,
    invariances,
    train,
    simulate,
    data,
    baseline,
    prepare,
    bench,
    checks,
    explain,
    schema,
)


def _stoppable(command: Callable[..., int]) -> Callable[..., int]:
    """The command with Ctrl-C as an error of ours: typer would leave without a word."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> int:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            raise StoppedError from None

    return run


for command in COMMANDS:
    app.command()(_stoppable(command))


def _version(wanted: bool) -> None:
    if wanted:
        try:
            number = version("icediag")
        except PackageNotFoundError:
            number = "(not installed)"
        sys.stdout.write(f"icediag {number}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show Python's traceback where a command fails.")
    ] = False,
) -> None:
    """Tells why a training run on ragged events is slow or does not learn."""


def _complain(message: str) -> None:
    """One line on standard error; markup in a file name stays as it is."""
    Console(stderr=True, soft_wrap=True).print(
        Text.assemble(("icediag: ", "bold red"), " ".join(message.split()))
    )


def _message(error: Exception) -> str:
    """What an error says. One that a DataLoader's worker met carries its whole traceback along."""
    text = str(error)
    if "Original Traceback (most recent call last):" not in text:
        return text
    last = text.strip().splitlines()[-1]
    kind = type(error)
    return last.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")


def _defaults(arguments: list[str]) -> dict[str, dict[str, Any]]:
    """What pyproject.toml sets, where it is asked for: command -> argument -> value."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    if command != "check" or "--help" in arguments:
        return {}
    from .configuration import configured

    found = configured(check)
    if found.file is not None:
        sys.path.append(str(found.file.parent))
    own = {"--data", "--files", "--fault"} & {word.partition("=")[0] for word in arguments}
    # The built-in pipeline is asked for: the one that the file names is not meant.
    return {"check": {k: v for k, v in found.values.items() if not (own and k == "pipeline")}}


def main() -> int:
    """Run the command line; returns the exit code: 0 done, 1 findings, 2 could not, 130 Ctrl-C."""
    from icediag.errors import IcediagError
    from icediag.model.errors import DataError

    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show an arrow or a multiplication sign is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    wait_politely()
    try:
        result = app(standalone_mode=False, default_map=_defaults(sys.argv[1:]))
    except (IcediagError, DataError) as error:
        if "--traceback" in sys.argv:
            raise
        _complain(_message(error))
        return getattr(error, "exit_code", 2)
    except typer.Exit as leave:
        return leave.exit_code
    except KeyboardInterrupt:
        _complain(str(StoppedError()))
        return StoppedError.exit_code
    except Exception as error:
        # typer's own complaints about arguments know how to show themselves and their exit code.
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            return int(error.exit_code)
        if "--traceback" in sys.argv:
            raise
        _complain(
            f"{type(error).__name__}: {_message(error)} "
            "(not expected; `icediag --traceback ...` shows where)"
        )
        return 2
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    sys.exit(main())
