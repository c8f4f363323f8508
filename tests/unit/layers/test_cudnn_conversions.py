"""What a cuDNN layer's weights look like elsewhere: canonical lists, opaque kernel, TF1 tensors, torch modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from helpers.cudnn_cases import CLASSES, MODES
from helpers.tolerances import assert_same_bits

I, H = 3, 4
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
TORCH: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
stacks = pytest.mark.parametrize(
    "layers, direction", [(1, "unidirectional"), (3, "unidirectional"), (2, "bidirectional")]
)
modes = pytest.mark.parametrize("mode", MODES)


def _numbered(mode: str, layers: int = 1, direction: str = "unidirectional", **kwargs: Any) -> Any:
    """A layer whose canonical tensors hold 0, 1, 2, ... one after another."""
    layer = CLASSES[mode](layers, H, direction=direction, **kwargs)
    layer.build([None, None, I])
    count = layer.opaque_kernel().numel()
    layer.load_opaque_kernel(torch.arange(count, dtype=torch.float64) / 8)
    return layer


def _same(a: Any, b: Any) -> None:
    for (name, x), (other, y) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert name == other
        assert_same_bits(name, x, y)


# Opaque and canonical


@modes
@stacks
def test_the_opaque_kernel_is_all_matrices_then_all_biases(mode: str, layers: int, direction: str) -> None:
    layer = _numbered(mode, layers, direction)
    opaque, weights, biases = layer.opaque_kernel(), layer.canonical_weights(), layer.canonical_biases()
    assert_same_bits("order", opaque, torch.arange(opaque.numel(), dtype=torch.float32) / 8)
    flat = torch.cat([tensor.reshape(-1) for tensor in [*weights, *biases]])
    assert_same_bits("canonical", flat, opaque)
    g = GATES[mode]
    assert_same_bits("W", layer.weight_ih_l0, torch.cat(weights[:g]))
    assert_same_bits("R", layer.weight_hh_l0, torch.cat(weights[g : 2 * g]))
    assert_same_bits("bW", layer.bias_ih_l0, torch.cat(biases[:g]))
    assert_same_bits("bR", layer.bias_hh_l0, torch.cat(biases[g : 2 * g]))


@modes
@stacks
def test_round_trips_of_an_unbuilt_layer(mode: str, layers: int, direction: str) -> None:
    """Each layout alone tells the size of the inputs."""
    layer = _numbered(mode, layers, direction)
    loads = {
        "load_opaque_kernel": (layer.opaque_kernel().numpy(),),
        "load_canonical": ([w.numpy() for w in layer.canonical_weights()], layer.canonical_biases()),
        "load_torch": (layer.to_torch(),),
    }
    for name, arguments in loads.items():
        fresh = CLASSES[mode](layers, H, direction=direction)
        getattr(fresh, name)(*arguments)
        assert fresh.input_size == I
        _same(fresh, layer)


def test_copies() -> None:
    layer = _numbered("gru")
    before = layer.opaque_kernel()
    for tensor in [*layer.canonical_weights(), layer.opaque_kernel(), *layer.tf_canonical_tensors().values()]:
        assert not tensor.requires_grad
        tensor.fill_(-1.0)
    with torch.no_grad():
        layer.to_torch().weight_hh_l0.zero_()
    assert_same_bits("weights", layer.opaque_kernel(), before)


def test_what_does_not_fit_changes_nothing() -> None:
    layer = _numbered("lstm", 2)
    before, weights, biases = layer.opaque_kernel(), layer.canonical_weights(), layer.canonical_biases()
    with pytest.raises(ValueError, match=rf"load_opaque_kernel: expected \[{before.numel()}\], got \[7\]"):
        layer.load_opaque_kernel(torch.zeros(7))
    with pytest.raises(ValueError, match="load_canonical: expected 16 biases, got 15"):
        layer.load_canonical([torch.zeros_like(w) for w in weights], biases[1:])
    weights[9] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=rf"weights\[9\] \[{H}, {H}\], got \[2, 2\]"):
        layer.load_canonical(weights, biases)
    saved = {name: torch.zeros_like(value) for name, value in layer.tf_canonical_tensors().items()}
    last = list(saved)[-1]
    with pytest.raises(ValueError, match=rf"expected {last} \[{4 * H}\], got \[1\]"):
        layer.load_tf_canonical({**saved, last: torch.zeros(1)})
    assert_same_bits("weights", layer.opaque_kernel(), before)


def test_sizes_that_tell_no_depth() -> None:
    for value in (torch.zeros(7), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="load_opaque_kernel|expected a built layer"):
            cw.CudnnLSTM(1, H).load_opaque_kernel(value)
    with pytest.raises(ValueError, match="load_canonical: expected weights that tell the size"):
        cw.CudnnLSTM(1, H).load_canonical([], [])


# TF1 checkpoints


def test_lstm_tensors_block_by_block() -> None:
    layer = _numbered("lstm")
    w_i, w_f, w_c, w_o, r_i, r_f, r_c, r_o = layer.canonical_weights()
    b = layer.canonical_biases()
    path = "rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell/"
    saved = layer.tf_canonical_tensors()
    assert list(saved) == [path + "kernel", path + "bias"]
    columns = [torch.cat([w.t(), r.t()]) for w, r in ((w_i, r_i), (w_c, r_c), (w_f, r_f), (w_o, r_o))]
    assert_same_bits("kernel", saved[path + "kernel"], torch.cat(columns, dim=1))
    assert_same_bits("bias", saved[path + "bias"], torch.cat([b[0] + b[4], b[2] + b[6], b[1] + b[5], b[3] + b[7]]))


def test_gru_tensors_block_by_block() -> None:
    layer = _numbered("gru")
    w_r, w_u, w_c, r_r, r_u, r_c = layer.canonical_weights()
    b = layer.canonical_biases()
    path = "rnn/multi_rnn_cell/cell_0/cudnn_compatible_gru_cell/"
    wanted = {
        "gates/kernel": torch.cat([torch.cat([w_r.t(), r_r.t()]), torch.cat([w_u.t(), r_u.t()])], dim=1),
        "candidate/input_projection/kernel": w_c.t().contiguous(),
        "candidate/hidden_projection/kernel": r_c.t().contiguous(),
        "gates/bias": torch.cat([b[0] + b[3], b[1] + b[4]]),
        "candidate/input_projection/bias": b[2],
        "candidate/hidden_projection/bias": b[5],
    }
    saved = layer.tf_canonical_tensors()
    assert list(saved) == [path + suffix for suffix in wanted]
    for suffix, value in wanted.items():
        assert_same_bits(suffix, saved[path + suffix], value)


def test_bidirectional_names() -> None:
    names = list(_numbered("rnn_relu", 2, "bidirectional").tf_canonical_tensors())
    paths = [
        f"stack_bidirectional_rnn/cell_{layer}/bidirectional_rnn/{side}/basic_rnn_cell/"
        for layer in (0, 1)
        for side in ("fw", "bw")
    ]
    assert names == [path + suffix for suffix in ("kernel", "bias") for path in paths]


@modes
@stacks
def test_loading_splits_sums_into_halves(mode: str, layers: int, direction: str) -> None:
    layer = _numbered(mode, layers, direction)
    saved = layer.tf_canonical_tensors()
    fresh = CLASSES[mode](layers, H, direction=direction)
    fresh.load_tf_canonical({name: value.numpy() for name, value in saved.items()})
    for name, value in fresh.tf_canonical_tensors().items():
        assert_same_bits(name, value, saved[name])
    for got, wanted in zip(fresh.canonical_weights(), layer.canonical_weights(), strict=True):
        assert_same_bits("matrix", got, wanted)
    g = GATES[mode]
    before, after = layer.canonical_biases(), fresh.canonical_biases()
    for place in range(0, len(before), 2 * g):
        for gate in range(g):
            a, b = before[place + gate], before[place + g + gate]
            apart = mode == "gru" and gate == 2
            assert_same_bits("bW", after[place + gate], a if apart else (a + b) / 2)
            assert_same_bits("bR", after[place + g + gate], b if apart else (a + b) / 2)
    x = torch.randn(5, 2, I)
    torch.testing.assert_close(fresh(x)[0], layer(x)[0])


def test_arrays_that_cannot_be_written() -> None:
    layer = _numbered("gru")
    arrays = {name: value.numpy() for name, value in layer.tf_canonical_tensors().items()}
    for array in arrays.values():
        array.setflags(write=False)
    fresh = cw.CudnnGRU(1, H)
    fresh.load_tf_canonical(arrays)
    assert_same_bits("kernel", fresh.weight_ih_l0, layer.weight_ih_l0)


def test_names_start_at_the_scope_around_the_layer() -> None:
    with cw.VariableStore(), cw.variable_scope("enc"), cw.variable_scope("inner"):
        layer = cw.CudnnRNNTanh(1, H, name="mine")
        layer.build([None, None, I])
    assert layer.scope_name == "enc/inner/mine"
    cell = "rnn/multi_rnn_cell/cell_0/basic_rnn_cell"
    assert list(layer.tf_canonical_tensors()) == [f"enc/inner/{cell}/kernel", f"enc/inner/{cell}/bias"]
    assert list(layer.tf_canonical_tensors(scope="")) == [f"{cell}/kernel", f"{cell}/bias"]
    moved = layer.tf_canonical_tensors(scope="other/place")
    assert list(moved) == [f"other/place/{cell}/kernel", f"other/place/{cell}/bias"]
    fresh = cw.CudnnRNNTanh(1, H)
    fresh.load_tf_canonical(moved, scope="other/place")
    assert_same_bits("kernel", fresh.weight_ih_l0, layer.weight_ih_l0)


def test_names_that_are_missing_or_too_many() -> None:
    layer = _numbered("lstm")
    saved = layer.tf_canonical_tensors()
    kernel, bias = saved
    with pytest.raises(ValueError, match=rf"expected 2 tensors, got \['{bias}'\] missing"):
        layer.load_tf_canonical({kernel: saved[kernel]})
    with pytest.raises(ValueError, match=r"got \['opaque_kernel'\] not its own"):
        layer.load_tf_canonical({**saved, "opaque_kernel": layer.opaque_kernel()})


def test_the_saveable() -> None:
    layer = _numbered("gru", name="g")
    saveable = layer.saveable
    assert saveable.name == "g/opaque_kernel_saveable"
    saved = saveable.tensors()
    assert saveable.names == list(saved) == list(layer.tf_canonical_tensors())
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    saveable.restore(saved)
    assert_same_bits("restored", layer.tf_canonical_tensors()[saveable.names[0]], saved[saveable.names[0]])
    for create in (layer.create_saveable, layer._create_saveable):
        with pytest.raises(RuntimeError, match="create_saveable: expected a layer without a saveable"):
            create()
    with pytest.raises(cw.ScopeError, match="create_saveable: expected a built layer"):
        cw.CudnnGRU(1, H).create_saveable()


# torch


@modes
@stacks
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_modules_both_ways(mode: str, layers: int, direction: str, dtype: torch.dtype) -> None:
    module = TORCH[mode](I, H, layers, bidirectional=direction == "bidirectional", dtype=dtype)
    layer = CLASSES[mode].from_torch(module)
    assert (layer.num_layers, layer.direction, layer.dtype) == (layers, direction, str(dtype).removeprefix("torch."))
    _same(layer, module)
    back = layer.to_torch()
    assert type(back) is type(module) and (back.mode, back.bias, back.batch_first) == (module.mode, True, False)
    _same(back, module)
    x = torch.randn(6, 2, I, dtype=dtype)
    torch.testing.assert_close(layer(x)[0], module(x)[0])
    layer.load_state_dict(module.state_dict())
    module.load_state_dict(layer.state_dict())


def test_torch_settings_that_travel() -> None:
    module = nn.LSTM(I, H, 2, dropout=0.25).eval()
    layer = cw.CudnnLSTM.from_torch(module, name="mine", seed=3)
    assert (layer.get_config()["dropout"], layer.training, layer.name) == (0.25, False, "mine")
    back = layer.to_torch()
    assert (back.dropout, back.training) == (0.25, False)
    assert cw.CudnnLSTM.from_torch(nn.LSTM(I, H)).train().to_torch().training


def test_a_torch_module_without_biases() -> None:
    module = nn.GRU(I, H, bias=False, batch_first=True)
    layer = cw.CudnnGRU.from_torch(module)
    assert not any(bias.any() for bias in layer.canonical_biases())
    x = torch.randn(2, 6, I)
    torch.testing.assert_close(layer(x, time_major=False)[0], module(x)[0])


def test_skipped_inputs_are_an_identity_in_torch() -> None:
    layer = cw.CudnnLSTM(2, H, "skip_input")
    x = torch.randn(5, 2, H)
    out, _ = layer(x)
    module = layer.to_torch()
    assert torch.equal(module.weight_ih_l0, torch.eye(H).repeat(4, 1))
    torch.testing.assert_close(module(x)[0], out)


@pytest.mark.parametrize(
    "module, match",
    [
        (nn.GRU(I, H), "expected a torch.nn module of this kind, got one that computes gru"),
        (nn.RNN(I, H), "got one that computes rnn_tanh"),
        (nn.LSTM(I, H, proj_size=2), "without projection, got proj_size=2"),
        (nn.Linear(I, H), "expected a torch.nn.LSTM, GRU or RNN, got Linear"),
    ],
)
def test_torch_modules_that_are_refused(module: Any, match: str) -> None:
    with pytest.raises(cw.ArgumentError, match=match):
        cw.CudnnLSTM.from_torch(module)


def test_load_torch_checks_sizes() -> None:
    layer = _numbered("lstm")
    with pytest.raises(
        cw.ArgumentError, match=r"load_torch: expected a module of CudnnSpec\(.*layers=1.*got .*layers=2"
    ):
        layer.load_torch(nn.LSTM(I, H, 2))
    with pytest.raises(cw.ShapeError, match=r"weights\[0\]"):
        layer.load_torch(nn.LSTM(I + 1, H))


def test_conversions_keep_dtype() -> None:
    layer = _numbered("gru", dtype="float16")
    for value in [*layer.canonical_weights(), layer.opaque_kernel(), *layer.tf_canonical_tensors().values()]:
        assert value.dtype == torch.float16
    assert layer.to_torch().weight_ih_l0.dtype == torch.float16
    layer.load_opaque_kernel(np.ones(layer.opaque_kernel().shape))
    assert layer.weight_ih_l0.dtype == torch.float16
