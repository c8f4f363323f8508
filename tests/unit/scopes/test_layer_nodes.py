"""A layer's recorded nodes: every member of contract section 3 in graph mode and in eager mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw
from helpers.woven import assert_same_run

N = 3
EAGER: dict[str, tuple[Callable[[Any], Any], type[Exception]]] = {
    "graph": (lambda cell: cell.graph, RuntimeError),
    "input": (lambda cell: cell.input, RuntimeError),
    "output": (lambda cell: cell.output, RuntimeError),
    "input_shape": (lambda cell: cell.input_shape, RuntimeError),
    "output_shape": (lambda cell: cell.output_shape, RuntimeError),
    "get_input_at": (lambda cell: cell.get_input_at(0), RuntimeError),
    "get_output_at": (lambda cell: cell.get_output_at(0), RuntimeError),
    "get_input_shape_at": (lambda cell: cell.get_input_shape_at(0), RuntimeError),
    "get_output_shape_at": (lambda cell: cell.get_output_shape_at(0), RuntimeError),
    "input_mask": (lambda cell: cell.input_mask, AttributeError),
    "output_mask": (lambda cell: cell.output_mask, AttributeError),
    "get_input_mask_at": (lambda cell: cell.get_input_mask_at(0), RuntimeError),
    "get_output_mask_at": (lambda cell: cell.get_output_mask_at(0), RuntimeError),
}
BY_INDEX = [name for name in EAGER if name.endswith("_at")]
X, H = torch.ones(2, 4), torch.zeros(2, N)


@pytest.mark.parametrize("called", [False, True], ids=["new", "called"])
@pytest.mark.parametrize("member", EAGER)
def test_eager_layers_have_no_nodes(member: str, called: bool) -> None:
    act, kind = EAGER[member]
    cell = cw.GRUCell(N)
    if called:
        cell(X, H)
    with pytest.raises(kind, match=rf"^GRUCell\.{member}: expected .*got ") as info:
        act(cell)
    assert isinstance(info.value, cw.CellweaveError)


def test_eager_layers_have_empty_lists_of_nodes() -> None:
    cell = cw.GRUCell(N)
    cell(X, H)
    assert cell.inbound_nodes == cell.outbound_nodes == []


@pytest.mark.parametrize("member", EAGER)
def test_has_and_getattr_go_with_attribute_errors(member: str) -> None:
    """Only AttributeErrors may be taken for a missing member."""
    _act, kind = EAGER[member]
    if kind is AttributeError:
        assert not hasattr(cw.GRUCell(N), member)


@pytest.fixture
def graph() -> Any:
    with cw.Graph() as opened:
        yield opened


def _inputs(batch: int | None = None, depth: int = 4) -> tuple[Any, Any]:
    return cw.Input((batch, depth)), cw.Input((batch, N))


class TestOneCall:
    """Members after one recorded call of a cell: the state is no part of the node's input."""

    @pytest.fixture
    def called(self, graph: Any) -> Any:
        x, h = _inputs()
        cell = cw.GRUCell(N)
        return cell, x, h, cell(x, h)

    def test_graph(self, called: Any, graph: Any) -> None:
        assert called[0].graph is graph

    def test_input_and_output(self, called: Any) -> None:
        cell, x, _, (out, state) = called
        assert cell.input is x
        assert cell.output[0] is out and cell.output[1] is state
        assert cell.get_input_at(0) is x
        assert cell.get_output_at(0)[0] is out

    def test_shapes(self, called: Any) -> None:
        cell = called[0]
        assert cell.input_shape == cell.get_input_shape_at(0) == (None, 4)
        assert cell.output_shape == cell.get_output_shape_at(0) == ((None, N), (None, N))
        assert type(cell.input_shape) is tuple
        assert type(cell.output_shape[0]) is tuple

    def test_masks(self, called: Any) -> None:
        cell = called[0]
        assert cell.input_mask is cell.output_mask is None
        assert cell.get_input_mask_at(0) is cell.get_output_mask_at(0) is None

    def test_nodes(self, called: Any) -> None:
        cell, x, _, (out, _) = called
        (node,) = cell.inbound_nodes
        assert (node.layer, node.inputs) == (cell, x)
        assert node.outputs[0] is out
        assert cell.outbound_nodes == []

    def test_eager_members_hold_as_well(self, called: Any) -> None:
        cell = called[0]
        assert (cell.dtype, cell.scope_name, cell.built) == ("float32", "gru_cell", True)
        assert len(cell.weights) == 4
        assert cell.count_params() == 72

    @pytest.mark.parametrize("member", BY_INDEX)
    @pytest.mark.parametrize("index", [1, 7, -2])
    def test_indices_outside(self, called: Any, member: str, index: int) -> None:
        with pytest.raises(cw.ArgumentError, match=rf"^GRUCell\.{member}: expected a node index below 1, got {index}"):
            getattr(called[0], member)(index)

    @pytest.mark.parametrize("member", BY_INDEX)
    def test_indices_from_the_end(self, called: Any, member: str) -> None:
        last, first = (getattr(called[0], member)(index) for index in (-1, 0))
        assert last is first or last == first

    def test_lists_of_nodes_are_copies(self, called: Any) -> None:
        called[0].inbound_nodes.clear()
        assert len(called[0].inbound_nodes) == 1


class TestNoCall:
    @pytest.mark.parametrize("member", EAGER)
    def test_members(self, graph: Any, member: str) -> None:
        act, _ = EAGER[member]
        cell = cw.GRUCell(N)
        if member == "graph":
            assert act(cell) is graph
            return
        kind = cw.ModeError if member in BY_INDEX else cw.NodeError
        with pytest.raises(kind, match=rf"^GRUCell\.{member}: expected a recorded call, got none"):
            act(cell)

    def test_a_real_call_in_a_graph_records_no_node(self, graph: Any) -> None:
        cell = cw.GRUCell(N)
        cell(X, H)
        assert cell.inbound_nodes == []
        with pytest.raises(cw.NodeError):
            _ = cell.input


class TestSeveralCalls:
    @pytest.fixture
    def called(self, graph: Any) -> Any:
        first, second = _inputs(), _inputs(batch=7)
        cell = cw.GRUCell(N)
        return cell, [first[0], second[0]], [cell(*first), cell(*second)]

    def test_each_node_by_index(self, called: Any) -> None:
        cell, inputs, outputs = called
        for index in range(2):
            assert cell.get_input_at(index) is inputs[index]
            assert cell.get_output_at(index)[0] is outputs[index][0]
        assert [cell.get_input_shape_at(index) for index in range(2)] == [(None, 4), (7, 4)]
        assert [cell.get_output_shape_at(index)[1] for index in range(2)] == [(None, N), (7, N)]
        assert cell.get_input_mask_at(1) is cell.get_output_mask_at(1) is None

    def test_node_0_without_an_index(self, called: Any) -> None:
        """As TF1's code does; its page promises an error."""
        cell, inputs, outputs = called
        assert cell.input is inputs[0]
        assert cell.output[0] is outputs[0][0]

    @pytest.mark.parametrize("member", ["input_shape", "output_shape"])
    def test_shapes_that_differ(self, called: Any, member: str) -> None:
        with pytest.raises(cw.NodeError, match=rf"^GRUCell\.{member}: expected one shape in all 2"):
            getattr(called[0], member)

    def test_shapes_that_agree(self, graph: Any) -> None:
        cell = cw.GRUCell(N)
        for _ in range(2):
            cell(*_inputs())
        assert cell.input_shape == (None, 4)
        assert cell.output_shape == ((None, N), (None, N))


class TestStructures:
    class Twice(cw.Layer):
        def call(self, inputs: Any) -> Any:
            return {"sum": inputs[0] + inputs[1], "first": inputs[0]}

    def test_inputs_and_outputs_in_the_callers_structure(self, graph: Any) -> None:
        a, b = cw.Input((None, 4)), cw.Input((5, None, 4))
        layer = self.Twice()
        out = layer([a, b])
        assert layer.input[0] is a and layer.input[1] is b
        assert layer.input_shape == [(None, 4), (5, None, 4)]
        assert set(layer.output) == {"sum", "first"}
        assert layer.output["sum"] is out["sum"]
        assert layer.output_shape["sum"] == (5, None, 4)

    def test_lstm_states_keep_their_type(self, graph: Any) -> None:
        cell = cw.LSTMCell(N, num_proj=2)
        out, state = cell(cw.Input((None, 4)), (cw.Input((None, N)), cw.Input((None, 2))))
        assert type(state) is cw.LSTMStateTuple
        assert cell.output_shape == ((None, 2), cw.LSTMStateTuple((None, N), (None, 2)))
        assert out.shape == (None, 2)

    def test_a_layer_with_one_output(self, graph: Any) -> None:
        layer = cw.Layer()
        out = layer(cw.Input((2, 3)))
        assert layer.output is out
        assert layer.output_shape == (2, 3)


class TestChains:
    def test_outbound_nodes_and_inbound_layers(self, graph: Any) -> None:
        x, h = _inputs()
        low, high = cw.GRUCell(N), cw.GRUCell(N)
        out, state = low(x, h)
        high(out, h)
        assert low.outbound_nodes == high.inbound_nodes
        assert high.inbound_nodes[0].inbound_layers == [low]
        assert low.inbound_nodes[0].inbound_layers == []
        assert high.outbound_nodes == []
        high(out, state)
        assert len(low.outbound_nodes) == 2

    def test_the_state_makes_no_node(self, graph: Any) -> None:
        x, h = _inputs()
        low, high = cw.GRUCell(N), cw.GRUCell(N)
        _, state = low(x, h)
        high(x, state)
        assert low.outbound_nodes == []
        assert high.inbound_nodes[0].inbound_layers == []

    def test_history(self, graph: Any) -> None:
        x, h = _inputs()
        cell = cw.GRUCell(N)
        assert x.history is None
        cell(x, h)
        out, state = cell(x, h)
        assert out.history == (cell, 1, 0)
        assert state.history == (cell, 1, 1)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: cw.MultiRNNCell([cw.GRUCell(N), cw.GRUCell(N)]),
            lambda: cw.DropoutWrapper(cw.GRUCell(N)),
            lambda: cw.ResidualWrapper(cw.GRUCell(N)),
            lambda: cw.DeviceWrapper(cw.GRUCell(N), "cpu"),
            lambda: cw.RNNCellResidualWrapper(cw.GRUCell(N)),
            lambda: cw.keras.GRUCell(N),
        ],
        ids=["multi", "dropout", "residual", "device", "residual-v2", "keras"],
    )
    def test_stacks_and_wrappers_record_a_node_of_their_own(self, graph: Any, make: Any) -> None:
        x, h = _inputs(depth=N)
        layer = make()
        out, _ = layer(x, (h, h) if isinstance(layer, cw.MultiRNNCell) else h)
        assert layer.graph is graph
        assert layer.input is x
        assert layer.output[0] is out
        assert layer.output_shape[0] == (None, N)
        for inner in [*getattr(layer, "cells", []), *([layer.cell] if hasattr(layer, "cell") else [])]:
            assert inner.inbound_nodes == []


class TestGraphs:
    def test_a_layer_belongs_to_the_graph_it_was_made_in(self) -> None:
        with cw.Graph() as graph:
            cell = cw.GRUCell(N)
        assert cell.graph is graph

    def test_a_layer_made_outside_joins_at_its_call(self) -> None:
        cell = cw.GRUCell(N)
        with cw.Graph() as graph:
            inputs = _inputs()
        cell(*inputs)
        assert cell.graph is graph
        assert next(iter(graph.store.variables)) == "gru_cell/gates/kernel"

    def test_symbols_of_two_graphs(self) -> None:
        with cw.Graph():
            x, _ = _inputs()
        with cw.Graph():
            _, h = _inputs()
            cell = cw.GRUCell(N)
            with pytest.raises(cw.ArgumentError, match=r"^GRUCell: expected symbolic tensors of one graph"):
                cell(x, h)
            assert cell.inbound_nodes == []

    def test_graph_rules_for_names(self) -> None:
        with cw.Graph() as graph:
            for _ in range(2):
                cw.GRUCell(N)(*_inputs())
            with cw.variable_scope("a"):
                cell = cw.GRUCell(N)
                cell(*_inputs())
        assert list(graph.store.variables)[::4] == [
            f"{head}/gates/kernel" for head in ("gru_cell", "gru_cell_1", "a/gru_cell")
        ]
        assert cell.scope_name == "a/gru_cell"

    def test_layers_are_usable_after_the_graph(self) -> None:
        with cw.Graph():
            x, h = _inputs()
            cell = cw.GRUCell(N)
            model = cw.Model([x, h], cell(x, h))
        out, state = cell(X, H)
        assert torch.equal(out, model(X, H)[0])
        cell(X, H)[0].sum().backward()
        assert cell.gates_kernel.grad is not None
        assert len(cell.inbound_nodes) == 1
        for backend in ("reference", None):
            with cw.use_backend(backend):
                assert_same_run(backend, cw.dynamic_rnn(cell, X[:, None], dtype="float32")[0][:, 0], out)
        assert state.shape == (2, N)
