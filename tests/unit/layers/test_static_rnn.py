"""static_rnn and static_bidirectional_rnn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from helpers import nest
from helpers.woven import assert_same_run, both_ways

B, T, D, N = 3, 4, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(T, B, D)
STEPS = list(XS.unbind(0))
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)
F32 = {"dtype": "float32"}


def test_without_a_step_a_loss_still_goes_backward() -> None:
    """Rows of length 0 alone give zeros, through which nothing flows, as in TF1."""
    cell, x = cw.GRUCell(N), STEPS[0].clone().requires_grad_()
    outs, state = cw.static_rnn(cell, [x, x], sequence_length=[0] * len(x), **F32)
    sum(out.sum() for out in outs).backward()
    assert x.grad is None and not any(out.any() for out in outs) and not state.any()
    with torch.no_grad():
        outs, _ = cw.static_rnn(cell, [x, x], sequence_length=[0] * len(x), **F32)
    assert not outs[0].requires_grad


@pytest.mark.parametrize("lengths", [None, [4, 2, 0], [1, 1, 0]])
@pytest.mark.parametrize("kind", [list, tuple])
def test_is_dynamic_rnn_over_a_list(lengths: Any, kind: Any) -> None:
    cell = cw.LSTMCell(N)
    outs, state = cw.static_rnn(cell, kind(STEPS), sequence_length=lengths, **F32)
    want, want_state = cw.dynamic_rnn(cell, XS, lengths, time_major=True, **F32)
    assert isinstance(outs, list) and len(outs) == T
    assert torch.equal(torch.stack(outs), want)
    assert all(torch.equal(a, b) for a, b in zip(state, want_state, strict=True))


def test_structures_of_inputs_and_outputs() -> None:
    class Pairs(cw.RNNCell):
        state_size = 1
        output_size = (D, {"k": 1})

        def call(self, inputs: Any, state: Any) -> Any:
            return (inputs[0] + inputs[1], {"k": state}), state + 1

    outs, state = cw.static_rnn(Pairs(), [(x, x) for x in STEPS], sequence_length=[4, 2, 1], **F32)
    assert nest.picture(outs[0]) == "(*, {k: *})" and state.flatten().tolist() == [4.0, 2.0, 1.0]
    assert torch.equal(outs[3][0][0], 2 * STEPS[3][0]) and not outs[3][0][1:].any()
    short, _ = cw.static_rnn(Pairs(), [(x, x) for x in STEPS], sequence_length=[1, 0, 1], **F32)
    assert [nest.picture(out) for out in short] == ["(*, {k: *})"] * T and not short[3][0].any()


@both_ways
def test_without_lengths_any_tuple_or_list_is_a_state(backend: str | None) -> None:
    """TF1 compares structures only where lengths make it choose between two states."""
    cell = cw.MultiRNNCell([cw.LSTMCell(N), cw.GRUCell(N)])
    with cw.use_backend(backend):
        want = cw.static_rnn(cell, STEPS, (cw.LSTMStateTuple(H, 2 * H), H))
        for start in ([[H, 2 * H], H], ((H, 2 * H), H)):
            outs, state = cw.static_rnn(cell, STEPS, start)
            assert nest.picture(state) == nest.picture(want[1])
            assert_same_run(backend, (torch.stack(outs), state), (torch.stack(want[0]), want[1]))
            with pytest.raises(cw.ArgumentTypeError, match="static_rnn: initial_state"):
                cw.static_rnn(cell, STEPS, start, sequence_length=[4, 2, 0])
    with pytest.raises(cw.ArgumentError, match="static_rnn: initial_state: expected 2 elements"):
        cw.static_rnn(cell, STEPS, (H, H, H))


def test_initial_state_and_positions() -> None:
    cell = cw.BasicRNNCell(N)
    outs, _ = cw.static_rnn(cell, STEPS, H, None, [4, 4, 2], "foo")
    assert cell.scope_name == "foo/basic_rnn_cell" and not outs[3][2].any()
    want, _ = cw.dynamic_rnn(cell, XS, [4, 4, 2], H, time_major=True)
    assert torch.equal(torch.stack(outs), want)


def test_default_scope() -> None:
    cell = cw.BasicRNNCell(N)
    cw.static_rnn(cell, STEPS, **F32)
    assert cell.scope_name == "rnn/basic_rnn_cell"


@pytest.mark.parametrize(
    "inputs, kind",
    [
        (XS, TypeError),
        (None, TypeError),
        ({"a": STEPS[0]}, TypeError),
        (STEPS[0], TypeError),
        ([], ValueError),
        ((), ValueError),
        ([1.0], TypeError),
        ([STEPS[0][0]], ValueError),
        ([STEPS[0], STEPS[1][:2]], ValueError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
@pytest.mark.parametrize(
    "unroll", [cw.static_rnn, lambda c, x, **k: cw.static_bidirectional_rnn(c, cw.GRUCell(N), x, **k)]
)
def test_other_inputs(unroll: Any, inputs: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="static_(bidirectional_)?rnn: expected") as error:
        unroll(cw.GRUCell(N), inputs, **F32)
    assert isinstance(error.value, cw.CellweaveError)


def test_a_dtype_or_a_state_is_needed() -> None:
    with pytest.raises(cw.ArgumentError, match="static_rnn: expected dtype or initial_state"):
        cw.static_rnn(cw.GRUCell(N), STEPS)


@both_ways
def test_outputs_have_the_dtype_that_is_asked_for_where_lengths_are_given(backend: str | None) -> None:
    cell, steps = cw.GRUCell(N), list(torch.ones(T, B, D))
    with cw.use_backend(backend):
        assert cw.static_rnn(cell, steps, H, "float64")[0][0].dtype == torch.float32  # TF1 compares nothing then
        with pytest.raises(cw.DTypeError, match="output of dtype float64, got float32"):
            cw.static_rnn(cell, steps, H, "float64", sequence_length=[T, 2, 0])


def test_states_of_another_structure() -> None:
    with pytest.raises(cw.ArgumentTypeError, match="static_rnn: initial_state"):
        cw.static_rnn(cw.LSTMCell(N), STEPS, H)
    with pytest.raises(cw.ShapeError, match="static_rnn: expected initial_state leaf"):
        cw.static_rnn(cw.GRUCell(N), STEPS, H[:1])


class TestBidirectional:
    @pytest.mark.parametrize("lengths", [None, [4, 2, 0], [2, 1, 2]])
    def test_is_the_dynamic_form_concatenated(self, lengths: Any) -> None:
        fw, bw = cw.LSTMCell(N), cw.GRUCell(2)
        outs, state_fw, state_bw = cw.static_bidirectional_rnn(fw, bw, STEPS, sequence_length=lengths, **F32)
        pair, states = cw.bidirectional_dynamic_rnn(fw, bw, XS, lengths, time_major=True, **F32)
        assert isinstance(outs, list) and torch.equal(torch.stack(outs), torch.cat(pair, dim=2))
        for a, b in zip(nest.flatten((state_fw, state_bw)), nest.flatten(states), strict=True):
            assert torch.equal(a, b)

    @both_ways
    def test_names_and_initial_states(self, backend: str | None) -> None:
        fw, bw = cw.BasicRNNCell(N), cw.BasicRNNCell(N)
        with cw.use_backend(backend):
            outs, _, _ = cw.static_bidirectional_rnn(fw, bw, STEPS, H, -H)
        assert (fw.scope_name, bw.scope_name) == (
            "bidirectional_rnn/fw/basic_rnn_cell",
            "bidirectional_rnn/bw/basic_rnn_cell",
        )
        hand = (fw(STEPS[0], H)[0], bw(STEPS[-1], -H)[0])
        assert_same_run(backend, (outs[0][:, :N], outs[-1][:, N:]), hand)
        other = cw.BasicRNNCell(N)
        cw.static_bidirectional_rnn(other, cw.BasicRNNCell(N), STEPS, scope="foo", **F32)
        assert other.scope_name == "foo/fw/basic_rnn_cell"

    def test_lengths_past_the_end(self) -> None:
        with pytest.raises(
            cw.ArgumentError, match=r"static_bidirectional_rnn: expected sequence_length in 0..4, got \[5"
        ):
            cw.static_bidirectional_rnn(cw.GRUCell(N), cw.GRUCell(N), STEPS, sequence_length=[5, 1, 1], **F32)

    def test_structures_of_inputs(self) -> None:
        class Sum(cw.RNNCell):
            state_size = output_size = D

            def call(self, inputs: Any, state: Any) -> Any:
                return inputs[0] + inputs[1] + state, inputs[0]

        steps = [(x, 2 * x) for x in STEPS]
        outs, _, _ = cw.static_bidirectional_rnn(Sum(), Sum(), steps, sequence_length=[4, 2, 1], **F32)
        pair, _ = cw.bidirectional_dynamic_rnn(Sum(), Sum(), (XS, 2 * XS), [4, 2, 1], time_major=True, **F32)
        assert torch.equal(torch.stack(outs), torch.cat(pair, dim=2))
