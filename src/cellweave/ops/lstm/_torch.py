"""The LSTM on torch's own fused layer."""

from __future__ import annotations

from typing import cast

import torch

from cellweave.ops.common import LayerCall, LayerResult, RunContext
from cellweave.ops.common._torch_backend import torch_backend
from cellweave.ops.common._torch_layer import State, torch_refuses, torch_sequence, weights_for
from cellweave.ops.lstm._reference import lstm_sequence
from cellweave.specs import LSTMSpec, RunSpec

#: The order of torch's gates.
_ORDER = "ifjo"


def _refuses(spec: RunSpec, context: RunContext) -> str | None:
    cell = cast(LSTMSpec, spec.cell)
    if (cell.activation, cell.recurrent_activation) != ("tanh", "sigmoid"):
        return "its layer has the activations tanh and sigmoid only"
    if cell.peepholes:
        return "its layer has no peepholes"
    if cell.coupled:
        return "its layer has gates i and f of their own"
    if cell.layer_norm:
        return "its layer does not normalize"
    if cell.cell_clip is not None:
        return "its layer does not clip the cell"
    if cell.projection is not None and cell.proj_clip is not None:
        return "its layer does not clip the projection"
    if cell.projection is not None and cell.projection >= cell.units:
        return "its layer projects to fewer than H values only"
    if cell.projection is not None and context.device_type == "cpu":
        return "its fused layer has no projection on the CPU"  # torch would warn of that and loop
    return torch_refuses(spec, context)


def _run(call: LayerCall) -> LayerResult:
    spec = cast(LSTMSpec, call.spec.cell)
    kernel, depth = call.weights["kernel"], call.x.shape[2]
    if spec.joined_kernel:
        from_x, from_h = kernel[:depth], kernel[depth:]
    else:
        from_x, from_h = _upright(kernel, spec), _upright(call.weights["recurrent_kernel"], spec)
    weights = [_ordered(part, spec).t().contiguous() for part in (from_x, from_h)]
    bias = _bias(call, spec)
    weights += [bias, torch.zeros_like(bias)]
    if spec.projection is not None:
        weights.append(_upright(call.weights["projection/kernel"], spec).t().contiguous())
    weights = weights_for(call.x.device, weights)
    train = torch.is_grad_enabled()

    def layer(x: torch.Tensor, sizes: torch.Tensor | None, state: State) -> tuple[torch.Tensor, State]:
        if sizes is None:
            out, h, c = torch.lstm(x, state, weights, True, 1, 0.0, train, False, False)
        else:
            out, h, c = torch.lstm(x, sizes, state, weights, True, 1, 0.0, train, False)
        return out, (h, c)

    return torch_sequence(layer, call)


def _upright(weight: torch.Tensor, spec: LSTMSpec) -> torch.Tensor:
    return weight.t() if spec.transposed else weight


def _ordered(weight: torch.Tensor, spec: LSTMSpec) -> torch.Tensor:
    if spec.gate_order == _ORDER:
        return weight
    parts = dict(zip(spec.gate_order, weight.chunk(4, dim=-1), strict=True))
    return torch.cat([parts[gate] for gate in _ORDER], dim=-1)


def _bias(call: LayerCall, spec: LSTMSpec) -> torch.Tensor:
    """The bias in torch's order with the forget bias added, which torch's layer has not."""
    bias = call.weights.get("bias")
    found = call.weights["kernel"].new_zeros(4 * spec.units) if bias is None else _ordered(bias, spec)
    if spec.forget_bias == 0.0:
        return found
    shift = torch.zeros_like(found)
    shift[spec.units : 2 * spec.units] = spec.forget_bias
    return found + shift


TORCH = torch_backend("lstm", _refuses, _run, lstm_sequence)
