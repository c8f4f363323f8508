"""LSTMBlockFusedCell, FusedRNNCellAdaptor, TimeReversedFusedRNN."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import contrib
from helpers.woven import assert_same_run, both_ways

T, B, D, N = 6, 3, 4, 5


def _fused(**options: Any) -> contrib.LSTMBlockFusedCell:
    layer = contrib.LSTMBlockFusedCell(N, **options)
    layer.build([T, B, D])
    return layer


def _inputs() -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    return torch.randn(T, B, D), (torch.randn(B, N), torch.randn(B, N))


@both_ways
@pytest.mark.parametrize("lengths", [None, [6, 0, 2]])
def test_the_block_cell_unrolled(backend: str | None, lengths: Any) -> None:
    layer, cell = _fused(forget_bias=0.3, cell_clip=0.5, use_peephole=True), contrib.LSTMBlockCell(N, 0.3, 0.5, True)
    cell.build([B, D])
    cell.set_weights(layer.get_weights())
    x, state = _inputs()
    with cw.use_backend(backend):
        got = layer(x, initial_state=state, sequence_length=lengths)
        want = cw.dynamic_rnn(cell, x, lengths, cw.LSTMStateTuple(*state), time_major=True)
    assert type(got[1]) is cw.LSTMStateTuple
    assert_same_run(backend, got, want)


def test_lists_and_zero_states() -> None:
    layer = _fused()
    x, _ = _inputs()
    want = layer(x, dtype="float32")
    got = layer(list(x), dtype="float32")
    assert isinstance(got[0], list) and torch.equal(torch.stack(got[0]), want[0])
    assert torch.equal(layer(x, (torch.zeros(B, N), torch.zeros(B, N)))[0], want[0])
    first = contrib.LSTMBlockFusedCell(N)
    first(list(x), dtype="float32")
    assert list(cw.variable_names(first)) == ["lstm_fused_cell/kernel", "lstm_fused_cell/bias"]


def test_names_and_weights() -> None:
    layer = contrib.LSTMBlockFusedCell(N, use_peephole=True)
    with cw.variable_scope("outer"):
        layer(torch.randn(T, B, D), dtype="float32")
    names = cw.variable_names(layer)
    suffixes = ("kernel", "bias", "w_i_diag", "w_f_diag", "w_o_diag")
    assert list(names) == [f"outer/lstm_fused_cell/{suffix}" for suffix in suffixes]
    assert [w is v for w, v in zip(layer.weights, names.values(), strict=True)] == [True] * 5
    assert layer.num_units == N and layer.count_params() == sum(w.numel() for w in layer.weights)
    layer.trainable = False
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 5
    assert not any(weight.requires_grad for weight in layer.weights)


def test_two_layers_in_a_store_and_reuse() -> None:
    x = torch.randn(T, B, D)
    with cw.VariableStore() as store:
        for layer in (contrib.LSTMBlockFusedCell(N), contrib.LSTMBlockFusedCell(N)):
            layer(x, dtype="float32")
        shared = contrib.LSTMBlockFusedCell(N, reuse=True)
        shared(x, dtype="float32")
    scopes = ["lstm_fused_cell", "lstm_fused_cell_1"]
    assert list(store.variables) == [f"{scope}/{name}" for scope in scopes for name in ("kernel", "bias")]
    assert shared.cell.kernel is store.variables["lstm_fused_cell/kernel"]


def test_state_dict_and_copies() -> None:
    layer, other = _fused(), contrib.LSTMBlockFusedCell(N)
    other.load_state_dict(layer.state_dict())
    x, state = _inputs()
    for same in (other, copy.deepcopy(layer)):
        assert torch.equal(same(x, state)[0], layer(x, state)[0])


def test_runs_on_the_native_core_where_there_is_one() -> None:
    layer = _fused()
    layer(torch.randn(T, B, D), dtype="float32")
    plan = cw.explain(layer.cell, torch.randn(T, B, D), dtype="float32", time_major=True)
    assert plan.backends == ("native",) or "native:" in plan.rows[0].why


def test_errors_of_the_fused_layer() -> None:
    layer = _fused()
    x, state = _inputs()
    with pytest.raises(cw.ArgumentError, match="LSTMBlockFusedCell.*expected initial_state or dtype"):
        layer(x)
    with pytest.raises(cw.ShapeError, match=r"expected inputs \[T, B, I\], got \[3, 4\]"):
        layer(x[0], dtype="float32")
    with pytest.raises(cw.ShapeError, match="initial_state as a pair"):
        layer(x, (*state, state[0]))
    for lengths in ([7, 0, 0], [-1, 0, 0]):
        with pytest.raises(cw.ArgumentError, match="sequence_length"):
            layer(x, state, sequence_length=lengths)
    with pytest.raises(cw.ShapeError, match="expected inputs"):
        contrib.LSTMBlockFusedCell(N).build([B, D])


@both_ways
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("lengths", [None, [6, 0, 2]])
def test_adaptor(backend: str | None, dynamic: bool, lengths: Any) -> None:
    cell = cw.GRUCell(N)
    layer = contrib.FusedRNNCellAdaptor(cell, use_dynamic_rnn=dynamic)
    x, (state, _) = _inputs()
    with cw.use_backend(backend):
        got = layer(x, state, sequence_length=lengths)
        want = cw.dynamic_rnn(cell, x, lengths, state, time_major=True)
        as_list = layer(list(x), state, sequence_length=lengths)
    assert_same_run(backend, got, want)
    assert isinstance(as_list[0], list)
    assert_same_run(backend, (torch.stack(as_list[0]), as_list[1]), want)
    assert [name.split("/")[0] for name in cw.variable_names(layer)] == ["rnn"] * 4


def test_adaptor_takes_a_scope_and_cells_only() -> None:
    layer = contrib.FusedRNNCellAdaptor(cw.GRUCell(N), True)
    layer(torch.randn(T, B, D), dtype="float32", scope="here")
    assert next(iter(cw.variable_names(layer))) == "here/gru_cell/gates/kernel"
    with pytest.raises(cw.ArgumentTypeError, match="FusedRNNCellAdaptor"):
        contrib.FusedRNNCellAdaptor(3)


@both_ways
@pytest.mark.parametrize("lengths", [None, [6, 0, 2]])
def test_reversed_in_time(backend: str | None, lengths: Any) -> None:
    """What the backward half of a bidirectional unroll gives."""
    cell = cw.GRUCell(N)
    layer = contrib.TimeReversedFusedRNN(contrib.FusedRNNCellAdaptor(cell, use_dynamic_rnn=True))
    x, (state, _) = _inputs()
    with cw.use_backend(backend):
        got = layer(x, state, sequence_length=lengths)
        (_, out), (_, last) = cw.bidirectional_dynamic_rnn(
            cw.GRUCell(N), cell, x, lengths, initial_state_bw=state, dtype="float32", time_major=True
        )
    assert_same_run(backend, got, (out, last))


def test_a_list_is_turned_as_a_whole() -> None:
    cell = cw.GRUCell(N)
    adaptor = contrib.FusedRNNCellAdaptor(cell)
    x, (state, _) = _inputs()
    out, last = contrib.TimeReversedFusedRNN(adaptor)(list(x), state, sequence_length=[6, 0, 2])
    want, want_last = adaptor(x.flip(0), state, sequence_length=[6, 0, 2])
    assert torch.equal(torch.stack(out), want.flip(0)) and torch.equal(last, want_last)


def test_errors_of_the_reversed_layer() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="TimeReversedFusedRNN: expected a fused cell, got 3"):
        contrib.TimeReversedFusedRNN(3)
    with pytest.raises(cw.ArgumentError, match="TimeReversedFusedRNN.*sequence_length"):
        contrib.TimeReversedFusedRNN(_fused())(torch.randn(T, B, D), dtype="float32", sequence_length=[7, 1, 1])
