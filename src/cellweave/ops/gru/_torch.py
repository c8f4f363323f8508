"""The gated recurrent unit on torch's own fused layer."""

from __future__ import annotations

from typing import cast

import torch

from cellweave.ops.common import LayerCall, LayerResult, RunContext
from cellweave.ops.common._torch_backend import torch_backend
from cellweave.ops.common._torch_layer import State, torch_refuses, torch_sequence, weights_for
from cellweave.ops.gru._reference import gru_sequence
from cellweave.specs import GRUSpec, RunSpec

#: The order of torch's gates.
_ORDER = "ruc"


def _refuses(spec: RunSpec, context: RunContext) -> str | None:
    cell = cast(GRUSpec, spec.cell)
    if not cell.reset_after:
        return "candidate resets before the product"
    if cell.joined_kernel:
        return "a reset after the product needs a recurrent kernel of its own"
    if (cell.activation, cell.recurrent_activation) != ("tanh", "sigmoid"):
        return "its layer has the activations tanh and sigmoid only"
    if cell.layer_norm:
        return "its layer does not normalize"
    return torch_refuses(spec, context)


def _run(call: LayerCall) -> LayerResult:
    spec = cast(GRUSpec, call.spec.cell)

    def ordered(weight: torch.Tensor) -> torch.Tensor:
        if spec.gate_order == _ORDER:
            return weight
        parts = dict(zip(spec.gate_order, weight.chunk(3, dim=-1), strict=True))
        return torch.cat([parts[gate] for gate in _ORDER], dim=-1)

    def by_unit(weight: torch.Tensor) -> torch.Tensor:
        return ordered(weight.t() if spec.transposed else weight).t().contiguous()

    kernels = [by_unit(call.weights[name]) for name in ("kernel", "recurrent_kernel")]
    bias = call.weights.get("bias")
    bias = kernels[0].new_zeros(2, 3 * spec.units) if bias is None else bias  # cuDNN's memory has room for them anyway
    weights = weights_for(call.x.device, kernels + [ordered(row) for row in bias.unbind(0)])
    train = torch.is_grad_enabled()

    def layer(x: torch.Tensor, sizes: torch.Tensor | None, state: State) -> tuple[torch.Tensor, State]:
        if sizes is None:
            out, h = torch.gru(x, state[0], weights, True, 1, 0.0, train, False, False)
        else:
            out, h = torch.gru(x, sizes, state[0], weights, True, 1, 0.0, train, False)
        return out, (h,)

    return torch_sequence(layer, call)


TORCH = torch_backend("gru", _refuses, _run, gru_sequence)
