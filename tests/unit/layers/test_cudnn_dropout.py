"""Dropout between the cuDNN layers: where it acts, when, how often, and that its streams are kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from helpers.cudnn_cases import CLASSES, MODES
from helpers.woven import assert_same_run, both_ways

T, B, I, H = 40, 16, 4, 8


def _layer(mode: str = "rnn_tanh", layers: int = 2, dropout: float = 0.3, **kwargs: Any) -> Any:
    layer = CLASSES[mode](layers, H, dropout=dropout, **kwargs)
    layer.build([None, None, I])
    return layer


def _seeing(dropout: float, directions: int = 1, seed: int = 5) -> Any:
    """Two layers of which the lower one gives ones and the upper one hands its inputs on, as often as they come."""
    direction = ("unidirectional", "bidirectional")[directions - 1]
    units = H * directions
    layer = cw.CudnnRNNRelu(2, units, direction=direction, dropout=dropout, seed=seed, kernel_initializer="zeros")
    layer.build([None, None, I])
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if name.startswith("bias_ih_l0"):
                weight.fill_(1.0)
            if name.startswith("weight_ih_l1"):
                weight[:, :units] = torch.eye(units)
                if directions == 2 and name.endswith("reverse"):
                    weight.zero_()
                    weight[:, units:] = torch.eye(units)
    return layer


@both_ways
@pytest.mark.parametrize("directions", [1, 2])
def test_rate_and_scale(directions: int, backend: str | None) -> None:
    layer = _seeing(0.3, directions)
    with cw.use_backend(backend):
        out, _ = layer(torch.zeros(T, B, I))
    values = out.unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.7]))
    assert abs((out == 0).float().mean().item() - 0.3) < 0.02
    assert not torch.equal(out[0], out[1]), "every step draws"
    if directions == 2:
        half = out.shape[2] // 2
        assert not torch.equal(out[..., :half], out[..., half:]), "each direction's outputs have masks of their own"


def test_layers_draw_different_masks() -> None:
    layer = _layer(layers=3, seed=1)
    seeds = {module.get_config()["seed"] for module in layer.directions if isinstance(module, cw.DropoutWrapper)}
    assert len(seeds) == 2


@both_ways
@pytest.mark.parametrize("mode", MODES)
def test_not_on_first_inputs_nor_last_outputs_nor_states(mode: str, backend: str | None) -> None:
    dropping, plain = _layer(mode, seed=3), _layer(mode, dropout=0.0)
    plain.load_opaque_kernel(dropping.opaque_kernel())
    x = torch.randn(T, B, I)
    with cw.use_backend(backend):
        out, last = dropping(x)
        out_plain, last_plain = plain(x)
        single = _layer(mode, 1, 0.9)
        assert torch.equal(single(x)[0], single(x, training=False)[0]), "one layer drops nothing"
    torch.testing.assert_close(last[0][0], last_plain[0][0])
    assert not torch.allclose(last[0][1], last_plain[0][1])
    assert torch.equal(out[-1], last[0][1]), "the last layer's outputs are not dropped"
    assert not torch.allclose(out, out_plain)


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_only_in_training(mode: str) -> None:
    layer, x = _layer(mode, seed=3), torch.randn(T, B, I)
    plain = _layer(mode, dropout=0.0)
    plain.load_opaque_kernel(layer.opaque_kernel())
    wanted, _ = plain(x)
    assert torch.equal(layer(x, training=False)[0], wanted)
    assert not torch.equal(layer(x, training=True)[0], wanted)
    layer.eval()
    assert torch.equal(layer(x)[0], wanted)
    layer(x)[0].sum().backward()
    assert layer.weight_ih_l0.grad is not None


def test_woven_and_stepwise_masks_are_the_same_bits() -> None:
    x = torch.randn(T, B, I, dtype=torch.float64)
    lengths = torch.randint(0, T + 1, (B,))
    runs = []
    for backend in ("reference", None):
        torch.manual_seed(1)
        layer = _layer(
            "lstm", 3, direction="bidirectional", seed=9, dtype="float64", kernel_initializer="glorot_normal"
        )
        with cw.use_backend(backend):
            runs.append([layer(x, None, lengths), layer(x, None, lengths)])
    assert_same_run(None, runs[1], runs[0])
    assert not torch.equal(runs[0][0][0], runs[0][1][0]), "streams go on from call to call"


def test_everything_dropped() -> None:
    layer, x = _layer(dropout=1.0), torch.randn(T, B, I)
    out, _ = layer(x)
    again, _ = layer(torch.randn(T, B, I))
    assert torch.equal(out, again), "nothing of the lower layer is left"
    assert not torch.equal(out, layer(x, training=False)[0])


def test_seeds_decide_and_state_dict_keeps_the_place() -> None:
    x = torch.randn(T, B, I)
    layer, other = _layer("gru", seed=2), _layer("gru", seed=2)
    other.load_opaque_kernel(layer.opaque_kernel())
    assert torch.equal(layer(x)[0], other(x)[0])
    third = _layer("gru", seed=77)
    third.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], third(x)[0])
    cw.set_random_seed(4)
    unseeded = [_layer("gru") for _ in range(2)]
    unseeded[1].load_opaque_kernel(unseeded[0].opaque_kernel())
    assert not torch.equal(unseeded[0](x)[0], unseeded[1](x)[0])
