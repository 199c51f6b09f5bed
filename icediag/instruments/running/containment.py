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

from icediag.errors import ENDS

from .uncompiled import uncompiled

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

    What it prints, be it from C or a process that it starts, goes to standard error, where it
    cannot mix with a report; where no one sits at a terminal, it reads an empty input. The settings
    of torch and numpy, warning filters, environment, import path and working folder are put back.
    An exit becomes an exception, and a copy of this process that the code forks ends here.

    Args:
        seconds: Time limit, see `time_limit`.

    Raises:
        TimedOutError: It took longer.
        ExitedError: It called `sys.exit()`, or raised what is no `Exception`.
    """
    restore = [(put, get()) for get, put in _settings()]
    folder, process = _folder(), os.getpid()
    try:
        with (
            quiet(),
            warnings.catch_warnings(),
            np.errstate(),
            uncompiled(),
            time_limit(seconds),
        ):
            yield
    except SystemExit as error:
        raise ExitedError(f"called sys.exit({error.code!r})") from error
    except (Exception, *ENDS):
        raise
    except BaseException as error:  # as asyncio.CancelledError is: no other handler would take it
        raise ExitedError(f"raised {type(error).__name__}: {error}") from error
    finally:
        if os.getpid() != process:
            os._exit(0)
        for put, value in restore:
            put(value)
        if folder is not None and folder != _folder():
            os.chdir(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Send what is printed within to standard error, and let nothing wait for a line of input."""
    with _output_to_errors(), contextlib.redirect_stdout(sys.stderr), _no_one_types():
        yield


@contextmanager
def _output_to_errors() -> Iterator[None]:
    """Send what is written to the descriptor of standard output to that of standard error."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except (OSError, ValueError, AttributeError):  # there is none, or it is closed
        yield
        return
    try:
        with contextlib.suppress(OSError):
            os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def _no_one_types() -> Iterator[None]:
    """An empty standard input, where there is no terminal: `input()` raises and does not wait."""
    kept = sys.stdin
    try:
        waits = kept is not None and kept.isatty()
    except ValueError:  # closed
        waits = False
    if waits:
        yield
        return
    with open(os.devnull, encoding="utf-8") as nothing:  # noqa: PTH123 - devnull is no path
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.stdin = kept


class Forks:
    """Counts copies of this process that the user's own code makes, not the workers of a loader.

    Attributes:
        count: How many since the module was imported.
    """

    def __init__(self) -> None:
        self.count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._note)

    def _note(self) -> None:
        frame: FrameType | None = sys._getframe()  # noqa: SLF001 - the one way to a caller's name
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith(_STARTERS):
                return
            frame = frame.f_back
        self.count += 1


#: Modules that fork on purpose and look after their children.
_STARTERS = ("multiprocessing", "subprocess", "concurrent.", "torch.multiprocessing")
FORKS = Forks()


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
        (torch.are_deterministic_algorithms_enabled, _deterministic),
        (torch.get_default_device, _device),
        (lambda: dict(os.environ), _environment),
        (lambda: list(sys.path), _import_path),
        (sys.getrecursionlimit, sys.setrecursionlimit),
    ]


def _environment(variables: dict[str, str]) -> None:
    if dict(os.environ) != variables:
        os.environ.clear()
        os.environ.update(variables)


def _import_path(folders: list[str]) -> None:
    if sys.path != folders:
        sys.path[:] = folders


def _threads(n: int) -> None:
    if torch.get_num_threads() != n:
        torch.set_num_threads(n)


def _deterministic(mode: bool) -> None:
    """Only where it changed: to set it imports torch's compiler, which takes over a second."""
    if torch.are_deterministic_algorithms_enabled() != mode:
        torch.use_deterministic_algorithms(mode)


def _device(device: torch.device) -> None:
    """Only where it changed: a default device, once set, costs something in every call."""
    if torch.get_default_device() != device:
        torch.set_default_device(device)
