"""`make readme`: the table of checks in README.md, from the checks' own pages."""

import sys
from pathlib import Path

from icediag.checks import CHECKS
from icediag.reports.pages import page_of

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- checks: written by `make readme` -->"
END = "<!-- end of checks -->"


def table() -> str:
    """A row a check, in display order."""
    rows = ["| code | name | this pipeline has the fault that ... |", "| --- | --- | --- |"]
    rows += [f"| {p.code} | `{p.name}` | {p.title} |" for p in map(page_of, CHECKS)]
    return "\n".join(rows)


def updated(text: str) -> str:
    """The README with the table as it is to be.

    Raises:
        ValueError: It has no place for it.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name}: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def main() -> int:
    """Write the README anew."""
    text = README.read_text(encoding="utf-8")
    new = updated(text)
    if new != text:
        README.write_text(new, encoding="utf-8")
    sys.stdout.write("README.md is as it was\n" if new == text else "README.md is written\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
