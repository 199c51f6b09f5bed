"""The one error a user of icediag can cause."""


class IcediagError(Exception):
    """Something that cannot be done as asked, in one line for the user.

    `icediag.cli.main` prints the message and leaves with `exit_code`.
    """

    exit_code = 2
