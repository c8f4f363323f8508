"""Keep probabilities that are tensors: fed by the caller, always applied."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from unit.wrappers.masks import Ones, kept, streams

B, D = 3, 8
X = torch.ones(B, D)
VARIATIONAL = {"variational_recurrent": True, "dtype": "float32", "input_size": D}
both_modes = pytest.mark.parametrize("mode", [{}, VARIATIONAL], ids=["per-step", "variational"])


def _shape(mode: dict[str, Any]) -> tuple[int, int]:
    return (1, D) if mode else (B, D)


@both_modes
@pytest.mark.parametrize("kind", ["input", "output"])
def test_the_value_at_the_call_counts(mode: dict[str, Any], kind: str) -> None:
    keep = torch.tensor(0.5)
    wrapper = cw.DropoutWrapper(Ones(D), **{f"{kind}_keep_prob": keep}, seed=11, **mode)
    for draw, value in enumerate((0.5, 0.25, 0.9)):
        keep.fill_(value)
        mask = kept(11, kind, 0, _shape(mode), value, draw=draw).expand(B, D)
        torch.testing.assert_close(wrapper(X, X)[0], torch.where(mask, 1 / value, 0.0))


@both_modes
def test_state(mode: dict[str, Any]) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), state_keep_prob=torch.tensor(0.5), seed=11, **mode)
    _, state = wrapper(X, X)
    assert torch.equal(state, torch.where(kept(11, "state", 0, _shape(mode), 0.5), 2.0, 0.0).expand(B, D))


@both_modes
def test_fed_one_is_the_identity_and_draws_all_the_same(mode: dict[str, Any]) -> None:
    keep = torch.tensor(1.0)
    wrapper = cw.DropoutWrapper(Ones(D), keep, keep, keep, seed=11, **mode)
    out, state = wrapper(X, X)
    assert torch.equal(out, X) and torch.equal(state, X)
    assert set(streams(wrapper)) == {("input", 0, 0), ("state", 0, 0), ("output", 0, 0)}
    keep.fill_(0.5)
    out, _ = wrapper(X, X)
    masks = [kept(11, kind, 0, _shape(mode), 0.5, draw=1) for kind in ("input", "output")]
    assert torch.equal(out != 0, (masks[0] & masks[1]).expand(B, D))


@both_modes
def test_fed_zero_is_nan(mode: dict[str, Any]) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=torch.tensor(0.0), seed=11, **mode)
    assert wrapper(X, X)[0].isnan().all()


@both_modes
def test_it_acts_in_eval_mode_too(mode: dict[str, Any]) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), input_keep_prob=0.5, output_keep_prob=torch.tensor(0.5), seed=11, **mode)
    out, _ = wrapper.eval()(X, X)
    assert torch.equal(out != 0, kept(11, "output", 0, _shape(mode), 0.5).expand(B, D))
    assert list(streams(wrapper)) == [("output", 0, 0)]


@both_modes
def test_gradient_of_the_keep_probability(mode: dict[str, Any]) -> None:
    """Of x / keep * mask with respect to keep: -sum(x * mask) / keep**2."""
    keep = torch.tensor(0.5, requires_grad=True)
    x = torch.linspace(-1, 2, B * D).reshape(B, D).requires_grad_()
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=keep, seed=11, **mode)
    wrapper(x, X)[0].sum().backward()
    mask = kept(11, "output", 0, _shape(mode), 0.5).expand(B, D)
    assert keep.grad.item() == pytest.approx(-(x * mask).sum().item() * 4, rel=1e-5)
    assert torch.equal(x.grad, torch.where(mask, 2.0, 0.0))


def test_gradient_through_an_unroll() -> None:
    keep = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    xs = torch.randn(B, 3, D, dtype=torch.float64)
    cell = cw.GRUCell(D)
    cell.build([B, D])
    cell.double()

    def loss(value: torch.Tensor) -> torch.Tensor:
        wrapper = cw.DropoutWrapper(cell, value, value, value, seed=11)
        return cw.dynamic_rnn(wrapper, xs, [3, 1, 2], dtype="float64")[0].sum()

    loss(keep).backward()
    step = 1e-6
    with torch.no_grad():
        slope = (loss(keep + step) - loss(keep - step)) / (2 * step)
    assert keep.grad.item() == pytest.approx(slope.item(), rel=1e-5)


def test_a_learnt_keep_probability_may_step_between_runs() -> None:
    keep = torch.tensor(0.5, requires_grad=True)
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=keep, seed=11)
    optimizer = torch.optim.SGD([keep], lr=1e-3)
    for _ in range(2):
        before = keep.item()
        optimizer.zero_grad()
        wrapper(X, X)[0].sum().backward()
        optimizer.step()
        assert keep.item() != before


def test_feeding_before_backward_does_no_harm() -> None:
    keep = torch.tensor(0.5)
    x = X.clone().requires_grad_()
    out, _ = cw.DropoutWrapper(Ones(D), output_keep_prob=keep, seed=11)(x, X)
    keep.fill_(1.0)
    out.sum().backward()
    assert x.grad.max() == 2.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_another_dtype_is_cast_to_the_datas(dtype: torch.dtype) -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=torch.tensor(0.5, dtype=dtype), seed=11)
    out, _ = wrapper(X, X)
    assert out.dtype == torch.float32 and torch.equal(out != 0, kept(11, "output", 0, (B, D), 0.5))


def test_it_is_checked_at_construction() -> None:
    with pytest.raises(cw.ArgumentTypeError, match=r"input_keep_prob as a number or a scalar tensor, got shape \[1\]"):
        cw.DropoutWrapper(Ones(D), input_keep_prob=torch.tensor([0.5]))


def test_config_holds_the_tensor() -> None:
    keep = torch.tensor(0.5)
    assert cw.DropoutWrapper(Ones(D), input_keep_prob=keep).get_config()["input_keep_prob"] is keep


def test_an_unroll_with_a_fed_probability_draws_step_by_step() -> None:
    wrapper = cw.DropoutWrapper(Ones(D), output_keep_prob=torch.tensor(0.5), seed=11).eval()
    out, _ = cw.dynamic_rnn(wrapper, torch.ones(4, B, D), dtype="float32", time_major=True)
    for step in range(4):
        assert torch.equal(out[step] != 0, kept(11, "output", 0, (B, D), 0.5, draw=step))
