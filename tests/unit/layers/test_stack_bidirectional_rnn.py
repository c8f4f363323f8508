"""stack_bidirectional_rnn."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import contrib
from helpers.woven import assert_same_run, both_ways

B, T, D = 3, 5, 4


def _cells() -> list[Any]:
    return [cw.GRUCell(2), cw.LSTMCell(3)]


@both_ways
@pytest.mark.parametrize("lengths", [None, [5, 0, 2]])
@pytest.mark.parametrize("started", [False, True])
def test_is_the_dynamic_form_over_a_list(backend: str | None, lengths: Any, started: bool) -> None:
    fw, bw = _cells(), _cells()
    x = torch.randn(T, B, D)
    starts = [
        [torch.randn(B, 2), cw.LSTMStateTuple(torch.randn(B, 3), torch.randn(B, 3))] if started else None
        for _ in range(2)
    ]
    with cw.use_backend(backend):
        out, *states = contrib.stack_bidirectional_rnn(fw, bw, list(x), *starts, "float32", lengths)
        want, *want_states = cw.stack_bidirectional_dynamic_rnn(fw, bw, x, *starts, "float32", lengths, time_major=True)
    assert isinstance(out, list) and isinstance(states[0], tuple) and len(states[0]) == 2
    assert_same_run(backend, [torch.stack(out), *states], [want, *want_states])


def test_names() -> None:
    for kwargs, prefix in (({}, "stack_bidirectional_rnn"), ({"scope": "foo"}, "foo")):
        with cw.VariableStore() as store:
            contrib.stack_bidirectional_rnn(_cells(), _cells(), [torch.zeros(B, D)] * 2, dtype="float32", **kwargs)
        heads = list(dict.fromkeys("/".join(name.split("/")[:4]) for name in store.variables))
        assert heads == [
            f"{prefix}/cell_{layer}/{direction}/{cell}"
            for layer, cell in ((0, "gru_cell"), (1, "lstm_cell"))
            for direction in ("fw", "bw")
        ]


def test_errors() -> None:
    steps = [torch.zeros(B, D)]
    with pytest.raises(cw.ArgumentTypeError, match="stack_bidirectional_rnn: expected cells_fw as a list"):
        contrib.stack_bidirectional_rnn(cw.GRUCell(2), _cells(), steps, dtype="float32")
    with pytest.raises(cw.ArgumentError, match="as many cells forwards as backwards, got 2 and 1"):
        contrib.stack_bidirectional_rnn(_cells(), _cells()[:1], steps, dtype="float32")
    with pytest.raises(cw.ArgumentError, match="initial_states_bw with 2 states, got 1"):
        contrib.stack_bidirectional_rnn(_cells(), _cells(), steps, None, [torch.zeros(B, 2)], "float32")
