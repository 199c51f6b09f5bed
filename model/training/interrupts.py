"""Ctrl-C as a question asked between two steps, not an exception in the middle of one."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """While it is open, the first SIGINT or SIGTERM is noted; a second one acts as it always does.

    An exception within `optimizer.step` would leave some parameters stepped and others not, and no
    checkpoint could be made of them. SIGTERM is how batch systems say that time is up. A signal
    that is ignored (as SIGINT is under `nohup`) stays ignored; outside the main thread, which alone
    may set handlers, nothing is changed.

    Attributes:
        received: The signal's number, once there was one.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                # None: a handler that Python did not set and could not put back.
                if before not in (signal.SIG_IGN, None):
                    self._before[number] = before
                    signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's interface
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def asked(self) -> bool:
        """Whether there was one."""
        return self.received is not None
