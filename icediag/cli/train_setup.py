"""What `icediag train` builds from its options, and the folder that it goes to."""

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icediag.errors import IcediagError

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    from icediag.model.assembly import Assembly
    from icediag.model.training.config import TrainConfig

#: Where runs go if `--out` does not say.
RUNS = Path("runs")
#: The options of a run, in its folder.
OPTIONS = "run.json"
#: Held out where `--validation` does not say. Below `FEW` events nothing is: one or two events in
#: the balance say nothing, and such a set is there to be learnt by heart.
VALIDATION, FEW = 0.1, 100
#: Number of embedded events where `--events` does not say.
EVENTS = 4096
#: Training events that the normaliser is fitted to, at most.
FITTED_ON = 1000

#: Options whose name is not that of the setting that a complaint speaks of.
_OPTION_OF = {"n_layers": "layers", "n_heads": "heads", "n_events": "events", "faults": "fault"}


def run_folder(out: Path | None, *, resume: bool) -> Path:
    """The folder of a new run, which is free, or of the one to resume, which has a checkpoint."""
    if resume:
        runs = sorted(path.parent for path in RUNS.glob("run-*/last.pt"))
        if out is None and not runs:
            raise IcediagError(f"--resume: no run in {RUNS}/ to go on with; name it by --out DIR")
        folder = out or runs[-1]
        if not (folder / "last.pt").is_file():
            raise IcediagError(f"--resume: {folder} has no checkpoint (last.pt) to go on from")
        return folder
    if out is None:
        taken = [int(p.name[4:]) for p in RUNS.glob("run-*") if p.name[4:].isdecimal()]
        return RUNS / f"run-{max(taken, default=0) + 1:03d}"
    if any((out / name).exists() for name in (OPTIONS, "last.pt", "metrics.jsonl")):
        raise IcediagError(f"--out: {out} holds a run already; go on with it by --resume")
    return out


def store_options(folder: Path, options: dict[str, Any]) -> None:
    """Keep the options for `--resume`."""
    from icediag.model.training.files import atomic_write

    kept = {name: value for name, value in options.items() if name not in ("out", "resume")}
    if kept["data"] is not None:
        kept["data"] = str(kept["data"].resolve())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IcediagError(f"--out: {folder} cannot be made ({error.strerror})") from error
    atomic_write(folder / OPTIONS, (json.dumps(kept, indent=1) + "\n").encode())


def stored_options(folder: Path) -> dict[str, Any]:
    """The options of a run; none where they are not kept, as of a run that no command started."""
    path = folder / OPTIONS
    if not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("data") is not None:
            stored["data"] = Path(stored["data"])
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise IcediagError(f"{path}: expected the options of a run ({error})") from error
    return dict(stored)


def prepare(options: Namespace) -> "tuple[Assembly, TrainConfig]":
    """Build what the options ask for."""
    from dataclasses import replace

    import numpy as np

    from icediag.model.assembly import assemble
    from icediag.model.errors import DataError
    from icediag.model.network import NetworkConfig
    from icediag.model.scatter import resolve_backend
    from icediag.model.training.config import TrainConfig

    if options.data is None and options.files is not None:
        raise IcediagError("--files: there are no files without --data")
    if options.data is not None and options.events is not None:
        raise IcediagError("--events: the number of embedded events; --data has its own")
    faults = tuple(options.fault or ())
    try:
        if options.normalizer not in ("fitted", "field"):
            raise ValueError(f"normalizer: expected fitted or field, got {options.normalizer!r}")
        config = TrainConfig(
            **{
                name: getattr(options, name)
                for name in (
                    "epochs", "max_minutes", "lr", "weight_decay", "warmup", "schedule", "workers",
                    "device", "compile", "save_every", "seed",
                )
            },
            batch_size=256 if options.batch_size is None else options.batch_size,
            clip=options.clip if options.clip != 0 else None,
        )  # fmt: skip
        config.torch_device()
        resolve_backend(options.backend)
        assembly = assemble(
            data=options.data,
            files=options.files,
            n_events=EVENTS if options.events is None else options.events,
            validation=VALIDATION if options.validation is None else options.validation,
            config=NetworkConfig(
                d_model=options.d_model,
                n_layers=options.layers,
                n_heads=options.heads,
                dropout=options.dropout,
                head=options.head,
                backend=options.backend,
            ),
            loss=options.loss,
            faults=faults,
            seed=options.seed,
        )
    except DataError:
        raise
    except ValueError as error:
        # The settings' own complaints begin with their names.
        name, colon, rest = str(error).partition(": ")
        if not colon or not name.isidentifier():
            raise
        option = _OPTION_OF.get(name, name).replace("_", "-")
        raise IcediagError(f"--{option}: {rest}") from error
    n_events = len(assembly.dataset)
    few = options.validation is None and n_events < FEW
    if few or len(assembly.train_indices) == 0:
        assembly = replace(
            assembly, train_indices=np.arange(n_events), validation_indices=np.arange(0)
        )
    if options.normalizer == "fitted":
        _fit_normalizer(assembly)
    if options.batch_size is None:
        config = replace(config, batch_size=default_batch_size(len(assembly.train_indices)))
    return assembly, config


def default_batch_size(n_events: int) -> int:
    """Events a step where `--batch-size` does not say: 256, but about 50 steps an epoch or more.

    A power of two from 32 on: 64 for 3,700 events.
    """
    return max(32, min(256, 1 << int(math.log2(max(n_events / 50, 1)))))


def _fit_normalizer(assembly: "Assembly") -> None:
    """Fit the normaliser's constants to the first training events.

    With the field's constants times have a spread of a seventh of unit; fitted, of one.
    """
    from dataclasses import replace

    import torch

    from icediag.model.event import CHARGE, TIME
    from icediag.model.normalize import Normalizer, NormalizerConfig

    network = assembly.network
    events = assembly.dataset.__getitems__(assembly.train_indices[:FITTED_ON].tolist())
    pulses = torch.cat([event.pulse_features for event in events])
    try:
        fitted = NormalizerConfig.fitted(pulses[:, TIME], pulses[:, CHARGE])
    except ValueError:  # no pulses, or all alike: then the constants do not matter
        return
    network.config = replace(network.config, normalizer=fitted)
    network.normalizer = Normalizer(fitted)
