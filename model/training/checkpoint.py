"""Checkpoints: written atomically, loadable with `weights_only=True`, checked before use."""

import dataclasses
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from icediag.model.errors import DataError

from .files import atomic_write

FORMAT = "icediag checkpoint"
VERSION = 1

#: Of a network's configuration, what may differ between a checkpoint and the network it goes into.
_FREE = ("backend",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    Attributes:
        network: `state_dict` of the network.
        network_config: Its configuration as a plain dictionary; empty if it has none.
        optimizer: `state_dict` of the optimizer.
        progress: Step, epoch, position in the epoch, sums since the last line of metrics, best
            score: see `progress.Progress`.
        rng: See `seeds.rng_state`.
        run: What must be the same when it is resumed, by name: batch size, seed, training events,
            loss, faults.
    """

    network: dict[str, Any]
    network_config: dict[str, Any]
    optimizer: dict[str, Any]
    progress: dict[str, Any]
    rng: dict[str, Any]
    run: dict[str, Any]

    def to_bytes(self) -> memoryview:
        """The file's content."""
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "version": VERSION, **content}, buffer)
        return buffer.getbuffer()

    def write(self, *paths: Path) -> None:
        """Write the same content to each path, one after the other, each atomically.

        Raises:
            DataError: One cannot be written; what was there is still there.
        """
        content = self.to_bytes()
        for path in paths:
            atomic_write(path, content)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint to the CPU.

    Raises:
        DataError: No such file, or it is truncated, foreign or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no checkpoint there") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # zip, pickle and torch each have their own
        raise DataError(
            f"{path}: expected a checkpoint of icediag, got a file that is damaged or of another "
            f"program ({type(error).__name__})"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: expected a checkpoint of icediag, got another program's")
    if content.get("version") != VERSION:
        raise DataError(
            f"{path}: expected a checkpoint of version {VERSION}, got {content.get('version')}"
        )
    names = [field.name for field in dataclasses.fields(Checkpoint)]
    missing = [name for name in names if not isinstance(content.get(name), dict)]
    if missing:
        raise DataError(f"{path}: the checkpoint lacks {', '.join(missing)}")
    return Checkpoint(**{name: content[name] for name in names})


def config_of(network: nn.Module) -> dict[str, Any]:
    """A network's `config` (a dataclass) as plain numbers and strings; empty without one."""
    config = getattr(network, "config", None)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return {}
    return _plain(dataclasses.asdict(config))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings and sequences as dictionaries and lists, NumPy's numbers as Python's."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _plain(value)
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value.item() if isinstance(value, np.generic) else value

    return {name: plain(value) for name, value in values.items()}


def run_of(
    *, batch_size: int, seed: int, events: npt.NDArray[np.int64], about: Mapping[str, Any]
) -> dict[str, Any]:
    """What must be the same when a run is resumed: see `Checkpoint.run`.

    Args:
        batch_size: Events a step.
        seed: Of the run.
        events: `(n,)` ids of the training events.
        about: Whatever else the caller wants compared, in plain types.
    """
    crc = zlib.crc32(np.ascontiguousarray(events, np.int64).tobytes())
    return _plain(
        {
            "batch_size": batch_size,
            "seed": seed,
            "training events": f"{len(events)} (checksum {crc:08x})",
            **about,
        }
    )


def check_same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Compare what was saved with what is now.

    Raises:
        DataError: The first difference, by name.
    """
    for name in [*here, *(n for n in there if n not in here)]:
        if name not in _FREE and there.get(name) != here.get(name):
            raise DataError(
                f"{path}: {name} is {_show(there.get(name))} in the checkpoint and "
                f"{_show(here.get(name))} now"
            )


def _show(value: Any) -> str:
    return "absent" if value is None else str(value)


def load_network(path: Path, checkpoint: Checkpoint, network: nn.Module) -> None:
    """Put a checkpoint's parameters and buffers into a network.

    Args:
        path: Where the checkpoint is from, for messages.
        checkpoint: From `read_checkpoint`.
        network: Built as the one that was saved.

    Raises:
        DataError: Configuration, names or shapes differ. The network is as it was.
    """
    check_same(path, checkpoint.network_config, config_of(network))
    here, there = network.state_dict(), checkpoint.network
    for name in [*here, *(n for n in there if n not in here)]:
        shapes = [tuple(state[name].shape) if name in state else None for state in (there, here)]
        if shapes[0] != shapes[1]:
            raise DataError(
                f"{path}: the parameters do not fit this network: {name} has shape "
                f"{_show(shapes[0])} in the checkpoint and {_show(shapes[1])} in the network"
            )
    network.load_state_dict(there)
