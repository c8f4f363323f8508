"""What a device can do, which every other number is read against: M1 to M8.

M1 copying memory; M2 a large product; M3 and M4 how fast programs meet, by a counter and by the data itself; M5 reading
what all programs read; M6 the gap between two nodes of a CUDA graph; M7 a cooperative launch; M8 clusters at once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from program import NotTaken

from cellweave.ops.common._triton_backend import chip, missing_reason
from cellweave.ops.common._triton_launch import OPTIONS, Launch
from gpu.clock import Clock
from gpu.clusters import active_clusters
from gpu.timing import attempt

_REPEATS = 5
_ROUNDS = (200, 2200)  # of two calls, whose difference is free of what a launch costs
_PROGRAMS = (32, 64, 128)
_FLAG_WIDTH = 8  # numbers that a program hands on: its units of one row
_OPERANDS_KIB = (16, 64, 128)
_COPIES = 8
_BLOCK = 4096
_NODES = (100, 1100)
_LAUNCHES = 200
_INTERPRETED_SPINS = 20_000
_CLUSTERS = (8, 16)

Found = dict[str, Any]


def calibrate(what: str, clock: Clock, scale: int = 1) -> Found:
    """One measurement: a value or several, and the unit.

    Raises:
        NotTaken: it needs what is not there; the text says what.
    """
    if what in ("M1", "M2"):
        return _BY_NAME[what](clock, scale)
    if clock.device != "cuda":
        raise NotTaken("needs a CUDA device")
    if what != "M8" and missing_reason() is not None:
        raise NotTaken(str(missing_reason()))
    return _BY_NAME[what](clock, scale)


def _median(clock: Clock, call: Callable[[], Any]) -> float:
    """Milliseconds, after a call that is not counted."""
    call()
    return statistics.median(clock.timed(call).ms for _ in range(_REPEATS))


def _copy(clock: Clock, scale: int) -> Found:
    """Bytes read and written, over time."""
    source = torch.randint(256, ((1 << 30) // scale**2,), dtype=torch.uint8, device=clock.device)
    target = torch.empty_like(source)
    ms = _median(clock, lambda: target.copy_(source))
    return {"value": 2 * source.numel() / ms / 1e9, "unit": "TB/s"}


def _product(clock: Clock, scale: int) -> Found:
    side = 8192 // scale
    a, b = (torch.randn(side, side, device=clock.device).to(torch.bfloat16) for _ in range(2))
    out = torch.empty_like(a)
    ms = _median(clock, lambda: torch.mm(a, b, out=out))
    return {"value": 2 * side**3 / ms / 1e9, "unit": "TFLOP/s"}


def barrier_launch(rounds: int, programs: int, device: str) -> Launch:
    """Programs that meet at a counter."""
    return _launch("barrier_rounds", programs, device, ROUNDS=rounds, PROGRAMS=programs)


def flag_launch(rounds: int, programs: int, device: str) -> Launch:
    """Programs that wait for the data itself."""
    width = programs * _FLAG_WIDTH
    slots = torch.full((rounds + 1, width), float("nan"), device=device)
    covering = 1 << (width - 1).bit_length()
    return _launch(
        "flag_rounds", programs, device, slots=slots, ROUNDS=rounds, PROGRAMS=programs, ALL=covering, WIDTH=_FLAG_WIDTH
    )


def read_launch(rounds: int, programs: int, kib: int, device: str) -> Launch:
    """Programs that all read one operand of so many KiB."""
    size = kib * 1024 // 4
    operand = torch.randn(_COPIES, size, device=device)
    sums = torch.empty(programs, device=device)
    return _launch(
        "shared_reads", programs, device, operand=operand, sums=sums, ROUNDS=rounds, SIZE=size,
        BLOCK=min(_BLOCK, size), COPIES=_COPIES,
    )  # fmt: skip


def _launch(kernel: str, programs: int, device: str, **arguments: Any) -> Launch:
    counters = torch.zeros((1, 2), dtype=torch.int32, device=device)
    spins = 0 if device == "cuda" else _INTERPRETED_SPINS
    return Launch("gpu.kernels", kernel, programs, {**arguments, "counters": counters, "SPINS": spins})


def _per_round(clock: Clock, make: Callable[[int], Launch]) -> float:
    """Microseconds of a round; every call starts from a launch of its own, whose flags are fresh."""
    few, many = (_of_fresh(clock, lambda rounds=rounds: make(rounds)) for rounds in _ROUNDS)  # type: ignore[misc]
    return (many - few) / (_ROUNDS[1] - _ROUNDS[0]) * 1e3


def _of_fresh(clock: Clock, make: Callable[[], Launch]) -> float:
    make().run()
    return statistics.median(clock.timed(make().run).ms for _ in range(_REPEATS))


def _meetings(clock: Clock, make: Callable[[int, int, str], Launch]) -> Found:
    most = chip().processors
    found = {
        str(programs): _per_round(clock, lambda rounds, programs=programs: make(rounds, programs, clock.device))  # type: ignore[misc]
        for programs in _PROGRAMS
        if programs <= most
    }
    return {"values": found, "by": "programs", "unit": "us"}


def _barriers(clock: Clock, scale: int) -> Found:
    return _meetings(clock, barrier_launch)


def _flags(clock: Clock, scale: int) -> Found:
    return _meetings(clock, flag_launch)


def _reads(clock: Clock, scale: int) -> Found:
    programs = chip().processors
    found = {
        str(kib): _per_round(clock, lambda rounds, kib=kib: read_launch(rounds, programs, kib, clock.device))  # type: ignore[misc]
        for kib in _OPERANDS_KIB
    }
    return {"values": found, "by": "KiB", "unit": "us"}


def _graph_gap(clock: Clock, scale: int) -> Found:
    """Microseconds from one node to the next, of kernels that do next to nothing."""
    found: dict[str, Any] = {}
    for name, early in (("plain", False), ("programmatic launch", True)):

        def replays(early: bool = early) -> list[float]:
            return [_median(clock, _graph_of(nodes, early, clock.device).replay) for nodes in _NODES]

        times, error = attempt(replays)  # an older Triton has no programmatic launch
        gap = None if error is not None else (times[1] - times[0]) / (_NODES[1] - _NODES[0]) * 1e3
        found[name] = f"not measured: {error}" if gap is None else gap
    return {"values": found, "by": "launch", "unit": "us"}


def _graph_of(nodes: int, early: bool, device: str) -> torch.cuda.CUDAGraph:
    from gpu.kernels import bump

    x, options = torch.zeros(1, device=device), {"launch_pdl": True} if early else {}
    bump[(1,)](x, EARLY=early, num_warps=1, **options)  # compiled ahead of the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(nodes):
            bump[(1,)](x, EARLY=early, num_warps=1, **options)
    return graph


def _cooperative(clock: Clock, scale: int) -> Found:
    """Microseconds of a launch in a row of many, on the device and on the processor, with one program on each SM."""
    from gpu.kernels import nothing

    x, grid = torch.zeros(1, device=clock.device), (chip().processors,)
    found = {}
    for name, options in (("plain", {}), ("cooperative", {"launch_cooperative_grid": True})):

        def launches(options: dict[str, Any] = options) -> None:
            for _ in range(_LAUNCHES):
                nothing[grid](x, num_warps=OPTIONS["num_warps"], **options)

        launches()
        readings = [clock.timed(launches) for _ in range(_REPEATS)]
        found[name] = statistics.median(reading.ms for reading in readings) / _LAUNCHES * 1e3
        found[f"{name}, processor"] = statistics.median(reading.cpu_ms for reading in readings) / _LAUNCHES * 1e3
    return {"values": found, "by": "launch", "unit": "us"}


def _clusters(clock: Clock, scale: int) -> Found:
    torch.zeros(1, device=clock.device)  # makes the device's context the current one
    found, refused = {}, None
    for size in _CLUSTERS:
        try:
            found[str(size)] = active_clusters(size)
        except NotTaken as error:  # more than 8 are not portable
            refused = error
    if refused is not None and not found:
        raise refused
    return {"values": found, "by": "blocks", "unit": "clusters"}


_BY_NAME: dict[str, Callable[[Clock, int], Found]] = {
    "M1": _copy, "M2": _product, "M3": _barriers, "M4": _flags, "M5": _reads, "M6": _graph_gap, "M7": _cooperative,
    "M8": _clusters,
}  # fmt: skip
