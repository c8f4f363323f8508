"""Capturing steps into a CUDA graph, with torch's graphs replaced by one that writes down what is done to it."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cellweave.ops.common import _triton_graphs as graphs

DEVICE = torch.device("cuda", 0)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    class Graph:
        def capture_begin(self, capture_error_mode: str) -> None:
            found.append(capture_error_mode)

        def capture_end(self) -> None:
            found.append("end")
            if "failed" in found:
                raise RuntimeError("nothing can be captured any more")

    class Stream:
        def __init__(self, device: torch.device, priority: int) -> None:
            self.priority = priority

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(found.append(stream)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(device_index=0, cuda_stream=7))
    monkeypatch.setattr(graphs, "_streams", graphs._Streams())
    return found


def test_launches_are_captured_on_a_stream_that_stays(done: list[Any]) -> None:
    graph = graphs.captured(lambda: done.append("launched"), DEVICE)
    assert type(graph).__name__ == "Graph"
    graphs.captured(lambda: None, DEVICE)
    stream = done[0]
    assert done == [stream, "thread_local", "launched", "end", stream, "thread_local", "end"]
    assert stream.priority == -1


def test_what_fails_inside_is_what_is_raised(done: list[Any]) -> None:
    def fail() -> None:
        done.append("failed")
        raise ValueError("no such kernel")

    with pytest.raises(ValueError, match="no such kernel"):
        graphs.captured(fail, DEVICE)
    assert done[-1] == "end"


def test_steps_on_the_processor_have_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    assert graphs.clock_for(torch.zeros(1000, 2, 3), 1000) is None
