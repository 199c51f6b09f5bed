"""What a collection of faults is made of: patients, their faults, and what each must be called."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from icediag import Pipeline


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of one pipeline.

    Attributes:
        name: What a builder is asked for.
        checks: Names of checks; a finding of any of them, at least a warning, is right.
        stages: Where: a finding's stage must be one of these or lie inside one; empty where the
            fault has no place in the flow, such as a learning rate.
        lowest: The mildest severity that counts as found.
        looked: Checks that look at it; none for all there are.
    """

    name: str
    checks: tuple[str, ...]
    stages: tuple[str, ...] = ()
    lowest: str = "warning"
    looked: tuple[ModuleType, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Patient:
    """A pipeline that can be built healthy, in variants, and with each of its faults.

    Attributes:
        name: What the table calls it.
        build: fault or variant -> pipeline; `None` gives the healthy one.
        faults: Its faults.
        variants: Healthy variants, beside the healthy pipeline itself.
    """

    name: str
    build: Callable[[str | None], Pipeline]
    faults: tuple[Fault, ...]
    variants: tuple[str, ...] = ()
