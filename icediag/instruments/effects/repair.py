"""Repair: something that is put right while a training runs, and taken out again."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from icediag.records.effects import RepairKind


@dataclass(frozen=True, kw_only=True)
class Repair:
    """One repair.

    Attributes:
        kind: Of which kind.
        stage: Stage that the finding is at.
        text: What is put in place of what.
        force: Puts it in place, and takes it out at the end.
        how: Settings of the training, see `Workbench.stepping`.
    """

    kind: RepairKind
    stage: str
    text: str
    force: Callable[[], AbstractContextManager[Any]] = nullcontext
    how: dict[str, Any] = field(default_factory=dict)
