"""`icediag checks` and `icediag explain`: what is looked for, from the checks' own pages."""

from typing import Annotated

import typer


def checks() -> int:
    """List the checks."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from icediag.checks import CHECKS
    from icediag.reports.pages import page_of

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("code", "name", "this pipeline has the fault that ..."):
        table.add_column(name, overflow="fold")
    for page in map(page_of, CHECKS):
        table.add_row(page.code, Text(page.name), Text(page.title))
    Console().print(table)
    return 0


def explain(
    code: Annotated[str, typer.Argument(metavar="CODE", help="Code or name of a check.")],
) -> int:
    """Show the page of a check: what it looks at, why it hurts, what to do, its limits."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from icediag.checks import CHECKS
    from icediag.errors import IcediagError
    from icediag.reports.pages import page_of

    pages = map(page_of, CHECKS)
    found = [page for page in pages if code.lower() in (page.code.lower(), page.name)]
    if not found:
        raise IcediagError(
            f"expected the code or name of a check, got {code!r}; `icediag checks` lists them"
        )
    console = Console(highlight=False)
    page = found[0]
    console.print(Text.assemble((f"{page.code} {page.name}", "bold"), f"  {page.title}"))
    for heading, text in page.sections.items():
        console.print(Text(f"\n{heading}", "bold"))
        console.print(Padding(Text(text), (0, 0, 0, 2)))
    return 0
