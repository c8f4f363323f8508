"""Variational dropout: one noise per run, shared by all steps and rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from unit.wrappers.masks import Ones, kept, streams

B, T, D = 3, 4, 8
X = torch.ones(B, D)
XS = torch.ones(T, B, D)


def _wrapper(cell: Any = None, **kwargs: Any) -> cw.DropoutWrapper:
    arguments = {"variational_recurrent": True, "dtype": "float32", "input_size": D, "seed": 11} | kwargs
    return cw.DropoutWrapper(Ones(D) if cell is None else cell, **arguments)


def _unroll(wrapper: Any, xs: torch.Tensor = XS, **kwargs: Any) -> Any:
    return cw.dynamic_rnn(wrapper, xs, dtype=xs.dtype, time_major=True, **kwargs)


@pytest.mark.parametrize("kind", ["input", "output"])
def test_one_mask_for_all_steps_and_rows(kind: str) -> None:
    wrapper = _wrapper(**{f"{kind}_keep_prob": 0.5})
    for run in range(3):
        out, _ = _unroll(wrapper)
        mask = kept(11, kind, 0, (1, D), 0.5, draw=run)
        assert torch.equal(out, torch.where(mask, 2.0, 0.0).expand(T, B, D))
    assert streams(wrapper) == {(kind, 0, 0): 3 * D}


def test_an_input_size_of_one_masks_whole_rows() -> None:
    """TF1 broadcasts its noise; a known cell runs step by step then."""
    options = {"input_keep_prob": 0.5, "input_size": 1, "seed": 4}
    wrapper, gru = _wrapper(**options), _wrapper(cw.GRUCell(D), **options)
    masks = [kept(4, "input", 0, (1, 1), 0.5, draw=run).item() for run in range(4)]
    assert len(set(masks)) == 2
    for mask in masks:
        assert torch.equal(_unroll(wrapper)[0], torch.full((T, B, D), 2.0 if mask else 0.0))
        seen = 2.0 * XS if mask else 0.0 * XS
        assert torch.allclose(_unroll(gru)[0], _unroll(gru.wrapped_cell, seen)[0], atol=1e-6)
    with pytest.raises(cw.ShapeError, match=r"expected input \[B, 2\], got \[3, 8\]"):
        _unroll(_wrapper(input_keep_prob=0.5, input_size=2))


def test_state_mask() -> None:
    cell = Ones(D, cw.LSTMStateTuple(D, D))
    wrapper = _wrapper(cell, state_keep_prob=0.5)
    _, final = _unroll(wrapper)
    mask = kept(11, "state", 1, (1, D), 0.5).expand(B, D)
    for state in [*cell.arrived[1:], final]:
        assert (state.c == 1).all() and torch.equal(state.h, torch.where(mask, 2.0, 0.0))
    assert streams(wrapper) == {("state", 1, 0): D}


def test_a_call_is_a_run() -> None:
    wrapper = _wrapper(output_keep_prob=0.5)
    for run in range(3):
        assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (1, D), 0.5, draw=run).expand(B, D))


def test_a_direct_call_of_a_stack_is_one_run() -> None:
    wrapper = _wrapper(output_keep_prob=0.5)
    multi = cw.MultiRNNCell([wrapper, wrapper])
    for run in range(2):
        mask = kept(11, "output", 0, (1, D), 0.5, draw=run).expand(B, D)
        assert torch.equal(multi(X, (X, X))[0], torch.where(mask, 4.0, 0.0))
    assert streams(wrapper) == {("output", 0, 0): 2 * D}


def test_calls_in_a_session_run_share_the_noise() -> None:
    wrapper = _wrapper(output_keep_prob=0.5)
    for run in range(2):
        with cw.session_run():
            outs = [wrapper(X, X)[0], *cw.static_rnn(wrapper, [X, X], dtype="float32")[0], _unroll(wrapper)[0][1]]
        mask = kept(11, "output", 0, (1, D), 0.5, draw=run).expand(B, D)
        assert all(torch.equal(out != 0, mask) for out in outs)
    assert streams(wrapper) == {("output", 0, 0): 2 * D}


def test_static_steps_share_the_noise() -> None:
    wrapper = _wrapper(input_keep_prob=0.5)
    for run in range(2):
        outputs, _ = cw.static_rnn(wrapper, [X] * T, dtype="float32")
        mask = kept(11, "input", 0, (1, D), 0.5, draw=run).expand(B, D)
        assert all(torch.equal(out != 0, mask) for out in outputs)


def test_noise_is_drawn_once_whatever_the_lengths() -> None:
    wrapper = _wrapper(input_keep_prob=0.5, state_keep_prob=0.5, output_keep_prob=0.5)
    _unroll(wrapper, sequence_length=[0, 0, 0])
    assert set(streams(wrapper).values()) == {D}


def test_one_wrapper_forwards_and_backwards_shares_the_noise() -> None:
    wrapper = _wrapper(output_keep_prob=0.5)
    (forward, backward), _ = cw.bidirectional_dynamic_rnn(wrapper, wrapper, XS, dtype="float32", time_major=True)
    assert torch.equal(forward, backward) and streams(wrapper) == {("output", 0, 0): D}


def test_fresh_wrappers_in_one_run_have_their_own_noise() -> None:
    """Also where Python gives a new wrapper the address of one that is gone."""
    with cw.session_run():
        for seed in range(20):
            wrapper = _wrapper(output_keep_prob=0.5, seed=seed)
            assert torch.equal(wrapper(X, X)[0] != 0, kept(seed, "output", 0, (1, D), 0.5).expand(B, D))
            del wrapper


class TestMaskPerRow:
    def test_rows_differ_and_time_does_not_matter(self) -> None:
        wrapper = _wrapper(input_keep_prob=0.5, mask_per_row=True)
        for run in range(2):
            out, _ = _unroll(wrapper)
            mask = kept(11, "input", 0, (B, D), 0.5, draw=run)
            assert not torch.equal(mask[0], mask[1])
            assert torch.equal(out, torch.where(mask, 2.0, 0.0).expand(T, B, D))
        assert streams(wrapper) == {("input", 0, 0): 2 * B * D}

    def test_state_and_output(self) -> None:
        wrapper = _wrapper(state_keep_prob=0.5, output_keep_prob=0.5, mask_per_row=True)
        out, state = wrapper(X, X)
        assert torch.equal(out != 0, kept(11, "output", 0, (B, D), 0.5))
        assert torch.equal(state != 0, kept(11, "state", 0, (B, D), 0.5))

    def test_without_variational_it_does_nothing(self) -> None:
        a, b = (cw.DropoutWrapper(Ones(D), 0.5, 0.5, 0.5, seed=11, mask_per_row=flag) for flag in (False, True))
        assert torch.equal(_unroll(a)[0], _unroll(b)[0])

    def test_another_batch_size(self) -> None:
        wrapper = _wrapper(output_keep_prob=0.5, mask_per_row=True)
        wrapper(X, X)
        out, _ = wrapper(torch.ones(5, D), torch.ones(5, D))
        assert out.shape == (5, D) and streams(wrapper) == {("output", 0, 0): (B + 5) * D}


def test_arithmetic_is_tf1s() -> None:
    """value / keep * floor(keep + noise): a dropped infinity is NaN, a dropped negative is -0."""
    wrapper = _wrapper(output_keep_prob=0.5)
    mask = kept(11, "output", 0, (1, D), 0.5)[0]
    out, _ = wrapper(torch.full((B, D), float("inf")), X)
    assert torch.equal(out[0].isnan(), ~mask) and (out[0][mask] == float("inf")).all()
    out, _ = wrapper(-X, X)
    assert torch.signbit(out).all()


def test_zero_gives_nan() -> None:
    for kind in ("input", "state", "output"):
        wrapper = _wrapper(**{f"{kind}_keep_prob": 0.0})
        out, state = wrapper(X, X)
        assert (state if kind == "state" else out).isnan().all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_noise_has_the_dtype_argument(dtype: str) -> None:
    real = getattr(torch, dtype)
    wrapper = _wrapper(output_keep_prob=0.5, dtype=dtype)
    out, _ = wrapper(X.to(real), X.to(real))
    assert out.dtype == real and torch.equal(out != 0, kept(11, "output", 0, (1, D), 0.5, dtype=dtype).expand(B, D))
    with pytest.raises(cw.DTypeError, match=f"DropoutWrapper: expected output of the wrapper's dtype {dtype}.*float32"):
        wrapper(X, X)


@pytest.mark.parametrize("size", [D, cw.TensorShape([D]), (D,), {"a": D}, [D, 3]], ids=repr)
def test_forms_of_input_size(size: Any) -> None:
    """An int or a TensorShape is a leaf; a structure has a leaf per input."""

    class First(cw.RNNCell):
        state_size = output_size = D

        def call(self, inputs: Any, state: Any) -> Any:
            return (inputs["a"] if isinstance(inputs, dict) else inputs[0]), state

    structured = isinstance(size, tuple | list | dict)
    inputs: Any = X
    if structured:
        inputs = {"a": X} if isinstance(size, dict) else type(size)([X, torch.ones(B, 3)][: len(size)])
    wrapper = _wrapper(First() if structured else Ones(D), input_keep_prob=0.5, input_size=size)
    assert torch.equal(wrapper(inputs, X)[0] != 0, kept(11, "input", 0, (1, D), 0.5).expand(B, D))


def test_inputs_must_have_the_input_size() -> None:
    with pytest.raises(cw.ShapeError, match=r"DropoutWrapper: expected input \[B, 7\], got \[3, 8\]"):
        _wrapper(input_keep_prob=0.5, input_size=7)(X, X)
    with pytest.raises(cw.ShapeError, match="DropoutWrapper: expected 1 input leaves"):
        _wrapper(input_keep_prob=0.5)((X, X), X)


def test_tensor_shapes_of_more_axes() -> None:
    wrapper = _wrapper(input_keep_prob=0.5, input_size=cw.TensorShape([2, 4]))
    x = torch.ones(B, 2, 4)
    out, _ = wrapper(x, X)
    assert torch.equal(out != 0, kept(11, "input", 0, (1, 2, 4), 0.5).expand(B, 2, 4))


def test_gradient_is_mask_over_keep() -> None:
    x = X.clone().requires_grad_()
    _wrapper(input_keep_prob=0.5)(x, X)[0].sum().backward()
    assert torch.equal(x.grad, torch.where(kept(11, "input", 0, (1, D), 0.5), 2.0, 0.0).expand(B, D))


def test_moving_a_model_moves_its_noise() -> None:
    wrapper = _wrapper(cw.GRUCell(D), output_keep_prob=0.5)
    wrapper.build([B, D])
    out, _ = wrapper.double()(X.double(), X.double())
    assert torch.equal(out != 0, kept(11, "output", 0, (1, D), 0.5, dtype="float64").expand(B, D))


def test_eval_draws_nothing() -> None:
    wrapper = _wrapper(input_keep_prob=0.5, state_keep_prob=0.5, output_keep_prob=0.5).eval()
    out, _ = _unroll(wrapper)
    assert (out == 1).all() and streams(wrapper) == {}
