"""A section of the HTML report below the findings: a template and the values that it shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Part:
    """A section.

    Attributes:
        id: Its anchor.
        title: Its heading.
        short: Its name in the navigation.
        template: The file that draws it.
        values: What that file needs.
    """

    id: str
    title: str
    short: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
