"""Layers that are timed: torch.nn's, which are cuDNN's on a CUDA device, and ours, each forced to a backend."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from contestants.torch_programs import saved_bytes

import cellweave as cw
from gpu.plan import (
    BYTES,
    CUDNN,
    DROP,
    GRAPHED,
    OURS_ON_CUDNN,
    PEEPHOLES,
    PROJECTED,
    STEPS_BETWEEN_RESETS,
    WRAPPED,
    ZONEOUT,
    GpuCase,
    gates,
)

_THEIRS: dict[str, Any] = {
    "lstm": torch.nn.LSTM, "gru_before": torch.nn.GRU, "gru_after": torch.nn.GRU, "rnn": torch.nn.RNN,
}  # fmt: skip
_OURS: dict[str, Any] = {"lstm": cw.nn.LSTM, "gru_before": cw.nn.GRU, "gru_after": cw.nn.GRU, "rnn": cw.nn.RNN}
#: Calls take turns among so many sets of inputs where one set stays in the device's second cache.
_SETS, _CACHED = 3, 120e6
_CELL_CLIP = 3.0
_STEP_GRAPHS = "CELLWEAVE_STEP_GRAPHS"

Run = Callable[..., Any]  # inputs, and the first state or nothing, to outputs and last state


@dataclass(frozen=True)
class Layer:
    """A layer as its user has it: `run(x, hx)` gives outputs and last state; `weights` have gradients."""

    run: Run
    weights: list[torch.Tensor]


@dataclass(frozen=True)
class Work:
    """What is timed: `call(n)` works on the n-th set of inputs and gives outputs, or gradients in training."""

    call: Callable[[int], Any]
    kept: Callable[[], float]  # bytes for backward by step, row and unit


def dtype_of(case: GpuCase) -> torch.dtype:
    found: torch.dtype = torch.float32 if BYTES[case.dtype] == 4 else getattr(torch, case.dtype)
    return found


def set_precision(dtype: str) -> None:
    """How products of float32 are made, in recurrent layers and everywhere else."""
    torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = dtype == "tf32"  # the newer switches keep torch.compile from asking for this one


def layer(name: str, case: GpuCase, device: str, dtype: torch.dtype, backend: str | None = None) -> Layer:
    """A contestant, with the start values of seed 1: those with the same parameters have the same values.

    backend: In place of its own one.
    """
    torch.manual_seed(1)
    if name == CUDNN:
        theirs = _THEIRS[case.kind](case.H, case.H, device=device, dtype=dtype).train(case.training)
        return Layer(theirs, list(theirs.parameters()))
    forced = backend or ("torch" if name == OURS_ON_CUDNN else "triton")
    run, weights = _with_peepholes(case, device, dtype) if name == PEEPHOLES else _ours(name, case, device, dtype)

    def run_forced(x: torch.Tensor, hx: Any = None) -> Any:
        os.environ[_STEP_GRAPHS] = "1" if name == GRAPHED else "0"  # until the next call: its backward reads it too
        with cw.use_backend(forced):
            return run(x, hx)

    return Layer(run_forced, weights)


def _ours(name: str, case: GpuCase, device: str, dtype: torch.dtype) -> tuple[Run, list[torch.Tensor]]:
    options: dict[str, Any] = {"reset_after": False} if case.kind == "gru_before" else {}
    if name == PROJECTED:
        options["proj_size"] = case.H // 2
    extra: dict[str, Any] = {}
    if name == WRAPPED:
        options |= dict.fromkeys(("input_dropout", "state_dropout", "output_dropout"), DROP)
        options |= {"zoneout": ZONEOUT, "residual": True}
        extra["resets"] = (torch.rand(case.T, case.B) < 1 / STEPS_BETWEEN_RESETS).to(device)
        torch.manual_seed(1)
    module = _OURS[case.kind](case.H, case.H, device=device, dtype=dtype, **options).train(case.training)
    return lambda x, hx=None: module(x, hx, **extra), list(module.parameters())


def _with_peepholes(case: GpuCase, device: str, dtype: torch.dtype) -> tuple[Run, list[torch.Tensor]]:
    cell = cw.LSTMCell(case.H, use_peepholes=True, cell_clip=_CELL_CLIP, dtype=dtype)
    cell.build([None, case.H])
    cell.to(device)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.uniform_(-(case.H**-0.5), case.H**-0.5)

    def run(x: torch.Tensor, hx: Any = None) -> Any:
        state = None if hx is None else cw.LSTMStateTuple(c=hx[1][0], h=hx[0][0])
        outputs, last = cw.dynamic_rnn(cell, x, initial_state=state, dtype=dtype, time_major=True)
        return outputs, (last.h[None], last.c[None])

    return run, list(cell.parameters())


def random_inputs(case: GpuCase, device: str, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(case.T, case.B, case.H, generator=generator, device=device, dtype=torch.float32).to(dtype)


def number_of_sets(case: GpuCase) -> int:
    """More than one where inputs, products of inputs, outputs and weights would stay in a cache."""
    elements = case.T * case.B * case.H * (gates(case) + 2) + 2 * gates(case) * case.H * case.H
    return _SETS if elements * BYTES[case.dtype] < _CACHED else 1


def work_of(given: Layer, case: GpuCase, device: str) -> Work:
    """A layer's forward pass without gradients, or forward and backward to the gradients of inputs and all weights."""
    sets = [random_inputs(case, device, dtype_of(case), seed) for seed in range(number_of_sets(case))]
    if not case.training:

        def forward(number: int) -> Any:
            with torch.no_grad():
                return given.run(sets[number % len(sets)])[0]

        return Work(forward, lambda: 0.0)
    for x in sets:
        x.requires_grad_()
    upstream = torch.randn_like(given.run(sets[0])[0].detach())

    def both(number: int) -> Any:
        x = sets[number % len(sets)]
        return torch.autograd.grad(given.run(x)[0], [x, *given.weights], upstream)

    def kept() -> float:
        elements = case.T * case.B * case.H
        return saved_bytes(lambda x: given.run(x)[0], sets[0], given.weights, elements) / elements

    return Work(both, kept)


@contextlib.contextmanager
def fresh_memory_is_nan() -> Any:
    """While it lasts, memory that nobody wrote holds NaN."""
    settings: Any = torch.utils.deterministic
    before = (torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory)
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = before[1]
        torch.use_deterministic_algorithms(before[0])
