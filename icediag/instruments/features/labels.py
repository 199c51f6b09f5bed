"""Labels: what a tensor's values come from, kept beside its storage while a batch goes through.

A label lies beside a *storage*, so that views share it and what is written through a view is known
to all of them.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from icediag.instruments.running.preserve import is_lazy

#: Labels of storages that are gone are dropped each time this many new ones were made.
SWEEP = 256


@dataclass(frozen=True)
class Line:
    """Where an operation stands: stage, and the user's line."""

    stage: str
    file: str | None
    line: int | None

    @property
    def text(self) -> str:
        """Such as "normalizer (mypkg/model.py:12)"."""
        return f"{self.stage} ({self.file}:{self.line})" if self.file else self.stage


@dataclass(frozen=True)
class Twice:
    """A logarithm of a logarithm."""

    op: str
    at: Line
    before: Line


@dataclass(frozen=True, eq=False)
class Label:
    """What is known of the values of a storage.

    Attributes:
        data: They come from the batch.
        learned: They depend on weights.
        state: They come from buffers or plain tensors of a module, and from nothing else.
        shifted: State was subtracted from data.
        normed: Where state was subtracted and then divided by, entry by entry since.
        log: Where they went through a logarithm, element by element since.
        twice: Logarithms of logarithms among what they come from.
        made: The tensor as it was made; kept for features alone.
        joined: Parts of a concatenation with learned columns: (first column, tensor).
    """

    data: bool = False
    learned: bool = False
    state: bool = False
    shifted: bool = False
    normed: Line | None = None
    log: Line | None = None
    twice: tuple[Twice, ...] = ()
    made: Tensor | None = None
    joined: tuple[tuple[int, Tensor], ...] = ()

    @property
    def feature(self) -> bool:
        """Whether they come from the batch and through no weight."""
        return self.data and not self.learned


NOTHING = Label()
LEARNED = Label(learned=True)


def followed(tensor: Tensor) -> bool:
    """Whether a tensor has a storage of its own that labels can lie beside."""
    return tensor.layout == torch.strided and not tensor.is_nested


@dataclass(eq=False)
class Labels:
    """All labels of one run."""

    _of: dict[int, tuple[Any, Label]] = field(default_factory=dict)
    _made: int = 0

    def of(self, tensor: Tensor) -> Label:
        """The label of a tensor; a weight is learned whatever happened to it."""
        if not followed(tensor) or is_lazy(tensor):
            return NOTHING
        found = self._of.get(key_of(tensor))
        if found is None or found[0].expired():
            if not isinstance(tensor, nn.Parameter):
                return NOTHING
            self.put(tensor, LEARNED)
            return LEARNED
        return found[1]

    def put(self, tensor: Tensor, label: Label) -> None:
        """Label a tensor's storage anew."""
        if not followed(tensor):
            return
        key = key_of(tensor)
        if label is NOTHING:
            self._of.pop(key, None)
            return
        self._made += 1
        if self._made % SWEEP == 0:
            self._of = {k: v for k, v in self._of.items() if not v[0].expired()}
        ref = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
        self._of[key] = (ref, label)

    def widen(self, tensor: Tensor, label: Label) -> None:
        """Something of another label was written into a tensor: it is that too."""
        old = self.of(tensor)
        if old is label or (old.learned and label.learned and not label.twice):
            return  # learned stays learned
        both = replace(
            old,
            data=old.data or label.data,
            learned=old.learned or label.learned,
            state=old.state and label.state,
            log=None,
            normed=None,
            twice=(*old.twice, *(t for t in label.twice if t not in old.twice)),
            joined=(),
        )
        self.put(tensor, both)


def key_of(tensor: Tensor) -> int:
    """The identity of a tensor's storage."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - its identity
