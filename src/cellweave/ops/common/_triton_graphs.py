"""Steps of a time loop in a CUDA graph: some are captured once, and replayed until the sequence ends.

The kernels of a graph read the number of its first step from memory, so that one graph is good for all of them. It
holds the addresses of one call's tensors and ends with the call: what torch keeps for cuBLAS by stream may go with any
graph that was captured on the same stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch

from cellweave._env import step_graphs_are_wanted

#: Steps of a graph.
CHUNK = 32
#: Graphs that a sequence must fill, or to capture one does not pay.
_LEAST = 2


class _Streams(threading.local):
    """Where each thread captures, by device and the stream that its graphs are replayed on."""

    def __init__(self) -> None:
        self.by_stream: dict[tuple[int, int], Any] = {}


_streams = _Streams()


def steps_in_graphs(steps: int) -> bool:
    """They are put into graphs, on a device that has such, where they are launched one after the other."""
    return step_graphs_are_wanted() and steps > _LEAST * CHUNK


def clock_for(like: torch.Tensor, steps: int) -> torch.Tensor | None:
    """Where the kernels of a call's steps read what to count from, an int32; None where each is launched by itself.

    So it is for short sequences, and inside a graph that the caller captures.

    Args:
        like: On the call's device.
    """
    if not _can_capture(like) or not steps_in_graphs(steps):
        return None
    return torch.zeros((), dtype=torch.int32, device=like.device)


def run_in_graphs(one: Callable[[int], None], steps: int, clock: torch.Tensor, first: int, way: int) -> None:
    """Run so many steps.

    Args:
        one: Launches the step of that number, counted from the clock. first: The number of the first. way: 1, or -1
            where the next has a smaller number.
    """
    clock.fill_(first)
    one(0)  # loads and makes ready what a graph may hold but not ask for
    clock += way
    graphs, rest = divmod(steps - 1, CHUNK)

    def launch(count: int) -> None:
        for number in range(count):
            one(way * number)
        clock.add_(way * count)

    if graphs:
        graph = captured(lambda: launch(CHUNK), clock.device)
        for _ in range(graphs):
            graph.replay()
    launch(rest)


def captured(launch: Callable[[], None], device: torch.device) -> Any:
    """A CUDA graph of what is launched; nothing of it has run."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(_stream_of(device)):
        # what other threads do meanwhile is none of the graph's business
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            launch()
        except BaseException:
            with suppress(RuntimeError):  # the first error says more
                graph.capture_end()
            raise
        graph.capture_end()
    return graph


def _can_capture(like: torch.Tensor) -> bool:
    if not like.is_cuda:
        return False
    with torch.cuda.device(like.device):
        return not torch.cuda.is_current_stream_capturing()


def _stream_of(device: torch.device) -> Any:
    """A stream to capture on, of those with a high priority: the fewest callers capture theirs on one of them."""
    current = torch.cuda.current_stream(device)
    key = (current.device_index, current.cuda_stream)
    if key not in _streams.by_stream:
        _streams.by_stream[key] = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]
    return _streams.by_stream[key]
