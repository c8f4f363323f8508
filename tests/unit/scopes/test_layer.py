"""Layer in eager mode: names, dtypes, calling, building (contract section 3)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.scopes import snake_case

N = 3
X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
H = torch.zeros(2, N)
MAKERS: dict[str, Callable[..., Any]] = {
    "basic_rnn": lambda **k: cw.BasicRNNCell(N, **k),
    "gru": lambda **k: cw.GRUCell(N, **k),
    "basic_lstm": lambda **k: cw.BasicLSTMCell(N, **k),
    "lstm": lambda **k: cw.LSTMCell(N, **k),
    "multi": lambda **k: cw.MultiRNNCell([cw.GRUCell(N)], **k),
    "dropout": lambda **k: cw.DropoutWrapper(cw.GRUCell(N), **k),
    "residual": lambda **k: cw.ResidualWrapper(cw.GRUCell(4), **k),
    "device": lambda **k: cw.DeviceWrapper(cw.GRUCell(N), "cpu", **k),
    "keras_gru": lambda **k: cw.keras.GRUCell(N, **k),
    "dropout_v2": lambda **k: cw.RNNCellDropoutWrapper(cw.GRUCell(N), **k),
}
WRAPPERS = ("dropout", "residual", "device")
each_layer = pytest.mark.parametrize("kind", MAKERS)


class Scale(cw.Layer):
    """A layer that is no cell."""

    def build(self, input_shape: Any) -> None:
        self.factor = self.add_weight("factor", [input_shape[-1]], initializer="ones")
        super().build(input_shape)

    def call(self, inputs: torch.Tensor, plus: Any = 0, *, times: Any = 1) -> torch.Tensor:
        return inputs * self.factor * times + plus


def _state(cell: Any) -> Any:
    return cell.get_initial_state(batch_size=2, dtype="float32")


def _called(kind: str, **kwargs: Any) -> Any:
    cell = MAKERS[kind](**kwargs)
    cell(X, _state(cell))
    return cell


@pytest.mark.parametrize(
    "name, snake",
    [
        ("BasicRNNCell", "basic_rnn_cell"), ("GRUCell", "gru_cell"), ("BasicLSTMCell", "basic_lstm_cell"),
        ("LSTMCell", "lstm_cell"), ("MultiRNNCell", "multi_rnn_cell"), ("DropoutWrapper", "dropout_wrapper"),
        ("CudnnCompatibleLSTMCell", "cudnn_compatible_lstm_cell"), ("CudnnLSTM", "cudnn_lstm"),
        ("CudnnRNNTanh", "cudnn_rnn_tanh"), ("CudnnRNNRelu", "cudnn_rnn_relu"), ("CudnnGRU", "cudnn_gru"),
        ("My2Cell", "my2_cell"), ("A", "a"), ("already_snake", "already_snake"), ("_Mine", "private__mine"),
    ],
)  # fmt: skip
def test_snake_case(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def test_a_private_class_has_a_name_that_scopes_take() -> None:
    class _Mine(cw.BasicRNNCell):
        pass

    cell = _Mine(N)
    cell(X, H)
    assert (cell.name, cell.scope_name) == ("private__mine_1", "private__mine")


def test_the_signature_is_the_constructors() -> None:
    """Also of a class that inherits its constructor, whose signature Python before 3.11.4 takes from `__new__`."""

    class Wider(Scale):
        """Says nothing of its own."""

    for cls in (Scale, Wider, cw.CudnnLSTM):
        expected = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
        assert list(inspect.signature(cls).parameters) == expected
        assert list(vars(cw.Layer)["__signature__"].__get__(None, cls).parameters) == expected
    assert list(inspect.signature(Scale()).parameters)[:1] == ["inputs"]
    assert not hasattr(Scale(), "__signature__")


class TestName:
    @pytest.mark.parametrize(
        "kind, name",
        [
            ("basic_rnn", "basic_rnn_cell_1"), ("gru", "gru_cell_1"), ("basic_lstm", "basic_lstm_cell_1"),
            ("lstm", "lstm_cell_1"), ("multi", "multi_rnn_cell_1"), ("dropout", "dropout_wrapper_1"),
            ("residual", "residual_wrapper_1"), ("device", "device_wrapper_1"),
        ],
    )  # fmt: skip
    def test_default(self, kind: str, name: str) -> None:
        assert MAKERS[kind]().name == name

    @each_layer
    def test_given(self, kind: str) -> None:
        assert MAKERS[kind](name="mine").name == "mine"

    def test_counted_per_class_and_graph(self) -> None:
        for _ in range(2):
            with cw.Graph():
                names = [cw.GRUCell(N).name, cw.LSTMCell(N).name, cw.GRUCell(N).name, cw.GRUCell(N, name="x").name]
                assert names == ["gru_cell_1", "lstm_cell_1", "gru_cell_2", "x"]
                assert cw.GRUCell(N).name == "gru_cell_3"

    def test_calling_does_not_change_it(self) -> None:
        cell = cw.GRUCell(N)
        cell(X, H, scope="zed")
        assert cell.name == "gru_cell_1"

    @pytest.mark.parametrize("name", [3, b"a", ["a"]], ids=repr)
    def test_no_name(self, name: Any) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="GRUCell: expected a name as a string"):
            cw.GRUCell(N, name=name)

    def test_it_cannot_be_set(self) -> None:
        with pytest.raises(AttributeError):
            cw.GRUCell(N).name = "other"

    def test_errors_name_the_class_and_a_given_name(self) -> None:
        with pytest.raises(cw.ShapeError, match=r"^GRUCell: expected"):
            cw.GRUCell(N)(X[None], H)
        with pytest.raises(cw.ShapeError, match=r"^GRUCell 'mine': expected"):
            cw.GRUCell(N, name="mine")(X[None], H)


class TestScopeName:
    @each_layer
    def test_before_the_first_call(self, kind: str) -> None:
        with pytest.raises(cw.ScopeError, match=r"scope_name: expected a layer that was called"):
            _ = MAKERS[kind]().scope_name

    @pytest.mark.parametrize("kind", WRAPPERS)
    def test_a_v1_wrapper_has_none_ever(self, kind: str) -> None:
        cell = _called(kind) if kind != "residual" else MAKERS[kind]()
        if kind == "residual":
            cell(X, torch.zeros(2, 4))
        with pytest.raises(cw.ScopeError, match="scope_name"):
            _ = cell.scope_name

    def test_after_the_first_call(self) -> None:
        with cw.variable_scope("a"):
            assert _called("gru").scope_name == "a/gru_cell"
        assert _called("multi", name="m").scope_name == "m"


class TestDtype:
    @pytest.mark.parametrize("kind", ["basic_rnn", "gru", "basic_lstm", "lstm"])
    def test_unknown_then_known(self, kind: str) -> None:
        assert MAKERS[kind]().dtype is None
        assert MAKERS[kind](dtype=torch.float64).dtype == "float64"
        assert _called(kind).dtype == "float32"

    def test_it_follows_the_weights(self) -> None:
        """After `.double()` the layer and its config must not still say float32."""
        cell = _called("gru").double()
        assert cell.dtype == "float64"
        assert cell.get_config()["dtype"] == "float64"
        cell(X.double(), H.double())

    @pytest.mark.parametrize("dtype", ["int32", "bool"])
    def test_cells_take_no_integers(self, dtype: str) -> None:
        for act in (lambda: cw.GRUCell(N, dtype=dtype), lambda: cw.GRUCell(N)(X.to(getattr(torch, dtype)), H)):
            with pytest.raises(cw.ArgumentError, match=rf"floating or complex dtype, got {dtype}"):
                act()

    def test_integer_inputs_do_not_decide(self) -> None:
        """A layer of integer inputs (an embedding, say) has float32 weights."""

        class Embed(cw.Layer):
            def build(self, input_shape: Any) -> None:
                self.table = self.add_weight("table", [5, 2])

            def call(self, inputs: torch.Tensor) -> torch.Tensor:
                return self.table[inputs]

        layer = Embed()
        assert layer(torch.tensor([0, 4])).dtype == torch.float32
        assert layer.dtype == "float32"


class TestCall:
    def test_the_base_returns_its_inputs(self) -> None:
        assert cw.Layer()(X) is X

    def test_nothing_is_no_result(self) -> None:
        with pytest.raises(cw.ArgumentError, match=r"^Layer\.call: expected a tensor .*got None"):
            cw.Layer()(None)

    def test_further_arguments_reach_call(self) -> None:
        layer = Scale()
        assert torch.equal(layer(X, 1.0, times=2.0), X * 2 + 1)
        assert torch.equal(layer(X, plus=1.0), X + 1)

    def test_structures_as_inputs(self) -> None:
        class Sum(cw.Layer):
            def build(self, input_shape: Any) -> None:
                self.shapes = input_shape

            def call(self, inputs: Any) -> Any:
                return inputs["a"] + inputs["b"][0]

        layer = Sum()
        assert torch.equal(layer({"a": X, "b": [X]}), X * 2)
        assert layer.shapes == {"a": cw.TensorShape([2, 4]), "b": [cw.TensorShape([2, 4])]}

    def test_apply_calls(self) -> None:
        cell = cw.GRUCell(N)
        assert torch.equal(cell.apply(X, H)[0], cell(X, H)[0])
        assert torch.equal(Scale().apply(X, times=3.0), X * 3)
        assert cw.Layer().apply(X) is X

    def test_apply_with_a_function_runs_it_on_every_module(self) -> None:
        seen: list[str] = []
        model = cw.MultiRNNCell([cw.DropoutWrapper(cw.GRUCell(N))])
        assert model.apply(lambda module: seen.append(type(module).__name__)) is model
        assert seen == ["GRUCell", "DropoutWrapper", "ModuleList", "MultiRNNCell"]
        nn.Sequential(model).apply(lambda module: seen.append("again"))
        assert seen.count("again") == 5

    @pytest.mark.parametrize("scope", [3, ["a"]], ids=repr)
    def test_no_scopes(self, scope: Any) -> None:
        cell = cw.GRUCell(N)
        with pytest.raises(cw.ArgumentTypeError, match="GRUCell: expected scope as a name or a VariableScope"):
            cell(X, H, scope=scope)
        assert cell(X, H)[0].shape == (2, N)

    @pytest.mark.parametrize("member", ["forward", "call"])
    def test_without_weights(self, member: str) -> None:
        """Going around `__call__` before the weights exist says so."""
        for cell, state in ((cw.GRUCell(N), H), (cw.LSTMCell(N), (H, H))):
            with pytest.raises(cw.CellweaveError, match=r"expected .*got "):
                getattr(cell, member)(X, state)

    @each_layer
    def test_unknown_keywords(self, kind: str) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="got 'colour'"):
            MAKERS[kind](colour="red")

    @pytest.mark.parametrize("reuse", ["yes", 2, []], ids=repr)
    def test_reuse_is_checked(self, reuse: Any) -> None:
        with pytest.raises(cw.ArgumentError, match=r"GRUCell: expected reuse .*got "):
            cw.GRUCell(N, reuse=reuse)


class TestBuild:
    @pytest.mark.parametrize("shape", [[2, 4], (None, 4), cw.TensorShape([None, 4]), torch.Size([2, 4])], ids=repr)
    def test_makes_the_weights(self, shape: Any) -> None:
        cell = cw.GRUCell(N)
        assert (cell.built, list(cell.parameters())) == (False, [])
        cell.build(shape)
        assert (cell.built, len(list(cell.parameters()))) == (True, 4)

    def test_twice_keeps_the_weights(self) -> None:
        cell = cw.GRUCell(N)
        cell.build([2, 4])
        before = list(cell.parameters())
        cell.build([2, 4])
        cell(X, H)
        assert all(a is b for a, b in zip(before, cell.parameters(), strict=True))

    @pytest.mark.parametrize("shape", [[2, None], [4], [2, 3, 4], []], ids=repr)
    @pytest.mark.parametrize("kind", ["basic_rnn", "gru", "basic_lstm", "lstm"])
    def test_no_shapes(self, kind: str, shape: Any) -> None:
        cell = MAKERS[kind]()
        with pytest.raises(cw.ShapeError, match=r"expected inputs \[B, D\] with a known depth D, got "):
            cell.build(shape)
        assert not cell.built
        cell.build([2, 4])

    def test_nothing_as_a_shape(self) -> None:
        with pytest.raises(cw.CellweaveError, match=r"expected .*got None"):
            cw.GRUCell(N).build(None)

    def test_stacks_build_what_is_inside(self) -> None:
        inner = cw.LSTMCell(5, num_proj=2)
        stack = cw.MultiRNNCell(
            [cw.DropoutWrapper(inner), cw.RNNCellResidualWrapper(cw.GRUCell(N)), cw.BasicRNNCell(2)]
        )
        stack.build([None, 4])
        assert inner.kernel.shape == (4 + 2, 20)
        assert stack.cells[1].cell.gates_kernel.shape == (2 + N, 2 * N)
        assert stack.cells[2].kernel.shape == (N + 2, 2)

    def test_a_v1_wrapper_is_never_built(self) -> None:
        wrapper = cw.DropoutWrapper(cw.GRUCell(N))
        wrapper.build([None, 4])
        wrapper(X, H)
        assert not wrapper.built
        assert wrapper.cell.built

    def test_the_call_builds_once(self) -> None:
        class Counting(Scale):
            builds = 0

            def build(self, input_shape: Any) -> None:
                self.builds += 1
                super().build(input_shape)

        layer = Counting()
        layer(X)
        layer(X)
        assert layer.builds == 1
        assert layer.built

    def test_built_may_be_set(self) -> None:
        """Keras's idiom: `self.built = True` at the end of `build`."""

        class Own(cw.Layer):
            def build(self, input_shape: Any) -> None:
                self.add_weight("w", [1])
                self.built = True

        layer = Own()
        layer(X)
        assert layer.built and layer.count_params() == 1


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if kind != "keras_gru"])
def test_cells_do_not_say_their_output_shape(kind: str) -> None:
    with pytest.raises(NotImplementedError, match="compute_output_shape"):
        MAKERS[kind]().compute_output_shape([2, 4])


def test_a_layer_that_says_its_output_shape() -> None:
    class Own(cw.Layer):
        def compute_output_shape(self, input_shape: Any) -> Any:
            return cw.TensorShape([*list(input_shape)[:-1], 7])

    assert Own().compute_output_shape((None, 3)) == (None, 7)


@pytest.mark.parametrize("keyword", ["autocast", "batch_size", "dynamic", "implementation", "input_dim", "input_shape"])
def test_keywords_of_keras_that_change_nothing(keyword: str) -> None:
    cell = cw.GRUCell(3, **{keyword: None})
    with pytest.raises(cw.ArgumentTypeError, match=r"GRUCell: expected only known keywords, got 'foo'. Remove it\."):
        cw.GRUCell(3, foo=1, **{keyword: None})
    assert cell.state_size == 3
