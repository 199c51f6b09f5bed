"""Containment: what the user's code does beside its work ends with it: hangs, exits, settings."""

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

#: After a time-out that the user's own `except Exception` swallowed, it comes again so much later.
AGAIN_S = 2.0


class TimedOutError(Exception):
    """Something took longer than it was given."""


class ExitedError(Exception):
    """The user's code called `sys.exit()`."""


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimedOutError` where the code within takes longer, at the line it is at.

    By a signal, so it reaches any Python code of the main thread: what hangs within a call of C
    code is interrupted when that returns. Elsewhere, and where a system has no such signal, there
    is no limit.

    Args:
        seconds: The limit; None for none.
    """
    possible = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if seconds is None or not possible:
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise TimedOutError(f"took longer than {seconds:g} s")

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:  # someone else's limit, as of a test runner, goes on
            left = max(left - (time.monotonic() - began), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, left, interval)


@contextmanager
def contained(seconds: float | None = None) -> Iterator[None]:
    """Run the user's code so that what it does beside its work ends with it.

    What it prints goes to standard error, where it cannot mix with a report; the settings of torch
    and numpy, warning filters and the working folder are put back; an exit becomes an exception.

    Args:
        seconds: Time limit, see `time_limit`.

    Raises:
        TimedOutError: It took longer.
        ExitedError: It called `sys.exit()`.
    """
    restore = [(put, get()) for get, put in _settings()]
    folder = _folder()
    try:
        with (
            contextlib.redirect_stdout(sys.stderr),
            warnings.catch_warnings(),
            np.errstate(),
            time_limit(seconds),
        ):
            yield
    except SystemExit as error:
        raise ExitedError(f"called sys.exit({error.code!r})") from error
    finally:
        for put, value in restore:
            put(value)
        if folder is not None and folder != _folder():
            os.chdir(folder)


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - compared as a text
    except OSError:
        return None


def _settings() -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Global settings of torch, each with how it is read and set."""
    return [
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_num_threads, _threads),
        (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
        (torch.get_default_device, _device),
    ]


def _threads(n: int) -> None:
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)


def _device(device: torch.device) -> None:
    """Only where it changed: a default device, once set, costs something in every call."""
    if torch.get_default_device() != device:
        torch.set_default_device(device)
