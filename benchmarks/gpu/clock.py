"""The one place where the clock is chosen: events of the CUDA device, or this process's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Reading(NamedTuple):
    """One call.

    Attributes:
        ms: On the device, from the first of its work to the last; it begins with nothing to do.
        cpu_ms: Until the call returned, whatever the device was still doing.
    """

    ms: float
    cpu_ms: float


class Clock:
    """Times calls on one kind of device."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._on_cuda = device == "cuda"

    def synchronize(self) -> None:
        """Wait for the device.

        Raises:
            RuntimeError: something went wrong on it.
        """
        if self._on_cuda:
            torch.cuda.synchronize()

    def timed(self, call: Callable[[], Any]) -> Reading:
        if not self._on_cuda:
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            return Reading(seconds * 1e3, seconds * 1e3)
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start = time.perf_counter()
        first.record()
        call()
        last.record()
        cpu = time.perf_counter() - start
        last.synchronize()
        return Reading(first.elapsed_time(last), cpu * 1e3)

    def peak_bytes(self, call: Callable[[], Any]) -> int | None:
        """The most memory that a call needs beside what is there; None where torch does not count it."""
        if not self._on_cuda:
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated()) - before

    def kernels(self, call: Callable[[], Any]) -> list[tuple[str, int, float]]:
        """Names, numbers of launches and microseconds of what a call runs on the device, longest first."""
        if not self._on_cuda:
            return []
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            call()
            torch.cuda.synchronize()
        found = [
            (event.key[:120], int(event.count), float(event.self_device_time_total))
            for event in profile.key_averages()
            if event.self_device_time_total > 0
        ]
        return sorted(found, key=lambda event: -event[2])
