"""Initial values and dtypes of the cells' variables (contract section 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw

D, N, P = 40, 50, 30
ones = cw.initializers.ones_initializer
X, H = torch.zeros(2, D), torch.zeros(2, N)
MAKERS: dict[str, Callable[..., Any]] = {
    "basic_rnn": cw.BasicRNNCell,
    "gru": cw.GRUCell,
    "basic_lstm": cw.BasicLSTMCell,
    "lstm": lambda n, **k: cw.LSTMCell(n, use_peepholes=True, num_proj=P, **k),
}
each_cell = pytest.mark.parametrize("kind", MAKERS)


def _built(kind: str, **kwargs: Any) -> Any:
    cell = MAKERS[kind](N, **kwargs)
    cell.build([None, D])
    return cell


def _is_bias(name: str) -> bool:
    return name.endswith("bias")


@each_cell
def test_kernels_are_glorot_uniform_on_their_whole_shape(kind: str) -> None:
    """Inputs and state share one kernel, whose fans are those of the concatenation; 1-D: both fans are n."""
    for name, weight in _built(kind).named_parameters():
        if _is_bias(name):
            continue
        rows, columns = (N, N) if weight.dim() == 1 else weight.shape
        limit = math.sqrt(6 / (rows + columns))
        assert weight.abs().max() <= limit, name
        assert weight.abs().max() > 0.9 * limit, name
        assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.25 if weight.dim() == 1 else 0.05), name


@each_cell
def test_biases_are_zeros_and_the_grus_gates_ones(kind: str) -> None:
    for name, weight in _built(kind).named_parameters():
        if _is_bias(name):
            assert (weight == (1 if name == "gates_bias" else 0)).all(), name


@each_cell
def test_a_scope_initializer_is_for_all_but_biases(kind: str) -> None:
    with cw.variable_scope("s", initializer=cw.initializers.Constant(7.0)):
        cell = _built(kind)
    for name, weight in cell.named_parameters():
        assert (weight == 7).all().item() is not _is_bias(name), name
    assert all((w == (1 if n == "gates_bias" else 0)).all() for n, w in cell.named_parameters() if _is_bias(n))


def test_a_scope_initializer_reaches_through_unrolls_and_stacks() -> None:
    stack = cw.MultiRNNCell([cw.DropoutWrapper(cw.LSTMCell(3)), cw.GRUCell(3)])
    with cw.variable_scope("s", initializer=ones()):
        cw.dynamic_rnn(stack, torch.zeros(1, 2, 4), dtype="float32")
    assert all((w == 1).all() for n, w in stack.named_parameters() if n.endswith("kernel"))
    assert (stack.cells[0].cell.bias == 0).all()


def test_a_scope_initializer_holds_at_the_first_call_only_where_it_is() -> None:
    """The scope of the call counts, not the one where the cell was made."""
    with cw.variable_scope("s", initializer=ones()):
        cell = cw.BasicRNNCell(N)
    cell(X, H)
    assert cell.kernel.std() > 0


def test_an_own_initializer_wins_over_the_scopes() -> None:
    with cw.variable_scope("s", initializer=ones()):
        gru = _built("gru", kernel_initializer="zeros")
        lstm = _built("lstm", initializer=cw.initializers.Constant(2.0))
    assert (gru.gates_kernel == 0).all() and (gru.candidate_kernel == 0).all()
    assert all((w == (0 if _is_bias(n) else 2)).all() for n, w in lstm.named_parameters())


def test_the_grus_bias_initializer_is_for_both_biases() -> None:
    cell = _built("gru", bias_initializer=cw.initializers.Constant(0.25))
    assert (cell.gates_bias == 0.25).all() and (cell.candidate_bias == 0.25).all()


@pytest.mark.parametrize("kind", ["basic_lstm", "lstm"])
def test_the_forget_bias_is_never_stored(kind: str) -> None:
    cell = _built(kind, forget_bias=5.0)
    assert (cell.bias == 0).all()
    assert not any("forget" in name for name in cell.state_dict())


def test_shards_are_recorded_and_change_nothing() -> None:
    torch.manual_seed(0)
    whole = _built("lstm", initializer=cw.initializers.GlorotUniform(seed=1))
    parts = _built("lstm", initializer=cw.initializers.GlorotUniform(seed=1), num_unit_shards=3, num_proj_shards=2)
    pieces = {record.attribute: record.pieces for record in parts.variable_records()}
    assert pieces.pop("kernel") == 3
    assert pieces.pop("projection_kernel") == 2
    assert set(pieces.values()) == {1}
    assert {record.pieces for record in whole.variable_records()} == {1}
    assert all(torch.equal(a, b) for a, b in zip(whole.weights, parts.weights, strict=True))


@each_cell
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "complex64"])
class TestDtypes:
    def test_of_the_first_input(self, kind: str, dtype: str) -> None:
        cell = MAKERS[kind](N)
        assert cell.dtype is None
        state = cell.zero_state(2, dtype)
        out, _ = cell(torch.zeros(2, D, dtype=getattr(torch, dtype)), state)
        assert cell.dtype == dtype
        assert {str(weight.dtype) for weight in cell.weights} == {f"torch.{dtype}"} == {str(out.dtype)}

    def test_given(self, kind: str, dtype: str) -> None:
        cell = _built(kind, dtype=dtype)
        assert cell.dtype == dtype
        assert {str(weight.dtype) for weight in cell.weights} == {f"torch.{dtype}"}


@each_cell
def test_built_before_any_call_without_a_dtype_is_float32(kind: str) -> None:
    cell = _built(kind)
    assert cell.dtype == "float32"
    assert {weight.dtype for weight in cell.weights} == {torch.float32}


@each_cell
def test_nothing_is_cast(kind: str) -> None:
    cell = _built(kind)
    state = cell.zero_state(2, "float32")
    with pytest.raises(cw.DTypeError, match=r"inputs of dtype float32, got float64.*\.to\(dtype\)"):
        cell(X.double(), cell.zero_state(2, "float64"))
    with pytest.raises(cw.DTypeError, match=r"float32, got float64"):
        cell(X, cell.zero_state(2, "float64"))
    cell(X, state)


def test_weights_are_made_on_the_inputs_device() -> None:
    cell = cw.GRUCell(N)
    out, _ = cell(X.to("meta"), H.to("meta"))
    assert {weight.device.type for weight in cell.weights} == {"meta"} == {out.device.type}


def test_weights_of_a_build_are_made_on_the_default_device() -> None:
    with torch.device("meta"):
        cell = _built("lstm")
    assert {weight.device.type for weight in cell.weights} == {"meta"}
    cell = cell.to_empty(device="cpu")
    assert {weight.device.type for weight in cell.weights} == {"cpu"}
