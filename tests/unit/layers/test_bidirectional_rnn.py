"""bidirectional_dynamic_rnn and stack_bidirectional_dynamic_rnn."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch

import cellweave as cw
from helpers import nest
from helpers.woven import assert_same_run, both_ways
from oracles.unroll import reverse

B, T, D, N = 3, 5, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)
F32 = {"dtype": "float32"}


class Recorder(cw.RNNCell):
    """Output: its input; state: the last input it saw."""

    state_size = D
    output_size = D

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs, inputs


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("lengths", [None, [5, 2, 0], [1, 1, 1]])
def test_outputs_stand_beside_their_inputs(lengths: Any, time_major: bool) -> None:
    xs = XS.transpose(0, 1) if time_major else XS
    (fw, bw), (state_fw, state_bw) = cw.bidirectional_dynamic_rnn(
        Recorder(), Recorder(), xs, lengths, time_major=time_major, **F32
    )
    ends = [T] * B if lengths is None else lengths
    expected = XS.clone()
    for row, length in enumerate(ends):
        expected[row, length:] = 0
    for out in (fw, bw):
        assert torch.equal(out.transpose(0, 1) if time_major else out, expected)
    for row, length in enumerate(ends):
        assert torch.equal(state_fw[row], XS[row, length - 1] if length else torch.zeros(D))
        assert torch.equal(state_bw[row], XS[row, 0] if length else torch.zeros(D))


@pytest.mark.parametrize("lengths", [None, [5, 2, 0]])
def test_is_two_unrolls(lengths: Any) -> None:
    fw, bw = cw.LSTMCell(N), cw.GRUCell(2)
    (out_fw, out_bw), (state_fw, state_bw) = cw.bidirectional_dynamic_rnn(fw, bw, XS, lengths, **F32)
    want, want_state = cw.dynamic_rnn(fw, XS, lengths, **F32)
    assert torch.equal(out_fw, want) and all(torch.equal(a, b) for a, b in zip(state_fw, want_state, strict=True))
    ends = None if lengths is None else lengths
    flipped = torch.tensor(reverse(XS.transpose(0, 1).numpy(), ends).copy())
    want, want_state = cw.dynamic_rnn(bw, flipped, lengths, time_major=True, **F32)
    back = torch.tensor(reverse(want.detach().numpy(), ends).copy()).transpose(0, 1)
    assert torch.equal(out_bw, back) and torch.equal(state_bw, want_state)


@both_ways
def test_initial_states(backend: str | None) -> None:
    fw, bw = cw.GRUCell(N), cw.GRUCell(N)
    with cw.use_backend(backend):
        (out_fw, out_bw), _ = cw.bidirectional_dynamic_rnn(fw, bw, XS, initial_state_fw=H, initial_state_bw=-H)
    assert_same_run(backend, (out_fw[:, 0], out_bw[:, -1]), (fw(XS[:, 0], H)[0], bw(XS[:, -1], -H)[0]))
    with pytest.raises(cw.ArgumentError, match="dtype"):
        cw.bidirectional_dynamic_rnn(fw, bw, XS, initial_state_fw=H)
    cw.bidirectional_dynamic_rnn(fw, bw, XS, initial_state_fw=H, **F32)


@pytest.mark.parametrize("lengths", [[6, 1, 1], [5, -1, 2], torch.tensor([5, 2, 7])], ids=str)
def test_lengths_outside(lengths: Any) -> None:
    """Unlike dynamic_rnn, which clamps."""
    with pytest.raises(cw.ArgumentError, match=r"bidirectional_dynamic_rnn: expected sequence_length in 0..5, got \["):
        cw.bidirectional_dynamic_rnn(cw.GRUCell(N), cw.GRUCell(N), XS, lengths, **F32)


def test_lengths_of_another_size() -> None:
    with pytest.raises(cw.ShapeError, match=r"bidirectional_dynamic_rnn: expected sequence_length \[3\]"):
        cw.bidirectional_dynamic_rnn(cw.GRUCell(N), cw.GRUCell(N), XS, [1, 2], **F32)


def test_float_lengths_are_truncated() -> None:
    (fw, bw), _ = cw.bidirectional_dynamic_rnn(Recorder(), Recorder(), XS, [5.0, 2.9, 0.5], **F32)
    assert torch.equal(fw[1, :2], XS[1, :2]) and not fw[1, 2:].any() and torch.equal(fw, bw)


def test_structures_of_inputs() -> None:
    class Two(cw.RNNCell):
        state_size = 1
        output_size: ClassVar[dict[str, int]] = {"a": D, "b": 2}

        def call(self, inputs: Any, state: Any) -> Any:
            return {"a": inputs[0], "b": inputs[1]}, state

    other = torch.arange(B * T * 2.0).reshape(B, T, 2)
    (fw, bw), _ = cw.bidirectional_dynamic_rnn(Two(), Two(), (XS, other), [5, 2, 0], **F32)
    assert nest.picture(bw) == "{a: *, b: *}"
    assert torch.equal(fw["a"], bw["a"]) and torch.equal(fw["b"], bw["b"])
    assert torch.equal(bw["b"][1, :2], other[1, :2])


def test_scopes() -> None:
    for kwargs, prefix in (({}, "bidirectional_rnn"), ({"scope": "foo"}, "foo")):
        fw, bw = cw.BasicRNNCell(N), cw.BasicRNNCell(N)
        cw.bidirectional_dynamic_rnn(fw, bw, XS, **F32, **kwargs)
        assert (fw.scope_name, bw.scope_name) == (f"{prefix}/fw/basic_rnn_cell", f"{prefix}/bw/basic_rnn_cell")
    fw, bw = cw.GRUCell(N), cw.GRUCell(N)
    with cw.variable_scope("enc"):
        cw.bidirectional_dynamic_rnn(fw, bw, XS, **F32)
    assert "enc/bidirectional_rnn/bw/gru_cell/candidate/bias" in cw.variable_names(torch.nn.ModuleList([fw, bw]))


def test_one_cell_for_both_directions() -> None:
    cell = cw.GRUCell(N)
    (_out_fw, out_bw), _ = cw.bidirectional_dynamic_rnn(cell, cell, XS, **F32)
    (again, _), _ = cw.bidirectional_dynamic_rnn(cell, cell, XS.flip(1), **F32)
    assert torch.equal(out_bw, again.flip(1)) and cell.scope_name == "bidirectional_rnn/fw/gru_cell"


@pytest.mark.parametrize("shape", [(0, T, D), (B, 0, D)])
def test_nothing_to_do(shape: tuple[int, ...]) -> None:
    for lengths in (None, [0] * shape[0]):
        (fw, bw), _ = cw.bidirectional_dynamic_rnn(cw.GRUCell(N), cw.GRUCell(2), torch.zeros(shape), lengths, **F32)
        assert fw.shape == (*shape[:2], N) and bw.shape == (*shape[:2], 2)


def test_gradients_stay_inside_each_rows_length() -> None:
    xs = XS.clone().requires_grad_()
    cells = cw.GRUCell(N), cw.GRUCell(N)
    (fw, bw), states = cw.bidirectional_dynamic_rnn(*cells, xs, [5, 2, 0], **F32)
    (fw.sum() + bw.sum() + sum(s.sum() for s in states)).backward()
    assert (xs.grad[1, :2] != 0).all() and not xs.grad[1, 2:].any() and not xs.grad[2].any()


def test_parallel_iterations_is_an_int() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="parallel_iterations"):
        cw.bidirectional_dynamic_rnn(cw.GRUCell(N), cw.GRUCell(N), XS, parallel_iterations="x", **F32)


class TestStack:
    def _cells(self, make: Any = lambda: cw.BasicRNNCell(N)) -> tuple[list[Any], list[Any]]:
        return [make() for _ in range(3)], [make() for _ in range(3)]

    @pytest.mark.parametrize("time_major", [False, True])
    @pytest.mark.parametrize("lengths", [None, [5, 2, 0]])
    def test_is_layer_upon_layer(self, lengths: Any, time_major: bool) -> None:
        fw, bw = self._cells(lambda: cw.LSTMCell(N))
        xs = XS.transpose(0, 1) if time_major else XS
        out, states_fw, states_bw = cw.stack_bidirectional_dynamic_rnn(
            fw, bw, xs, sequence_length=lengths, time_major=time_major, **F32
        )
        assert type(states_fw) is type(states_bw) is tuple and len(states_fw) == len(states_bw) == 3
        for layer in range(3):
            pair, (state_fw, state_bw) = cw.bidirectional_dynamic_rnn(
                fw[layer], bw[layer], xs, lengths, time_major=time_major, **F32
            )
            xs = torch.cat(pair, dim=2)
            got = nest.flatten((states_fw[layer], states_bw[layer]))
            assert all(torch.equal(a, b) for a, b in zip(got, nest.flatten((state_fw, state_bw)), strict=True))
        assert torch.equal(out, xs) and out.shape[2] == 2 * N

    def test_names(self) -> None:
        for kwargs, prefix in (({}, "stack_bidirectional_rnn"), ({"scope": "foo"}, "foo")):
            fw, bw = self._cells()
            cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, **F32, **kwargs)
            for layer in range(3):
                base = f"{prefix}/cell_{layer}/bidirectional_rnn"
                assert fw[layer].scope_name == f"{base}/fw/basic_rnn_cell"
                assert bw[layer].scope_name == f"{base}/bw/basic_rnn_cell"
            assert fw[1].kernel.shape == (3 * N, N)

    def test_initial_states(self) -> None:
        fw, bw = self._cells()
        first = [H, 2 * H, 3 * H]
        out, _, _ = cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, first, [-h for h in first])
        zero, _, _ = cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, **F32)
        again, _, _ = cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, tuple(first), [-h for h in first])
        assert torch.equal(out, again) and not torch.equal(out, zero)
        with pytest.raises(cw.CellweaveError, match="stack_bidirectional_dynamic_rnn: expected initial_states_fw"):
            cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, first[:2], first)
        with pytest.raises(cw.CellweaveError, match="stack_bidirectional_dynamic_rnn: expected initial_states_bw"):
            cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, first, H)

    @pytest.mark.parametrize("kind", [tuple, torch.nn.ModuleList])
    def test_other_lists_of_cells(self, kind: Any) -> None:
        fw, bw = self._cells()
        out, _, _ = cw.stack_bidirectional_dynamic_rnn(kind(fw), kind(bw), XS, **F32)
        assert torch.equal(out, cw.stack_bidirectional_dynamic_rnn(fw, bw, XS, **F32)[0])

    @pytest.mark.parametrize("take", [(0, 0), (1, 2), (0, 3)])
    def test_as_many_cells_forwards_as_backwards(self, take: tuple[int, int]) -> None:
        fw, bw = self._cells()
        with pytest.raises(cw.ArgumentError, match="stack_bidirectional_dynamic_rnn: expected"):
            cw.stack_bidirectional_dynamic_rnn(fw[: take[0]], bw[: take[1]], XS, **F32)

    @pytest.mark.parametrize("cells", [None, cw.GRUCell(N)], ids=["none", "cell"])
    def test_lists_are_needed(self, cells: Any) -> None:
        with pytest.raises(cw.CellweaveError, match="stack_bidirectional_dynamic_rnn: expected cells_fw as a list"):
            cw.stack_bidirectional_dynamic_rnn(cells, [cw.GRUCell(N)], XS, **F32)

    def test_one_run_draws_variational_noise_once(self) -> None:
        def make() -> Any:
            return cw.DropoutWrapper(
                cw.GRUCell(N), output_keep_prob=0.5, variational_recurrent=True, dtype="float32", seed=1
            )

        cell = make()
        out, _, _ = cw.stack_bidirectional_dynamic_rnn([cell], [cell], XS, **F32)
        assert torch.equal(out[..., :N].any(dim=1), out[..., N:].any(dim=1))
