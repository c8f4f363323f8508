"""The v2_eager and rng drivers of the goldens."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave import keras
from cellweave.ops.common import BLOCKS_PER_ELEMENT, random_uniform
from cellweave.scopes import op_seeds
from helpers import nest
from helpers.golden_cells import Placeholders, activation, arguments
from helpers.golden_drivers import REMARKS, check_keys
from helpers.golden_set import Arrays, Case
from helpers.tolerances import GOLDEN, as_array, assert_close, assert_same_bits

EAGER_KEYS = REMARKS | frozenset(
    [
        "B",
        "T",
        "D",
        "dtype",
        "runs",
        "graph_seed",
        "keras_cell",
        "units",
        "keras_kwargs",
        "wrapper_kwargs",
        "state",
        "get_config",
        "config_note",
    ]
)
RNG_KEYS = REMARKS | frozenset(["dtype", "shapes", "seeds", "runs"])


def _eager_wrapper(case: Case) -> tuple[Any, Any, Placeholders]:
    placeholders = Placeholders(getattr(torch, case["dtype"]))
    cell_class = getattr(keras, case["keras_cell"], None)
    if cell_class is None:
        pytest.fail(f"cellweave.keras has no class {case['keras_cell']!r}")
    extra = dict(case.get("keras_kwargs", {}))
    for key in ("activation", "recurrent_activation"):
        if isinstance(extra.get(key), str):
            extra[key] = activation(extra[key])
    if case["dtype"] != "float32":
        extra.setdefault("dtype", case["dtype"])
    cell = cell_class(case["units"], **extra)
    kwargs = dict(case["wrapper_kwargs"])
    size = kwargs.pop("input_size", None)  # kept as given: the config shows it
    wrapper_class = _wrapper_class(case["symbol"])
    given = arguments(wrapper_class, _without_layer_keywords(wrapper_class, kwargs), placeholders)
    given |= {key: kwargs[key] for key in kwargs.keys() - given.keys()}
    if size is not None:
        given["input_size"] = size
    if given.get("variational_recurrent") or case["dtype"] != "float32":
        given.setdefault("dtype", case["dtype"])
    placeholders.feed(0)
    return wrapper_class(cell, **given), cell, placeholders


def _wrapper_class(symbol: str) -> Any:
    """TF2's wrapper that the case's symbol names; the dropout wrapper where it names none."""
    name = symbol.rsplit(".", 1)[-1]
    return getattr(cw, name) if name.startswith("RNNCell") else cw.RNNCellDropoutWrapper


def _without_layer_keywords(cls: type, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keras layer keywords reach the class by `**kwargs`, so its signature does not show them."""
    shown = inspect.signature(cls).parameters
    return {key: value for key, value in kwargs.items() if key in shown or key not in ("name", "trainable", "dtype")}


def check_eager(case: Case, arrays: Arrays) -> None:
    """T calls by hand per run; streams go on from run to run."""
    check_keys(case, EAGER_KEYS)
    if case["state"] not in ("list", "tensor"):
        pytest.fail(f"the golden harness does not know state={case['state']!r} of a v2_eager case")
    cw.set_random_seed(case["graph_seed"])
    tolerance = GOLDEN[case["dtype"]]
    wrapper, cell, placeholders = _eager_wrapper(case)
    wrapper.build((case["B"], case["D"]))
    weights = _load_weights(case, arrays, cell)
    named = cw.variable_names(wrapper)
    assert [name.rsplit("/", 1)[-1] for name in named] == [v["name"] for v in case["variables"]]
    assert [w is v for w, v in zip(wrapper.weights, weights.values(), strict=True)] == [True] * len(weights)
    x = torch.tensor(arrays["x"]).requires_grad_()
    init_keys = arrays.numbered("init")
    init = [torch.tensor(arrays[key]).requires_grad_() for key in init_keys]
    leaves = {"g_x": x, **{f"g_{k}": v for k, v in zip(init_keys, init, strict=True)}}
    leaves |= {f"g{key}": weight for key, weight in weights.items()}
    for number in range(case["runs"]):
        suffix = f"__run{number + 1}" if number else ""
        placeholders.feed(number)
        state: Any = list(init) if case["state"] == "list" else init[0]
        outputs = []
        for step in range(case["T"]):
            out, state = wrapper(x[step], state)
            outputs.append(out)
        assert nest.picture(state) == nest.normal_picture(case["state_structure"])
        results = {"out": torch.stack(outputs)}
        results |= {f"final{k}": leaf for k, leaf in enumerate(nest.flatten(state))}
        for key, value in results.items():
            assert_close(key + suffix, value, arrays[key + suffix], tolerance)
        loss = sum((v * torch.tensor(arrays[f"ct_{key}"])).sum() for key, v in results.items())
        assert_close("loss" + suffix, loss, arrays["loss" + suffix], tolerance)
        grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        for (key, leaf), grad in zip(leaves.items(), grads, strict=True):
            found = torch.zeros_like(leaf) if grad is None else grad
            assert_close(key + suffix, found, arrays[key + suffix], tolerance)
    if "get_config" in case:
        _check_config(wrapper.get_config(), case["get_config"])
    arrays.check_all_used()


def _load_weights(case: Case, arrays: Arrays, cell: Any) -> dict[str, torch.Tensor]:
    by_name = {name.rsplit("/", 1)[-1]: weight for name, weight in cw.variable_names(cell).items()}
    assert set(by_name) == {v["name"] for v in case["variables"]}
    weights = {}
    for variable in case["variables"]:
        weight, value = by_name[variable["name"]], torch.tensor(arrays[variable["key"]])
        assert (weight.shape, weight.dtype) == (value.shape, value.dtype), variable["name"]
        with torch.no_grad():
            weight.copy_(value)
        weights[variable["key"]] = weight
    return weights


def _base_name(name: str) -> str:
    return re.sub(r"_\d+$", "", name)


def _check_config(got: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Wrapper keys in order with their values; auto-numbered names by their base; of the cell what both sides have."""
    assert list(got) == list(wanted)
    assert list(got["cell"]) == list(wanted["cell"]) == ["class_name", "config"]
    assert got["cell"]["class_name"] == wanted["cell"]["class_name"]
    inner_got, inner_wanted = got["cell"]["config"], wanted["cell"]["config"]
    assert inner_got["units"] == inner_wanted["units"]
    for config, golden in ((got, wanted), (inner_got, inner_wanted)):
        for key, value in golden.items():
            if key == "name":
                assert _base_name(config["name"]) == _base_name(value)
            elif key.endswith("_module"):  # where the caller's function lives
                assert isinstance(config[key], str)
            elif key in config and (value is None or isinstance(value, bool | int | float | str)):
                assert config[key] == value, key
                assert type(config[key]) is type(value), key


def check_rng(case: Case, arrays: Arrays) -> None:
    """Every draw bit for bit; each shape is its own op, run k starts at block 256 N (k - 1)."""
    check_keys(case, RNG_KEYS)
    dtype = getattr(torch, case["dtype"])
    for i, (graph_seed, op_seed) in enumerate(case["seeds"]):
        cw.set_random_seed(graph_seed)
        seed, seed2 = op_seeds(op_seed)
        for j, shape in enumerate(case["shapes"]):
            step = BLOCKS_PER_ELEMENT * math.prod(shape)
            whole = as_array(random_uniform(shape, dtype, seed, seed2, 0, draws=case["runs"]))
            for run in range(case["runs"]):
                key = f"u_s{i}_h{j}_run{run + 1}"
                assert_same_bits(key, random_uniform(shape, dtype, seed, seed2, step * run)[0], arrays[key])
                assert_same_bits(f"{key} of one draw of all runs", whole[run], arrays[key])
    arrays.check_all_used()
