"""Error probes of the wrappers."""

from __future__ import annotations

from typing import Any

import torch

import cellweave as cw
from cellweave import keras
from helpers.probes import probe

X = torch.ones(2, 4)


def _zeros() -> torch.Tensor:
    return torch.zeros(2, 3)


def _pair() -> cw.LSTMStateTuple:
    return cw.LSTMStateTuple(_zeros(), _zeros())


@probe("dropout_not_cell", says="DropoutWrapper.*'x'|DropoutWrapper.*str")
def _() -> Any:
    return cw.DropoutWrapper("x")


@probe("dropout_keep_above_1", says="input_keep_prob.*1.5")
def _() -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=1.5)


@probe("dropout_keep_negative", says="output_keep_prob.*-0.1")
def _() -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), output_keep_prob=-0.1)


@probe("dropout_keep_const_tensor", says="state_keep_prob.*1.2")
def _() -> Any:
    """A torch tensor is fed by the caller; what TF calls a constant tensor is a NumPy scalar or array here."""
    import numpy as np

    return cw.DropoutWrapper(cw.GRUCell(3), state_keep_prob=np.float32(1.2))


@probe("dropout_keep_int_1")
def _() -> None:
    wrapper = cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=1, seed=1)
    out, _ = wrapper(X, _zeros())
    plain, _ = wrapper.wrapped_cell(X, _zeros())
    assert torch.equal(out, plain)


@probe("dropout_keep_0_constructed")
def _() -> None:
    assert cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=0.0).get_config()["input_keep_prob"] == 0.0


@probe("dropout_keep_0_called", says="input_keep_prob.*0")
def _() -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=0.0)(X, _zeros())


@probe("dropout_visitor_not_callable", says="dropout_state_filter_visitor.*3")
def _() -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), dropout_state_filter_visitor=3)


@probe("dropout_var_no_dtype", says="dtype")
def _() -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), variational_recurrent=True, input_size=4)


@probe("dropout_var_no_input_size", says="input_size")
def _() -> Any:
    return cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=0.5, variational_recurrent=True, dtype="float32")


@probe("dropout_var_tensor_no_input_size", says="input_size")
def _() -> Any:
    fed = torch.tensor(1.0)
    return cw.DropoutWrapper(cw.GRUCell(3), input_keep_prob=fed, variational_recurrent=True, dtype="float32")


@probe("dropout_var_no_input_size_ok")
def _() -> None:
    wrapper = cw.DropoutWrapper(
        cw.GRUCell(3), output_keep_prob=0.5, variational_recurrent=True, dtype="float32", seed=3
    )
    out, state = wrapper(X, _zeros())
    assert torch.equal(out == 0, (out == 0)[:1].expand_as(out))  # one mask for all rows
    assert (state != 0).all()


@probe("dropout_visitor_int", says="bool.*1")
def _() -> Any:
    wrapper = cw.DropoutWrapper(cw.LSTMCell(3), state_keep_prob=0.5, seed=1, dropout_state_filter_visitor=lambda s: 1)
    return wrapper(X, _pair())


@probe("dropout_visitor_none", says="bool.*None")
def _() -> Any:
    wrapper = cw.DropoutWrapper(cw.GRUCell(3), state_keep_prob=0.5, seed=1, dropout_state_filter_visitor=lambda s: None)
    return wrapper(X, _zeros())


@probe("dropout_visitor_unused")
def _() -> None:
    asked: list[Any] = []
    wrapper = cw.DropoutWrapper(cw.GRUCell(3), output_keep_prob=0.5, seed=1, dropout_state_filter_visitor=asked.append)
    wrapper(X, _zeros())
    assert not asked


@probe("residual_mismatch", says=r"ResidualWrapper.*(4.*3|3.*4)")
def _() -> Any:
    return cw.ResidualWrapper(cw.GRUCell(3))(X, _zeros())


@probe("v2_keep_above_1", says="input_keep_prob.*1.5")
def _() -> Any:
    return cw.RNNCellDropoutWrapper(keras.GRUCell(3), input_keep_prob=1.5)


@probe("v2_bad_kwarg", says="foo")
def _() -> Any:
    return cw.RNNCellDropoutWrapper(keras.GRUCell(3), foo=1)


@probe("v2_zero_state", says="zero_state")
def _() -> Any:
    return cw.RNNCellDropoutWrapper(keras.GRUCell(3)).zero_state(2, "float32")
