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


def test_another_stream_captures_on_another(done: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of one stream follow each other; those of two may run at once, and what cuBLAS works in is a stream's."""
    graphs.captured(lambda: None, DEVICE)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(device_index=0, cuda_stream=8))
    graphs.captured(lambda: None, DEVICE)
    assert done[0] is not done[3]


def test_what_fails_inside_is_what_is_raised(done: list[Any]) -> None:
    def fail() -> None:
        done.append("failed")
        raise ValueError("no such kernel")

    with pytest.raises(ValueError, match="no such kernel"):
        graphs.captured(fail, DEVICE)
    assert done[-1] == "end"


@pytest.mark.parametrize("capturing", [False, True])
def test_inside_a_graph_of_the_callers_there_is_none(capturing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
    clock = graphs.clock_for(torch.zeros(65, 2, 3), 65)
    assert (clock is None) == capturing
    assert graphs.clock_for(torch.zeros(64, 2, 3), 64) is None


def test_steps_on_the_processor_have_no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", "1")
    assert graphs.clock_for(torch.zeros(1000, 2, 3), 1000) is None
