"""Modes: seeds, training mode and eager execution, as every run of a pipeline sets them."""

import inspect
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def seed_all(seed: int) -> None:
    """Seed the global random generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the user's code may use the global generator
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # It would note down, for devices that are not there, where it was called from: that takes
        # as long as a small forward.
        torch.default_generator.manual_seed(seed)


def train_mode(model: Any) -> None:
    """Training mode as the user's loop would set it.

    By `train(mode)` where a module overrides it, for instance to keep a frozen part in evaluation.
    A `train` of another meaning, which may be a whole training loop, is not called.
    """
    if not isinstance(model, nn.Module):
        return
    for module in model.modules():
        module.training = True
    own = {type(module).train for module in model.modules()} - {nn.Module.train}
    if own and all(_takes_mode(train) for train in own):
        try:
            model.train(True)
        except Exception:
            for module in model.modules():
                module.training = True


def _takes_mode(train: Any) -> bool:
    try:
        return list(inspect.signature(train).parameters)[1:2] == ["mode"]
    except (TypeError, ValueError):
        return False


@contextmanager
def eager(model: Any) -> Iterator[None]:
    """Have compiled modules run as they are written: what is compiled shows no stages."""
    compiled = isinstance(model, nn.Module) and any(
        # `model.compile()` leaves a function, `torch.compile(model)` a module of its own.
        getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")
        for module in model.modules()
    )
    if compiled:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
