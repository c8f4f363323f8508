"""What the cuDNN layers are: properties, arguments, variables, starting values, calls, errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.initializers import Constant
from cellweave.ops.common._library import missing_reason
from helpers.cudnn_cases import CLASSES, MODES

T, B, I, H = 5, 3, 4, 6


def _inputs(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(T, B, I, dtype=dtype)


def _built(mode: str = "lstm", layers: int = 2, **kwargs: Any) -> Any:
    layer = CLASSES[mode](layers, H, **kwargs)
    layer.build([None, None, I])
    return layer


# Properties


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("direction, dirs", [("unidirectional", 1), ("bidirectional", 2)])
def test_properties(mode: str, direction: str, dirs: int) -> None:
    layer = CLASSES[mode](2, H, direction=direction)
    assert (layer.num_layers, layer.num_units, layer.num_dirs) == (2, H, dirs)
    assert (layer.rnn_mode, layer.direction, layer.input_mode) == (mode, direction, "linear_input")
    assert layer.dtype == "float32"
    shape = [2 * dirs, 7, H]
    assert layer.state_shape(7) == ((shape, shape) if mode == "lstm" else (shape,))
    gates = {"lstm": 4, "gru": 3}.get(mode, 1)
    assert layer.canonical_bias_shapes == [[H]] * (2 * gates * 2 * dirs)


def test_weight_shapes_of_the_example() -> None:
    layer = _built("lstm", 2, direction="bidirectional")
    block = [*[(H, I)] * 4, *[(H, H)] * 4]
    upper = [*[(H, 2 * H)] * 4, *[(H, H)] * 4]
    assert layer.canonical_weight_shapes == [*block, *block, *upper, *upper]
    assert len(layer.canonical_bias_shapes) == 32
    assert [tuple(w.shape) for w in layer.canonical_weights()] == layer.canonical_weight_shapes
    assert [list(b.shape) for b in layer.canonical_biases()] == layer.canonical_bias_shapes


@pytest.mark.parametrize("mode", MODES)
def test_before_it_is_built(mode: str) -> None:
    layer = CLASSES[mode](1, H)
    assert layer.saveable is None
    with pytest.raises(ValueError, match=r"input_size: expected a built layer"):
        _ = layer.input_size
    with pytest.raises(RuntimeError, match="canonical_weight_shapes: expected a built layer"):
        _ = layer.canonical_weight_shapes
    for act in (layer.canonical_weights, layer.canonical_biases, layer.opaque_kernel, layer.to_torch):
        with pytest.raises(cw.ScopeError, match="expected a built layer"):
            act()


def test_build_again_does_nothing() -> None:
    layer = _built()
    before, saveable = dict(layer.named_parameters()), layer.saveable
    layer.build([None, None, 99])
    assert dict(layer.named_parameters()) == before and layer.saveable is saveable
    assert layer.input_size == I


# Arguments


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"direction": "sideways"}, "direction out of unidirectional, bidirectional, got 'sideways'"),
        ({"input_mode": "linear"}, "input_mode out of linear_input, skip_input, auto_select, got 'linear'"),
        ({"dtype": "bfloat16"}, "dtype out of float16, float32, float64, got bfloat16"),
        ({"dtype": torch.int32}, "got int32"),
        ({"dropout": 1.5}, r"dropout as a number in \[0, 1\], got 1.5"),
        ({"dropout": -0.1}, "got -0.1"),
        ({"dropout": True}, "got True"),
    ],
)
def test_arguments_that_are_refused(mode: str, kwargs: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=f"{CLASSES[mode].__name__}: expected .*{match}"):
        CLASSES[mode](1, H, **kwargs)


def test_sizes_and_seeds_are_checked() -> None:
    with pytest.raises(ValueError, match="CudnnLSTM num_layers: expected a positive int, got 0"):
        cw.CudnnLSTM(0, H)
    with pytest.raises(ValueError, match="CudnnGRU num_units: expected a positive int, got -1"):
        cw.CudnnGRU(1, -1)
    with pytest.raises(TypeError, match="seed as an int or None, got 'x'"):
        cw.CudnnLSTM(1, H, seed="x")


@pytest.mark.parametrize("shape", [(T, I), (T, B, I, 1), (T, B, None)])
def test_build_needs_three_axes_and_a_depth(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ValueError, match=r"CudnnLSTM: expected inputs \[T, B, I\] with a known size I"):
        cw.CudnnLSTM(1, H).build(shape)


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
@pytest.mark.parametrize("mode", MODES)
def test_dtypes(mode: str, name: str) -> None:
    layer = CLASSES[mode](2, H, dtype=name)
    out, states = layer(_inputs(getattr(torch, name)))
    assert {t.dtype for t in (out, *states, *layer.parameters())} == {getattr(torch, name)}
    other = torch.float32 if name != "float32" else torch.float64
    with pytest.raises(TypeError, match=f"expected inputs of dtype {name}"):
        layer(_inputs(other))


# Variables


def test_variables_and_their_names() -> None:
    with cw.VariableStore() as store, cw.variable_scope("enc"):
        layer = cw.CudnnLSTM(1, H, direction="bidirectional", name="mine")
        layer(_inputs())
        cw.CudnnGRU(1, H)(_inputs())
    stems = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    lstm = [f"enc/mine/{stem}{ending}" for ending in ("", "_reverse") for stem in stems]
    assert list(store.variables) == [*lstm, *[f"enc/cudnn_gru/{stem}" for stem in stems]]
    assert layer.scope_name == "enc/mine"
    assert list(cw.variable_names(layer)) == lstm
    assert [tuple(v.shape) for v in layer.weights[:4]] == [(4 * H, I), (4 * H, H), (4 * H,), (4 * H,)]
    assert layer.trainable_weights == layer.weights == list(layer.parameters())
    assert layer.count_params() == layer.opaque_kernel().numel() == sum(w.size for w in layer.get_weights())


@pytest.mark.parametrize(
    "mode, scope",
    [("lstm", "cudnn_lstm"), ("gru", "cudnn_gru"), ("rnn_tanh", "cudnn_rnn_tanh"), ("rnn_relu", "cudnn_rnn_relu")],
)
def test_default_scopes(mode: str, scope: str) -> None:
    assert _built(mode).scope_name == scope


def test_sharing_in_a_store() -> None:
    with cw.VariableStore():
        first = cw.CudnnLSTM(1, H, name="rnn")
        first(_inputs())
        with cw.variable_scope(cw.get_variable_scope(), reuse=True):
            second = cw.CudnnLSTM(1, H, name="rnn")
            second(_inputs(), scope="rnn")
    assert all(a is b for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.saveable is not None and second.saveable is None, "a scope that reuses registers no saveable"
    assert second.create_saveable() is second.saveable


def test_not_trainable() -> None:
    layer = _built(trainable=False)
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 8
    assert not any(weight.requires_grad for weight in layer.parameters())


# Starting values


def test_equally_shaped_matrices_start_alike_with_a_seed() -> None:
    weights = _built("gru", 3, seed=7).canonical_weights()
    first = {}
    for weight in weights:
        assert torch.equal(first.setdefault(weight.shape, weight), weight)
    assert len(first) == 2
    limit = (6 / (H + I)) ** 0.5
    assert 0.7 * limit < first[H, I].abs().max() <= limit
    again = _built("gru", 3, seed=7).canonical_weights()
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))
    assert not torch.equal(weights[0], _built("gru", 3, seed=8).canonical_weights()[0])


def test_matrices_differ_without_a_seed() -> None:
    weights = _built("lstm", 1).canonical_weights()
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 8


def test_biases_start_at_zero_and_initializers_see_one_gate_at_a_time() -> None:
    seen = []

    def kernel(shape: Any, dtype: torch.dtype) -> torch.Tensor:
        seen.append((tuple(shape), dtype))
        return torch.full(tuple(shape), float(len(seen)), dtype=dtype)

    assert not any(bias.any() for bias in _built("gru").canonical_biases())
    layer = _built("gru", 1, kernel_initializer=kernel, bias_initializer=Constant(0.5), dtype="float64")
    assert seen == [((H, I), torch.float64)] * 3 + [((H, H), torch.float64)] * 3
    assert [weight[0, 0].item() for weight in layer.canonical_weights()] == [1, 2, 3, 4, 5, 6]
    assert all((bias == 0.5).all() for bias in layer.canonical_biases())
    assert (_built("lstm", kernel_initializer="ones").canonical_weights()[0] == 1).all()


def test_a_scope_initializer_does_not_reach_them() -> None:
    with cw.VariableStore(), cw.variable_scope("s", initializer=Constant(3.0)):
        layer = _built()
    assert layer.canonical_weights()[0].unique().numel() > 1 and not layer.canonical_biases()[0].any()


# Calls


@pytest.mark.parametrize("mode", MODES)
def test_default_state_and_structure(mode: str) -> None:
    layer, x = _built(mode, 2, direction="bidirectional"), _inputs()
    zeros = tuple(torch.zeros(shape) for shape in layer.state_shape(B))
    out, states = layer(x)
    again, last = layer(x, zeros)
    assert type(states) is tuple and len(states) == (2 if mode == "lstm" else 1)
    assert out.shape == (T, B, 2 * H) and all(list(s.shape) == [4, B, H] for s in states)
    assert torch.equal(out, again) and all(torch.equal(a, b) for a, b in zip(states, last, strict=True))
    h = states[0]
    assert torch.equal(out[-1, :, :H], h[2]) and torch.equal(out[0, :, H:], h[3]), "index is layer * dirs + dir"


def test_h_comes_first() -> None:
    layer, x = _built("lstm", 1), _inputs()
    out, (h, c) = layer(x)
    assert torch.equal(out[-1], h[0])
    assert not torch.equal(h, c)


@pytest.mark.parametrize("mode", ["lstm", "gru"])
def test_batch_major(mode: str) -> None:
    """Inputs, outputs and states have their first two axes swapped."""
    layer, x = _built(mode, 2, direction="bidirectional"), _inputs()
    states = tuple(torch.randn(shape) for shape in layer.state_shape(B))
    lengths = torch.tensor([T, 2, 0])
    out, last = layer(x, states, lengths)
    flipped = tuple(state.transpose(0, 1) for state in states)
    got, got_last = layer(x.transpose(0, 1), flipped, sequence_lengths=lengths, time_major=False)
    assert torch.equal(got, out.transpose(0, 1))
    assert all(torch.equal(a, b.transpose(0, 1)) for a, b in zip(got_last, last, strict=True))


def test_lengths() -> None:
    layer, x = _built("gru", 2), _inputs()
    start = torch.randn(2, B, H)
    out, (h,) = layer(x, (start,), [T, 2, 0])
    short, (h_short,) = layer(x[:2, 1:2], (start[:, 1:2].contiguous(),))
    torch.testing.assert_close(out[:2, 1:2], short)
    torch.testing.assert_close(h[:, 1:2], h_short)
    assert not out[2:, 1].any() and not out[:, 2].any()
    assert torch.equal(h[:, 2], start[:, 2])
    for wrong in ([T + 1, 1, 1], [-1, 1, 1]):
        with pytest.raises(ValueError, match=rf"expected sequence_length in 0..{T}"):
            layer(x, None, wrong)
    with pytest.raises(ValueError, match=rf"expected sequence_length \[{B}\]"):
        layer(x, None, [1, 2])


@pytest.mark.parametrize("mode", MODES)
def test_no_steps_and_no_rows(mode: str) -> None:
    layer = _built(mode, 2, direction="bidirectional")
    start = tuple(torch.randn(shape) for shape in layer.state_shape(B))
    out, last = layer(torch.zeros(0, B, I), start)
    assert out.shape == (0, B, 2 * H) and all(torch.equal(a, b) for a, b in zip(start, last, strict=True))
    out, _ = layer(torch.zeros(T, 0, I))
    assert out.shape == (T, 0, 2 * H)


def test_states_that_are_refused() -> None:
    layer, x = _built("lstm", 1), _inputs()
    h = torch.zeros(1, B, H)
    for wrong in ([h, h], h, {"h": h}):
        for kind in (ValueError, TypeError):  # TF1's early releases, and its later ones
            with pytest.raises(kind, match=r"expected initial_state as a tuple \(h, c\), got (list|Tensor|dict)"):
                layer(x, wrong)
    with pytest.raises(ValueError, match="got LSTMStateTuple, which has c first"):
        layer(x, cw.LSTMStateTuple(h, h))
    with pytest.raises(ValueError, match="got a tuple of 1 elements"):
        layer(x, (h,))
    with pytest.raises(ValueError, match=rf"expected c \[1, {B}, {H}\], got \[1, {B}, {H + 1}\]"):
        layer(x, (h, torch.zeros(1, B, H + 1)))
    with pytest.raises(TypeError, match="expected h of dtype float32, got float64"):
        layer(x, (h.double(), h))
    with pytest.raises(TypeError, match="expected c as a tensor, got int"):
        layer(x, (h, 0))


def test_inputs_that_are_refused() -> None:
    layer = _built()
    with pytest.raises(ValueError, match=rf"expected inputs \[T, B, {I}\], got \[{T}, {B}, 9\]"):
        layer(torch.zeros(T, B, 9))
    with pytest.raises(ValueError, match=rf"expected inputs \[B, T, {I}\], got \[{B}, {I}\]"):
        layer(torch.zeros(B, I), time_major=False)
    with pytest.raises(TypeError, match="expected inputs as a tensor, got list"):
        layer([[0.0]])
    with pytest.raises(cw.ScopeError, match="expected a built layer"):
        cw.CudnnLSTM(1, H).call(_inputs())


def test_a_first_call_that_fails_leaves_nothing_behind() -> None:
    layer = cw.CudnnLSTM(1, H)
    with pytest.raises(ValueError, match="initial_state"):
        layer(_inputs(), [])
    assert not layer.built and layer.saveable is None and list(layer.parameters()) == []
    layer(_inputs())
    assert layer.built and layer.saveable is not None


# Training


@pytest.mark.parametrize("mode", MODES)
def test_no_gradient_through_a_call_without_training(mode: str) -> None:
    layer, x = _built(mode, 2), _inputs().requires_grad_()
    out, states = layer(x, training=False)
    trained, trained_states = layer(x)
    assert torch.equal(out, trained) and all(torch.equal(a, b) for a, b in zip(states, trained_states, strict=True))
    for value in (out, *states):
        assert value.requires_grad
        with pytest.raises(ValueError, match="a gradient through a call with training=True, got one through training"):
            value.sum().backward(retain_graph=True)
    assert x.grad is None and all(weight.grad is None for weight in layer.parameters())
    with torch.no_grad():
        assert not layer(x, training=False)[0].requires_grad


def test_no_gradient_even_to_inputs_of_a_frozen_layer() -> None:
    layer, x = _built(trainable=False), _inputs()
    assert not layer(x, training=False)[0].requires_grad
    out, _ = layer(x.requires_grad_(), training=False)
    with pytest.raises(ValueError, match="training=False"):
        torch.autograd.grad(out.sum(), x)


def test_a_bool_in_the_third_place_is_training() -> None:
    layer, x = _built(), _inputs().requires_grad_()
    with pytest.raises(ValueError, match="training=False"):
        layer(x, None, False)[0].sum().backward()
    layer(x, None, True)[0].sum().backward()
    assert x.grad is not None


# Input modes


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("input_mode", ["skip_input", "auto_select"])
def test_skipping_is_the_identity(mode: str, input_mode: str) -> None:
    skipping = CLASSES[mode](2, H, input_mode, "bidirectional")
    x = torch.randn(T, B, H)
    out, _ = skipping(x)
    assert skipping.skips_input and skipping.input_size == H and skipping.input_mode == input_mode
    assert "weight_ih_l0" not in dict(skipping.named_parameters())
    assert "weight_ih_l1" in dict(skipping.named_parameters())
    linear = CLASSES[mode](2, H, direction="bidirectional")
    linear.load_canonical(skipping.canonical_weights(), skipping.canonical_biases())
    assert torch.equal(linear.canonical_weights()[0], torch.eye(H))
    torch.testing.assert_close(linear(x)[0], out)
    assert skipping.canonical_weight_shapes == linear.canonical_weight_shapes


def test_auto_select_multiplies_where_sizes_differ() -> None:
    layer = cw.CudnnGRU(1, H, "auto_select")
    layer(_inputs())
    assert not layer.skips_input and layer.weight_ih_l0.shape == (3 * H, I)
    with pytest.raises(ValueError, match=rf"expected inputs \[T, B, {H}\] because skip_input .* got I = {I}"):
        cw.CudnnGRU(1, H, "skip_input")(_inputs())


def test_config_round_trip() -> None:
    layer = cw.CudnnLSTM(2, H, "auto_select", "bidirectional", 0.25, 3, "float64", "ones", Constant(1.0), "x")
    config = layer.get_config()
    again = cw.CudnnLSTM.from_config(config)
    assert again.get_config() == config
    assert (config["num_layers"], config["dropout"], config["seed"], config["dtype"]) == (2, 0.25, 3, "float64")


def test_the_contrib_face() -> None:
    for cls in CLASSES.values():
        assert getattr(cw.contrib, cls.__name__) is cls
    assert cw.contrib.CudnnCompatibleLSTMCell is cw.CudnnCompatibleLSTMCell


@pytest.mark.parametrize("mode", MODES)
def test_float16_is_near_single_steps_on_every_backend(mode: str) -> None:
    layer, inputs = _built(mode, dtype="float16"), _inputs(torch.float16)
    chosen = "reference" if missing_reason() else "native"
    assert set(cw.explain(layer, inputs).backends) == {chosen}
    with torch.no_grad(), cw.use_backend("torch"):
        assert set(cw.explain(layer, inputs).backends) == {"torch"}
        layers, _ = layer(inputs)
    with torch.no_grad():
        outputs, _ = layer(inputs)
        with cw.use_backend("reference"):
            stepped, _ = layer(inputs)
    for found in (outputs, layers):
        torch.testing.assert_close(found, stepped, rtol=0, atol=2**-9)
