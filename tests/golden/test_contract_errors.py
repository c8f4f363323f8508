"""Errors of scopes, the base layer and the cells (sections 1 to 4 of the contract) beyond errors.json's probes.

Each row: what is done, the type that TensorFlow raises, and the facts that the message must name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from helpers.probes import expect_error

X = torch.linspace(-1.0, 1.0, 2 * 4).reshape(2, 4)
H = torch.zeros(2, 3)
Row = tuple[Callable[[], Any], type[BaseException], str]


def _called(cell: Any = None) -> Any:
    cell = cw.GRUCell(3) if cell is None else cell
    cell(X, H)
    return cell


def _in_scope(name: str, cell: Any, **kwargs: Any) -> Any:
    with cw.variable_scope(name, **kwargs):
        return _called(cell)


def _twice(make: Callable[[], Any]) -> Any:
    _in_scope("zed", make())
    return _in_scope("zed", make())


def _unnamed_reuse() -> Any:
    with cw.variable_scope(None, default_name="a", reuse=True):
        return None


SCOPES: dict[str, Row] = {
    "name-exists": (lambda: _twice(lambda: cw.GRUCell(3)), ValueError, "zed/gru_cell/gates/kernel.*exists"),
    "name-exists-basic-rnn": (lambda: _twice(lambda: cw.BasicRNNCell(3)), ValueError, "zed/basic_rnn_cell/kernel"),
    "reuse-argument-missing": (lambda: _called(cw.GRUCell(3, reuse=True, name="foo")), ValueError, "foo/gates/kernel"),
    "reuse-scope-missing": (lambda: _in_scope("q", cw.GRUCell(3), reuse=True), ValueError, "q/gru_cell/gates/kernel"),
    "reuse-other-shape": (
        lambda: [_called(cw.GRUCell(3, name="foo")), cw.GRUCell(4, name="foo", reuse=True)(X, torch.zeros(2, 4))],
        ValueError,
        r"\[7, 6\].*\[8, 8\]|\[8, 8\].*\[7, 6\]",
    ),
    "same-cell-other-depth": (lambda: _called()(X[:, :3], H), ValueError, r"4.*3|3.*4"),
    "get-variable-exists": (
        lambda: [cw.get_variable("v", [2]), cw.get_variable("v", [2])],
        ValueError,
        "'v'.*exists",
    ),
    "get-variable-no-shape": (lambda: cw.get_variable("v"), ValueError, "shape"),
    "scope-without-name": (_unnamed_reuse, ValueError, "name"),
}

NO_STORE: dict[str, Row] = {
    "reuse-true-no-store": (lambda: _called(cw.GRUCell(3, reuse=True)), ValueError, "VariableStore"),
    "auto-reuse-no-store": (lambda: _called(cw.GRUCell(3, reuse=cw.AUTO_REUSE)), ValueError, "VariableStore"),
    "scope-reuse-no-store": (lambda: _in_scope("a", cw.GRUCell(3), reuse=True), ValueError, "VariableStore"),
    "scope-auto-reuse-no-store": (
        lambda: _in_scope("a", cw.GRUCell(3), reuse=cw.AUTO_REUSE),
        ValueError,
        "VariableStore",
    ),
}


def _cells() -> dict[str, Callable[..., Any]]:
    return {
        "rnn": lambda **k: cw.BasicRNNCell(3, **k),
        "gru": lambda **k: cw.GRUCell(3, **k),
        "basic": lambda **k: cw.BasicLSTMCell(3, state_is_tuple=False, **k),
        "lstm": lambda **k: cw.LSTMCell(3, state_is_tuple=False, **k),
    }


def _of_every_cell() -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for name, make in _cells().items():
        width = 6 if name in ("basic", "lstm") else 3

        def state(columns: int = width, batch: int = 2) -> torch.Tensor:
            return torch.zeros(batch, columns)

        rows |= {
            f"{name}-int-dtype": (lambda make=make: make(dtype="int64"), ValueError, "int64"),
            f"{name}-bool-dtype": (lambda make=make: make(dtype=torch.bool), ValueError, "bool"),
            f"{name}-int-input": (
                lambda make=make, state=state: make()(X.long(), state().long()),
                ValueError,
                "int64",
            ),
            f"{name}-mixed-state": (
                lambda make=make, state=state: make()(X, state().double()),
                TypeError,
                "float32.*float64|float64.*float32",
            ),
            f"{name}-mixed-weights": (
                lambda make=make, state=state: make(dtype="float64")(X, state()),
                TypeError,
                "float64.*float32|float32.*float64",
            ),
            f"{name}-activation": (lambda make=make: make(activation="tahn"), ValueError, "tahn"),
            f"{name}-rank-1": (lambda make=make, state=state: make()(X[0], state()), ValueError, r"\[4\]"),
            f"{name}-rank-3": (
                lambda make=make, state=state: make()(X[None], state()),
                ValueError,
                r"\[1, 2, 4\]",
            ),
            f"{name}-width": (
                lambda make=make, state=state, width=width: make()(X, state(width + 1)),
                ValueError,
                f"{width}.*{width + 1}",
            ),
            f"{name}-batch": (
                lambda make=make, state=state: make()(X, state(batch=3)),
                ValueError,
                r"\[2, .*\[3, ",
            ),
            f"{name}-depth": (lambda make=make, state=state: _depth(make(), state()), ValueError, "4.*7|7.*4"),
            f"{name}-build-open": (lambda make=make: make().build([2, None]), ValueError, "None|known"),
            f"{name}-output-shape": (
                lambda make=make: make().compute_output_shape([2, 4]),
                NotImplementedError,
                "",
            ),
        }
    return rows


def _depth(cell: Any, state: torch.Tensor) -> Any:
    cell(X, state)
    return cell(torch.ones(2, 7), state)


LAYER: dict[str, Row] = {
    "zero-state-none": (lambda: cw.LSTMCell(3).zero_state(None, "float32"), ValueError, "None"),
    "zero-state-matrix": (lambda: cw.LSTMCell(3).zero_state(torch.ones(1, 2).int(), "float32"), ValueError, ""),
    "initial-nothing": (lambda: cw.LSTMCell(3).get_initial_state(), ValueError, "batch_size"),
    "initial-no-batch": (lambda: cw.LSTMCell(3).get_initial_state(dtype="float32"), ValueError, "batch_size"),
    "initial-no-dtype": (lambda: cw.LSTMCell(3).get_initial_state(batch_size=1), ValueError, "dtype"),
    "initial-batch": (lambda: cw.LSTMCell(3).get_initial_state(X, 3), ValueError, "2.*3|3.*2"),
    "initial-dtype": (
        lambda: cw.LSTMCell(3).get_initial_state(X, dtype="float64"),
        ValueError,
        "float32.*float64|float64.*float32",
    ),
    "scope-name": (lambda: cw.LSTMCell(3).scope_name, ValueError, "scope_name"),
    "count-params": (lambda: cw.LSTMCell(3).count_params(), ValueError, "count_params"),
    "weights-count": (lambda: _called().set_weights([np.zeros((7, 6))]), ValueError, "4.*1"),
    "weights-shape": (
        lambda: _called().set_weights([np.zeros((6, 7)), np.zeros(6), np.zeros((7, 3)), np.zeros(3)]),
        ValueError,
        r"\[7, 6\].*\[6, 7\]",
    ),
    "mask": (lambda: _called().compute_mask(X, X), TypeError, "mask"),
    "eager-graph": (lambda: _called().graph, RuntimeError, "graph"),
    "eager-input": (lambda: _called().input, RuntimeError, "input"),
    "eager-output": (lambda: _called().output, RuntimeError, "output"),
    "eager-input-shape": (lambda: _called().input_shape, RuntimeError, "input_shape"),
    "eager-output-shape": (lambda: _called().output_shape, RuntimeError, "output_shape"),
    "eager-input-at": (lambda: _called().get_input_at(0), RuntimeError, "get_input_at"),
    "eager-output-at": (lambda: _called().get_output_at(0), RuntimeError, "get_output_at"),
    "eager-input-shape-at": (lambda: _called().get_input_shape_at(0), RuntimeError, "get_input_shape_at"),
    "eager-output-shape-at": (lambda: _called().get_output_shape_at(0), RuntimeError, "get_output_shape_at"),
    "eager-input-mask": (lambda: _called().input_mask, AttributeError, "input_mask"),
    "eager-output-mask": (lambda: _called().output_mask, AttributeError, "output_mask"),
    "eager-input-mask-at": (lambda: _called().get_input_mask_at(0), RuntimeError, "get_input_mask_at"),
    "eager-output-mask-at": (lambda: _called().get_output_mask_at(0), RuntimeError, "get_output_mask_at"),
    "eager-add-loss": (lambda: _called().add_loss(X.sum()), RuntimeError, "add_loss"),
    "eager-losses-for": (lambda: _called().get_losses_for(None), RuntimeError, "get_losses_for"),
    "eager-updates-for": (lambda: _called().get_updates_for(None), RuntimeError, "get_updates_for"),
    "eager-regularizer": (
        lambda: cw.Layer(activity_regularizer=torch.sum),
        ValueError,
        "activity_regularizer",
    ),
    "unknown-keyword": (lambda: cw.GRUCell(3, foo=1), TypeError, "foo"),
}


def _graph_cell(calls: int = 0) -> Any:
    cell = cw.GRUCell(3)
    for _ in range(calls):
        cell(cw.Input((2, 4)), cw.Input((2, 3)))
    return cell


def _differing_nodes() -> Any:
    cell = cw.GRUCell(3)
    cell(cw.Input((2, 4)), cw.Input((2, 3)))
    cell(cw.Input((5, 4)), cw.Input((5, 3)))
    return cell


GRAPH: dict[str, Row] = {
    "input": (lambda: _graph_cell().input, AttributeError, "input"),
    "output": (lambda: _graph_cell().output, AttributeError, "output"),
    "input-shape": (lambda: _graph_cell().input_shape, AttributeError, "input_shape"),
    "output-shape": (lambda: _graph_cell().output_shape, AttributeError, "output_shape"),
    "input-shape-differs": (lambda: _differing_nodes().input_shape, AttributeError, "input_shape"),
    "output-shape-differs": (lambda: _differing_nodes().output_shape, AttributeError, "output_shape"),
    "input-mask": (lambda: _graph_cell().input_mask, AttributeError, "input_mask"),
    "output-mask": (lambda: _graph_cell().output_mask, AttributeError, "output_mask"),
    **{
        f"{member}-{'none' if calls == 0 else 'past-the-last'}": (
            lambda member=member, calls=calls: getattr(_graph_cell(calls), f"get_{member}_at")(calls),
            RuntimeError if calls == 0 else ValueError,
            f"get_{member}_at",
        )
        for member in ("input", "output", "input_shape", "output_shape", "input_mask", "output_mask")
        for calls in (0, 2)
    },
    "unknown-depth": (lambda: cw.GRUCell(3)(cw.Input((2, None)), cw.Input((2, 3))), ValueError, "None|known"),
    "mask": (lambda: cw.GRUCell(3).compute_mask(cw.Input((2, 4)), cw.Input((2,))), TypeError, "mask"),
}

CELLS: dict[str, Row] = {
    "abstract-state-size": (lambda: cw.RNNCell().state_size, NotImplementedError, ""),
    "abstract-output-size": (lambda: cw.RNNCell().output_size, NotImplementedError, ""),
    "state-tuple-dtype": (lambda: cw.LSTMStateTuple(H, H.double()).dtype, TypeError, "float32.*float64"),
    "basic-lstm-odd-state": (
        lambda: cw.BasicLSTMCell(3, state_is_tuple=False)(X, torch.zeros(2, 5)),
        ValueError,
        r"6.*5",
    ),
    "lstm-odd-state": (lambda: cw.LSTMCell(3, state_is_tuple=False)(X, torch.zeros(2, 7)), ValueError, r"6.*7"),
    "lstm-c-width": (lambda: cw.LSTMCell(3)(X, (torch.zeros(2, 4), H)), ValueError, r"\[2, 3\].*\[2, 4\]"),
    "lstm-h-width": (
        lambda: cw.LSTMCell(3, num_proj=2)(X, (H, H)),
        ValueError,
        r"\[2, 2\].*\[2, 3\]",
    ),
    "lstm-h-dtype": (lambda: cw.LSTMCell(3)(X, (H, H.double())), TypeError, "float32.*float64"),
    "lstm-no-projection": (lambda: cw.LSTMCell(3, num_proj=0), ValueError, "num_proj.*0"),
    "complex-is-accepted-int-is-not": (lambda: cw.BasicRNNCell(3, dtype="uint8"), ValueError, "uint8"),
}


def _rows(**groups: dict[str, Row]) -> Any:
    return pytest.mark.parametrize(
        ("act", "kind", "says"),
        [pytest.param(*row, id=f"{group}-{name}") for group, rows in groups.items() for name, row in rows.items()],
    )


@_rows(scopes=SCOPES, cells=CELLS | _of_every_cell(), layer=LAYER)
def test_in_a_store(act: Callable[[], Any], kind: type[BaseException], says: str) -> None:
    with cw.VariableStore():
        expect_error(act, kind, says)


@_rows(scopes=NO_STORE, cells=CELLS | _of_every_cell(), layer=LAYER)
def test_without_a_store(act: Callable[[], Any], kind: type[BaseException], says: str) -> None:
    expect_error(act, kind, says)


@_rows(graph=GRAPH)
def test_in_a_graph(act: Callable[[], Any], kind: type[BaseException], says: str) -> None:
    with cw.Graph():
        expect_error(act, kind, says)


def test_a_failed_first_call_leaves_nothing_behind() -> None:
    """A cell that was refused can be called again, rightly this time, and takes the names it would have had."""
    with cw.VariableStore() as store:
        cell = cw.GRUCell(3)
        for bad in (X[None], X.long()):
            with pytest.raises(ValueError, match=r"GRUCell|gru_cell"):
                cell(bad, H)
        assert not store.variables
        cell(X, H)
    assert next(iter(store.variables)) == "gru_cell/gates/kernel"
