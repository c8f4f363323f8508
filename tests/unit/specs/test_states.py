"""LSTMStateTuple."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch

import cellweave as cw


def test_c_comes_first() -> None:
    state = cw.LSTMStateTuple(1, 2)
    assert (state.c, state.h) == (1, 2) == tuple(state)
    assert cw.LSTMStateTuple(h=2, c=1) == state
    assert state._fields == ("c", "h") and isinstance(state, tuple)


def test_dtype_is_the_common_one() -> None:
    zeros = torch.zeros(2, 3)
    assert cw.LSTMStateTuple(zeros, zeros).dtype is torch.float32
    assert cw.LSTMStateTuple(zeros.double(), zeros.double()).dtype is torch.float64


def test_dtype_when_they_differ() -> None:
    state = cw.LSTMStateTuple(torch.zeros(1), torch.zeros(1).double())
    with pytest.raises(cw.DTypeError, match=r"LSTMStateTuple.*float32.*float64"):
        _ = state.dtype


def test_copies_keep_their_type() -> None:
    state = cw.LSTMStateTuple(torch.ones(1), torch.zeros(1))
    for other in (copy.copy(state), copy.deepcopy(state), pickle.loads(pickle.dumps(state)), state._replace(h=2)):
        assert type(other) is cw.LSTMStateTuple and torch.equal(other.c, state.c)
    assert type(cw.LSTMStateTuple._make([1, 2])) is cw.LSTMStateTuple


def test_torch_load_reads_saved_states() -> None:
    file, state = io.BytesIO(), (cw.LSTMStateTuple(torch.ones(1, 2), torch.zeros(1, 2)), torch.ones(3))
    torch.save({"state": state}, file)
    file.seek(0)
    (pair, _) = torch.load(file, weights_only=True)["state"]
    assert type(pair) is cw.LSTMStateTuple and torch.equal(pair.c, state[0].c) and torch.equal(pair.h, state[0].h)


def test_no_attributes_besides() -> None:
    with pytest.raises(AttributeError):
        cw.LSTMStateTuple(1, 2).other = 3  # type: ignore[attr-defined]
