"""dynamic_rnn: layouts, structures, states, scopes. Lengths have a file of their own; numbers: tests/numerics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers import nest
from helpers.woven import assert_same_run, both_ways

B, T, D, N = 2, 5, 4, 3
XS = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
H = torch.linspace(-0.5, 0.5, B * N).reshape(B, N)
F32 = {"dtype": "float32"}


def _by_hand(cell: Any, xs: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    outs = []
    for step in range(xs.shape[1]):
        out, state = cell(xs[:, step], state)
        outs.append(out)
    return torch.stack(outs, dim=1), state


@pytest.mark.parametrize(
    "cell", [cw.GRUCell(N), cw.LSTMCell(N, num_proj=2), cw.MultiRNNCell([cw.GRUCell(N), cw.LSTMCell(2)])]
)
@both_ways
def test_is_stepping_by_hand(cell: Any, backend: str | None) -> None:
    with cw.use_backend(backend):
        out, final = cw.dynamic_rnn(cell, XS, **F32)
    want, state = _by_hand(cell, XS, cell.zero_state(B, "float32"))
    assert nest.picture(final) == nest.picture(cell.state_size)
    assert_same_run(backend, (out, final), (want, state))


@both_ways
def test_initial_state(backend: str | None) -> None:
    cell = cw.GRUCell(N)
    with cw.use_backend(backend):
        out, final = cw.dynamic_rnn(cell, XS, initial_state=H)
    assert_same_run(backend, (out, final), _by_hand(cell, XS, H))
    assert not torch.equal(out, cw.dynamic_rnn(cell, XS, **F32)[0])


@pytest.mark.parametrize("lengths", [None, [3, 5]])
def test_time_major(lengths: Any) -> None:
    cell = cw.LSTMCell(N)
    out, final = cw.dynamic_rnn(cell, XS, lengths, **F32)
    other, other_final = cw.dynamic_rnn(cell, XS.transpose(0, 1), lengths, time_major=True, **F32)
    assert torch.equal(other.transpose(0, 1), out) and other.shape == (T, B, N)
    assert all(torch.equal(a, b) for a, b in zip(final, other_final, strict=True))


def test_inputs_are_left_alone_and_may_have_gaps() -> None:
    cell = cw.GRUCell(N)
    wide = torch.zeros(B, T, 2 * D)
    wide[..., ::2] = XS
    out, _ = cw.dynamic_rnn(cell, wide[..., ::2], initial_state=H)
    kept = H.clone()
    assert torch.equal(out, cw.dynamic_rnn(cell, XS, initial_state=H)[0]) and torch.equal(H, kept)


class Pairs(cw.RNNCell):
    """Takes and gives structures, with a state of several axes."""

    state_size: ClassVar[dict[str, Any]] = {"n": cw.TensorShape([2, 2]), "m": 1}
    output_size = (D, [1])

    def call(self, inputs: Any, state: Any) -> Any:
        x, images = inputs["x"], inputs["images"]
        new = {"n": state["n"] + images.mean(dim=(1, 2))[:, None, None], "m": state["m"] + 1}
        return (2 * x, [images.sum(dim=(1, 2))[:, None]]), new


def _images() -> torch.Tensor:
    return torch.arange(B * T * 6.0).reshape(B, T, 3, 2)


@pytest.mark.parametrize("time_major", [False, True])
def test_structures_of_inputs_and_outputs(time_major: bool) -> None:
    inputs = {"x": XS, "images": _images()}
    if time_major:
        inputs = {key: value.transpose(0, 1) for key, value in inputs.items()}
    out, final = cw.dynamic_rnn(Pairs(), inputs, [5, 2], time_major=time_major, **F32)
    assert nest.picture(out) == "(*, [*])"
    first, second = (leaf.transpose(0, 1) if time_major else leaf for leaf in nest.flatten(out))
    assert torch.equal(first[0], 2 * XS[0]) and torch.equal(first[1, :2], 2 * XS[1, :2]) and not first[1, 2:].any()
    assert torch.equal(second[1, :2, 0], _images()[1, :2].sum(dim=(1, 2))) and not second[1, 2:].any()
    assert final["m"].flatten().tolist() == [5.0, 2.0]
    assert torch.allclose(final["n"][1], _images()[1, :2].mean(dim=(1, 2)).sum().expand(2, 2))


@pytest.mark.parametrize("dtype", ["float64", torch.float64, np.float64])
def test_dtype_is_the_zero_states(dtype: Any) -> None:
    out, final = cw.dynamic_rnn(cw.GRUCell(N), XS.double(), dtype=dtype)
    assert out.dtype == final.dtype == torch.float64
    with pytest.raises(cw.DTypeError, match="float32.*float64|float64.*float32"):
        cw.dynamic_rnn(cw.GRUCell(N), XS, dtype=dtype)


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 2])], ids=["full", "lengths"])
@both_ways
def test_outputs_have_the_dtype_that_is_asked_for(backend: str | None, lengths: Any) -> None:
    """Not the state's: TensorFlow writes them into an array of that dtype, and casts nothing."""
    cell = cw.GRUCell(N)
    cw.dynamic_rnn(cell, XS, lengths, H, "float32")
    with cw.use_backend(backend), pytest.raises(cw.DTypeError, match="output of dtype float64, got float32"):
        cw.dynamic_rnn(cell, XS, lengths, H, "float64")


def test_a_missing_leaf_is_shown_by_its_structure() -> None:
    """Not by the values of all tensors beside it."""
    with pytest.raises(cw.ArgumentError, match=r"inputs \[B, T, D\], got \(\*, \*\) with 2 leaves, .* None\.$"):
        cw.dynamic_rnn(Pairs(), (XS, None), **F32)
    with pytest.raises(cw.ArgumentError, match=r"expected inputs \[B, T, D\], got None\.$"):
        cw.dynamic_rnn(Pairs(), None, **F32)


def test_a_dtype_or_a_state_is_needed() -> None:
    with pytest.raises(cw.ArgumentError, match="dynamic_rnn: expected dtype or .*, got neither. Pass dtype='float32'"):
        cw.dynamic_rnn(cw.GRUCell(N), XS)


class TwoStates(cw.RNNCell):
    """A state whose leaves may have two dtypes."""

    state_size = (N, 1)
    output_size = D

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs, (state[0], state[1] + 1)


def test_a_state_of_several_dtypes_needs_a_dtype() -> None:
    mixed = (H, torch.zeros(B, 1, dtype=torch.int64))
    with pytest.raises(cw.ArgumentError, match="float32.*int64"):
        cw.dynamic_rnn(TwoStates(), XS, initial_state=mixed)
    _, final = cw.dynamic_rnn(TwoStates(), XS, [5, 2], initial_state=mixed, **F32)
    assert final[1].dtype == torch.int64 and final[1].flatten().tolist() == [5, 2]


@pytest.mark.parametrize(
    "state, kind",
    [
        ((H, H), TypeError),
        ([H, H], TypeError),
        (cw.LSTMStateTuple(H, (H,)), TypeError),
        (H, TypeError),
        (cw.LSTMStateTuple(H, 3.0), TypeError),
        (cw.LSTMStateTuple(H, H[:1]), ValueError),
        (cw.LSTMStateTuple(H, H[:, :2]), ValueError),
        (cw.LSTMStateTuple(H, H[None]), ValueError),
    ],
    ids=["tuple", "list", "deep", "tensor", "number", "rows", "width", "rank"],
)
def test_states_of_another_structure_or_size(state: Any, kind: type[Exception]) -> None:
    with pytest.raises(
        kind, match="dynamic_rnn: expected .*initial_state|dynamic_rnn: initial_state: expected"
    ) as error:
        cw.dynamic_rnn(cw.LSTMCell(N), XS, initial_state=state)
    assert isinstance(error.value, cw.CellweaveError)


def test_a_cell_that_changes_its_states_structure() -> None:
    class Grows(cw.RNNCell):
        state_size = N
        output_size = D

        def call(self, inputs: Any, state: Any) -> Any:
            return inputs, (state,)

    with pytest.raises(cw.ArgumentTypeError, match="dynamic_rnn: the cell's new state"):
        cw.dynamic_rnn(Grows(), XS, **F32)


@pytest.mark.parametrize(
    "inputs", [XS[0], XS[0, 0], torch.tensor(1.0), (XS, XS[:1]), (XS, XS[:, :2]), (XS, XS[0])], ids=lambda v: "x"
)
def test_inputs_of_other_shapes(inputs: Any) -> None:
    with pytest.raises(cw.ShapeError, match="dynamic_rnn: expected inputs"):
        cw.dynamic_rnn(Pairs(), inputs, **F32)


@pytest.mark.parametrize(
    "inputs, kind", [(None, ValueError), ((), ValueError), (XS.tolist(), TypeError), ("x", TypeError)]
)
def test_inputs_of_other_kinds(inputs: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="dynamic_rnn: expected inputs"):
        cw.dynamic_rnn(cw.GRUCell(N), inputs, **F32)


def test_no_steps() -> None:
    cell = cw.LSTMCell(N, num_proj=2)
    state = cw.LSTMStateTuple(H, H[:, :2])
    for lengths in (None, [0, 0], [3, -1]):
        out, final = cw.dynamic_rnn(cell, XS[:, :0], lengths, initial_state=state)
        assert out.shape == (B, 0, 2) and final.c is H
    out, _ = cw.dynamic_rnn(cell, XS[:, :0].transpose(0, 1), time_major=True, **F32)
    assert out.shape == (0, B, 2)


def test_no_rows() -> None:
    for lengths in (None, [], torch.zeros(0, dtype=torch.int64)):
        out, final = cw.dynamic_rnn(cw.LSTMCell(N), XS[:0], lengths, **F32)
        assert out.shape == (0, T, N) and final.c.shape == (0, N)


@pytest.mark.parametrize(
    "scope, prefix", [(None, "rnn"), ("decoder", "decoder"), ("a/b", "a/b"), (cw.VariableScope("own"), "own")], ids=str
)
def test_scope(scope: Any, prefix: str) -> None:
    cell = cw.BasicRNNCell(N)
    cw.dynamic_rnn(cell, XS, scope=scope, **F32)
    assert list(cw.variable_names(cell)) == [f"{prefix}/basic_rnn_cell/kernel", f"{prefix}/basic_rnn_cell/bias"]
    cw.dynamic_rnn(cell, XS, scope="elsewhere", **F32)
    assert cell.scope_name == f"{prefix}/basic_rnn_cell"


def test_scope_below_an_open_one() -> None:
    cell = cw.BasicRNNCell(N)
    with cw.variable_scope("enc"):
        cw.dynamic_rnn(cell, XS, **F32)
    assert cell.scope_name == "enc/rnn/basic_rnn_cell"


def test_two_cells_in_one_scope_collide_in_a_store() -> None:
    with cw.VariableStore():
        cw.dynamic_rnn(cw.GRUCell(N), XS, **F32)
        with pytest.raises(cw.ScopeError, match="rnn/gru_cell/gates/kernel"):
            cw.dynamic_rnn(cw.GRUCell(N), XS, **F32)
        with cw.variable_scope("other"):
            cw.dynamic_rnn(cw.GRUCell(N), XS, **F32)
    for _ in range(2):  # without a store nobody collides
        cw.dynamic_rnn(cw.GRUCell(N), XS, **F32)


def test_swap_memory_and_parallel_iterations_change_nothing() -> None:
    cell = cw.DropoutWrapper(cw.GRUCell(N), 0.5, 0.5, 0.5, seed=3)
    outs = []
    for kwargs in ({}, {"parallel_iterations": 1}, {"parallel_iterations": np.int64(7), "swap_memory": True}):
        fresh = cw.DropoutWrapper(cell.cell, 0.5, 0.5, 0.5, seed=3)
        outs.append(cw.dynamic_rnn(fresh, XS, **F32, **kwargs)[0])
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("value", ["32", 1.5, [1], -1], ids=repr)
def test_parallel_iterations_is_an_int(value: Any) -> None:
    with pytest.raises(cw.ArgumentTypeError, match="dynamic_rnn: expected parallel_iterations as an int"):
        cw.dynamic_rnn(cw.GRUCell(N), XS, parallel_iterations=value, **F32)


def test_positions_of_the_arguments() -> None:
    cell = cw.BasicRNNCell(N)
    xs = XS.transpose(0, 1)
    out, _ = cw.dynamic_rnn(cell, xs, [3, 5], H, None, 32, False, True, "foo")
    assert cell.scope_name == "foo/basic_rnn_cell" and not out[3:, 0].any() and out[4, 1].any()


def test_gradients_flow_through_time() -> None:
    cell = cw.GRUCell(N)
    xs, h = XS.clone().requires_grad_(), H.clone().requires_grad_()
    out, final = cw.dynamic_rnn(cell, xs, initial_state=h)
    out[:, -1].sum().backward(retain_graph=True)
    assert (xs.grad.abs().sum(dim=2) > 0).all() and (h.grad != 0).all()
    assert torch.equal(torch.autograd.grad(final.sum(), h)[0], h.grad)


def test_the_same_cell_object_in_two_unrolls_shares_its_weights() -> None:
    cell = cw.GRUCell(N)
    cw.dynamic_rnn(cell, XS, **F32)
    before = cell.weights
    cw.dynamic_rnn(cell, 2 * XS, **F32)
    assert all(a is b for a, b in zip(before, cell.weights, strict=True))


def test_integer_inputs_reach_a_cell_that_takes_them() -> None:
    class Embeds(cw.RNNCell):
        state_size = output_size = N

        def call(self, inputs: Any, state: Any) -> Any:
            table = cw.get_variable("table", [7, N])
            return table[inputs[:, 0]], state

    ids = torch.randint(0, 7, (B, T, 1))
    cell = Embeds()
    out, _ = cw.dynamic_rnn(cell, ids, [5, 2], **F32)
    assert torch.equal(out[0], cell.table[ids[0, :, 0]]) and not out[1, 2:].any()


def test_a_device_of_its_own() -> None:
    cell = cw.GRUCell(N, dtype="float32")
    out, final = cw.dynamic_rnn(cell, XS.to("meta"), **F32)
    assert out.device.type == final.device.type == "meta" and out.shape == (B, T, N)
