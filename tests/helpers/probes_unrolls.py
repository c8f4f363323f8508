"""Error probes of the unrolls and of variable sharing."""

from __future__ import annotations

from typing import Any

import torch

import cellweave as cw
from helpers.probes import probe

X = torch.linspace(-1.0, 1.0, 2 * 5 * 4).reshape(2, 5, 4)
F32 = "float32"


def _run(cell: Any, **kwargs: Any) -> Any:
    return cw.dynamic_rnn(cell, X, **({"dtype": F32} | kwargs))


@probe("dynamic_no_dtype", says="dtype")
def _() -> Any:
    return cw.dynamic_rnn(cw.GRUCell(3), X)


@probe("dynamic_not_cell", says="dynamic_rnn")
def _() -> Any:
    return _run("c")


@probe("dynamic_rank2", says=r"\[2, 4\]")
def _() -> Any:
    return cw.dynamic_rnn(cw.GRUCell(3), X[:, 0], dtype=F32)


@probe("dynamic_none", says="None")
def _() -> Any:
    return cw.dynamic_rnn(cw.GRUCell(3), None, dtype=F32)


@probe("dynamic_unknown_depth")
def _() -> Any:
    with cw.Graph():
        return cw.dynamic_rnn(cw.GRUCell(3), cw.Input((2, 5, None)), dtype=F32)


@probe("dynamic_seqlen_rank2", says=r"sequence_length.*\[1, 2\]")
def _() -> Any:
    return _run(cw.GRUCell(3), sequence_length=torch.tensor([[5, 2]]))


@probe("dynamic_seqlen_wrong_len", says=r"sequence_length.*2.*3")
def _() -> Any:
    return _run(cw.GRUCell(3), sequence_length=[5, 2, 1])


@probe("dynamic_seqlen_wrong_len_run", says=r"sequence_length.*2.*3")
def _() -> Any:
    """TF finds it when running because the size is fed; here the size of a recorded graph's input is open."""
    with cw.Graph():
        x, lengths = cw.Input((None, 5, 4)), cw.Input((None,), dtype="int32")
        out, _ = cw.dynamic_rnn(cw.GRUCell(3), x, sequence_length=lengths, dtype=F32)
        model = cw.Model([x, lengths], out)
    return model([X, torch.tensor([5, 2, 1], dtype=torch.int32)])


@probe("dynamic_seqlen_float")
def _() -> None:
    cell = cw.GRUCell(3)
    out, state = _run(cell, sequence_length=torch.tensor([2.9, 4.1]))
    whole, whole_state = _run(cell, sequence_length=torch.tensor([2, 4]))
    assert torch.equal(out, whole) and torch.equal(state, whole_state)
    assert (out[0, 2:] == 0).all() and (out[0, 1] != 0).any()


@probe("dynamic_plain_tuple_init", says=r"LSTMStateTuple")
def _() -> Any:
    zeros = torch.zeros(2, 3)
    return cw.dynamic_rnn(cw.LSTMCell(3), X, initial_state=(zeros, zeros))


@probe("dynamic_mixed_init", says="float32.*float64|float64.*float32")
def _() -> Any:
    zeros = torch.zeros(2, 3)
    return cw.dynamic_rnn(cw.LSTMCell(3), X, initial_state=cw.LSTMStateTuple(zeros, zeros.double()))


@probe("dynamic_two_cells_one_scope", says="rnn/gru_cell/gates/kernel")
def _() -> Any:
    _run(cw.GRUCell(3))
    return _run(cw.GRUCell(3))


@probe("dynamic_same_cell_twice")
def _() -> None:
    cell = cw.GRUCell(3)
    first, _ = _run(cell)
    second, _ = _run(cell)
    assert torch.equal(first, second) and len(cell.weights) == 4


@probe("dynamic_same_cell_other_depth", says="4.*3|3.*4")
def _() -> Any:
    cell = cw.GRUCell(3)
    _run(cell)
    return cw.dynamic_rnn(cell, X[:, :, :3], dtype=F32)


@probe("scope_reuse_missing", says="rnn/gru_cell/gates/kernel")
def _() -> Any:
    with cw.variable_scope("outer", reuse=True):
        return _run(cw.GRUCell(3))


@probe("scope_reuse_shares")
def _() -> None:
    first, second = cw.GRUCell(3), cw.GRUCell(3)
    with cw.variable_scope("outer"):
        out, _ = _run(first)
    with cw.variable_scope("outer", reuse=True):
        again, _ = _run(second)
    assert all(a is b for a, b in zip(first.weights, second.weights, strict=True))
    assert torch.equal(out, again)


@probe("scope_auto_reuse")
def _() -> None:
    first, second = cw.GRUCell(3), cw.GRUCell(3)
    for cell in (first, second):
        with cw.variable_scope("outer", reuse=cw.AUTO_REUSE):
            _run(cell)
    assert all(a is b for a, b in zip(first.weights, second.weights, strict=True))


@probe("static_empty", says="static_rnn")
def _() -> Any:
    return cw.static_rnn(cw.GRUCell(3), [], dtype=F32)


@probe("static_tensor", says="static_rnn.*Tensor")
def _() -> Any:
    return cw.static_rnn(cw.GRUCell(3), X, dtype=F32)


@probe("static_no_dtype", says="dtype")
def _() -> Any:
    return cw.static_rnn(cw.GRUCell(3), list(X.unbind(1)))


@probe("raw_loop_fn", says="loop_fn")
def _() -> Any:
    return cw.raw_rnn(cw.GRUCell(3), "not a function")


@probe("bi_fw_not_cell", says="cell_fw|bidirectional_dynamic_rnn")
def _() -> Any:
    return cw.bidirectional_dynamic_rnn("c", cw.GRUCell(3), X, dtype=F32)


@probe("bi_seqlen_over", says="5.*6|6.*5")
def _() -> Any:
    return cw.bidirectional_dynamic_rnn(cw.GRUCell(3), cw.GRUCell(3), X, sequence_length=[6, 2], dtype=F32)
