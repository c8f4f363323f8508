"""Functions in configs: marshalled code, names, and what is refused."""

from __future__ import annotations

import functools
import json
import operator
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.wrappers._function_config import function_config, with_function

X = torch.linspace(-1.0, 1.0, 8).reshape(2, 4)
FACTOR = 3.0


def module_level(x: Any, y: Any) -> Any:
    """Reads a global of its module."""
    return FACTOR * x + y


def with_defaults(x: Any, y: Any, scale: float = 2.0) -> Any:
    """Has a default."""
    return x + scale * y


def _closure(scale: float) -> Any:
    def scaled(x: Any, y: Any) -> Any:
        return x + scale * y

    return scaled


class Callable2:
    """An object with a name."""

    __name__ = "callable_two"

    def __call__(self, x: Any, y: Any) -> Any:
        return x - y


class Nameless:
    """An object without one."""

    def __call__(self, x: Any, y: Any) -> Any:
        return x


def _there_and_back(function: Any, *, through_json: bool = False, **kwargs: Any) -> Any:
    config: dict[str, Any] = {"kept": 1, **function_config("fn", function)}
    if through_json:
        config = json.loads(json.dumps(config))
    arguments = with_function(
        config, "fn", "argument", kwargs.get("custom_objects"), kwargs.get("safe_mode", False), "here"
    )
    assert set(arguments) == {"kept", "argument"}
    return arguments["argument"]


@pytest.mark.parametrize("through_json", [False, True])
@pytest.mark.parametrize(
    "function",
    [module_level, with_defaults, _closure(5.0), lambda x, y: x * y],
    ids=["def", "default", "closure", "lambda"],
)
def test_plain_functions_are_code(function: Any, through_json: bool) -> None:
    config = function_config("fn", function)
    assert list(config) == ["fn", "fn_type", "fn_module"]
    assert config["fn_type"] == "lambda" and len(config["fn"]) == 3
    back = _there_and_back(function, through_json=through_json)
    assert back is not function and torch.equal(back(X, 2 * X), function(X, 2 * X))


def test_defaults_and_closure_values_are_in_the_config() -> None:
    assert function_config("fn", with_defaults)["fn"][1] == (2.0,)
    assert function_config("fn", _closure(5.0))["fn"][2] == (5.0,)
    assert function_config("fn", module_level)["fn"][1:] == (None, None)


@pytest.mark.parametrize("through_json", [False, True])
def test_other_callables_go_by_name(through_json: bool) -> None:
    assert function_config("fn", operator.add) == {"fn": "add", "fn_type": "function", "fn_module": "_operator"}
    assert _there_and_back(operator.add, through_json=through_json, safe_mode=True) is operator.add
    own = Callable2()
    assert _there_and_back(own, custom_objects={"callable_two": own}, safe_mode=True) is own
    with pytest.raises(cw.ArgumentError, match="here.from_config: expected a known function, got 'callable_two'"):
        _there_and_back(own)


def test_custom_objects_come_first() -> None:
    assert _there_and_back(operator.add, custom_objects={"add": operator.sub}) is operator.sub


@pytest.mark.parametrize("function", [Nameless(), functools.partial(module_level, 1)], ids=["object", "partial"])
def test_no_name(function: Any) -> None:
    with pytest.raises(AttributeError):
        function_config("fn", function)


def test_code_runs_only_when_trusted() -> None:
    with pytest.raises(cw.ArgumentError, match=r"here.from_config: expected no code.*'fn'.*safe_mode=False"):
        _there_and_back(module_level, safe_mode=True)


@pytest.mark.parametrize("kind", [None, "neither", "Lambda"])
def test_other_types(kind: Any) -> None:
    config = function_config("fn", module_level) | {"fn_type": kind}
    with pytest.raises(cw.ArgumentTypeError, match=f"here.from_config: expected fn_type.*{kind!r}"):
        with_function(config, "fn", "argument", None, False, "here")


def test_configs_are_not_changed() -> None:
    config = function_config("fn", module_level)
    before = dict(config)
    with_function(config, "fn", "argument", None, False, "here")
    assert config == before


class Adder:
    """A residual function with a name, found through custom_objects."""

    __name__ = "adder"

    def __call__(self, x: Any, y: Any) -> Any:
        return x + 2 * y


@pytest.mark.parametrize("name", ["residual_fn_module", "residule_fn_module"])
def test_the_misspelt_key_of_tf_2_0(name: str) -> None:
    for wrapper in (
        cw.RNNCellResidualWrapper(keras.GRUCell(4), module_level),
        cw.ResidualWrapper(cw.GRUCell(4), module_level),
    ):
        config = wrapper.get_config()
        config[name] = config.pop("residual_fn_module")
        if isinstance(wrapper, cw.ResidualWrapper):
            config["cell"] = wrapper.cell
        other = type(wrapper).from_config(config, safe_mode=False)
        other.cell.build([None, 4])
        h = torch.zeros(2, 4)
        other(X, h)
        wrapper(X, h)
        other.cell.set_weights(wrapper.cell.get_weights())
        assert torch.equal(other(X, h)[0], wrapper(X, h)[0])


def test_safe_mode_and_custom_objects_reach_the_cells_inside() -> None:
    """A wrapper with code inside a wrapper with a named function."""
    inner = cw.RNNCellResidualWrapper(keras.GRUCell(4), lambda x, y: x - y)
    outer = cw.RNNCellResidualWrapper(inner, Adder())
    config = json.loads(json.dumps(outer.get_config()))
    with pytest.raises(cw.ArgumentError, match="safe_mode=False"):
        cw.RNNCellResidualWrapper.from_config(config, {"adder": Adder()})
    with pytest.raises(cw.ArgumentError, match="'adder'"):
        cw.RNNCellResidualWrapper.from_config(config, safe_mode=False)
    other = cw.RNNCellResidualWrapper.from_config(config, {"adder": Adder()}, safe_mode=False)
    h = torch.zeros(2, 4)
    outer(X, h)
    other(X, h)
    other.set_weights(outer.get_weights())
    assert torch.equal(other(X, h)[0], outer(X, h)[0])


def test_v1_wrappers_inside_v2_wrappers_come_back() -> None:
    outer = cw.RNNCellDropoutWrapper(
        cw.DropoutWrapper(cw.LSTMCell(3), 0.5, seed=1, dropout_state_filter_visitor=lambda s: False), 0.75, seed=2
    )
    other = cw.RNNCellDropoutWrapper.from_config(json.loads(json.dumps(outer.get_config())), safe_mode=False)
    assert type(other.cell) is cw.DropoutWrapper and type(other.cell.cell) is cw.LSTMCell
    assert other.cell.get_config()["seed"] == 1 and other.get_config()["input_keep_prob"] == 0.75
