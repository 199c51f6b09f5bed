"""Where something is, and what could not be seen there. Plain data of every record."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Location:
    """A line of source; `file` is relative to the folder that holds its top-level package."""

    file: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """Something that could not be seen or judged, and why."""

    name: str
    reason: str
