"""Cells of the library from the trees in a golden manifest."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import cellweave as cw

Tree = dict[str, Any]


def _only_c(state: Any) -> Any:
    return cw.LSTMStateTuple(c=True, h=False) if isinstance(state, cw.LSTMStateTuple) else True


def _first_only(state: Any) -> Any:
    return tuple(k == 0 for k in range(len(state))) if type(state) is tuple else True


VISITORS: dict[str, Callable[[Any], Any]] = {
    "drop_all": lambda state: True,
    "drop_none": lambda state: False,
    "only_c": _only_c,
    "skip_lstm": lambda state: not isinstance(state, cw.LSTMStateTuple),
    "first_only": _first_only,
}

RESIDUAL_FNS: dict[str, Callable[[Any, Any], Any]] = {
    "half_in": lambda i, o: 0.5 * i + o,
    "gate": lambda i, o: i * torch.sigmoid(o),
    "out_minus_in": lambda i, o: o - i,
}

#: Names of functions of TensorFlow that the library knows as strings.
KNOWN_NAMES = frozenset(
    [
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "identity",
        "leaky_relu",
        "linear",
        "relu",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softmax",
        "softplus",
        "softsign",
        "swish",
        "tanh",
    ]
)
#: Functions of TensorFlow that the library does not know, and whose torch namesake is missing or differs.
TF_FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "log_softmax": lambda x: torch.log_softmax(x, dim=-1),
    "log_sigmoid": F.logsigmoid,
}


class Placeholders:
    """Scalar tensors of a case, fed anew before each run."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._fed: list[tuple[torch.Tensor, list[float] | float]] = []

    def make(self, values: list[float] | float) -> torch.Tensor:
        """A tensor for `{"placeholder": values}`."""
        tensor = torch.zeros((), dtype=self._dtype)
        self._fed.append((tensor, values))
        return tensor

    def feed(self, run: int) -> None:
        """Put the values of run number `run` (from 0) in place."""
        for tensor, values in self._fed:
            tensor.fill_(values[run] if isinstance(values, list) else values)


def activation(name: str) -> Any:
    """The tf.nn or tf function of that name: the library's name for it, else a torch function."""
    if name in KNOWN_NAMES:
        return name
    function = TF_FUNCTIONS.get(name) or getattr(torch, name, None)
    if not callable(function):
        pytest.fail(f"the golden harness does not know the activation {name!r}: add it to helpers/golden_cells.py")
    return function


def _size(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_size(item) for item in value)
    return cw.TensorShape([value])


def _named(table: dict[str, Any], what: str, name: Any) -> Any:
    if name is None or name in table:
        return None if name is None else table[name]
    pytest.fail(f"the golden harness does not know the {what} {name!r}: add it to helpers/golden_cells.py")


def argument(owner: str, key: str, value: Any, placeholders: Placeholders) -> Any:
    """The library's argument for one kwarg of the manifest."""
    if isinstance(value, dict) and set(value) == {"placeholder"}:
        return placeholders.make(value["placeholder"])
    if key in ("activation", "recurrent_activation") and isinstance(value, str):
        return activation(value)
    if key == "input_size" and value is not None:
        return _size(value)
    if key == "dropout_state_filter_visitor":
        return _named(VISITORS, "visitor", value)
    if key == "residual_fn":
        return _named(RESIDUAL_FNS, "residual_fn", value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    pytest.fail(f"the golden harness does not know how to pass {owner}({key}={value!r})")


def arguments(cls: type, kwargs: dict[str, Any], placeholders: Placeholders) -> dict[str, Any]:
    """All arguments; a keyword that the class does not have fails by name."""
    known = inspect.signature(cls).parameters
    unknown = sorted(kwargs.keys() - known.keys())
    if unknown:
        pytest.fail(f"{cls.__name__} has no keyword {unknown}; it has {sorted(known)}")
    return {key: argument(cls.__name__, key, value, placeholders) for key, value in kwargs.items()}


def find_class(name: str) -> type:
    """A public class of the library."""
    for module in (cw, getattr(cw, "contrib", None)):
        if isinstance(getattr(module, name, None), type):
            return getattr(module, name)
    pytest.fail(f"cellweave has no public class {name!r}")


def build_cell(tree: Tree, dtype: str, placeholders: Placeholders) -> Any:
    """The cell of a tree, of any depth of nesting."""
    unknown = sorted(tree.keys() - {"class", "kwargs", "cell", "cells"})
    if unknown:
        pytest.fail(f"the golden harness does not know {unknown} in the tree of a {tree['class']}")
    cls = find_class(tree["class"])
    kwargs = arguments(cls, tree.get("kwargs", {}), placeholders)
    if kwargs.get("variational_recurrent") and "dtype" not in kwargs:
        kwargs["dtype"] = dtype
    if "cells" in tree:
        return cls([build_cell(sub, dtype, placeholders) for sub in tree["cells"]], **kwargs)
    if "cell" in tree:
        return cls(build_cell(tree["cell"], dtype, placeholders), **kwargs)
    return cls(**kwargs)
