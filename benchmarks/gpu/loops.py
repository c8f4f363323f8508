"""What plain PyTorch offers where no layer has a recurrence: a loop of cells, and a compiled cell in a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from program import NotTaken
from torch.nn import functional as F

from gpu.layers import Layer, Work, dtype_of, random_inputs, work_of
from gpu.plan import LOOP_STEPS, GpuCase, gates

_CELLS: dict[str, Any] = {"lstm": torch.nn.LSTMCell, "gru_after": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}
State = tuple[torch.Tensor, ...]
_WARMUPS = 3  # before a capture, on a stream of their own, as torch asks for


def eager_steps(case: GpuCase) -> int:
    """A loop's steps: its time grows with them, so few tell."""
    return min(LOOP_STEPS, case.T)


def eager_loop(case: GpuCase, device: str) -> Work:
    """Torch's own cell at every step, as a user writes it; it runs `eager_steps` steps only."""
    dtype, short = dtype_of(case), case.of_steps(eager_steps(case))
    torch.manual_seed(1)
    if case.kind == "gru_before":  # torch has no such cell
        products, step, weights = _parts(case, device, dtype)

        def run_ours(x: torch.Tensor, hx: Any = None) -> Any:
            h, outputs = _first(x, 1), []
            for now in x:
                h = step(products(now), *h)
                outputs.append(h[0])
            return torch.stack(outputs), h

        return work_of(Layer(run_ours, weights), short, device)
    cell = _CELLS[case.kind](case.H, case.H, device=device, dtype=dtype)

    def run(x: torch.Tensor, hx: Any = None) -> Any:
        state: Any = _first(x, 2) if case.kind == "lstm" else _first(x, 1)[0]
        outputs = []
        for now in x:
            state = cell(now, state)
            outputs.append(state[0] if case.kind == "lstm" else state)
        return torch.stack(outputs), state

    return work_of(Layer(run, list(cell.parameters())), short, device)


def compiled_loop(case: GpuCase, device: str) -> Work:
    """One product for all inputs, then a compiled step T times; forward and backward replayed as one CUDA graph."""
    if device != "cuda":
        raise NotTaken("CUDA graphs need a CUDA device")
    torch.manual_seed(1)
    products, step, weights = _parts(case, device, dtype_of(case))
    torch.compiler.reset()  # it counts what it compiles of a function, and gives up after some sizes
    compiled = torch.compile(step, fullgraph=True)

    def run(x: torch.Tensor) -> torch.Tensor:
        state, outputs = _first(x, 2 if case.kind == "lstm" else 1), []
        for now in products(x):
            state = compiled(now, *state)
            outputs.append(state[0])
        return torch.stack(outputs)

    return _captured(run, weights, case, device)


def _first(x: torch.Tensor, count: int) -> State:
    return tuple(x.new_zeros(x.shape[1] if x.dim() == 3 else x.shape[0], x.shape[-1]) for _ in range(count))


def _parts(
    case: GpuCase, device: str, dtype: torch.dtype
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[..., State], list[torch.Tensor]]:
    """Products of inputs, a step from those and the state to the new state, and all weights."""
    H, width = case.H, gates(case) * case.H
    bound = H**-0.5
    w, r, b, b_r = weights = [
        torch.empty(shape, device=device, dtype=dtype).uniform_(-bound, bound).requires_grad_()
        for shape in ((width, H), (width, H), (width,), (width,))
    ]

    def lstm(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> State:
        i, f, g, o = (x + F.linear(h, r)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def gru_before(x: torch.Tensor, h: torch.Tensor) -> State:
        ru = torch.sigmoid(x[..., : 2 * H] + F.linear(h, r[: 2 * H]))
        reset, update = ru.chunk(2, -1)
        n = torch.tanh(x[..., 2 * H :] + F.linear(reset * h, r[2 * H :]))
        return (update * h + (1 - update) * n,)

    def gru_after(x: torch.Tensor, h: torch.Tensor) -> State:
        from_h = F.linear(h, r, b_r)
        reset, update = torch.sigmoid(x[..., : 2 * H] + from_h[..., : 2 * H]).chunk(2, -1)
        n = torch.tanh(x[..., 2 * H :] + reset * from_h[..., 2 * H :])
        return (update * h + (1 - update) * n,)

    def rnn(x: torch.Tensor, h: torch.Tensor) -> State:
        return (torch.tanh(x + F.linear(h, r)),)

    step = {"lstm": lstm, "gru_before": gru_before, "gru_after": gru_after, "rnn": rnn}[case.kind]
    used = weights if case.kind == "gru_after" else weights[:3]
    return lambda x: F.linear(x, w, b), step, used


def _captured(
    run: Callable[[torch.Tensor], torch.Tensor], weights: list[torch.Tensor], case: GpuCase, device: str
) -> Work:
    x = random_inputs(case, device, dtype_of(case), 0).requires_grad_(case.training)
    upstream = torch.randn_like(x) if case.training else None

    def call() -> Any:
        if upstream is not None:
            return torch.autograd.grad(run(x), [x, *weights], upstream)
        with torch.no_grad():
            return run(x)

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARMUPS):
            call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = call()

    def replay(number: int) -> Any:
        graph.replay()
        return results

    return Work(replay, lambda: 0.0)
