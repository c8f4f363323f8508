"""RNNCellDropoutWrapper: what differs from the v1 wrapper."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any, ClassVar

import pytest
import torch

import cellweave as cw
from cellweave import keras
from helpers import nest
from helpers.woven import assert_same_run, both_ways
from oracles.philox import mask_seed, op_seeds, uniform
from unit.wrappers.masks import Ones, kept

B, D = 3, 8
X = torch.ones(B, D)
KEEP = {"input_keep_prob": 0.5, "output_keep_prob": 0.75, "state_keep_prob": 0.25}
VARIATIONAL = {"variational_recurrent": True, "dtype": "float32", "input_size": D}


@pytest.fixture(autouse=True)
def fresh_streams() -> None:
    """Process-wide streams start anew."""
    cw.set_random_seed(None)


def _drop(cell: Any = None, **kwargs: Any) -> cw.RNNCellDropoutWrapper:
    return cw.RNNCellDropoutWrapper(Ones(D) if cell is None else cell, **({"seed": 11} | kwargs))


class TestMasks:
    def test_input_state_and_output(self) -> None:
        wrapper = _drop(**KEEP)
        shape = (B, D)
        for draw in range(2):
            out, state = wrapper(X, X)
            masks = [kept(11, kind, 0, shape, k, draw=draw) for kind, k in (("input", 0.5), ("output", 0.75))]
            torch.testing.assert_close(out, torch.where(masks[0] & masks[1], 2 / 0.75, 0.0))
            assert torch.equal(state, torch.where(kept(11, "state", 0, shape, 0.25, draw=draw), 4.0, 0.0))

    def test_every_item_of_a_list_state_is_dropped(self) -> None:
        cell = keras.LSTMCell(D)
        h, c = torch.full((B, D), 0.5), torch.ones(B, D)
        _, (plain_h, plain_c) = cell(X, [h, c])
        _, state = _drop(cell, state_keep_prob=0.5)(X, [h, c])
        assert isinstance(state, list)
        assert torch.equal(state[0], torch.where(kept(11, "state", 0, (B, D), 0.5), 2 * plain_h, 0.0))
        assert torch.equal(state[1], torch.where(kept(11, "state", 1, (B, D), 0.5), 2 * plain_c, 0.0))

    def test_c_of_a_state_tuple_is_dropped_too(self) -> None:
        _, state = _drop(Ones(D, cw.LSTMStateTuple(D, D)), state_keep_prob=0.5)(X, cw.LSTMStateTuple(X, X))
        for index, leaf in enumerate(state):
            assert torch.equal(leaf != 0, kept(11, "state", index, (B, D), 0.5))

    def test_visitor(self) -> None:
        visitor = lambda s: [True, False] if isinstance(s, list) else True  # noqa: E731
        _, (h, c) = _drop(keras.LSTMCell(D), state_keep_prob=0.5, dropout_state_filter_visitor=visitor)(X, [X, X])
        assert torch.equal(h != 0, kept(11, "state", 0, (B, D), 0.5)) and (c != 0).all()

    @pytest.mark.parametrize("form", [lambda h: h, lambda h: [h]], ids=["bare", "list"])
    def test_bare_and_list_states_per_step(self, form: Any) -> None:
        _, state = _drop(keras.GRUCell(D), state_keep_prob=0.5)(X, form(X))
        (leaf,) = nest.flatten(state)
        assert torch.equal(leaf != 0, kept(11, "state", 0, (B, D), 0.5)) and isinstance(state, type(form(X)))

    def test_eval_draws_nothing(self) -> None:
        wrapper = _drop(**KEEP).eval()
        assert torch.equal(wrapper(X, X)[0], X)
        assert torch.equal(wrapper.train()(X, X)[1] != 0, kept(11, "state", 0, (B, D), 0.25))

    def test_fed_tensor_acts_in_eval_too(self) -> None:
        keep = torch.tensor(0.5)
        wrapper = _drop(output_keep_prob=keep).eval()
        for draw, value in enumerate((0.5, 0.9)):
            keep.fill_(value)
            assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), value, draw=draw))

    def test_zero_is_refused_in_a_call(self) -> None:
        with pytest.raises(cw.ArgumentError, match="RNNCellDropoutWrapper: expected output_keep_prob above 0"):
            _drop(output_keep_prob=0.0)(X, X)

    @both_ways
    def test_an_unroll_is_calls_one_by_one(self, backend: str | None) -> None:
        cell = keras.LSTMCell(D)
        xs = torch.linspace(-1, 1, B * 4 * D).reshape(B, 4, D)
        with cw.use_backend(backend):
            out, final = cw.dynamic_rnn(_drop(cell, **KEEP), xs, dtype="float32")
        cw.set_random_seed(None)
        wrapper, state = _drop(cell, **KEEP), cell.get_initial_state(xs)
        for step in range(4):
            hand, state = wrapper(xs[:, step], state)
            assert_same_run(backend, out[:, step], hand)
        assert_same_run(backend, final, state)

    def test_without_steps_nothing_is_drawn(self) -> None:
        wrapper = _drop(output_keep_prob=0.5)
        cw.dynamic_rnn(wrapper, torch.ones(B, 0, D), dtype="float32")
        cw.static_rnn(wrapper, [X, X], dtype="float32", sequence_length=[0, 0, 0])
        assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5))


class TestProcessWideStreams:
    def test_equal_seeds_interleave_one_stream(self) -> None:
        a, b = _drop(output_keep_prob=0.5), _drop(output_keep_prob=0.5)
        for draw, wrapper in enumerate((a, b, b, a)):
            assert torch.equal(wrapper(X, X)[0] != 0, kept(11, "output", 0, (B, D), 0.5, draw=draw))

    def test_other_seeds_and_dtypes_have_streams_of_their_own(self) -> None:
        a, b = _drop(output_keep_prob=0.5), _drop(output_keep_prob=0.5, seed=12)
        a(X, X)
        assert torch.equal(b(X, X)[0] != 0, kept(12, "output", 0, (B, D), 0.5))
        out, _ = a(X.double(), X.double())
        assert torch.equal(out != 0, kept(11, "output", 0, (B, D), 0.5, dtype="float64"))

    def test_set_random_seed_restarts_them(self) -> None:
        wrapper = _drop(output_keep_prob=0.5)
        for graph_seed in (None, 42, 42, 7):
            cw.set_random_seed(graph_seed)
            for draw in range(2):
                mask = kept(11, "output", 0, (B, D), 0.5, draw=draw, graph_seed=graph_seed)
                assert torch.equal(wrapper(X, X)[0] != 0, mask)

    def test_another_batch_size_goes_on(self) -> None:
        wrapper = _drop(output_keep_prob=0.5)
        wrapper(X, X)
        out, _ = wrapper(torch.ones(5, D), torch.ones(5, D))
        noise = uniform((5, D), "float32", *op_seeds(None, mask_seed(11, "output", 0)), 256 * B * D)
        assert torch.equal(out != 0, torch.tensor(noise >= 0.5))

    def test_without_a_seed_torchs_generator_decides(self) -> None:
        outs = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            cw.set_random_seed(None)
            outs.append(_drop(output_keep_prob=0.5, seed=None)(X, X)[0])
        assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])

    def test_without_a_seed_wrappers_are_apart(self) -> None:
        assert not torch.equal(*(_drop(output_keep_prob=0.5, seed=None)(X, X)[0] for _ in range(2)))

    def test_static_steps_go_on_in_the_stream(self) -> None:
        """Unlike v1: there is one stream, whichever op draws."""
        outputs, _ = cw.static_rnn(_drop(output_keep_prob=0.5), [X] * 3, dtype="float32")
        for draw, out in enumerate(outputs):
            assert torch.equal(out != 0, kept(11, "output", 0, (B, D), 0.5, draw=draw))


class TestVariational:
    def test_noise_is_drawn_at_construction_and_never_again(self) -> None:
        wrapper = _drop(input_keep_prob=0.5, output_keep_prob=0.5, **VARIATIONAL)
        cw.set_random_seed(99)
        masks = [kept(11, kind, 0, (1, D), 0.5).expand(B, D) for kind in ("input", "output")]
        for _ in range(3):
            assert torch.equal(wrapper(X, X)[0], torch.where(masks[0] & masks[1], 4.0, 0.0))

    def test_two_wrappers_draw_one_after_the_other(self) -> None:
        outs = [_drop(output_keep_prob=0.5, **VARIATIONAL)(X, X)[0] for _ in range(2)]
        for draw, out in enumerate(outs):
            assert torch.equal(out != 0, kept(11, "output", 0, (1, D), 0.5, draw=draw).expand(B, D))

    def test_state_noise(self) -> None:
        _, (h, c) = _drop(keras.LSTMCell(D), state_keep_prob=0.5, **VARIATIONAL)(X, [X, X])
        for index, leaf in enumerate((h, c)):
            assert torch.equal(leaf != 0, kept(11, "state", index, (1, D), 0.5).expand(B, D))

    def test_the_states_structure_must_be_the_cells(self) -> None:
        wrapper = _drop(keras.GRUCell(D), state_keep_prob=0.5, **VARIATIONAL)
        wrapper(X, X)
        with pytest.raises(cw.ArgumentTypeError, match="RNNCellDropoutWrapper"):
            wrapper(X, [X])

    def test_noise_of_another_dtype_or_size(self) -> None:
        wrapper = _drop(input_keep_prob=0.5, **VARIATIONAL)
        with pytest.raises(cw.DTypeError, match="RNNCellDropoutWrapper: expected input of float32, got float64"):
            wrapper(X.double(), X.double())
        with pytest.raises(cw.ShapeError, match=r"RNNCellDropoutWrapper: expected input \[B, 8\], got \[3, 4\]"):
            wrapper(X[:, :4], X)

    def test_noise_is_saved_with_the_model(self) -> None:
        wrapper = _drop(output_keep_prob=0.5, **VARIATIONAL)
        out, _ = wrapper(X, X)
        other = _drop(output_keep_prob=0.5, **VARIATIONAL)
        assert not torch.equal(other(X, X)[0], out)
        other.load_state_dict(wrapper.state_dict())
        assert torch.equal(other(X, X)[0], out)
        for copied in (copy.deepcopy(wrapper), pickle.loads(pickle.dumps(wrapper))):
            assert torch.equal(copied(X, X)[0], out)


class TestLayer:
    def test_weights_are_the_cells_under_the_wrappers_name(self) -> None:
        wrapper = _drop(keras.GRUCell(3), **KEEP)
        assert not wrapper.built and wrapper.weights == []
        with pytest.raises(cw.ScopeError):
            wrapper.count_params()
        wrapper.build([None, D])
        names = ["dropout_wrapper/kernel", "dropout_wrapper/recurrent_kernel", "dropout_wrapper/bias"]
        assert list(cw.variable_names(wrapper)) == names
        assert wrapper.built and wrapper.cell.built
        assert all(a is b for a, b in zip(wrapper.weights, wrapper.cell.weights, strict=True))
        assert (
            wrapper.count_params()
            == D * 9 + 3 * 9 + 2 * 9
            == len(torch.cat([w.flatten() for w in wrapper.parameters()]))
        )
        before = wrapper.weights
        wrapper(X, torch.ones(B, 3))
        assert all(a is b for a, b in zip(before, wrapper.weights, strict=True))

    def test_a_call_builds(self) -> None:
        wrapper = _drop(keras.LSTMCell(3), name="foo")
        cw.dynamic_rnn(wrapper, torch.ones(B, 2, D), dtype="float32")
        assert (
            wrapper.built
            and next(iter(cw.variable_names(wrapper))) == "rnn/foo/kernel"
            and wrapper.scope_name == "rnn/foo"
        )

    def test_names_and_dtype(self) -> None:
        with cw.VariableStore():
            assert [_drop().name for _ in range(3)] == ["dropout_wrapper", "dropout_wrapper_1", "dropout_wrapper_2"]
        assert _drop().dtype == "float32" and _drop(dtype="float64").dtype == "float64"
        assert _drop(name="foo").name == "foo"

    def test_trainable(self) -> None:
        wrapper = _drop(keras.GRUCell(3), trainable=False)
        wrapper.build([None, D])
        assert wrapper.trainable_weights == [] and len(wrapper.non_trainable_weights) == 3

    def test_forwarded_members(self) -> None:
        cell = keras.LSTMCell(3)
        wrapper = _drop(cell)
        assert wrapper.wrapped_cell is cell and wrapper.state_size == [3, 3] and wrapper.output_size == 3
        with pytest.raises(AttributeError, match="zero_state"):
            wrapper.zero_state(2, "float32")
        assert _drop(cw.LSTMCell(3)).zero_state(2, "float32").c.shape == (2, 3)

    def test_get_initial_state(self) -> None:
        assert _drop(keras.GRUCell(3)).get_initial_state(X).shape == (B, 3)
        state = _drop(keras.LSTMCell(3)).get_initial_state(batch_size=2, dtype="float64")
        assert isinstance(state, list) and state[1].shape == (2, 3) and state[1].dtype == torch.float64
        for missing in ({}, {"batch_size": 2}, {"dtype": "float32"}):
            with pytest.raises(cw.ArgumentError, match="expected inputs, or both"):
                _drop(keras.GRUCell(3)).get_initial_state(**missing)

    def test_what_is_no_cell(self) -> None:
        with pytest.raises(AttributeError, match="RNNCellDropoutWrapper.*call"):
            cw.RNNCellDropoutWrapper("x")
        with pytest.raises(cw.ArgumentTypeError, match="'foo'"):
            _drop(foo=1)


class TestConfig:
    KEYS: ClassVar[list[str]] = [
        "name", "trainable", "dtype", "cell", "input_keep_prob", "output_keep_prob", "state_keep_prob",
        "variational_recurrent", "input_size", "seed",
    ]  # fmt: skip

    def test_keys_in_order(self) -> None:
        assert list(_drop(keras.GRUCell(3)).get_config()) == self.KEYS
        with_visitor = _drop(keras.GRUCell(3), dropout_state_filter_visitor=lambda s: True).get_config()
        assert list(with_visitor) == [*self.KEYS, "dropout_fn", "dropout_fn_type", "dropout_fn_module"]

    def test_round_trip(self) -> None:
        cell = keras.LSTMCell(3, activation="relu")
        wrapper = _drop(
            cell, **(KEEP | {"input_keep_prob": 0.6}), dropout_state_filter_visitor=lambda s: not isinstance(s, list)
        )
        config = json.loads(json.dumps(wrapper.get_config()))
        assert config["input_keep_prob"] == 0.6000000238418579 and config["seed"] == 11
        with pytest.raises(cw.ArgumentError, match="RNNCellDropoutWrapper.*safe_mode=False"):
            cw.RNNCellDropoutWrapper.from_config(config)
        other = cw.RNNCellDropoutWrapper.from_config(config, safe_mode=False)
        assert type(other.cell) is keras.LSTMCell and other.cell is not cell
        state = [torch.ones(B, 3), torch.ones(B, 3)]
        wrapper.build([None, D])
        other.build([None, D])
        other.set_weights(wrapper.get_weights())
        out, new = wrapper(X, state)
        cw.set_random_seed(None)
        again, new2 = other(X, state)
        assert torch.equal(out, again) and all(torch.equal(a, b) for a, b in zip(new, new2, strict=True))

    def test_variational_round_trip(self) -> None:
        wrapper = _drop(keras.GRUCell(D), output_keep_prob=0.5, **VARIATIONAL)
        other = cw.RNNCellDropoutWrapper.from_config(wrapper.get_config())
        assert other.get_config() == wrapper.get_config()

    def test_custom_objects(self) -> None:
        class Own(keras.GRUCell):
            pass

        config = _drop(Own(3)).get_config()
        with pytest.raises(cw.ArgumentError, match="'Own'"):
            cw.RNNCellDropoutWrapper.from_config(config)
        assert type(cw.RNNCellDropoutWrapper.from_config(config, {"Own": Own}).cell) is Own

    def test_a_cell_object_in_the_config_is_taken(self) -> None:
        cell = keras.GRUCell(3)
        assert cw.RNNCellDropoutWrapper.from_config(_drop().get_config() | {"cell": cell}).cell is cell


def test_extra_state_continues_the_streams() -> None:
    wrapper = _drop(output_keep_prob=0.5)
    wrapper(X, X)
    saved = wrapper.state_dict()
    expected, _ = wrapper(X, X)
    cw.set_random_seed(None)
    other = _drop(output_keep_prob=0.5)
    other.load_state_dict(saved)
    assert torch.equal(other(X, X)[0], expected)


def test_extra_state_without_a_seed() -> None:
    wrapper = _drop(output_keep_prob=0.5, seed=None)
    wrapper(X, X)
    saved = wrapper.state_dict()
    expected, _ = wrapper(X, X)
    cw.set_random_seed(None)
    other = _drop(output_keep_prob=0.5, seed=None)
    other.load_state_dict(saved)
    assert torch.equal(other(X, X)[0], expected)


@pytest.mark.parametrize("row", [[0, 1, 2, 4, 0], [0, 1, 2, -1, 0], [1, 3, 0, 1, 2], [2, 0, 0, 0, 0]], ids=str)
def test_a_damaged_stream_table_changes_nothing(row: list[int]) -> None:
    wrapper = cw.RNNCellDropoutWrapper(cw.keras.GRUCell(3), output_keep_prob=0.5)
    wrapper(torch.ones(2, 4), torch.zeros(2, 3))
    before = wrapper.get_extra_state()
    with pytest.raises(cw.ShapeError, match="expected rows of a stream table"):
        wrapper.set_extra_state(torch.tensor([before[0].tolist(), row]))
    assert torch.equal(wrapper.get_extra_state(), before)
