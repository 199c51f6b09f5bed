"""Following values: a dispatch mode that goes along with one run, and knows the stage it is in."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from icediag.instruments.running.operations import OperationMode
from icediag.pipeline import Pipeline
from icediag.place import Unjudged

from .flow import Flow
from .record import follow

#: Operations that give the values they take, in another shape or type, or held within limits.
SAME_VALUES = frozenset({
    "view", "_unsafe_view", "expand", "unsqueeze", "squeeze", "transpose", "permute", "t", "alias",
    "detach", "clone", "_to_copy", "contiguous", "_reshape_alias", "clamp", "clamp_min",
})  # fmt: skip


def storage_of(tensor: Tensor) -> Any:
    """What tells a tensor's storage from others, while it is kept."""
    return tensor.untyped_storage()._cdata  # noqa: SLF001 - its identity


def key_of(tensor: Tensor) -> tuple[Any, ...]:
    """What tells a tensor's values from others: storage, and what of it. First comes the storage.

    A tensor must be kept for as long as its key is, or its storage may be given to another.
    """
    return storage_of(tensor), tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


def writes(func: Any) -> bool:
    """Whether an operation writes into what it is given."""
    return bool(func._schema.is_mutable)  # noqa: SLF001 - it has no public name


class FollowingMode(OperationMode):
    """What follows values from operation to operation derives from this.

    Attributes:
        armed: Whether the run counts: whatever runs before its batch is made is for preparation.
        stage: Name of the innermost stage that runs.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.armed = False
        self.stage: Callable[[], str] = lambda: "model"


class _ArmedFlow(Flow):
    """A flow that arms the mode once the run that counts begins."""

    mode: FollowingMode

    def begin(self, name: str, kind: Any, owner: Any = None) -> Any:
        """Enter a stage."""
        if kind == "collate":
            self.mode.armed = True
        return super().begin(name, kind, owner)

    def current(self) -> str:
        """Name of the innermost stage."""
        return self.innermost[-1] if self.innermost else "model"


def follow_values(
    mode: FollowingMode,
    pipeline: Pipeline,
    *,
    most: int,
    batch_size: int | None,
    device: str,
    seed: int,
    loss: bool = False,
) -> tuple[Unjudged, ...]:
    """Take one batch through a pipeline with a mode active in the model.

    The model, its gradients, flags and all random generators are left as they were found.

    Args:
        mode: What looks on.
        pipeline: What to look at.
        most: Samples, at most.
        batch_size: Samples; without, that of the pipeline.
        device: Where the model is.
        seed: Of the random generators.
        loss: Whether it is active in the loss too.

    Returns:
        What could not be followed, and why.

    Raises:
        IcediagError: The data set is empty, or a stage that the pipeline names does not exist.
    """
    flow = _ArmedFlow(None)
    flow.mode, mode.stage = mode, flow.current
    traced = replace(pipeline, forward=functools.partial(_within, mode, pipeline.forward or _call))
    if loss:
        traced = replace(traced, loss=functools.partial(_within, mode, pipeline.loss))
    wanted = pipeline.batch_size if batch_size is None else batch_size
    run = follow(traced, flow, batch_size=min(wanted, most), device=device, seed=seed)
    return tuple(
        Unjudged(name=item.name, reason=item.reason)
        for item in run.not_judged
        # Fewer samples than asked for are enough to see what values are made of.
        if item.name != "batch size"
    )


def _call(model: Any, batch: Any) -> Any:
    return model(batch)


def _within(mode: FollowingMode, function: Callable[..., Any], *args: Any) -> Any:
    with mode:
        return function(*args)
