"""Threads take turns where a layer makes its variables."""

from __future__ import annotations

import os
import threading
from typing import Any


class Turn:
    """A lock that its own thread may take again, and that copies, pickles and forked children do not inherit."""

    def __init__(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():  # perhaps forked while another thread of the parent's had it
            self.__init__()  # type: ignore[misc]
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> Any:
        return Turn, ()
