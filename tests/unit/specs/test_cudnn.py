"""The layout of cuDNN layers, as data."""

from __future__ import annotations

import math
from typing import get_args

import pytest

from cellweave.specs import CudnnMode, CudnnSpec, GRUSpec, LSTMSpec, RNNSpec

MODES = get_args(CudnnMode)
D, N = 3, 4


@pytest.mark.parametrize(
    "mode, cell",
    [
        ("lstm", LSTMSpec(N, gate_order="ifjo", joined_kernel=False)),
        ("gru", GRUSpec(N, reset_after=True, gate_order="ruc", joined_kernel=False)),
        ("rnn_tanh", RNNSpec(N, "tanh", joined_kernel=False)),
        ("rnn_relu", RNNSpec(N, "relu", joined_kernel=False)),
    ],
)
def test_the_recurrence_of_each_mode(mode: CudnnMode, cell: object) -> None:
    assert CudnnSpec(mode, 2, N).cell == cell


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers, directions", [(1, 1), (3, 1), (2, 2)])
def test_checkpoint_tensors_take_every_part_once(mode: CudnnMode, layers: int, directions: int) -> None:
    spec = CudnnSpec(mode, layers, N, directions)
    tensors = spec.checkpoint_tensors(D)
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    for is_bias in (False, True):
        parts = [
            spec.index(tensor.place, side, gate)
            for tensor in tensors
            if tensor.is_bias is is_bias
            for gate in tensor.gates
            for side in tensor.sides
        ]
        assert sorted(parts) == list(range(len(spec.bias_shapes())))
    kernels = sum(math.prod(tensor.shape) for tensor in tensors if not tensor.is_bias)
    assert kernels == sum(math.prod(shape) for shape in spec.weight_shapes(D))
    assert [tensor.is_bias for tensor in tensors] == sorted(tensor.is_bias for tensor in tensors)
    assert spec.depth_of_checkpoint(tensors[0].shape) == D


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layers, directions", [(1, 1), (3, 1), (2, 2)])
def test_the_size_of_the_opaque_kernel_tells_the_depth(mode: CudnnMode, layers: int, directions: int) -> None:
    spec = CudnnSpec(mode, layers, N, directions)
    for depth in (1, 2, 17):
        assert spec.depth_of_opaque(spec.opaque_size(depth)) == depth
    assert spec.depth_of_opaque(spec.opaque_size(1) + 1) is None
    assert spec.depth_of_opaque(spec.opaque_size(0)) is None
    assert spec.depth_of_opaque(0) is None


def test_canonical_order() -> None:
    spec = CudnnSpec("lstm", 2, N, 2)
    found = [spec.index(place, side, gate) for place in range(4) for side in "WR" for gate in "ifjo"]
    assert found == list(range(32))
    assert [spec.width(place, D) for place in range(4)] == [D, D, 2 * N, 2 * N]


def test_joined_weights_of_a_reset_after_the_product() -> None:
    weights = GRUSpec(N, reset_after=True).weights(D)
    assert [(weight.name, weight.shape, weight.fill) for weight in weights] == [
        ("gates/kernel", (D + N, 2 * N), None),
        ("gates/bias", (2 * N,), 1.0),
        ("candidate/input_projection/kernel", (D, N), None),
        ("candidate/hidden_projection/kernel", (N, N), None),
        ("candidate/input_projection/bias", (N,), 0.0),
        ("candidate/hidden_projection/bias", (N,), 0.0),
    ]
