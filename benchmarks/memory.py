"""How much memory a training call needs: the high-water mark of a fresh child process. Linux only."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry import Case, small

#: Written there, it sets the high-water mark back to the memory now in use (proc_pid_clear_refs(5)).
_RESET = ("/proc/self/clear_refs", "5")


def peak(layer: Callable[[str, Case], Any], name: str, case: Case) -> float:
    """Megabytes above weights, inputs and upstream gradients; libraries' code does not count.

    The child is forked from a process that has computed nothing: its allocator and thread pools are fresh.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(write, str(_in_this_process(layer, name, case)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    if status != 0 or not text:
        raise RuntimeError(f"memory: expected a number from the child, got status {status}.")
    return float(text)


def _in_this_process(layer: Callable[[str, Case], Any], name: str, case: Case) -> float:
    layer(name, small(case)).program().call()  # loads code and starts threads
    program = layer(name, case).program()
    gc.collect()
    Path(_RESET[0]).write_text(_RESET[1])
    before, code_before = _megabytes("VmRSS"), _megabytes("RssFile")
    results = program.call()
    after, code_after = _megabytes("VmHWM"), _megabytes("RssFile")
    del results
    return after - before - (code_after - code_before)


def _megabytes(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f"memory: expected {field} in /proc/self/status, got none.")
    return int(found[1]) / 1024
