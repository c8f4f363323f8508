"""Lengths: what dynamic_rnn and static_rnn do with rows that end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers import nest

B, T, D, N = 3, 5, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)
F32 = {"dtype": "float32"}


def _static(cell: Any, xs: torch.Tensor, lengths: Any = None, **kwargs: Any) -> Any:
    outs, state = cw.static_rnn(cell, list(xs.unbind(1)), sequence_length=lengths, **kwargs)
    return torch.stack(outs, dim=1), state


def _dynamic(cell: Any, xs: torch.Tensor, lengths: Any = None, **kwargs: Any) -> Any:
    return cw.dynamic_rnn(cell, xs, lengths, **kwargs)


both = pytest.mark.parametrize("unroll", [_dynamic, _static], ids=["dynamic", "static"])


class Counter(cw.RNNCell):
    """Output: step number; state: how many steps a row took."""

    state_size = 1
    output_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self, inputs: Any, state: Any) -> Any:
        self.calls += 1
        return torch.full_like(state, self.calls), state + 1


@both
def test_outputs_are_zero_and_states_stop(unroll: Any) -> None:
    cell = cw.LSTMCell(N)
    out, final = unroll(cell, XS, [5, 2, 0], **F32)
    full, _ = unroll(cell, XS, **F32)
    assert torch.equal(out[0], full[0]) and torch.equal(out[1, :2], full[1, :2])
    assert not out[1, 2:].any() and not out[2].any()
    for row, length in enumerate((5, 2, 0)):
        _, alone = unroll(cell, XS[row : row + 1, : max(1, length)], [length], **F32)
        for a, b in zip(final, alone, strict=True):
            torch.testing.assert_close(a[row], b[0], rtol=0, atol=1e-6)


@both
def test_a_row_of_no_steps_keeps_its_initial_state(unroll: Any) -> None:
    _, final = unroll(cw.GRUCell(N), XS, [0, 0, 0], initial_state=H)
    assert torch.equal(final, H)


@both
@pytest.mark.parametrize(
    "lengths, steps",
    [
        (None, [5, 5, 5]),
        ([5, 2, 0], [5, 2, 0]),
        ((1, 2, 3), [1, 2, 3]),
        ([9, -3, 2], [5, 0, 2]),
        ([2.9, 1.0, 0.5], [2, 1, 0]),
        (np.array([4, 1, 3]), [4, 1, 3]),
        (np.array([4, 1, 3], np.int8), [4, 1, 3]),
        (torch.tensor([4, 1, 3]), [4, 1, 3]),
        (torch.tensor([4.7, 1.2, 3.0]), [4, 1, 3]),
        (torch.tensor([4, 1, 3], dtype=torch.uint8), [4, 1, 3]),
        (torch.tensor([4.7, 1.2, 3.0], dtype=torch.float16), [4, 1, 3]),
        (torch.tensor([4.5, -1.0, 3.0], dtype=torch.bfloat16), [4, 0, 3]),
        (torch.tensor([float("inf"), -float("inf"), 3.0], dtype=torch.float16), [5, 0, 3]),
        (torch.tensor([2**32 - 1, 0, 3], dtype=torch.uint32), [5, 0, 3]),
        (np.array([2**64 - 1, 2**63, 3], np.uint64), [5, 5, 3]),
        (torch.tensor([60000, 0, 3], dtype=torch.uint16), [5, 0, 3]),
        ([True, False, True], [1, 0, 1]),
        ([-1, -2, -3], [0, 0, 0]),
        ([2**40, -(2**40), 2**31 + 1], [5, 0, 5]),
    ],
    ids=str,
)
def test_forms_of_lengths(unroll: Any, lengths: Any, steps: list[int]) -> None:
    cell = Counter()
    out, final = unroll(cell, XS, lengths, **F32)
    assert final.flatten().tolist() == steps
    assert [[int(v) for v in row if v] for row in out[..., 0]] == [list(range(1, n + 1)) for n in steps]
    assert cell.calls == min(T, max(1, max(steps)))


@both
@pytest.mark.parametrize(
    "lengths", [[1, 2], [1, 2, 3, 4], [[1, 2, 3]], 3, torch.tensor(3), torch.zeros(3, 1), []], ids=str
)
def test_lengths_of_another_size(unroll: Any, lengths: Any) -> None:
    with pytest.raises(cw.ShapeError, match=r"_rnn: expected sequence_length \[3\], one per row, got"):
        unroll(cw.GRUCell(N), XS, lengths, **F32)


@both
def test_lengths_are_real_numbers(unroll: Any) -> None:
    with pytest.raises(cw.ArgumentError, match="expected sequence_length as real numbers, got complex64"):
        unroll(cw.GRUCell(N), XS, torch.ones(3, dtype=torch.complex64), **F32)


@both
@pytest.mark.parametrize(
    "lengths", [["a", "b", "c"], "abc", [None, 1, 2], [[1], [2, 3]], np.array([1, 2, 3], object)], ids=str
)
def test_lengths_that_are_no_tensor(unroll: Any, lengths: Any) -> None:
    with pytest.raises(cw.CellweaveError, match="_rnn: expected sequence_length"):
        unroll(cw.GRUCell(N), XS, lengths, **F32)


def test_lengths_are_left_alone() -> None:
    lengths = torch.tensor([9, -1, 2])
    cw.dynamic_rnn(cw.GRUCell(N), XS, lengths, **F32)
    assert lengths.tolist() == [9, -1, 2]


@both
def test_no_gradient_flows_through_padded_steps(unroll: Any) -> None:
    cell = cw.LSTMCell(N)
    xs = XS.clone().requires_grad_()
    out, final = unroll(cell, xs, [5, 2, 0], **F32)
    (out.sum() + sum(leaf.sum() for leaf in final)).backward()
    assert (xs.grad[0].abs().sum(dim=1) > 0).all() and (xs.grad[1, :2].abs().sum(dim=1) > 0).all()
    assert not xs.grad[1, 2:].any() and not xs.grad[2].any()


@both
def test_the_gradient_of_a_stopped_state_is_the_one_of_its_last_step(unroll: Any) -> None:
    cell = cw.GRUCell(N)
    h = H.clone().requires_grad_()
    _, final = unroll(cell, XS, [5, 2, 0], initial_state=h)
    final[2].sum().backward(retain_graph=True)
    assert torch.equal(h.grad, torch.tensor([0.0, 0.0, 1.0])[:, None].expand(B, N))


@both
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [lambda: cw.GRUCell(N), lambda: cw.LSTMCell(N, use_peepholes=True, num_proj=2)])
def test_what_stands_in_padded_steps_reaches_nothing(unroll: Any, bad: float, make: Any) -> None:
    """Not the outputs, not the states, not a single gradient, not even NaN and infinity."""
    cell = make()
    cell.build([B, D])
    found = []
    for value in (0.0, bad):
        xs = XS.clone()
        xs[1, 2:] = xs[2] = value
        xs.requires_grad_()
        out, final = unroll(cell, xs, [5, 2, 0], **F32)
        loss = out.sum() + sum(leaf.sum() for leaf in nest.flatten(final))
        found.append([out, *nest.flatten(final), *torch.autograd.grad(loss, [xs, *cell.weights])])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Explodes(cw.RNNCell):
    """Gives NaN and infinity in row 1 from its second step on."""

    state_size = 2
    output_size = 2

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self, inputs: Any, state: Any) -> Any:
        self.calls += 1
        fill = torch.tensor([0.0, math.nan if self.calls > 1 else 0.0, 0.0])[:, None]
        return inputs[:, :2] + fill, state + 1.0 + fill * math.inf if self.calls > 1 else state + 1.0


@both
def test_nan_outputs_in_padded_rows(unroll: Any) -> None:
    xs = XS.clone().requires_grad_()
    out, final = unroll(Explodes(), xs, [3, 1, 2], **F32)
    assert not out.isnan().any() and final.tolist()[1] == [1.0, 1.0]
    (out.sum() + final[1].sum()).backward()
    assert not xs.grad.isnan().any() and xs.grad[1, 1:].abs().sum() == 0


def test_steps_past_the_longest_row_are_not_run() -> None:
    cell = Counter()
    cw.dynamic_rnn(cell, XS, [2, 1, 0], **F32)
    assert cell.calls == 2
    cw.static_rnn(cell, list(XS.unbind(1)), sequence_length=[3, 1, 0], **F32)
    assert cell.calls == 5


def test_half_precision_outputs_stay_half() -> None:
    out, final = cw.dynamic_rnn(cw.GRUCell(N), XS.half(), [5, 2, 0], dtype="float16")
    assert out.dtype == final.dtype == torch.float16


def test_uninitialised_memory_is_never_shown(nan_poison: None) -> None:
    out, final = cw.dynamic_rnn(cw.LSTMCell(N), XS, [3, 1, 0], **F32)
    assert not out.isnan().any() and not any(leaf.isnan().any() for leaf in final)
