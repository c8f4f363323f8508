"""cuDNN layers and torch's recurrent modules: the same matrices and biases, gate by gate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cellweave._errors import ArgumentError
from cellweave.layers._cudnn_layout import Canonical
from cellweave.specs import CudnnSpec

_MODES: dict[str, Any] = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}


def parameter_names(spec: CudnnSpec, place: int) -> tuple[str, str, str, str]:
    """Names of a place's W, R and two biases; cellweave's layers have torch's."""
    layer, direction = divmod(place, spec.directions)
    ending = f"l{layer}_reverse" if direction else f"l{layer}"
    return f"weight_ih_{ending}", f"weight_hh_{ending}", f"bias_ih_{ending}", f"bias_hh_{ending}"


def settings_of(module: Any, where: str) -> dict[str, Any]:
    """A torch module's `spec`, `dropout`, `dtype` and `device`.

    Raises:
        ArgumentError: no recurrent module, or one with a projection.
    """
    if not isinstance(module, nn.RNNBase) or module.mode not in _MODES:
        raise ArgumentError(f"{where}: expected a torch.nn.LSTM, GRU or RNN, got {type(module).__name__}.")
    if module.proj_size:
        raise ArgumentError(f"{where}: expected a module without projection, got proj_size={module.proj_size}.")
    spec = CudnnSpec(_MODES[module.mode], module.num_layers, module.hidden_size, 1 + bool(module.bidirectional))
    weight = module.weight_hh_l0
    return {"spec": spec, "dropout": module.dropout, "dtype": weight.dtype, "device": weight.device}


def weights_of_module(module: nn.RNNBase, spec: CudnnSpec) -> Canonical:
    """A module's canonical lists."""
    weights: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    count = len(spec.gates)
    for place in range(spec.places):
        w, r, *both = parameter_names(spec, place)
        for name in (w, r):
            weights += getattr(module, name).detach().chunk(count)
        for name in both:
            zeros = torch.zeros(count * spec.units)
            biases += (getattr(module, name).detach() if module.bias else zeros).chunk(count)
    return weights, biases


def module_like(spec: CudnnSpec, depth: int, dropout: float, canonical: Canonical) -> nn.RNNBase:
    """A torch module with these canonical weights, of their dtype and on their device."""
    like = canonical[0][0]
    options: dict[str, Any] = {
        "num_layers": spec.layers,
        "dropout": dropout if spec.layers > 1 else 0.0,  # of one layer torch would warn
        "bidirectional": spec.directions == 2,
        "dtype": like.dtype,
        "device": like.device,
    }
    module: nn.RNNBase
    if spec.mode == "lstm":
        module = nn.LSTM(depth, spec.units, **options)
    elif spec.mode == "gru":
        module = nn.GRU(depth, spec.units, **options)
    else:
        module = nn.RNN(depth, spec.units, nonlinearity=spec.mode.removeprefix("rnn_"), **options)
    count = len(spec.gates)
    with torch.no_grad():
        for place in range(spec.places):
            for number, name in enumerate(parameter_names(spec, place)):
                first = (2 * place + number % 2) * count
                getattr(module, name).copy_(torch.cat(canonical[number // 2][first : first + count]))
    return module
