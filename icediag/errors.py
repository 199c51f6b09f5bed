"""The one error a user of icediag can cause, and what is no error of theirs."""


class IcediagError(Exception):
    """Something that cannot be done as asked, in one line for the user.

    `icediag.cli.main` prints the message and leaves with `exit_code`.
    """

    exit_code = 2


class StoppedError(IcediagError):
    """Ctrl-C. The exit code is that of a shell: 128 and the number of the signal."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("stopped by Ctrl-C")


#: What is not the fault of the user's code: Ctrl-C, and a generator that is closed. All else is
#: met, also what is no `Exception`, such as SystemExit and asyncio.CancelledError.
ENDS = (KeyboardInterrupt, GeneratorExit)
