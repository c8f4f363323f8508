"""What an unroll says to a cell that gives something else than its sizes promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw

B, T, N = 2, 3, 3
XS = torch.linspace(-1.0, 1.0, B * T * N).reshape(B, T, N)
Step = Callable[[torch.Tensor, Any], Any]


class Gives(cw.RNNCell):
    """Gives what a function does."""

    def __init__(self, step: Step, output_size: Any = N, state_size: Any = N) -> None:
        super().__init__()
        self._step, self._sizes = step, (output_size, state_size)

    output_size = property(lambda self: self._sizes[0])
    state_size = property(lambda self: self._sizes[1])

    def call(self, inputs: torch.Tensor, state: Any) -> Any:
        return self._step(inputs, state)


def _dynamic(cell: Any, lengths: Any = None) -> Any:
    return cw.dynamic_rnn(cell, XS, lengths, dtype="float32")


def _static(cell: Any, lengths: Any = None) -> Any:
    return cw.static_rnn(cell, list(XS.unbind(1)), sequence_length=lengths, dtype="float32")


PAIR = (N, N)
#: What a step gives, its sizes, the error that TF1 raises too.
WRONG: dict[str, tuple[Step, dict[str, Any], type[Exception]]] = {
    "wide output": (lambda x, s: (torch.cat([x, x], 1), s), {}, ValueError),
    "narrow output": (lambda x, s: (x[:, :2], s), {}, ValueError),
    "output of one row": (lambda x, s: (x[:1], s), {}, ValueError),
    "output of more axes": (lambda x, s: (x[:, None], s), {}, ValueError),
    "output of no axes": (lambda x, s: (x.sum(), s), {}, ValueError),
    "wide state": (lambda x, s: (x, torch.cat([s, s], 1)), {}, ValueError),
    "state of one row": (lambda x, s: (x, s[:1]), {}, ValueError),
    "double output": (lambda x, s: (x.double(), s), {}, TypeError),
    "whole output": (lambda x, s: (x.int(), s), {}, TypeError),
    "double state": (lambda x, s: (x, s.double()), {}, TypeError),
    "whole state": (lambda x, s: (x, s.int()), {}, TypeError),
    "one output for two": (lambda x, s: (x, s), {"output_size": PAIR}, ValueError),
    "two outputs for one": (lambda x, s: ((x, x), s), {}, ValueError),
    "no output": (lambda x, s: (None, s), {}, ValueError),
    "an array as output": (lambda x, s: (np.zeros((B, N)), s), {}, TypeError),
    "a list as state": (lambda x, s: (x, list(s)), {"state_size": PAIR}, TypeError),
    "a state too many": (lambda x, s: (x, (*s, s[0])), {"state_size": PAIR}, ValueError),
}
#: Wrong in every unroll, with lengths and without.
NO_PAIR: dict[str, tuple[Step, type[Exception]]] = {
    "nothing": (lambda x, s: None, ValueError),
    "one tensor": (lambda x, s: x, TypeError),
    "three": (lambda x, s: (x, s, s), ValueError),
}


@pytest.mark.parametrize("unroll", [_dynamic, _static])
@pytest.mark.parametrize("kind", WRONG)
def test_with_lengths(kind: str, unroll: Callable[..., Any]) -> None:
    step, sizes, error = WRONG[kind]
    with pytest.raises(error, match="the cell's (output|new state)") as caught:
        unroll(Gives(step, **sizes), [1, T])
    assert isinstance(caught.value, cw.CellweaveError)


@pytest.mark.parametrize("kind", WRONG)
def test_dynamic_rnn_without_lengths(kind: str) -> None:
    step, sizes, error = WRONG[kind]
    with pytest.raises(error, match="^dynamic_rnn: .*the cell's (output|new state)") as caught:
        _dynamic(Gives(step, **sizes))
    assert isinstance(caught.value, cw.CellweaveError)


@pytest.mark.parametrize("unroll", [_dynamic, _static])
@pytest.mark.parametrize("lengths", [None, [1, T]])
@pytest.mark.parametrize("kind", NO_PAIR)
def test_no_pair(kind: str, lengths: Any, unroll: Callable[..., Any]) -> None:
    step, error = NO_PAIR[kind]
    with pytest.raises(error, match=r"expected .*got ") as caught:
        unroll(Gives(step), lengths)
    assert isinstance(caught.value, cw.CellweaveError)


def test_static_rnn_without_lengths_takes_anything() -> None:
    """As in TF1, where nothing has to fit into a loop."""
    outputs, state = _static(Gives(lambda x, s: (x[:1, :2].double(), [torch.cat([s[0], s[0]], 1)]), N, (N,)))
    assert [tuple(output.shape) for output in outputs] == [(1, 2)] * T
    assert isinstance(state, list) and state[0].shape == (B, 2**T * N)


def test_without_lengths_outputs_take_the_structure_of_output_size() -> None:
    outputs, _ = _dynamic(Gives(lambda x, s: ([x, x], s), PAIR))
    assert isinstance(outputs, tuple)
    with pytest.raises(cw.ArgumentTypeError, match=r"the cell's output: expected structure \(\*, \*\), got \[\*, \*\]"):
        _dynamic(Gives(lambda x, s: ([x, x], s), PAIR), [1, T])


@pytest.mark.parametrize("size", [[N], cw.TensorShape([N]), cw.TensorShape([None])], ids=str)
def test_sizes_that_fit(size: Any) -> None:
    step: Step = (lambda x, s: ([x], s)) if isinstance(size, list) else (lambda x, s: (x, s))
    outputs, _ = _dynamic(Gives(step, size), [1, T])
    assert isinstance(outputs, list) is isinstance(size, list)


def test_autocast_may_narrow_what_a_cell_gives() -> None:
    cell = cw.MultiRNNCell([Gives(lambda x, s: (x @ torch.eye(N), s))])
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = _dynamic(cell, [1, T])
    assert outputs.dtype == torch.bfloat16
