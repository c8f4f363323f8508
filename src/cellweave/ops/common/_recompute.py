"""Whether backward computes gates again that forward would have to keep."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Asked(threading.local):
    again: bool = False


_asked = _Asked()


def gates_come_again() -> bool:
    """A call that starts here keeps no gates for backward, on backends that can compute them again."""
    return _asked.again


@contextmanager
def recompute_gates(enabled: bool = True) -> Iterator[None]:
    """Let layers that run inside the block keep less memory for backward, and compute their gates again there.

    Acts on the backend `triton`; the others keep what they always keep. In place of activated gates a layer keeps only
    what each step starts from, of an LSTM c in float32 and h: in half precision 6 bytes for each step, row and unit,
    not 14. Backward makes forward's products once more, as one for all steps, before its own time loop. Gradients
    differ by the rounding of those products. Only forward must run inside the block. Compiled code keeps gates always.

    Args:
        enabled: False: keep gates again, inside such a block.
    """
    outer, _asked.again = _asked.again, enabled
    try:
        yield
    finally:
        _asked.again = outer
