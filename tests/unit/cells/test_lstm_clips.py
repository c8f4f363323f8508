"""Clipping of c and of the projected h: values, and gradients inside, on and outside the bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw

ROWS = torch.tensor([[-3.0], [-0.5], [0.0], [0.5], [3.0]], dtype=torch.float64)


def _keeper(**options: Any) -> cw.LSTMCell:
    """A cell with one unit whose c' is c before clipping, and whose projection is the identity."""
    cell = cw.LSTMCell(1, forget_bias=0.0, activation="linear", dtype="float64", **options)
    cell.build([None, 1])
    with torch.no_grad():
        for weight in cell.weights:
            weight.zero_()
        cell.bias[2:] = 800.0  # forget and output gates exactly one; the candidate is linear(0)
        if "num_proj" in options:
            cell.projection_kernel.fill_(1.0)
    return cell


def _c_after(cell: cw.LSTMCell, c: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(len(c), 1, dtype=torch.float64)
    return cell(zeros, (c, zeros))[1].c


def test_c_is_clipped_to_both_sides() -> None:
    assert _c_after(_keeper(), ROWS).tolist() == ROWS.tolist()
    assert _c_after(_keeper(cell_clip=0.5), ROWS).flatten().tolist() == [-0.5, -0.5, 0.0, 0.5, 0.5]


def test_clip_to_zero() -> None:
    cell = _keeper(cell_clip=0.0)
    out, state = cell(torch.zeros(5, 1, dtype=torch.float64), (ROWS, ROWS))
    assert (state.c == 0).all() and (out == 0).all()


def test_gradient_of_the_cell_clip() -> None:
    """1 inside and exactly on the bound, 0 outside."""
    c = ROWS.clone().requires_grad_()
    _c_after(_keeper(cell_clip=0.5), c).sum().backward()
    assert c.grad.flatten().tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_gradient_of_a_clip_to_zero() -> None:
    c = ROWS.clone().requires_grad_()
    _c_after(_keeper(cell_clip=0.0), c).sum().backward()
    assert c.grad.flatten().tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_projection_is_clipped_and_c_is_not() -> None:
    cell = _keeper(num_proj=1, proj_clip=0.5)
    c = ROWS.clone().requires_grad_()
    out, state = cell(torch.zeros(5, 1, dtype=torch.float64), (c, torch.zeros_like(ROWS)))
    assert out.flatten().tolist() == [-0.5, -0.5, 0.0, 0.5, 0.5] and torch.equal(out, state.h)
    assert torch.equal(state.c, ROWS)
    out.sum().backward()
    assert c.grad.flatten().tolist() == [0.0, 1.0, 1.0, 1.0, 0.0]


def test_proj_clip_zero() -> None:
    cell = _keeper(num_proj=1, proj_clip=0.0)
    assert (cell(torch.zeros(5, 1, dtype=torch.float64), (ROWS, ROWS))[0] == 0).all()


def test_proj_clip_without_projection_does_nothing() -> None:
    cell = _keeper(proj_clip=0.5)
    assert torch.equal(cell(torch.zeros(5, 1, dtype=torch.float64), (ROWS, ROWS))[0], ROWS)


def test_the_clipped_c_is_what_the_output_sees() -> None:
    cell = _keeper(cell_clip=0.5)
    out, state = cell(torch.zeros(5, 1, dtype=torch.float64), (ROWS, ROWS))
    assert torch.equal(out, state.c)


@pytest.mark.parametrize("name", ["cell_clip", "proj_clip"])
@pytest.mark.parametrize("bound", [-0.1, float("nan")])
def test_bounds_are_not_negative(name: str, bound: float) -> None:
    with pytest.raises(cw.ArgumentError, match=f"LSTMCell {name}: expected a bound >= 0"):
        cw.LSTMCell(3, **{name: bound})


def test_ints_are_bounds() -> None:
    assert _c_after(_keeper(cell_clip=1), ROWS).abs().max() == 1.0
