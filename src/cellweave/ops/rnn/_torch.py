"""The plain recurrent network on torch's own fused layer."""

from __future__ import annotations

from typing import cast

import torch

from cellweave.ops.common import LayerCall, LayerResult, RunContext
from cellweave.ops.common._torch_backend import torch_backend
from cellweave.ops.common._torch_layer import State, torch_refuses, torch_sequence, weights_for
from cellweave.ops.rnn._reference import rnn_sequence
from cellweave.specs import RNNSpec, RunSpec

_ACTIVATIONS = ("tanh", "relu")


def _refuses(spec: RunSpec, context: RunContext) -> str | None:
    if cast(RNNSpec, spec.cell).activation not in _ACTIVATIONS:
        return "its layer has the activations tanh and relu only"
    if cast(RNNSpec, spec.cell).layer_norm:
        return "its layer does not normalize"
    return torch_refuses(spec, context)


def _run(call: LayerCall) -> LayerResult:
    spec = cast(RNNSpec, call.spec.cell)
    kernel, depth = call.weights["kernel"], call.x.shape[2]
    recurrent = kernel[depth:] if spec.joined_kernel else call.weights["recurrent_kernel"]
    bias = call.weights.get("bias")
    bias = kernel.new_zeros(spec.units) if bias is None else bias
    kernels = [kernel, recurrent] if spec.transposed else [kernel[:depth].t(), recurrent.t()]
    weights = [*[part.contiguous() for part in kernels], bias, torch.zeros_like(bias)]
    weights = weights_for(call.x.device, weights)
    fused = torch.rnn_tanh if spec.activation == "tanh" else torch.rnn_relu
    train = torch.is_grad_enabled()

    def layer(x: torch.Tensor, sizes: torch.Tensor | None, state: State) -> tuple[torch.Tensor, State]:
        if sizes is None:
            out, h = fused(x, state[0], weights, True, 1, 0.0, train, False, False)
        else:
            out, h = fused(x, sizes, state[0], weights, True, 1, 0.0, train, False)
        return out, (h,)

    return torch_sequence(layer, call)


TORCH = torch_backend("rnn", _refuses, _run, rnn_sequence)
