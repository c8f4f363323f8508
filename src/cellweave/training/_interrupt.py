"""Ctrl-C as a wish that is granted between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class InterruptRequested(Exception):  # noqa: N818 - a wish, not an error
    """Ctrl-C was pressed; whoever holds the run's state saves it and raises KeyboardInterrupt."""


class InterruptFlag:
    """While this context is open, the first Ctrl-C sets `requested`; the second raises KeyboardInterrupt at once.

    Outside the main thread, or where Ctrl-C is ignored, it changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: signal._HANDLER = None

    def __enter__(self) -> InterruptFlag:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def check(self) -> None:
        """Raise InterruptRequested if Ctrl-C was pressed."""
        if self.requested:
            raise InterruptRequested
