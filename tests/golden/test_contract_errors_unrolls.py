"""Errors of the unrolls (section 8 of the contract) beyond errors.json's probes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

import cellweave as cw
from helpers.not_cells import NOT_CELLS
from helpers.probes import expect_error

H = torch.zeros(2, 3)
XS = torch.linspace(-1.0, 1.0, 2 * 5 * 4).reshape(2, 5, 4)
F32 = {"dtype": "float32"}
Row = tuple[Callable[[], Any], type[BaseException], str]


def Cell() -> Any:  # noqa: N802 (stands for a class)
    return cw.GRUCell(3)


UNROLLS: dict[str, Callable[[Any], Any]] = {
    "dynamic": lambda cell: cw.dynamic_rnn(cell, XS, **F32),
    "static": lambda cell: cw.static_rnn(cell, list(XS.unbind(1)), **F32),
    "raw": lambda cell: cw.raw_rnn(cell, lambda *a: None),
    "bi-fw": lambda cell: cw.bidirectional_dynamic_rnn(cell, Cell(), XS, **F32),
    "bi-bw": lambda cell: cw.bidirectional_dynamic_rnn(Cell(), cell, XS, **F32),
    "static-bi-fw": lambda cell: cw.static_bidirectional_rnn(cell, Cell(), list(XS.unbind(1)), **F32),
    "static-bi-bw": lambda cell: cw.static_bidirectional_rnn(Cell(), cell, list(XS.unbind(1)), **F32),
}

NOT_CELL_LIKE: dict[str, Row] = {
    f"{name}-of-{what}": (lambda make=make, thing=thing: make(thing), TypeError, "")
    for name, make in UNROLLS.items()
    for what, thing in NOT_CELLS.items()
}


def _dynamic(**kwargs: Any) -> Any:
    return cw.dynamic_rnn(Cell(), XS, **({"dtype": "float32"} | kwargs))


class _ListState(cw.RNNCell):
    """Says a tuple of sizes, gives back a list."""

    state_size = (3, 3)
    output_size = 4

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs, list(state)


UNROLL: dict[str, Row] = {
    "dynamic-list-for-tuple-init": (
        lambda: cw.dynamic_rnn(cw.MultiRNNCell([Cell(), Cell()]), XS, initial_state=[H, H]),
        TypeError,
        "",
    ),
    "dynamic-list-for-tuple-back": (lambda: cw.dynamic_rnn(_ListState(), XS, **F32), TypeError, ""),
    "dynamic-no-dtype": (lambda: cw.dynamic_rnn(cw.LSTMCell(3), XS), ValueError, "dtype"),
    "dynamic-parallel-iterations": (lambda: _dynamic(parallel_iterations="many"), TypeError, "parallel_iterations"),
    "dynamic-length-scalar": (lambda: _dynamic(sequence_length=torch.tensor(3)), ValueError, "sequence_length"),
    "dynamic-length-short": (lambda: _dynamic(sequence_length=[3]), ValueError, "sequence_length.*2.*1|1.*2"),
    "dynamic-inputs-batches": (
        lambda: cw.dynamic_rnn(_Pairs(), (XS, XS[:1]), **F32),
        ValueError,
        "2.*1|1.*2",
    ),
    "dynamic-inputs-times": (lambda: cw.dynamic_rnn(_Pairs(), (XS, XS[:, :4]), **F32), ValueError, "5.*4|4.*5"),
    "dynamic-inputs-rank": (lambda: cw.dynamic_rnn(_Pairs(), (XS, XS[:, 0]), **F32), ValueError, r"\[2, 4\]"),
    "dynamic-init-batch": (
        lambda: cw.dynamic_rnn(Cell(), XS, initial_state=torch.zeros(3, 3)),
        ValueError,
        r"2.*3|3.*2",
    ),
    "dynamic-init-other-dtype": (
        lambda: cw.dynamic_rnn(Cell(), XS, initial_state=H.double()),
        TypeError,
        "float32.*float64|float64.*float32",
    ),
    "static-none": (lambda: cw.static_rnn(Cell(), None, **F32), TypeError, "static_rnn"),
    "static-empty-tuple": (lambda: cw.static_rnn(Cell(), (), **F32), ValueError, ""),
    "static-bi-tensor": (lambda: cw.static_bidirectional_rnn(Cell(), Cell(), XS, **F32), TypeError, ""),
    "static-bi-empty": (lambda: cw.static_bidirectional_rnn(Cell(), Cell(), [], **F32), ValueError, ""),
    "static-bi-no-dtype": (
        lambda: cw.static_bidirectional_rnn(Cell(), Cell(), list(XS.unbind(1))),
        ValueError,
        "dtype",
    ),
    "bi-no-dtype": (lambda: cw.bidirectional_dynamic_rnn(Cell(), Cell(), XS), ValueError, "dtype"),
    "bi-length-over": (
        lambda: cw.bidirectional_dynamic_rnn(Cell(), Cell(), XS, [5, 6], **F32),
        ValueError,
        "5.*6|6.*5",
    ),
    "bi-length-over-time-major": (
        lambda: cw.bidirectional_dynamic_rnn(Cell(), Cell(), XS, [3] * 4 + [9], time_major=True, **F32),
        ValueError,
        "2.*9|9.*2",
    ),
    "raw-not-callable": (lambda: cw.raw_rnn(Cell(), None), TypeError, "loop_fn"),
}


class _Pairs(cw.RNNCell):
    """A cell of two inputs."""

    state_size = 3
    output_size = 4

    def call(self, inputs: Any, state: Any) -> Any:
        return inputs[0] + inputs[1], state


@pytest.mark.parametrize("store", [False, True], ids=["alone", "store"])
@pytest.mark.parametrize(
    ("act", "kind", "says"), [pytest.param(*row, id=name) for name, row in (NOT_CELL_LIKE | UNROLL).items()]
)
def test_refused(act: Callable[[], Any], kind: type[BaseException], says: str, store: bool) -> None:
    with cw.VariableStore() if store else nullcontext():
        expect_error(act, kind, says)


def test_lengths_beyond_and_below() -> None:
    cell = Cell()
    whole, _ = cw.dynamic_rnn(cell, XS, [5, 0], **F32)
    clamped, _ = cw.dynamic_rnn(cell, XS, [9, -4], **F32)
    assert torch.equal(whole, clamped)
