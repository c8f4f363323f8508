"""Resets: rows whose state starts anew before a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from helpers import nest
from helpers.woven import assert_same_run, both_ways

B, T, D, N = 3, 6, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)
RESETS = torch.tensor([[0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)


def by_hand(cell: Any, state: Any, fresh: Any, resets: torch.Tensor = RESETS) -> Any:
    outs = []
    for step in range(T):
        rows = resets[:, step, None]
        pairs = zip(nest.flatten(fresh), nest.flatten(state), strict=True)
        state = nest.pack(state, [torch.where(rows, new, old) for new, old in pairs])
        out, state = cell(XS[:, step], state)
        outs.append(out)
    return torch.stack(outs, dim=1), state


CELLS = {
    "rnn": lambda: cw.BasicRNNCell(N),
    "gru": lambda: cw.GRUCell(N),
    "lstm": lambda: cw.LSTMCell(N),
    "joined": lambda: cw.LSTMCell(N, state_is_tuple=False),
    "stack": lambda: cw.MultiRNNCell([cw.GRUCell(N), cw.LSTMCell(2)]),
    "step in a stack": lambda: cw.MultiRNNCell([cw.GRUCell(N), cw.ResidualWrapper(cw.GRUCell(2), lambda x, y: y)]),
}


@both_ways
@pytest.mark.parametrize("kind", CELLS)
def test_is_stepping_by_hand(kind: str, backend: str | None) -> None:
    cell = CELLS[kind]()
    zeros = cell.zero_state(B, "float32")
    state, fresh = (nest.pack(zeros, [torch.full_like(z, v) for z in nest.flatten(zeros)]) for v in (0.3, -0.2))
    expected = by_hand(cell, state, zeros), by_hand(cell, state, fresh)
    with cw.use_backend(backend):
        to_zero = cw.dynamic_rnn(cell, XS, initial_state=state, resets=RESETS)
        to_fresh = cw.dynamic_rnn(cell, XS, initial_state=state, resets=RESETS, reset_state=fresh)
        time_major, final = cw.dynamic_rnn(
            cell, XS.transpose(0, 1), initial_state=state, resets=RESETS.T, reset_state=fresh, time_major=True
        )
    assert_same_run(backend, to_zero, expected[0])
    assert_same_run(backend, to_fresh, expected[1])
    assert_same_run(backend, (time_major.transpose(0, 1), final), to_fresh)


@both_ways
def test_past_a_rows_end_they_do_nothing(backend: str | None) -> None:
    cell, lengths = cw.GRUCell(N), [4, 6, 0]
    kept = RESETS.clone()
    kept[0, 4:], kept[2] = False, False
    with cw.use_backend(backend):
        out = cw.dynamic_rnn(cell, XS, lengths, H, resets=RESETS)
        assert_same_run(backend, out, cw.dynamic_rnn(cell, XS, lengths, H, resets=kept))
    assert torch.equal(out[1][2], H[2]) and not out[0][0, 4:].any()


@both_ways
def test_gradients_stop_at_a_reset_and_reach_what_replaces(backend: str | None) -> None:
    cell = cw.LSTMCell(N)
    start, fresh = (cw.LSTMStateTuple(*(torch.full((B, N), v).requires_grad_() for _ in "ch")) for v in (0.3, -0.2))
    xs = XS.clone().requires_grad_()
    with cw.use_backend(backend):
        out, _ = cw.dynamic_rnn(cell, xs, initial_state=start, resets=RESETS, reset_state=fresh)
    out[:, 2:].sum().backward()
    assert not start.c.grad[1].any() and not start.h.grad[0].any() and start.c.grad[2].all()
    assert not xs.grad[0, :2].any() and xs.grad[2, :2].all(), "row 0 is reset before step 2"
    assert fresh.c.grad.all() and fresh.h.grad[0].all()


@both_ways
def test_masks_go_on(backend: str | None) -> None:
    cells = [cw.DropoutWrapper(cw.GRUCell(N), 0.5, 0.5, 0.5, seed=1) for _ in range(2)]
    torch.manual_seed(0)
    cells[0].build([B, D])
    cells[1].cell = cells[0].cell
    with cw.use_backend(backend):
        plain, _ = cw.dynamic_rnn(cells[0], XS, dtype="float32")
        reset, _ = cw.dynamic_rnn(cells[1], XS, dtype="float32", resets=RESETS)
    assert torch.equal(plain == 0, reset == 0) and not torch.equal(plain, reset)
    assert torch.equal(cells[0].get_extra_state(), cells[1].get_extra_state())


def test_lists_will_do() -> None:
    cell = cw.GRUCell(N)
    out, _ = cw.dynamic_rnn(cell, XS, dtype="float32", resets=RESETS.tolist())
    assert torch.equal(out, cw.dynamic_rnn(cell, XS, dtype="float32", resets=RESETS)[0])


@pytest.mark.parametrize(
    "arguments, kind, words",
    [
        ({"resets": RESETS.T}, ValueError, r"expected resets \[B, T\] = \[3, 6\], got \[6, 3\]"),
        ({"resets": RESETS, "time_major": True}, ValueError, r"expected resets \[T, B\] = \[3, 3\]|= \[6, 3\]"),
        ({"resets": RESETS[0]}, ValueError, r"got \[6\]"),
        ({"resets": RESETS.float()}, TypeError, "expected resets as booleans, got float32"),
        ({"reset_state": H}, ValueError, "expected resets because reset_state was given"),
        ({"resets": RESETS, "reset_state": (H,)}, TypeError, "reset_state: expected structure"),
        ({"resets": RESETS, "reset_state": H[:1]}, ValueError, r"expected reset_state leaf \[3, 3\], got \[1, 3\]"),
        ({"resets": RESETS, "reset_state": 3.0}, TypeError, "expected reset_state leaves as tensors, got float"),
    ],
    ids=["turned", "time major", "one axis", "numbers", "alone", "structure", "rows", "number"],
)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    xs = XS.transpose(0, 1) if arguments.get("time_major") else XS
    with pytest.raises(kind, match=f"dynamic_rnn.*{words}") as error:
        cw.dynamic_rnn(cw.GRUCell(N), xs, dtype="float32", **arguments)
    assert isinstance(error.value, cw.CellweaveError)


def test_in_a_recorded_graph() -> None:
    cell = cw.GRUCell(N)
    expected = cw.dynamic_rnn(cell, XS, dtype="float32", resets=RESETS)
    with cw.Graph():
        x, resets = cw.Input((None, T, D)), cw.Input((None, T), dtype="bool")
        model = cw.Model([x, resets], list(cw.dynamic_rnn(cell, x, dtype="float32", resets=resets)))
    out, state = model([XS, RESETS])
    assert torch.equal(out, expected[0]) and torch.equal(state, expected[1])
