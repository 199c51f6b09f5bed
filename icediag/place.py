"""Where something is, and what could not be seen there. Plain data of every record."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Location:
    """A line of source; `file` is relative to the folder that holds its top-level package."""

    file: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Unjudged:
    """Something that could not be seen or judged, and why.

    Attributes:
        name: What: a check, an instrument, or a part of the flow.
        reason: Why.
        raised: Whether it is because the user's code raised an exception.
        location: The user's line that raised, where it is known.
    """

    name: str
    reason: str
    raised: bool = False
    location: Location | None = None
