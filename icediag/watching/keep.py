"""What a watch keeps for the day it is needed: the last good state, and the batch that broke it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from icediag.instruments.trees.file import save_batch
from icediag.instruments.trees.walk import leaves

#: Names of the files in the watch's folder.
STATE, BATCH = "last_good.pt", "batch.pt"


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_copied(item) for item in value)
    return value


class Keeper:
    """Copies of model and optimizer on the host, and the files they go to.

    Args:
        model: The model.
        optimizer: Its optimizer.
        folder: Where files go; None keeps copies in memory alone.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, folder: Path | None
    ) -> None:
        self._model, self._optimizer, self._folder = model, optimizer, folder
        self._state: dict[str, Any] | None = None

    @property
    def state(self) -> dict[str, Any] | None:
        """The last good state: `step`, `model`, `optimizer`; None before the first."""
        return self._state

    def keep(self, step: int) -> None:
        """Copy, unless a weight is not finite."""
        state = {
            "step": step,
            "model": _copied(self._model.state_dict()),
            "optimizer": _copied(self._optimizer.state_dict()),
        }
        weights = [t for _, t in leaves(state["model"]) if t.is_floating_point()]
        if all(bool(torch.isfinite(weight).all()) for weight in weights):
            self._state = state

    def write(self, batch: Any) -> list[str]:
        """Write what there is; gives a sentence on each file, or on why there is none."""
        said: list[str] = []
        if self._folder is None:
            return said
        if self._state is not None:
            path = self._folder / STATE
            beside = path.with_name(f".{path.name}.part")
            torch.save(self._state, beside)
            beside.replace(path)
            said.append(f"{path.name} holds the state after step {self._state['step']}")
        if batch is not None:
            try:
                save_batch(batch, self._folder / BATCH)
            except (TypeError, OSError) as error:
                said.append(f"the batch could not be kept: {error}")
            else:
                said.append(
                    f"{BATCH} holds the batch: replayed by icediag shapes --batch {BATCH}, with "
                    f"--state {STATE} by these weights"
                )
        return said
