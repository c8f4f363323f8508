"""torch's own layers, and loops of its cells: plain, with masks and resets by hand, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import problem
import torch
from program import Program
from registry import HALF, KEEP, Case
from torch.nn import functional as F
from torch.nn.utils import rnn

from contestants.torch_programs import TorchLayer, step_program

#: cellweave's blocks of columns in torch's order: LSTM i j f o -> i f g o, GRU u r c -> r z n.
_ORDER = {"lstm": (0, 2, 1, 3), "gru_after": (1, 0, 2), "gru_before": (0, 1, 2), "rnn": (0,)}
_LAYERS = {"lstm": torch.nn.LSTM, "gru_after": torch.nn.GRU, "gru_before": torch.nn.GRU, "rnn": torch.nn.RNN}
_CELLS = {"lstm": torch.nn.LSTMCell, "gru_after": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}

State = tuple[torch.Tensor, ...]  # h, and c for an LSTM


def make(name: str, case: Case) -> Program:
    return _step(name, case) if case.variation == "step" else layer(name, case).program()


def layer(name: str, case: Case) -> TorchLayer:
    if name == "torch.nn":
        module = with_weights(_LAYERS[case.kind](case.I, case.H), case, suffix="_l0")
        run = _packed(module, case) if case.variation == "lengths" else lambda x: module(x)[0]
        if case.variation == HALF:
            module, run = in_half(module)
        return TorchLayer(case, list(module.parameters()), run, lambda grads: as_ours(case, grads))
    step, weights = _cell(case)
    loop = _loop(step, case)
    if name == "torch compiled":
        loop = torch.compile(loop)
    return TorchLayer(case, weights, loop, lambda grads: as_ours(case, grads))


def in_half(module: Any) -> tuple[Any, Callable[[torch.Tensor], torch.Tensor]]:
    """The module in bfloat16, and what runs it on inputs of that dtype, which are cast once; outputs stay in it."""
    module, cast = module.bfloat16(), {}

    def run(x: torch.Tensor) -> torch.Tensor:
        if id(x) not in cast:
            cast.clear()
            cast[id(x)] = x, x.detach().bfloat16()
        outputs: torch.Tensor = module(cast[id(x)][1])[0]
        return outputs

    return module, run


def _packed(module: Any, case: Case) -> Callable[[torch.Tensor], torch.Tensor]:
    """Packed, run, and padded again."""
    lengths = torch.from_numpy(problem.lengths(case))

    def run(x: torch.Tensor) -> torch.Tensor:
        packed = rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        outputs: torch.Tensor = rnn.pad_packed_sequence(module(packed)[0], total_length=case.T)[0]
        return outputs

    return run


def _torch_weights(case: Case) -> list[torch.Tensor]:
    """weight_ih, weight_hh, bias_ih, bias_hh in torch's layout."""
    kernel, recurrent, bias, recurrent_bias = problem.split(case, problem.weights(case))
    if case.kind == "lstm":
        bias = bias.copy()
        bias[2 * case.H : 3 * case.H] += problem.FORGET_BIAS
    order = _ORDER[case.kind]
    parts = [problem.reordered(part, order) for part in (kernel, recurrent, bias, recurrent_bias)]
    return [torch.from_numpy(np.ascontiguousarray(part.T)) for part in parts]


def as_ours(case: Case, gradients: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = [problem.restored(gradient.numpy().T, _ORDER[case.kind]) for gradient in gradients]
    return {name: torch.from_numpy(values) for name, values in problem.joined(case, *parts).items()}


def with_weights(module: Any, case: Case, suffix: str = "") -> Any:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    with torch.no_grad():
        for name, values in zip(names, _torch_weights(case), strict=True):
            getattr(module, name + suffix).copy_(values)
    return module


def _cell(case: Case) -> tuple[Callable[[torch.Tensor, State], State], list[torch.Tensor]]:
    """A step from inputs and state to the new state, and its four weights."""
    if case.kind == "gru_before":  # torch has no such cell
        w_x, w_h, b_x, _ = weights = [weight.requires_grad_() for weight in _torch_weights(case)]
        gates = 2 * case.H

        def step(x: torch.Tensor, state: State) -> State:
            (h,) = state
            from_x = F.linear(x, w_x, b_x)
            r, u = torch.sigmoid(from_x[:, :gates] + F.linear(h, w_h[:gates])).chunk(2, 1)
            c = torch.tanh(from_x[:, gates:] + F.linear(r * h, w_h[gates:]))
            return (u * h + (1 - u) * c,)

        return step, weights[:3]
    cell = with_weights(_CELLS[case.kind](case.I, case.H), case)
    if case.kind == "lstm":
        return cell, list(cell.parameters())
    return lambda x, state: (cell(x, state[0]),), list(cell.parameters())


def _loop(step: Callable[[torch.Tensor, State], State], case: Case) -> Callable[[torch.Tensor], torch.Tensor]:
    """Over time, from a zero state; masks act as DropoutWrapper's: on inputs, on h as it leaves a step, on outputs."""
    keep = (1 - torch.from_numpy(problem.resets(case)).float())[:, :, None] if case.variation == "resets" else None

    def drop(value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return value if mask is None else value * mask

    def mask(value: torch.Tensor) -> torch.Tensor:
        return (torch.rand(1, value.shape[-1]) < KEEP).float() / KEEP

    def run(x: torch.Tensor) -> torch.Tensor:
        state = tuple(x.new_zeros(case.B, case.H) for _ in range(2 if case.kind == "lstm" else 1))
        input_mask = state_mask = output_mask = None
        if case.variation == "variational":
            input_mask, state_mask, output_mask = mask(x), mask(state[0]), mask(state[0])
        per_step = case.variation == "per-step"
        outputs = []
        for now, kept in zip(x, [None] * case.T if keep is None else keep, strict=True):
            state = tuple(drop(part, kept) for part in state)
            h, *c = step(F.dropout(now, 1 - KEEP) if per_step else drop(now, input_mask), state)
            state = (F.dropout(h, 1 - KEEP) if per_step else drop(h, state_mask), *c)
            outputs.append(F.dropout(h, 1 - KEEP) if per_step else drop(h, output_mask))
        return torch.stack(outputs)

    return run


def _step(name: str, case: Case) -> Program:
    x = torch.from_numpy(problem.inputs(case))
    parts = problem.state(case)
    state = tuple(torch.from_numpy(parts[part]) for part in ("h", "c") if part in parts)
    if name == "torch.nn":
        module = with_weights(_LAYERS[case.kind](case.I, case.H), case, suffix="_l0")
        carried: Any = tuple(part[None] for part in state)
        carried = carried if case.kind == "lstm" else carried[0]
        return step_program(lambda: module(x, carried)[0])
    step, _ = _cell(case)
    return step_program(lambda: step(x[0], state)[0])
