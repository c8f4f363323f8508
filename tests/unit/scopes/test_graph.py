"""Symbolic tensors: what can be recorded, what is known of it, what is refused."""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw

X = torch.linspace(-1.0, 1.0, 12).reshape(3, 4)


@pytest.fixture
def graph() -> Any:
    with cw.Graph() as opened:
        yield opened


class TestInput:
    @pytest.mark.parametrize("shape", [(None, 4), (2, 3), (), (None, None, None), [2, None]], ids=str)
    def test_shape_and_dtype(self, graph: Any, shape: Any) -> None:
        x = cw.Input(shape, dtype="float64")
        assert x.shape == tuple(shape)
        assert tuple(x.shape) == tuple(shape)
        assert (x.dim(), x.ndim) == (len(shape), len(shape))
        assert x.dtype is torch.float64
        assert x.device.type == "cpu"
        assert x.mask is None

    def test_default_dtype(self, graph: Any) -> None:
        assert cw.Input((1,)).dtype is torch.float32
        assert cw.Input((1,), "int32").dtype is torch.int32

    def test_names(self, graph: Any) -> None:
        assert [cw.Input((1,)).name, cw.Input((1,), name="x").name, cw.Input((1,)).name] == ["input_1", "x", "input_3"]
        assert len({cw.Input((1,), name="x").name for _ in range(3)}) == 3

    def test_outside_a_graph(self) -> None:
        with pytest.raises(cw.ModeError, match=r"^Input: expected an open graph, got none"):
            cw.Input((1,))
        with cw.VariableStore(), pytest.raises(cw.ModeError):
            cw.Input((1,))

    @pytest.mark.parametrize("shape", [None, (-1,), ("a",), (2.0,)], ids=repr)
    def test_no_shapes(self, graph: Any, shape: Any) -> None:
        with pytest.raises(cw.CellweaveError, match=r"expected .*got "):
            cw.Input(shape)

    def test_no_dtype(self, graph: Any) -> None:
        with pytest.raises(cw.ArgumentTypeError, match=r"^Input: expected .*got 'float33'"):
            cw.Input((1,), "float33")


OPERATIONS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "add": (lambda x: x + 1, (None, 4)),
    "radd": (lambda x: 1 + x, (None, 4)),
    "rsub": (lambda x: 1 - x, (None, 4)),
    "rtruediv": (lambda x: 1 / (x + 3), (None, 4)),
    "mul": (lambda x: x * x, (None, 4)),
    "neg": (lambda x: -x, (None, 4)),
    "abs": (abs, (None, 4)),
    "pow": (lambda x: x**2, (None, 4)),
    "matmul": (lambda x: x @ torch.ones(4, 7), (None, 7)),
    "matmul-real-first": (lambda x: torch.ones(2, 3, 3) @ x, (2, 3, 4)),
    "compare": (lambda x: (x > 0) & ~(x >= 0.5), (None, 4)),
    "equal": (lambda x: x == x, (None, 4)),
    "index": (lambda x: x[0], (4,)),
    "slice": (lambda x: x[:, 1:3], (None, 2)),
    "ellipsis": (lambda x: x[..., None], (None, 4, 1)),
    "T": (lambda x: x.T, (4, None)),
    "mT": (lambda x: x.mT, (4, None)),
    "transpose": (lambda x: x.transpose(0, 1), (4, None)),
    "reshape": (lambda x: x.reshape(-1), (None,)),
    "reshape-by-size": (lambda x: x.reshape(x.size(0), 2, 2), (None, 2, 2)),
    "reshape-by-product": (lambda x: x.reshape(x.size(0) * 2, 2), (None, 2)),
    "unsqueeze": (lambda x: x.unsqueeze(1), (None, 1, 4)),
    "sum": (lambda x: x.sum(), ()),
    "mean": (lambda x: x.mean(dim=1, keepdim=True), (None, 1)),
    "cat": (lambda x: torch.cat([x, x * 2], dim=1), (None, 8)),
    "stack": (lambda x: torch.stack([x, x]), (2, None, 4)),
    "where": (lambda x: torch.where(x > 0, x, torch.zeros(())), (None, 4)),
    "relu": (torch.relu, (None, 4)),
    "softmax": (lambda x: nn.functional.softmax(x, dim=-1), (None, 4)),
    "einsum": (lambda x: torch.einsum("bi,bi->b", x, x), (None,)),
    "keywords": (lambda x: torch.clamp(input=x, min=0), (None, 4)),
    "zeros_like": (torch.zeros_like, (None, 4)),
    "new_zeros": (lambda x: x.new_zeros(5), (5,)),
    "new_zeros-by-size": (lambda x: x.new_zeros(x.size(0), 2), (None, 2)),
    "double": (lambda x: x.double(), (None, 4)),
    "to": (lambda x: x.to(torch.float16), (None, 4)),
    "detach": (lambda x: x.detach(), (None, 4)),
    "data": (lambda x: x.data, (None, 4)),
}


class TestOperations:
    @pytest.mark.parametrize("kind", OPERATIONS)
    def test_shape_and_value(self, graph: Any, kind: str) -> None:
        function, shape = OPERATIONS[kind]
        x = cw.Input((3 if kind == "matmul-real-first" else None, 4))
        y = function(x)
        assert y.shape == shape
        expected = function(X)
        assert y.dtype is expected.dtype
        assert torch.equal(cw.Model(x, y)(X), expected)

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.unbind(1),
            lambda x: x.chunk(2, dim=1),
            lambda x: torch.split(x, [1, 3], dim=1),
            lambda x: x.max(dim=1),
            lambda x: torch.topk(x, 2),
        ],
        ids=["unbind", "chunk", "split", "max", "topk"],
    )
    def test_several_results(self, graph: Any, function: Any) -> None:
        x = cw.Input((None, 4))
        found, expected = cw.Model(x, function(x))(X), function(X)
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    def test_named_results(self, graph: Any) -> None:
        assert cw.Input((None, 4)).max(dim=1).values.shape == (None,)

    def test_plain_values_stay_plain(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        assert x.size(1) == 4
        assert x.is_floating_point() is True
        assert x.requires_grad is False
        assert x.is_cuda is False
        assert x.shape[0] is None

    def test_sizes_that_are_open(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        rows = x.size(0)
        y = x / rows + x.numel()
        assert torch.allclose(cw.Model(x, y)(X), X / 3 + 12)
        assert "SymbolicValue" in repr(rows)

    def test_sizes_as_a_tuple(self, graph: Any) -> None:
        """PyTorch's `batch, depth = x.size()`."""
        x = cw.Input((None, 4))
        batch, depth = x.size()
        assert depth == 4
        y = x.reshape(depth, batch)
        assert torch.equal(cw.Model(x, y)(X), X.reshape(4, 3))
        assert x.size(-1) == x.size(dim=1) == 4
        assert tuple(cw.Input((2, 3)).size()) == (2, 3)

    def test_in_place_operators_make_new_tensors(self, graph: Any) -> None:
        """`x += 1` must not write into what a Model is fed with."""
        x = cw.Input((None, 4))
        y = x
        y += 1
        y *= 2
        y -= 3
        y /= 4
        fed = X.clone()
        assert torch.allclose(cw.Model(x, y)(fed), ((X + 1) * 2 - 3) / 4)
        assert torch.equal(fed, X)

    @pytest.mark.parametrize(
        "act",
        [lambda x: x.add_(1), lambda x: torch.relu_(x), lambda x: operator.setitem(x, 0, 1.0), lambda x: x.zero_()],
        ids=["add_", "relu_", "setitem", "zero_"],
    )
    def test_writing_in_place_is_refused(self, graph: Any, act: Any) -> None:
        with pytest.raises(cw.ModeError, match=r"expected .*got "):
            act(cw.Input((None, 4)))

    @pytest.mark.parametrize(
        "act", [bool, float, int, len, list, lambda x: x.item(), lambda x: x.tolist(), lambda x: x.numpy()]
    )
    def test_values_are_refused(self, graph: Any, act: Any) -> None:
        for x in (cw.Input((None,)), cw.Input((None, 4))):
            with pytest.raises((cw.ModeError, TypeError)) as info:
                act(x)
            assert "recursion" not in str(info.value)

    def test_unknown_members(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        assert not hasattr(x, "no_such_member")
        with pytest.raises(AttributeError, match="no_such_member"):
            x.no_such_member()

    def test_what_torch_refuses(self, graph: Any) -> None:
        with pytest.raises(RuntimeError, match="4"):
            cw.Input((None, 4)) @ torch.ones(3, 3)

    def test_symbols_of_two_graphs(self, graph: Any) -> None:
        x = cw.Input((2, 2))
        with cw.Graph():
            y = cw.Input((2, 2))
        for act in (lambda: x + y, lambda: torch.cat([x, y]), lambda: x.matmul(y)):
            with pytest.raises(cw.ArgumentError, match="one graph"):
                act()

    def test_a_tensor_of_a_known_batch(self, graph: Any) -> None:
        """Real tensors fix what was open."""
        x = cw.Input((None, 4))
        y = torch.cat([x, torch.ones(7, 2)], dim=1)
        assert y.shape == (7, 6)
        assert cw.Model(x, y)(torch.zeros(7, 4)).sum() == 14

    def test_open_sizes_that_cannot_meet_are_refused_when_run(self, graph: Any) -> None:
        x, y = cw.Input((None, 4)), cw.Input((None, 4))
        model = cw.Model([x, y], x + y)
        assert model(X, X).shape == (3, 4)
        with pytest.raises(RuntimeError):
            model(X, torch.ones(2, 4))


class TestSymbols:
    def test_identity(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        assert {x: 1}[x] == 1
        assert copy.deepcopy(x) is x
        assert copy.copy(x).name == x.name

    def test_repr(self, graph: Any) -> None:
        x = cw.Input((None, 4), name="x")
        assert repr(x) == f"{x}" == "SymbolicTensor(x, shape=[None, 4], dtype=torch.float32)"

    def test_recording_moves_no_stream_and_draws_nothing(self, graph: Any) -> None:
        x, h = cw.Input((None, 4)), cw.Input((None, 3))
        cell = cw.DropoutWrapper(cw.GRUCell(3), output_keep_prob=0.5)
        cell.cell.build([None, 4])
        before = torch.get_rng_state()
        cell(x, h)
        cw.dynamic_rnn(cell, cw.Input((None, None, 4)), dtype="float32")
        torch.dropout(x, 0.5, train=True)
        assert torch.equal(torch.get_rng_state(), before)
        assert len(cell.get_extra_state()) == 0


class TestGraphs:
    def test_attributes(self, graph: Any) -> None:
        assert isinstance(graph.store, cw.VariableStore)
        with cw.variable_scope("a"):
            made = cw.get_variable("v", [1])
        assert graph.store.variables == {"a/v": made}

    def test_entering_again_continues(self) -> None:
        graph = cw.Graph()
        names = []
        for _ in range(2):
            with graph:
                cell = cw.GRUCell(3)
                cell(torch.ones(1, 2), torch.zeros(1, 3))
                names.append((cell.name, cell.scope_name))
        assert names == [("gru_cell_1", "gru_cell"), ("gru_cell_2", "gru_cell_1")]

    def test_graphs_nest(self) -> None:
        with cw.Graph() as outer, cw.variable_scope("a"):
            with cw.Graph() as inner:
                assert cw.get_variable_scope().name == ""
                cw.get_variable("v", [1])
            cw.get_variable("v", [1])
        assert list(inner.store.variables) == ["v"]
        assert list(outer.store.variables) == ["a/v"]

    def test_leaving_by_an_error(self) -> None:
        with pytest.raises(KeyError), cw.Graph():
            raise KeyError
        with pytest.raises(cw.ModeError):
            cw.Input((1,))

    def test_recording_goes_on_outside(self) -> None:
        """Symbols know their graph."""
        with cw.Graph() as graph:
            x, h = cw.Input((None, 4)), cw.Input((None, 3))
        cell = cw.GRUCell(3)
        out, _ = cell(x, h)
        assert (out + 1).graph is graph
        assert len(graph.store.variables) == 4
        assert cw.Model([x, h], out + 1)(X, torch.zeros(3, 3)).shape == (3, 3)

    def test_an_open_scope_holds_for_recorded_layers(self, graph: Any) -> None:
        with cw.variable_scope("enc"):
            cell = cw.GRUCell(3)
            cw.dynamic_rnn(cell, cw.Input((None, None, 4)), dtype="float32")
        assert cell.scope_name == "enc/rnn/gru_cell"

    def test_graphs_of_two_threads(self) -> None:
        found: dict[int, Any] = {}

        def run(index: int) -> None:
            with cw.Graph() as graph:
                x = cw.Input((None, 4))
                out, _ = cw.GRUCell(3)(x, cw.Input((None, 3)))
                found[index] = (out.graph is graph, next(iter(graph.store.variables)))

        threads = [threading.Thread(target=run, args=(index,)) for index in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == dict.fromkeys(range(2), (True, "gru_cell/gates/kernel"))
