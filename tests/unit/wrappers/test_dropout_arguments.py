"""DropoutWrapper's constructor: order of checks, probabilities as float32, config."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import cellweave as cw

X = torch.ones(2, 4)
H = torch.zeros(2, 3)
ROUNDED = 0.6000000238418579
KINDS = ("input", "output", "state")


def _drop(**kwargs: Any) -> cw.DropoutWrapper:
    return cw.DropoutWrapper(cw.GRUCell(3), **kwargs)


class TestOrderOfChecks:
    """Everything is wrong at once; the first complaint in TF1's order wins, and falls away when it is mended."""

    BAD: ClassVar[dict[str, Any]] = {
        "dropout_state_filter_visitor": 3, "input_keep_prob": 2.0, "state_keep_prob": 3.0, "output_keep_prob": 4.0,
        "variational_recurrent": True,
    }  # fmt: skip
    STEPS: ClassVar[list[Any]] = [
        ({}, TypeError, "dropout_state_filter_visitor"),
        ({"dropout_state_filter_visitor": None}, ValueError, "input_keep_prob"),
        ({"input_keep_prob": 0.5}, ValueError, "state_keep_prob"),
        ({"state_keep_prob": 0.5}, ValueError, "output_keep_prob"),
        ({"output_keep_prob": 0.5}, ValueError, "dtype"),
        ({"dtype": "float32"}, ValueError, "input_size"),
    ]

    def test_one_after_another(self) -> None:
        arguments = dict(self.BAD)
        with pytest.raises(cw.ArgumentTypeError, match="DropoutWrapper: expected a recurrent cell"):
            cw.DropoutWrapper("x", **arguments)
        for mended, kind, says in self.STEPS:
            arguments |= mended
            with pytest.raises(kind, match=f"DropoutWrapper: expected {says}") as error:
                _drop(**arguments)
            assert isinstance(error.value, cw.CellweaveError)
        _drop(**arguments, input_size=4)

    def test_input_size_is_not_needed_where_no_input_is_dropped(self) -> None:
        _drop(variational_recurrent=True, dtype="float32", input_keep_prob=1.0, state_keep_prob=0.5)
        with pytest.raises(cw.ArgumentError, match="input_size"):
            _drop(variational_recurrent=True, dtype="float32", input_keep_prob=torch.tensor(1.0))


class TestProbabilities:
    @pytest.mark.parametrize("value", [0.6, np.float64(0.6), np.float32(0.6), np.array(0.6)], ids=repr)
    @pytest.mark.parametrize("kind", KINDS)
    def test_constants_are_float32_numbers(self, kind: str, value: Any) -> None:
        kept = _drop(**{f"{kind}_keep_prob": value}).get_config()[f"{kind}_keep_prob"]
        assert kept == ROUNDED and type(kept) is float

    @pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, np.int64(1), np.float16(0.5), True], ids=repr)
    def test_ints_and_bounds_are_fine(self, value: Any) -> None:
        assert _drop(output_keep_prob=value).get_config()["output_keep_prob"] == float(value)

    def test_what_rounds_to_one_is_one(self) -> None:
        wrapper = _drop(input_keep_prob=1.0 - 1e-9, seed=1)
        wrapper(X, H)
        assert wrapper.get_extra_state().shape[0] == 0

    @pytest.mark.parametrize("value", [1.0001, -1e-3, float("nan"), float("inf"), 2, np.float32(1.5)], ids=repr)
    @pytest.mark.parametrize("kind", KINDS)
    def test_outside(self, kind: str, value: Any) -> None:
        with pytest.raises(cw.ArgumentError, match=rf"DropoutWrapper: expected {kind}_keep_prob in \[0, 1\], got"):
            _drop(**{f"{kind}_keep_prob": value})

    @pytest.mark.parametrize("value", [None, "0.5", [0.5], np.array([0.5]), 1j, torch.tensor([0.5])], ids=repr)
    def test_no_number(self, value: Any) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="DropoutWrapper: expected input_keep_prob as a number"):
            _drop(input_keep_prob=value)

    def test_the_rounded_value_is_what_divides(self) -> None:
        """Also where the data are float64: 1 / 0.6000000238418579."""

        class Same(cw.RNNCell):
            state_size = output_size = 64

            def call(self, inputs: Any, state: Any) -> Any:
                return inputs, state

        wrapper = cw.DropoutWrapper(Same(), output_keep_prob=0.6, seed=3)
        ones = torch.ones(1, 64, dtype=torch.float64)
        values = set(wrapper(ones, ones)[0].flatten().tolist())
        assert values == {0.0, 1 / ROUNDED}

    @pytest.mark.parametrize("kind", KINDS)
    def test_zero_is_refused_in_a_call_and_not_before(self, kind: str) -> None:
        wrapper = _drop(**{f"{kind}_keep_prob": 0.0}, seed=1)
        with pytest.raises(cw.ArgumentError, match=f"DropoutWrapper: expected {kind}_keep_prob above 0.*got 0.0"):
            wrapper(X, H)
        wrapper.eval()
        wrapper(X, H)


class TestSeed:
    @pytest.mark.parametrize("seed", [0, -7, 2**70, np.int64(5), torch.tensor(5)], ids=repr)
    def test_any_int(self, seed: Any) -> None:
        assert _drop(seed=seed).get_config()["seed"] == int(seed)

    @pytest.mark.parametrize("seed", ["11", 1.5, True], ids=repr)
    def test_nothing_else(self, seed: Any) -> None:
        with pytest.raises(cw.ArgumentTypeError, match="DropoutWrapper: expected seed as an int"):
            _drop(seed=seed)


class TestConfig:
    OWN: ClassVar[list[str]] = [
        "input_keep_prob",
        "output_keep_prob",
        "state_keep_prob",
        "variational_recurrent",
        "input_size",
        "seed",
    ]

    def test_keys(self) -> None:
        assert list(_drop().get_config()) == ["name", "trainable", "dtype", "cell", *self.OWN]
        with_visitor = _drop(dropout_state_filter_visitor=lambda s: True).get_config()
        assert list(with_visitor)[-3:] == ["dropout_fn", "dropout_fn_type", "dropout_fn_module"]
        assert _drop(mask_per_row=True).get_config()["mask_per_row"] is True

    def test_positions_of_the_arguments(self) -> None:
        wrapper = cw.DropoutWrapper(cw.GRUCell(3), 0.5, 0.25, 0.125, True, 4, "float32", 11, lambda s: False)
        config = wrapper.get_config()
        assert [config[key] for key in self.OWN] == [0.5, 0.25, 0.125, True, 4, 11]
        assert config["dtype"] == "float32" and "dropout_fn" in config
        with pytest.raises(TypeError):
            cw.DropoutWrapper(cw.GRUCell(3), 0.5, 0.5, 0.5, True, 4, "float32", 11, None, True)

    def test_defaults(self) -> None:
        config = _drop().get_config()
        assert [config[key] for key in self.OWN] == [1.0, 1.0, 1.0, False, None, None]

    @pytest.mark.parametrize("mask_per_row", [False, True])
    def test_round_trip_draws_the_same(self, mask_per_row: bool) -> None:
        cell = cw.LSTMCell(3)
        wrapper = cw.DropoutWrapper(
            cell, 0.5, 0.6, 0.7, True, 4, "float32", 11, lambda s: True, mask_per_row=mask_per_row, name="foo"
        )
        config = wrapper.get_config() | {"cell": cell}
        with pytest.raises(cw.ArgumentError, match="safe_mode=False"):
            cw.DropoutWrapper.from_config(config)
        other = cw.DropoutWrapper.from_config(config, safe_mode=False)
        assert other.name == "foo" and other.get_config().keys() == config.keys()
        state = cw.LSTMStateTuple(H, H)
        for _ in range(3):
            (out, new), (out2, new2) = wrapper(X, state), other(X, state)
            assert torch.equal(out, out2) and torch.equal(new.c, new2.c) and torch.equal(new.h, new2.h)

    def test_input_size_is_stored_as_given(self) -> None:
        size = cw.TensorShape([4])
        wrapper = _drop(variational_recurrent=True, dtype="float32", input_keep_prob=0.5, input_size=size)
        assert wrapper.get_config()["input_size"] is size
