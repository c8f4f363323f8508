"""Errors of the wrappers (sections 5 to 7 of the contract) beyond errors.json's probes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import keras
from helpers.not_cells import NOT_CELLS
from helpers.probes import expect_error

X = torch.linspace(-1.0, 1.0, 2 * 4).reshape(2, 4)
H = torch.zeros(2, 3)
PAIR = cw.LSTMStateTuple(H, H)
Kinds = type[BaseException] | tuple[type[BaseException], ...]
Row = tuple[Callable[[], Any], Kinds, str]


def Cell() -> Any:  # noqa: N802 (stands for a class)
    return cw.GRUCell(3)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "dropout": lambda cell: cw.DropoutWrapper(cell),
    "residual": lambda cell: cw.ResidualWrapper(cell),
    "device": lambda cell: cw.DeviceWrapper(cell, "cpu"),
}
NOT_CELL_LIKE: dict[str, Row] = {
    f"{name}-{what}": (lambda make=make, thing=thing: make(thing), TypeError, "")
    for name, make in WRAPPERS.items()
    for what, thing in NOT_CELLS.items()
}

MULTI: dict[str, Row] = {
    "none": (lambda: cw.MultiRNNCell(None), ValueError, "MultiRNNCell"),
    "empty-tuple": (lambda: cw.MultiRNNCell(()), ValueError, "MultiRNNCell"),
    "generator": (lambda: cw.MultiRNNCell(c for c in [Cell()]), TypeError, "MultiRNNCell.*generator"),
    "dict": (lambda: cw.MultiRNNCell({"a": Cell()}), TypeError, "MultiRNNCell.*dict"),
    "nested-size-concatenated": (
        lambda: cw.MultiRNNCell([Cell(), cw.BasicLSTMCell(3)], state_is_tuple=False),
        ValueError,
        "state_is_tuple",
    ),
    "multi-in-concatenated": (
        lambda: cw.MultiRNNCell([cw.MultiRNNCell([Cell()])], state_is_tuple=False),
        ValueError,
        "state_is_tuple",
    ),
    "tensor-state": (lambda: cw.MultiRNNCell([Cell()])(X, H), ValueError, "MultiRNNCell|multi_rnn_cell"),
    "short-state": (lambda: cw.MultiRNNCell([Cell(), Cell()])(X, (H,)), IndexError, ""),
    "concatenated-width": (
        lambda: cw.MultiRNNCell([Cell(), Cell()], state_is_tuple=False)(X, torch.zeros(2, 7)),
        ValueError,
        "6.*7|3.*4",
    ),
}


def _two_outputs(structure: Any) -> Any:
    class Cell2(cw.RNNCell):
        state_size = 3
        output_size = (3, 3)

        def call(self, inputs: Any, state: Any) -> Any:
            return structure(inputs), state

    return Cell2()


RESIDUAL: dict[str, Row] = {
    "shapes": (lambda: cw.ResidualWrapper(Cell())(X, H), ValueError, "4.*3|3.*4"),
    "structure": (
        lambda: cw.ResidualWrapper(_two_outputs(lambda x: (x, x)))(X, H),
        (TypeError, ValueError),
        "",
    ),
    "length": (
        lambda: cw.ResidualWrapper(_two_outputs(lambda x: (x[0], x[1], x[0])))((X, X), H),
        (TypeError, ValueError),
        "",
    ),
    "not-callable": (lambda: cw.ResidualWrapper(Cell(), residual_fn=3), TypeError, "residual_fn.*3"),
}


def _from_config(wrapper: Any) -> Any:
    return type(wrapper).from_config(wrapper.get_config())


V1: dict[str, Row] = {}
for _name, _make in WRAPPERS.items():
    V1 |= {
        f"{_name}-scope-name": (lambda make=_make: make(Cell()).scope_name, ValueError, "scope_name"),
        f"{_name}-count-params": (lambda make=_make: make(Cell()).count_params(), ValueError, "count_params"),
        f"{_name}-from-config": (lambda make=_make: _from_config(make(Cell())), ValueError, "cell"),
    }


def _called_wrapper(make: Callable[[Any], Any]) -> Any:
    wrapper = make(cw.GRUCell(4))
    wrapper(X, torch.zeros(2, 4))
    return wrapper


for _name, _make in WRAPPERS.items():
    V1 |= {
        f"{_name}-called-scope-name": (lambda make=_make: _called_wrapper(make).scope_name, ValueError, "scope_name"),
        f"{_name}-called-count": (lambda make=_make: _called_wrapper(make).count_params(), ValueError, "count_params"),
    }


def _drop(cell: Any = None, **kwargs: Any) -> Any:
    return cw.DropoutWrapper(Cell() if cell is None else cell, **kwargs)


def _visit(returned: Any, cell: Any = None, state: Any = PAIR) -> Any:
    cell = cw.LSTMCell(3) if cell is None else cell
    wrapper = _drop(cell, state_keep_prob=0.5, seed=1, dropout_state_filter_visitor=lambda s: returned)
    return wrapper(X, state)


def _visit_child(returned: Any) -> Any:
    """A good answer for the tuple, a bad one for its leaves."""
    wrapper = _drop(
        cw.LSTMCell(3),
        state_keep_prob=0.5,
        seed=1,
        dropout_state_filter_visitor=lambda s: True if isinstance(s, tuple) else returned,
    )
    return wrapper(X, PAIR)


DROPOUT: dict[str, Row] = {
    **{
        f"{kind}-{value}": (
            lambda kind=kind, value=value: _drop(**{f"{kind}_keep_prob": value}),
            ValueError,
            f"{kind}_keep_prob.*{value}",
        )
        for kind in ("input", "output", "state")
        for value in (1.0001, -0.25, float("nan"))
    },
    **{
        f"{kind}-zero-called": (
            lambda kind=kind: _drop(**{f"{kind}_keep_prob": 0.0}, seed=1)(X, H),
            ValueError,
            f"{kind}_keep_prob",
        )
        for kind in ("input", "output", "state")
    },
    "visitor": (lambda: _drop(dropout_state_filter_visitor="f"), TypeError, "dropout_state_filter_visitor"),
    "variational-no-dtype": (lambda: _drop(variational_recurrent=True), ValueError, "dtype"),
    "variational-input-size": (
        lambda: _drop(variational_recurrent=True, dtype="float32", input_keep_prob=0.9),
        ValueError,
        "input_size",
    ),
    "order-cell-before-visitor": (
        lambda: cw.DropoutWrapper("x", input_keep_prob=2.0, dropout_state_filter_visitor=3),
        TypeError,
        "'x'|str",
    ),
    "order-visitor-before-prob": (
        lambda: _drop(input_keep_prob=2.0, dropout_state_filter_visitor=3),
        TypeError,
        "dropout_state_filter_visitor",
    ),
    "order-input-first": (
        lambda: _drop(input_keep_prob=2.0, state_keep_prob=3.0, output_keep_prob=4.0),
        ValueError,
        "input_keep_prob",
    ),
    "order-state-before-output": (
        lambda: _drop(state_keep_prob=3.0, output_keep_prob=4.0),
        ValueError,
        "state_keep_prob",
    ),
    "order-prob-before-dtype": (
        lambda: _drop(output_keep_prob=4.0, variational_recurrent=True),
        ValueError,
        "output_keep_prob",
    ),
    "order-dtype-before-input-size": (
        lambda: _drop(input_keep_prob=0.5, variational_recurrent=True),
        ValueError,
        "dtype",
    ),
    "visitor-one": (lambda: _visit(1), TypeError, "1"),
    "visitor-none": (lambda: _visit(None), TypeError, "None"),
    "visitor-numpy-bool": (lambda: _visit(np.bool_(True)), TypeError, "bool"),
    "visitor-string": (lambda: _visit("yes"), TypeError, "yes|str"),
    "visitor-structure-for-a-leaf": (lambda: _visit((True,), Cell(), H), TypeError, ""),
    "visitor-leaf-one": (lambda: _visit_child(1), TypeError, "1"),
    "visitor-leaf-numpy-bool": (lambda: _visit_child(np.bool_(False)), TypeError, "bool"),
    "visitor-leaf-structure": (lambda: _visit_child((True,)), TypeError, ""),
    "visitor-depth-two": (lambda: _visit(cw.LSTMStateTuple((True, True), True)), TypeError, ""),
    "visitor-item-one": (lambda: _visit(cw.LSTMStateTuple(1, True)), TypeError, "1"),
    "visitor-short": (lambda: _visit((True,)), (TypeError, ValueError), ""),
    "visitor-short-list-of-layers": (
        lambda: _visit((True,), cw.MultiRNNCell([Cell(), Cell()]), (H, H)),
        ValueError,
        "2.*1|1.*2",
    ),
    "visitor-long": (
        lambda: _visit((True, True, True), cw.MultiRNNCell([Cell(), Cell()]), (H, H)),
        ValueError,
        "2.*3|3.*2",
    ),
}


def _v2(cell: Any = None, **kwargs: Any) -> Any:
    return cw.RNNCellDropoutWrapper(keras.GRUCell(3) if cell is None else cell, **kwargs)


class _Nameless:
    def __call__(self, state: Any) -> bool:
        return True


def _bad_type_config() -> Any:
    config = _v2(seed=1, dropout_state_filter_visitor=lambda s: True).get_config()
    config["dropout_fn_type"] = "neither"
    return cw.RNNCellDropoutWrapper.from_config(config)


V2: dict[str, Row] = {
    "not-a-cell": (lambda: _v2("x"), AttributeError, ""),
    "unknown-keyword": (lambda: _v2(foo=1), TypeError, "foo"),
    "residual-unknown-keyword": (lambda: cw.RNNCellResidualWrapper(keras.GRUCell(3), foo=1), TypeError, "foo"),
    "device-unknown-keyword": (lambda: cw.RNNCellDeviceWrapper(keras.GRUCell(3), "cpu", foo=1), TypeError, "foo"),
    "keep": (lambda: _v2(output_keep_prob=-1.0), ValueError, "output_keep_prob.*-1"),
    "visitor": (lambda: _v2(dropout_state_filter_visitor=3), TypeError, "dropout_state_filter_visitor"),
    "zero-state": (lambda: _v2().zero_state(2, "float32"), AttributeError, "zero_state"),
    "initial-nothing": (lambda: _v2().get_initial_state(), ValueError, ""),
    "initial-no-dtype": (lambda: _v2().get_initial_state(batch_size=2), ValueError, ""),
    "variational-list-state": (
        lambda: _v2(state_keep_prob=0.5, variational_recurrent=True, seed=1, dtype="float32")(X, [H]),
        TypeError,
        "",
    ),
    "nameless-visitor-config": (
        lambda: _v2(seed=1, dropout_state_filter_visitor=_Nameless()).get_config(),
        AttributeError,
        "",
    ),
    "config-type": (_bad_type_config, TypeError, "neither"),
}


GROUPS = {
    "cell-like": NOT_CELL_LIKE,
    "multi": MULTI,
    "residual": RESIDUAL,
    "v1": V1,
    "dropout": DROPOUT,
    "v2": V2,
}


@pytest.mark.parametrize("store", [False, True], ids=["alone", "store"])
@pytest.mark.parametrize(
    ("act", "kind", "says"),
    [pytest.param(*row, id=f"{group}-{name}") for group, rows in GROUPS.items() for name, row in rows.items()],
)
def test_refused(act: Callable[[], Any], kind: Kinds, says: str, store: bool) -> None:
    with cw.VariableStore() if store else nullcontext():
        expect_error(act, kind, says)


class TestAccepted:
    """What looks wrong and is right."""

    def test_extra_layer_states_are_ignored(self) -> None:
        multi = cw.MultiRNNCell([Cell(), Cell()])
        out, state = multi(X, (H, H, H + 7))
        again, _ = multi(X, (H, H))
        assert torch.equal(out, again) and len(state) == 2

    def test_variational_zero_keep_gives_nan(self) -> None:
        wrapper = _drop(output_keep_prob=0.0, variational_recurrent=True, dtype="float32", seed=1)
        assert wrapper(X, H)[0].isnan().all()

    def test_elements_of_layers_are_not_checked_at_once(self) -> None:
        with pytest.raises((TypeError, AttributeError)):
            cw.MultiRNNCell(["x"])(X, (H,))

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "complex64"])
    def test_dtypes_of_weights(self, dtype: str) -> None:
        real = getattr(torch, dtype)
        cell = cw.BasicRNNCell(3)
        out, _ = cell(X.to(real), H.to(real))
        assert out.dtype == real and cell.dtype == dtype

    def test_zero_state_takes_any_dtype(self) -> None:
        assert cw.GRUCell(3).zero_state(2, "int32").dtype == torch.int32

    def test_proj_clip_without_projection_is_ignored(self) -> None:
        free, clipped = cw.LSTMCell(3), cw.LSTMCell(3, proj_clip=0.01)
        free(X, PAIR)
        clipped(X, PAIR)
        clipped.set_weights(free.get_weights())
        assert torch.equal(free(X, PAIR)[0], clipped(X, PAIR)[0])

    def test_cell_clip_zero_clips_to_zero(self) -> None:
        _, state = cw.LSTMCell(3, cell_clip=0.0)(X, cw.LSTMStateTuple(H + 1, H))
        assert (state.c == 0).all()
