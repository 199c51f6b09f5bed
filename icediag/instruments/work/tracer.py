"""Tracer: counts executions of lines, and calls with the line that makes them.

By `sys.monitoring` where Python has it, from 3.12 on, else by `sys.settrace`. Both give the same
counts: a line counts when it is begun, and when a jump back leads to it. Code that is not the
user's own is left alone.
"""

import inspect
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

#: Names of code objects that are loops themselves.
COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


class Counts:
    """What was counted in one phase.

    Attributes:
        lines: (code, line) -> executions.
        calls: code -> how often it was begun; a generator that goes on is not begun.
        edges: (calling code or None, its line, code) -> calls.
    """

    def __init__(self) -> None:
        self.lines: Counter[tuple[CodeType, int]] = Counter()
        self.calls: Counter[CodeType] = Counter()
        self.edges: Counter[tuple[CodeType | None, int, CodeType]] = Counter()


class Tracer:
    """Counts what runs of the user's own code, in all threads.

    Args:
        is_own: Tells from a frame whether its code is the user's own.
        called: Told the code of each call of the user's own.
    """

    def __init__(
        self, is_own: Callable[[FrameType], bool], called: Callable[[CodeType], None]
    ) -> None:
        self.counts = Counts()
        self._is_own = is_own
        self._called = called

    def _begin(self, frame: FrameType) -> None:
        """A call of the user's own code."""
        code = frame.f_code
        generator = code.co_flags & inspect.CO_GENERATOR
        if generator and (code.co_name == "<genexpr>" or frame.f_lineno != code.co_firstlineno):
            return
        counts = self.counts
        counts.calls[code] += 1
        caller = frame.f_back
        while caller is not None and not self._is_own(caller):
            caller = caller.f_back
        if caller is None:
            counts.edges[None, 0, code] += 1
        else:
            counts.edges[caller.f_code, caller.f_lineno, code] += 1
        self._called(code)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what runs within."""
        if sys.version_info >= (3, 12):
            with self._monitored():
                yield
        else:
            with self._traced():
                yield

    @contextmanager
    def _traced(self) -> Iterator[None]:
        def begun(frame: FrameType, event: str, _: Any) -> Any:
            if event != "call" or not self._is_own(frame):
                return None
            self._begin(frame)
            return line

        def line(frame: FrameType, event: str, _: Any) -> Any:
            if event == "line":
                self.counts.lines[frame.f_code, frame.f_lineno] += 1
            return line

        before, elsewhere = sys.gettrace(), threading.gettrace()
        threading.settrace(begun)
        sys.settrace(begun)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(elsewhere)

    @contextmanager
    def _monitored(self) -> Iterator[None]:
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        events = monitoring.events
        tool = next(i for i in (4, 3, 5, 2, 1, 0) if monitoring.get_tool(i) is None)
        known: dict[CodeType, bool] = {}
        starts: dict[CodeType, dict[int, int]] = {}

        def own(code: CodeType) -> bool:
            found = known.get(code)
            if found is None:
                found = known[code] = self._is_own(sys._getframe(2))  # noqa: SLF001 - the documented way
            return found

        def begun(code: CodeType, _: int) -> Any:
            if not own(code):
                return monitoring.DISABLE
            self._begin(sys._getframe(1))  # noqa: SLF001 - the documented way
            return None

        def line(code: CodeType, number: int) -> Any:
            if not own(code):
                return monitoring.DISABLE
            self.counts.lines[code, number] += 1
            return None

        def jump(code: CodeType, here: int, there: int) -> Any:
            if there > here or not own(code):
                return monitoring.DISABLE
            if code not in starts:
                starts[code] = {
                    offset: number or 0
                    for first, last, number in code.co_lines()
                    for offset in range(first, last, 2)
                }
            number = starts[code].get(there)
            # A jump back to another line begins that line, and is counted there.
            if number and number == starts[code].get(here):
                self.counts.lines[code, number] += 1
            return None

        monitoring.use_tool_id(tool, "icediag")
        try:
            monitoring.register_callback(tool, events.PY_START, begun)
            monitoring.register_callback(tool, events.LINE, line)
            monitoring.register_callback(tool, events.JUMP, jump)
            monitoring.set_events(tool, events.PY_START | events.LINE | events.JUMP)
            # What another run switched off.
            monitoring.restart_events()
            yield
        finally:
            monitoring.set_events(tool, 0)
            for event in (events.PY_START, events.LINE, events.JUMP):
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
