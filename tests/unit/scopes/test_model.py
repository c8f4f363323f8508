"""Model: what it takes and gives, its parameters, its summary."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)


@pytest.fixture
def graph() -> Any:
    with cw.Graph() as opened:
        yield opened


def _cell_model() -> tuple[Any, Any]:
    x, h = cw.Input((None, 4), name="x"), cw.Input((None, N), name="h")
    cell = cw.GRUCell(N)
    return cell, cw.Model([x, h], cell(x, h))


class TestInputs:
    def test_one(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        assert torch.equal(cw.Model(x, x + 1)(X), X + 1)
        assert torch.equal(cw.Model([x], x + 1)(X), X + 1)
        assert torch.equal(cw.Model([x], x + 1)([X]), X + 1)

    def test_several_as_arguments_or_as_one_structure(self, graph: Any) -> None:
        x, y = cw.Input((None, 4)), cw.Input((None, 4))
        model = cw.Model([x, y], x - 2 * y)
        for given in ((X, X + 1), ([X, X + 1],), ((X, X + 1),)):
            assert torch.equal(model(*given), X - 2 * (X + 1))

    def test_nested_and_named(self, graph: Any) -> None:
        x, y, z = (cw.Input((1,)) for _ in range(3))
        one, two, three = (torch.full((1,), float(value)) for value in (1, 2, 3))
        nested = cw.Model([x, (y, z)], x + 10 * y + 100 * z)
        assert nested(one, (two, three)).item() == nested([one, (two, three)]).item() == 321
        named = cw.Model({"b": x, "a": y}, x + 10 * y)
        assert named({"a": two, "b": one}).item() == 21

    def test_named_inputs_must_come_by_name(self, graph: Any) -> None:
        """Two tensors in a row do not say which is which."""
        x, y = cw.Input((1,)), cw.Input((1,))
        with pytest.raises(cw.CellweaveError, match=r"^model: expected .*got "):
            cw.Model({"b": x, "a": y}, x)(torch.zeros(1), torch.ones(1))
        with pytest.raises(cw.CellweaveError, match=r"^model: expected .*got "):
            cw.Model({"b": x, "a": y}, x)({"a": torch.zeros(1), "c": torch.ones(1)})

    def test_one_that_is_not_needed(self, graph: Any) -> None:
        x, y = cw.Input((1,)), cw.Input((1,))
        assert cw.Model([x, y], x + 1)(torch.zeros(1), torch.zeros(1)).item() == 1

    @pytest.mark.parametrize(
        "given, kind, says",
        [
            ((), cw.ArgumentError, r"^mine: expected 2 inputs, got 0"),
            ((X,), cw.ArgumentError, r"^mine: expected 2 inputs, got 1"),
            ((X, H, X), cw.ArgumentError, r"^mine: expected 2 inputs, got 3"),
            ((X[0], H), cw.ShapeError, r"^mine, input 'x': expected shape \[None, 4\], got \[4\]"),
            ((X, H[:, :2]), cw.ShapeError, r"^mine, input 'h': expected shape \[None, 3\], got \[2, 2\]"),
            ((X.double(), H), cw.DTypeError, r"^mine, input 'x': expected float32, got float64"),
            ((X.numpy(), H), cw.ArgumentTypeError, r"^mine, input 'x': expected a tensor, got ndarray"),
            ((X, None), cw.ArgumentTypeError, r"^mine, input 'h': expected a tensor, got NoneType"),
        ],
        ids=["none", "one", "three", "rank", "width", "dtype", "array", "None"],
    )
    def test_wrong_ones(self, graph: Any, given: Any, kind: Any, says: str) -> None:
        x, h = cw.Input((None, 4), name="x"), cw.Input((None, N), name="h")
        model = cw.Model([x, h], x.sum() + h.sum(), name="mine")
        with pytest.raises(kind, match=says):
            model(*given)


class TestConstruction:
    def test_a_missing_input_is_named(self, graph: Any) -> None:
        x, y = cw.Input((1,)), cw.Input((1,), name="needed")
        with pytest.raises(cw.ArgumentError, match=r"^Model: expected every needed input in inputs.*'needed'"):
            cw.Model(x, x + y)

    def test_an_input_that_is_none(self, graph: Any) -> None:
        x = cw.Input((1,))
        with pytest.raises(cw.ArgumentError, match=r"^Model: expected inputs made by cellweave\.Input"):
            cw.Model(x + 1, x + 2)

    @pytest.mark.parametrize("what", ["inputs", "outputs"])
    @pytest.mark.parametrize("value", [torch.ones(1), None, 3.0, np.ones(1)], ids=["tensor", "None", "float", "array"])
    def test_real_values(self, graph: Any, what: str, value: Any) -> None:
        x = cw.Input((1,))
        with pytest.raises(cw.ArgumentTypeError, match=rf"^Model: expected {what} to be symbolic tensors, got "):
            cw.Model(*((value, x) if what == "inputs" else (x, [x, value])))

    def test_nothing(self, graph: Any) -> None:
        with pytest.raises(cw.CellweaveError, match=r"^Model: expected .*got "):
            cw.Model([], [])

    def test_two_graphs(self, graph: Any) -> None:
        x = cw.Input((1,))
        with cw.Graph():
            y = cw.Input((1,))
        with pytest.raises(cw.ArgumentError, match=r"^Model: expected symbolic tensors of one graph"):
            cw.Model([x, y], x)

    def test_what_is_recorded_later_changes_nothing(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        model = cw.Model(x, x + 1)
        layer = cw.GRUCell(N)
        layer(x, cw.Input((None, N)))
        assert model.layers == []
        assert torch.equal(model(X), X + 1)


class TestOutputs:
    def test_structures(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        outputs = {"a": x + 1, "b": (x * 2, [x]), "c": cw.LSTMStateTuple(x, x - 1)}
        found = cw.Model(x, outputs)(X)
        assert torch.equal(found["a"], X + 1)
        assert torch.equal(found["b"][0], X * 2) and found["b"][1][0] is X
        assert type(found["c"]) is cw.LSTMStateTuple and torch.equal(found["c"].h, X - 1)

    def test_one_twice(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        y = x + 1
        first, second = cw.Model(x, [y, y])(X)
        assert first is second

    def test_gradients(self, graph: Any) -> None:
        cell, model = _cell_model()
        x = X.clone().requires_grad_()
        model(x, H)[0].sum().backward()
        expected = X.clone().requires_grad_()
        grads = torch.autograd.grad(cell(expected, H)[0].sum(), [expected, *cell.parameters()])
        assert torch.equal(x.grad, grads[0])
        assert all(torch.equal(p.grad, g) for p, g in zip(cell.parameters(), grads[1:], strict=True))


class TestParameters:
    def test_those_of_its_layers(self, graph: Any) -> None:
        cell, model = _cell_model()
        assert model.layers == [cell]
        assert {id(p) for p in model.parameters()} == {id(p) for p in cell.parameters()}
        assert [id(w) for w in model.weights] == [id(w) for w in cell.weights]
        assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), cell.get_weights(), strict=True))
        assert model.count_params() == cell.count_params() == 72
        assert cw.variable_names(model) == graph.store.variables

    def test_a_layer_called_twice_counts_once(self, graph: Any) -> None:
        x, h = cw.Input((None, N)), cw.Input((None, N))
        cell = cw.GRUCell(N)
        out, state = cell(x, h)
        model = cw.Model([x, h], cell(out, state))
        assert model.layers == [cell]
        assert model.count_params() == cell.count_params()
        assert len(model.state_dict()) == 4

    def test_layers_that_the_outputs_do_not_need_are_left_out(self, graph: Any) -> None:
        x, h = cw.Input((None, 4)), cw.Input((None, N))
        used, unused = cw.GRUCell(N), cw.GRUCell(N)
        out, _ = used(x, h)
        unused(x, h)
        assert cw.Model([x, h], out).layers == [used]

    def test_variables_used_directly(self, graph: Any) -> None:
        """TF1's output layer: `logits = tf.matmul(outputs, w) + b` with two variables."""
        x = cw.Input((None, 4))
        w, b = cw.get_variable("softmax/w", [4, 2]), cw.get_variable("softmax/b", [2], initializer="zeros")
        model = cw.Model(x, x @ w + b)
        assert {id(p) for p in model.parameters()} == {id(w), id(b)}
        assert len(model.state_dict()) == 2
        assert cw.variable_names(model) == {"softmax/w": w, "softmax/b": b}
        model(X).sum().backward()
        assert w.grad is not None and b.grad is not None

    def test_variables_of_other_outputs_are_left_out(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        a, b = cw.get_variable("a", [4, 2]), cw.get_variable("b", [4, 2])
        models = [cw.Model(x, x @ a), cw.Model(x, x @ b), cw.Model(x, x @ a + x @ b)]
        assert [list(cw.variable_names(model)) for model in models] == [["a"], ["b"], ["a", "b"]]

    def test_values_computed_from_variables_outside_the_graph(self, graph: Any) -> None:
        """They would be constants that no training moves, so they are refused."""
        x = cw.Input((None, 4))
        w = cw.get_variable("w", [4, 2])
        for act in (
            lambda: x @ (w * 2),
            lambda: torch.cat([x, (w * 2).T]),
            lambda: nn.functional.linear(x, w.T.clone()),
        ):
            with pytest.raises(cw.ModeError, match=r"expected .*got "):
                act()
        with torch.no_grad():
            constant = w * 2
        assert torch.equal(cw.Model(x, x @ constant)(X), X @ constant)

    def test_a_weight_of_a_layer_used_directly(self, graph: Any) -> None:
        x, h = cw.Input((None, 4)), cw.Input((None, N))
        cell = cw.BasicRNNCell(N)
        out, _ = cell(x, h)
        model = cw.Model([x, h], nn.functional.linear(out, cell.kernel))
        assert len(list(model.parameters())) == 2
        assert len(cw.variable_names(model)) == 2
        model(X, H).sum().backward()
        both = cell.kernel.grad.clone()
        cell.zero_grad()
        nn.functional.linear(cell(X, H)[0], cell.kernel).sum().backward()
        assert torch.allclose(both, cell.kernel.grad)

    def test_torch_modules_on_symbols(self, graph: Any) -> None:
        x = cw.Input((None, 4))
        linear = nn.Linear(4, 2)
        model = cw.Model(x, nn.Sequential(linear, nn.ReLU())(x))
        assert {id(p) for p in model.parameters()} == {id(p) for p in linear.parameters()}
        assert torch.equal(model(X), torch.relu(linear(X)))

    def test_training_a_whole_model(self, graph: Any) -> None:
        x = cw.Input((None, None, 4))
        outputs, _ = cw.dynamic_rnn(cw.MultiRNNCell([cw.LSTMCell(N), cw.GRUCell(N)]), x, dtype="float32")
        w = cw.get_variable("w", [N, 1])
        model = cw.Model(x, (outputs[:, -1] @ w).squeeze(1))
        before = [p.detach().clone() for p in model.parameters()]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        losses = []
        for _ in range(20):
            loss = (model(X[:, None].expand(2, 6, 4)) - torch.tensor([0.5, -0.5])).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]
        assert len(before) == 7
        assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))

    def test_modes_reach_the_layers(self, graph: Any) -> None:
        x, h = cw.Input((None, 4)), cw.Input((None, N))
        cell = cw.DropoutWrapper(cw.GRUCell(N), output_keep_prob=0.1, seed=1)
        model = cw.Model([x, h], cell(x, h)[0])
        assert (model.train()(X, H) == 0).any()
        assert torch.equal(model.eval()(X, H), cell.cell(X, H)[0])

    def test_torchs_own_dropout_is_refused(self, graph: Any) -> None:
        """It would be recorded with the mode it has now, and `model.eval()` could not reach it."""
        with pytest.raises(cw.ModeError, match=r"^dropout: expected a function without a training mode"):
            nn.Dropout(0.5)(cw.Input((None, 4)))
        x = cw.Input((None, 4))
        assert torch.equal(cw.Model(x, nn.Dropout(0.5).eval()(x))(X), X)

    def test_functional_call(self, graph: Any) -> None:
        _, model = _cell_model()
        zeros = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
        out, _ = torch.func.functional_call(model, zeros, (X, H + 1))
        assert torch.allclose(out, torch.full((2, N), 0.5))

    def test_moving(self, graph: Any) -> None:
        _, model = _cell_model()
        model.to("meta")
        assert model(X.to("meta"), H.to("meta"))[0].device.type == "meta"


class TestCopies:
    def test_state_dict(self) -> None:
        models = []
        for _ in range(2):
            with cw.Graph():
                models.append(_cell_model()[1])
        one, other = models
        other.load_state_dict(one.state_dict())
        assert torch.equal(one(X, H)[0], other(X, H)[0])
        with pytest.raises(RuntimeError, match="Missing key"):
            other.load_state_dict({})

    def test_deepcopy_computes_the_same(self, graph: Any) -> None:
        cell, model = _cell_model()
        other = copy.deepcopy(model)
        assert torch.equal(other(X, H)[0], model(X, H)[0])
        assert list(other.state_dict()) == list(model.state_dict())
        assert other.layers[0] is not cell


class TestSummary:
    def _lines(self, model: Any) -> list[str]:
        lines: list[str] = []
        model.summary(lines.append)
        return lines

    def test_rows(self, graph: Any) -> None:
        x, h = cw.Input((None, 4), name="x"), cw.Input((None, N), name="h")
        cell = cw.GRUCell(N, name="mine")
        out, state = cell(x, h)
        again, _ = cell(x, state)
        lines = self._lines(cw.Model([x, h], torch.relu(out + again), name="net"))
        assert lines[0] == "net: 72 parameters"
        rows = [line.split("  ") for line in lines[1:]]
        cells = [[cell for cell in map(str.strip, row) if cell] for row in rows]
        assert cells[0] == ["node", "call", "output shape", "parameters"]
        assert cells[1:3] == [["x", "Input", "[None, 4]"], ["h", "Input", "[None, 3]"]]
        assert cells[3][1:] == ["GRUCell", "([None, 3], [None, 3])", "72"]
        assert cells[4][1:] == ["GRUCell", "([None, 3], [None, 3])"]  # its weights were counted above
        assert [row[1] for row in cells[5:]] == ["add", "relu"]

    def test_unrolls(self, graph: Any) -> None:
        x = cw.Input((None, None, 4))
        model = cw.Model(x, cw.dynamic_rnn(cw.GRUCell(N), x, dtype="float32"))
        (row,) = [line for line in self._lines(model) if "dynamic_rnn" in line]
        assert "([None, None, 3], [None, 3])" in row
        assert row.endswith("72")

    def test_it_prints_by_default(self, graph: Any, capsys: Any) -> None:
        _, model = _cell_model()
        model.summary()
        assert capsys.readouterr().out.startswith("model: 72 parameters\n")
