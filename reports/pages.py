"""A check's page: its docstring, taken apart. Everything that describes a check comes from it."""

import inspect
from dataclasses import dataclass
from types import ModuleType

#: The headings of a page, in their order.
SECTIONS = ("What it looks at", "Why it hurts", "A bad run", "What to do", "Limits")


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a check says of itself.

    Attributes:
        code: Such as `N01`.
        name: Such as `normalized-relative`.
        title: One sentence.
        sections: Heading -> text, each paragraph in one line.
    """

    code: str
    name: str
    title: str
    sections: dict[str, str]


def page_of(check: ModuleType) -> Page:
    """Read a check's docstring."""
    title, _, body = inspect.cleandoc(check.__doc__ or "").partition("\n")
    sections: dict[str, str] = {}
    heading = ""
    for line in body.splitlines():
        if line.strip() and not line.startswith(" "):
            heading = line.strip().removesuffix(":")
            sections[heading] = ""
        elif heading:
            old = sections[heading]
            sections[heading] = f"{old} {line.strip()}".strip() if line.strip() else f"{old}\n"
    return Page(
        code=check.CODE,
        name=check.NAME,
        title=title,
        sections={key: text.strip() for key, text in sections.items()},
    )
