"""The one error a user of the training implementation can cause: bad input."""


class DataError(ValueError):
    """Bad input: a file, column, row or argument is not what it must be.

    The message is one line that names the place, what was expected and what came. The command line
    prints it as it is and leaves with exit code 2.
    """
