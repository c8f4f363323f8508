"""Every activation of the native core against the NumPy oracle, and far from zero."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cellweave.ops.common import LayerCall
from cellweave.ops.common._library import ACTIVATION_CODES
from cellweave.specs import GRUSpec, LSTMSpec, RNNSpec, RunSpec
from helpers.layer_cases import LayerCase, LayerVariant, backend_of, needs_backend
from helpers.layer_checks import check_layer
from helpers.tolerances import assert_close
from oracles import keras, tf1

pytestmark = pytest.mark.usefixtures("nan_poison")
KINKED = {"relu", "relu6", "hard_sigmoid", "leaky_relu"}
GATES = ("sigmoid", "hard_sigmoid", "softsign", "tanh", "linear")


def _lstm(gate: str) -> LayerVariant:
    return LayerVariant(
        f"lstm-{gate}",
        lambda n: LSTMSpec(n, recurrent_activation=gate, gate_order="ifjo", joined_kernel=False),
        lambda d, n: keras.LSTMCell(d, n, "tanh", gate),
    )


def _gru(gate: str, after: bool) -> LayerVariant:
    return LayerVariant(
        f"gru-{gate}-{'after' if after else 'before'}",
        lambda n: GRUSpec(n, "tanh", gate, after, "urc", joined_kernel=False),
        lambda d, n: keras.GRUCell(d, n, "tanh", gate, after),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ACTIVATION_CODES)
def test_of_states(name: str, dtype: str) -> None:
    variant = LayerVariant(name, lambda n: RNNSpec(n, name), lambda d, n: tf1.BasicRNNCell(d, n, name))
    case = LayerCase(variant, 3, 3, 9, dtype=dtype)
    needs_backend("native", case)
    check_layer(case, "native")


@pytest.mark.parametrize("name", [name for name in ACTIVATION_CODES if name not in KINKED])
def test_of_cells(name: str) -> None:
    """The LSTM needs the slope at c' too, which it finds from the activated value."""
    variant = LayerVariant(
        name, lambda n: LSTMSpec(n, name), lambda d, n: tf1.LSTMCell(d, n, forget_bias=0, activation=name)
    )
    case = LayerCase(variant, 3, 3, 9)
    needs_backend("native", case)
    check_layer(case, "native")


@pytest.mark.parametrize(
    "variant", [make for g in GATES for make in (_lstm(g), _gru(g, True), _gru(g, False))], ids=lambda v: v.name
)
def test_of_gates(variant: LayerVariant) -> None:
    case = LayerCase(variant, 3, 3, 9)
    needs_backend("native", case)
    check_layer(case, "native")


@pytest.mark.parametrize("scale", [30.0, 1e4, 1e30])
@pytest.mark.parametrize("name", ["tanh", "sigmoid", "softsign", "elu", "selu", "softplus", "hard_sigmoid", "relu6"])
def test_far_from_zero(name: str, scale: float) -> None:
    """Saturated units give what the reference gives, and gradients without NaN."""
    x = (torch.linspace(-1, 1, 64) * scale).reshape(2, 1, 32).requires_grad_()
    weights = {"kernel": torch.cat([torch.eye(32), torch.zeros(32, 32)]), "bias": torch.zeros(32)}
    call = LayerCall(RunSpec(RNNSpec(32, name)), x, (torch.zeros(1, 32),), weights)
    results: dict[str, Any] = {}
    for backend in ("reference", "native"):
        needs_backend("native", LayerCase(LayerVariant(name, lambda n: RNNSpec(n, name), tf1.BasicRNNCell), 2, 1, 32))
        out, _, _ = backend_of(call.spec, backend).run(dataclasses.replace(call))
        results[backend] = (out, *torch.autograd.grad(out.sum(), x))
    for what, got, expected in zip(("value", "slope"), results["native"], results["reference"], strict=True):
        assert torch.isfinite(expected).all()
        assert_close(what, got, expected, 1e-6)
