"""Unrolls on symbolic inputs: one node each; a Model runs them as the eager unroll runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw

N = 3
B, T, D = 2, 5, 4
SEQUENCE = torch.linspace(-1.0, 1.0, B * T * D).reshape(B, T, D)
LENGTHS = torch.tensor([2, 5], dtype=torch.int32)
CELLS: dict[str, Callable[[], Any]] = {
    "basic_rnn": lambda: cw.BasicRNNCell(N),
    "gru": lambda: cw.GRUCell(N),
    "basic_lstm": lambda: cw.BasicLSTMCell(N),
    "lstm": lambda: cw.LSTMCell(N, use_peepholes=True, num_proj=2, cell_clip=0.3),
    "lstm-one-tensor": lambda: cw.LSTMCell(N, state_is_tuple=False),
    "multi": lambda: cw.MultiRNNCell([cw.LSTMCell(N), cw.ResidualWrapper(cw.GRUCell(N))]),
    "dropout": lambda: cw.DropoutWrapper(cw.GRUCell(N), input_keep_prob=0.5, state_keep_prob=0.5, seed=3),
    "device": lambda: cw.DeviceWrapper(cw.GRUCell(N), "cpu"),
    "dropout_v2": lambda: cw.RNNCellDropoutWrapper(cw.GRUCell(N), output_keep_prob=0.5, seed=3),
    "keras_gru": lambda: cw.keras.GRUCell(N),
}


def _leaves(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for part in value for leaf in _leaves(part)]


def _assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    assert len(_leaves(found)) == len(_leaves(expected))
    for a, b in zip(_leaves(found), _leaves(expected), strict=True):
        assert torch.equal(a, b)


def _twin(cell: Any, make: Callable[[], Any]) -> Any:
    """Another cell with the same weights whose streams have not moved."""
    twin = make()
    twin.load_state_dict({k: v for k, v in cell.state_dict().items() if not k.endswith("_extra_state")}, strict=False)
    return twin


class TestDynamicRNN:
    @pytest.mark.parametrize("lengths", [False, True], ids=["all", "lengths"])
    @pytest.mark.parametrize("kind", CELLS)
    def test_equals_the_eager_unroll(self, kind: str, lengths: bool) -> None:
        make = CELLS[kind]
        with cw.Graph():
            x, rows = cw.Input((None, None, D)), cw.Input((None,), dtype="int32")
            cell = make()
            out = cw.dynamic_rnn(cell, x, rows if lengths else None, dtype="float32")
            model = cw.Model([x, rows], out)
        assert out[0].shape == (None, None, cell.output_size)
        twin = _twin(cell, make)
        cw.set_random_seed(None)  # TF2's streams are the process's own: start them anew
        found = model(SEQUENCE, LENGTHS)
        cw.set_random_seed(None)
        expected = cw.dynamic_rnn(twin, SEQUENCE, LENGTHS if lengths else None, dtype="float32")
        if kind == "dropout_v2":  # a graph keeps streams of its own
            assert [a.shape for a in _leaves(found)] == [a.shape for a in _leaves(expected)]
        else:
            _assert_same(found, expected)

    def test_other_sizes_run_too(self) -> None:
        """Nothing of the sizes tried while recording is left in the model."""
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = cw.LSTMCell(N)
            model = cw.Model(x, cw.dynamic_rnn(cell, x, dtype="float32"))
        for batch, steps in ((1, 1), (3, 5), (5, 3), (7, 2), (2, 0)):
            inputs = torch.ones(batch, steps, D)
            _assert_same(model(inputs), cw.dynamic_rnn(cell, inputs, dtype="float32"))

    def test_time_major(self) -> None:
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = cw.GRUCell(N)
            model = cw.Model(x, cw.dynamic_rnn(cell, x, dtype="float32", time_major=True))
        inputs = SEQUENCE.transpose(0, 1)
        _assert_same(model(inputs), cw.dynamic_rnn(cell, inputs, dtype="float32", time_major=True))

    def test_an_initial_state_that_is_fed(self) -> None:
        with cw.Graph():
            x, c, h = cw.Input((None, None, D)), cw.Input((None, N)), cw.Input((None, N))
            cell = cw.LSTMCell(N)
            model = cw.Model([x, c, h], cw.dynamic_rnn(cell, x, initial_state=cw.LSTMStateTuple(c, h)))
        c, h = torch.ones(B, N), -torch.ones(B, N)
        _assert_same(model(SEQUENCE, c, h), cw.dynamic_rnn(cell, SEQUENCE, initial_state=cw.LSTMStateTuple(c, h)))

    def test_an_initial_state_that_is_real(self) -> None:
        """`zero_state(batch_size)` with a fixed batch, TF1's usual way."""
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = cw.GRUCell(N)
            out, state = cw.dynamic_rnn(cell, x, initial_state=cell.zero_state(B, "float32") + 1)
            model = cw.Model(x, [out, state])
        assert state.shape == (B, N)
        assert out.shape == (B, None, N)  # the state says nothing of the number of steps
        expected = cw.dynamic_rnn(cell, SEQUENCE, initial_state=torch.ones(B, N))
        assert all(torch.equal(a, b) for a, b in zip(model(SEQUENCE), expected, strict=True))

    def test_the_initial_state_of_symbolic_inputs(self) -> None:
        with cw.Graph():
            x = cw.Input((None, D))
            cell = cw.LSTMCell(N)
            state = cell.get_initial_state(inputs=x)
            model = cw.Model(x, state)
        assert state.c.shape == (None, N)
        found = model(torch.ones(7, D))
        assert type(found) is cw.LSTMStateTuple
        assert found.h.tolist() == [[0.0] * N] * 7

    @pytest.mark.parametrize("time_major", [False, True])
    def test_a_real_state_fixes_the_batch_and_no_other_size(self, time_major: bool) -> None:
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = cw.GRUCell(N)
            state = cell.zero_state(B, "float32")
            out, _ = cw.dynamic_rnn(cell, x, initial_state=state, time_major=time_major)
            model = cw.Model(x, out.sum(dim=0 if time_major else 1))
        inputs = SEQUENCE.transpose(0, 1) if time_major else SEQUENCE
        assert tuple(out.shape) == ((None, B, N) if time_major else (B, None, N))
        assert torch.allclose(model(inputs), cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")[0].sum(dim=1), atol=1e-6)

    @pytest.mark.parametrize("kind", ["gru", "lstm", "lstm-one-tensor", "multi", "dropout", "device"])
    def test_the_zero_state_of_an_open_batch(self, kind: str) -> None:
        """TF1's `cell.zero_state(tf.shape(x)[0], tf.float32)`."""
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = CELLS[kind]().eval()
            state = cell.zero_state(x.size(0), "float32")
            model = cw.Model(x, cw.dynamic_rnn(cell, x, initial_state=state))
        _assert_same(model(SEQUENCE), cw.dynamic_rnn(cell, SEQUENCE, dtype="float32"))
        assert model(torch.ones(7, 1, D))[0].shape[0] == 7

    def test_weights_follow_graph_rules(self) -> None:
        with cw.Graph() as graph:
            x = cw.Input((None, None, D))
            cw.dynamic_rnn(cw.GRUCell(N), x, dtype="float32")
            with pytest.raises(cw.ScopeError, match="rnn/gru_cell/gates/kernel"):
                cw.dynamic_rnn(cw.GRUCell(N), x, dtype="float32")
            with cw.variable_scope("second"):
                cw.dynamic_rnn(cw.GRUCell(N), x, dtype="float32")
        assert list(graph.store.variables)[::4] == ["rnn/gru_cell/gates/kernel", "second/rnn/gru_cell/gates/kernel"]

    def test_gradients(self) -> None:
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = cw.LSTMCell(N)
            model = cw.Model(x, cw.dynamic_rnn(cell, x, dtype="float32")[0])
        model(SEQUENCE).square().sum().backward()
        found = [p.grad.clone() for p in cell.parameters()]
        cell.zero_grad()
        cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")[0].square().sum().backward()
        assert all(torch.equal(a, p.grad) for a, p in zip(found, cell.parameters(), strict=True))

    def test_errors_are_the_eager_ones(self) -> None:
        with cw.Graph():
            x = cw.Input((None, None, D))
            with pytest.raises(cw.ArgumentError, match="dtype or initial_state"):
                cw.dynamic_rnn(cw.GRUCell(N), x)
            with pytest.raises(cw.ArgumentTypeError, match="recurrent cell"):
                cw.dynamic_rnn(torch.tanh, x, dtype="float32")
            with pytest.raises(cw.ShapeError, match=r"\[B, T, D\]"):
                cw.dynamic_rnn(cw.GRUCell(N), cw.Input((None, D)), dtype="float32")
            with pytest.raises(cw.DTypeError):
                cw.dynamic_rnn(cw.GRUCell(N), x, dtype="float64")


BIDIRECTIONAL: dict[str, Callable[..., Any]] = {
    "dynamic": lambda x, fw, bw, **k: cw.bidirectional_dynamic_rnn(fw, bw, x, dtype="float32", **k),
    "static": lambda x, fw, bw, **k: cw.static_bidirectional_rnn(fw, bw, list(x.unbind(1)), dtype="float32", **k),
    "stack": lambda x, fw, bw, **k: cw.stack_bidirectional_dynamic_rnn([fw], [bw], x, dtype="float32", **k),
}


class LinearInside(cw.RNNCell):
    """A cell that keeps a torch module, made when the sizes are known."""

    state_size = output_size = N

    def build(self, input_shape: Any) -> None:
        self.linear = torch.nn.Linear(input_shape[-1], N)
        super().build(input_shape)

    def call(self, inputs: torch.Tensor, state: torch.Tensor) -> Any:
        new = torch.tanh(self.linear(inputs) + state)
        return new, new


class TestLayersInside:
    def test_torch_modules_made_in_build_are_real(self) -> None:
        with cw.Graph():
            x = cw.Input((None, None, D))
            cell = LinearInside()
            model = cw.Model(x, cw.dynamic_rnn(cell, x, dtype="float32")[0])
        assert len(list(model.parameters())) == 2
        model(SEQUENCE).sum().backward()
        assert cell.linear.weight.grad.abs().sum() > 0
        assert torch.equal(model(SEQUENCE), cw.dynamic_rnn(cell, SEQUENCE, dtype="float32")[0])

    @pytest.mark.parametrize(
        "make", [cw.DropoutWrapper, cw.ResidualWrapper, lambda cell: cw.DeviceWrapper(cell, "cpu")]
    )
    def test_a_scope_given_to_a_wrapper_is_the_cells(self, make: Any) -> None:
        with cw.Graph() as graph:
            cell = cw.GRUCell(D)
            wrapper = make(cw.DropoutWrapper(cell))
            wrapper(cw.Input((None, D)), cw.Input((None, D)), scope="zed")
            wrapper(cw.Input((None, D)), cw.Input((None, D)), scope="other")
        assert cell.scope_name == "zed"
        assert next(iter(graph.store.variables)) == "zed/gates/kernel"

    def test_a_layer_that_looks_at_values(self) -> None:
        class Branching(cw.Layer):
            def call(self, inputs: torch.Tensor) -> torch.Tensor:
                return inputs if inputs.sum() > 0 else -inputs

        with cw.Graph():
            layer = Branching()
            with pytest.raises(cw.ModeError, match=r"expected .*got "):
                layer(cw.Input((None, D)))
            assert layer.inbound_nodes == []
        assert torch.equal(layer(-torch.ones(1, 2)), torch.ones(1, 2))

    def test_keyword_inputs(self) -> None:
        with cw.Graph():
            x, h = cw.Input((None, D)), cw.Input((None, N))
            cell = cw.GRUCell(N)
            out, _ = cell(inputs=x, state=h)
        assert cell.input is x
        assert out.shape == (None, N)


class TestOtherUnrolls:
    @pytest.mark.parametrize("state", [N, B])
    def test_an_unknown_depth_is_an_error(self, state: int) -> None:
        """Also where another size would happen to fit."""
        runs: list[Callable[[Any], Any]] = [
            lambda cell: cw.static_rnn(cell, [cw.Input((None, None))], initial_state=cw.Input((state, N))),
            lambda cell: cw.static_rnn(cell, [cw.Input((None, None))], initial_state=cw.Input((None, N))),
            lambda cell: cw.bidirectional_dynamic_rnn(
                cell, cw.GRUCell(N), cw.Input((None, None, None)), dtype="float32"
            ),
            lambda cell: cw.dynamic_rnn(cw.MultiRNNCell([cell]), cw.Input((None, None, None)), dtype="float32"),
            lambda cell: cw.DropoutWrapper(cell)(cw.Input((None, None)), cw.Input((None, N))),
        ]
        for run in runs:
            with cw.Graph() as graph:
                cell = cw.GRUCell(N)
                with pytest.raises(cw.ShapeError):
                    run(cell)
                assert graph.store.variables == {}
                assert not cell.built

    @pytest.mark.parametrize("lengths", [False, True], ids=["all", "lengths"])
    @pytest.mark.parametrize("kind", BIDIRECTIONAL)
    def test_bidirectional(self, kind: str, lengths: bool) -> None:
        run = BIDIRECTIONAL[kind]
        with cw.Graph():
            x, rows = cw.Input((None, T, D)), cw.Input((None,), dtype="int32")
            fw, bw = cw.GRUCell(N), cw.LSTMCell(N)
            out = run(x, fw, bw, **({"sequence_length": rows} if lengths else {}))
            model = cw.Model([x, rows], out)
        given = {"sequence_length": LENGTHS} if lengths else {}
        _assert_same(model(SEQUENCE, LENGTHS), run(SEQUENCE, fw, bw, **given))

    def test_lengths_past_the_end_are_refused_when_run(self) -> None:
        with cw.Graph():
            x, rows = cw.Input((None, None, D)), cw.Input((None,), dtype="int32")
            out, _ = cw.bidirectional_dynamic_rnn(cw.GRUCell(N), cw.GRUCell(N), x, rows, dtype="float32")
            model = cw.Model([x, rows], list(out))
        with pytest.raises(cw.ArgumentError, match=r"0\.\.5"):
            model(SEQUENCE, LENGTHS + 1)

    def test_static(self) -> None:
        with cw.Graph():
            steps = [cw.Input((None, D)) for _ in range(T)]
            cell = cw.LSTMCell(N)
            out = cw.static_rnn(cell, steps, dtype="float32")
            model = cw.Model(steps, out)
        assert len(out[0]) == T
        given = list(SEQUENCE.unbind(1))
        _assert_same(model(*given), cw.static_rnn(cell, given, dtype="float32"))
        assert list(cw.variable_names(model)) == ["rnn/lstm_cell/kernel", "rnn/lstm_cell/bias"]

    def test_two_layers_one_after_the_other(self) -> None:
        with cw.Graph():
            x = cw.Input((None, None, D))
            low, high = cw.GRUCell(N), cw.BasicRNNCell(2)
            middle, _ = cw.dynamic_rnn(low, x, dtype="float32", scope="low")
            model = cw.Model(x, cw.dynamic_rnn(high, middle * 2, dtype="float32", scope="high"))
        middle, _ = cw.dynamic_rnn(low, SEQUENCE, dtype="float32")
        _assert_same(model(SEQUENCE), cw.dynamic_rnn(high, middle * 2, dtype="float32"))

    def test_raw_rnn_needs_real_tensors(self) -> None:
        """Its loop function decides step by step when to stop, which no recording can know."""
        with cw.Graph():
            x, h = cw.Input((None, D)), cw.Input((None, N))

            def loop_fn(time: int, output: Any, state: Any, loop_state: Any) -> Any:
                return torch.tensor([time >= 2] * B), x, h if output is None else state, output, None

            with pytest.raises(cw.ModeError, match=r"^raw_rnn: expected .*got "):
                cw.raw_rnn(cw.GRUCell(N), loop_fn)
