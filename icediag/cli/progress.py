"""How far a long command is, on standard error; nothing is shown where nobody looks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def progress_of(titles: Sequence[str]) -> Iterator[Callable[[str], None]]:
    """A bar over steps that are known beforehand.

    Args:
        titles: Of the steps, in their order.

    Yields:
        To be told the title of each step before it begins; steps may be left out.
    """
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    # Redirected to a file, a bar would only leave blank lines behind.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("starting", total=len(titles))

        done = 0

        def tell(title: str) -> None:
            nonlocal done  # a step may come before its turn
            done = max(done, titles.index(title) if title in titles else 0)
            bar.update(task, completed=done, description=title)

        yield tell
