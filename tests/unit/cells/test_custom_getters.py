"""Cells in a scope whose `custom_getter` gives something else than the variable: they compute with what it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw

D, N = 2, 3
X = torch.linspace(-1.0, 1.0, 4 * D).reshape(4, D)
SEQUENCE = torch.linspace(-1.0, 1.0, 4 * 5 * D).reshape(4, 5, D)

CELLS: dict[str, Callable[[], Any]] = {
    "basic_rnn": lambda: cw.BasicRNNCell(N),
    "gru": lambda: cw.GRUCell(N),
    "basic_lstm": lambda: cw.BasicLSTMCell(N),
    "lstm": lambda: cw.LSTMCell(N, use_peepholes=True, num_proj=2),
    "ugrnn": lambda: cw.contrib.UGRNNCell(N),
    "sru": lambda: cw.contrib.SRUCell(D),
    "stack": lambda: cw.MultiRNNCell([cw.GRUCell(N), cw.LSTMCell(2)]),
    "projected": lambda: cw.contrib.OutputProjectionWrapper(cw.GRUCell(N), 2),
}


def _double(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    return getter(name, *args, **kwargs) * 2


def _renamed(getter: Callable[..., Any], name: str, *args: Any, **kwargs: Any) -> Any:
    return getter(name + "_x", *args, **kwargs)


def _unrolled(cell: Any) -> torch.Tensor:
    return cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")[0]


def _stepped(cell: Any) -> torch.Tensor:
    return cell(X, cell.zero_state(4, "float32"))[0]


@pytest.mark.parametrize("run", [_unrolled, _stepped])
@pytest.mark.parametrize("kind", CELLS)
def test_what_the_getter_gives_is_used(kind: str, run: Callable[[Any], torch.Tensor]) -> None:
    cell, plain = CELLS[kind](), CELLS[kind]()
    with cw.variable_scope("a", custom_getter=_double):
        run(cell)
    run(plain)
    plain.load_state_dict({name: 2 * value for name, value in cell.state_dict().items()})
    for _ in range(2):  # the variables of now, not those of the first call
        mine, theirs = run(cell), run(plain)
        assert torch.equal(mine, theirs)
        mine.sum().backward()
        theirs.sum().backward()
        with torch.no_grad():
            for one, other in zip(cell.parameters(), plain.parameters(), strict=True):
                assert torch.allclose(one.grad, 2 * other.grad)
                one -= 0.1
                other -= 0.2


def test_a_built_cell_too() -> None:
    cell = cw.GRUCell(N)
    with cw.variable_scope("a", custom_getter=lambda getter, name, **k: getter(name, **k) * 0):
        cell.build([None, D])
    assert torch.equal(_unrolled(cell), torch.zeros(4, 5, N))


def test_a_getter_may_rename() -> None:
    cell = cw.GRUCell(N)
    with cw.variable_scope("a", custom_getter=_renamed):
        before = _unrolled(cell)
    assert next(iter(cw.variable_names(cell))) == "a/rnn/gru_cell/gates/kernel_x"
    assert torch.equal(_unrolled(cell), before)
    assert torch.equal(_stepped(cell), _stepped(cell))


def test_a_getter_that_gives_the_variable_leaves_no_trace() -> None:
    cell = cw.GRUCell(N)
    with cw.variable_scope("a", custom_getter=lambda getter, name, **k: getter(name, **k)):
        cell.build([None, D])
    assert all(one is other for one, other in zip(cell.named_weights().values(), cell.weights, strict=True))
