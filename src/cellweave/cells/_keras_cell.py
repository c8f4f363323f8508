"""What the Keras-style cells share: arguments, list states, configs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ShapeError
from cellweave._types import Activation, DTypeLike, Nest
from cellweave.cells._rnn_cell import KerasStates
from cellweave.cells._spec_cell import SpecWeights
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.specs import CellSpec, WeightSpec

#: Keras's default initializers, by kind of weight.
_DEFAULTS = {"kernel": "glorot_uniform", "recurrent_kernel": "orthogonal", "bias": "zeros"}
#: What names of arguments call the kinds.
_WORDS = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}


class KerasCell(KerasStates, SpecWeights):
    """Base of the Keras-style cells: separate input and recurrent kernels, states as lists, no `zero_state`."""

    _spec: CellSpec
    #: One step of a recurrence that has one state.
    _step: Callable[..., torch.Tensor]
    is_keras_cell = True
    _first_name_has_number = False

    def __init__(
        self,
        spec: CellSpec,
        kernel_initializer: Any,
        recurrent_initializer: Any,
        bias_initializer: Any,
        dropout: float,
        recurrent_dropout: float,
        regularizers: dict[str, Any],
        constraints: dict[str, Any],
        name: str | None,
        dtype: DTypeLike,
        trainable: bool,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        for what, value in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if value:
                raise ArgumentError(f"{where}: expected {what}=0, got {value}. Wrap the cell in RNNCellDropoutWrapper.")
        super().__init__(spec, trainable=trainable, name=name, dtype="float32" if dtype is None else dtype, **kwargs)
        given = {"kernel": kernel_initializer, "recurrent_kernel": recurrent_initializer, "bias": bias_initializer}
        self._initializers = {
            kind: deserialize(_DEFAULTS[kind] if value is None else value, where) for kind, value in given.items()
        }
        self._regularizers, self._constraints = regularizers, constraints

    def _add(self, weight: WeightSpec) -> None:
        initializer = self._initializers[weight.kind]
        if weight.kind == "bias" and isinstance(weight.fill, tuple) and any(weight.fill):
            initializer = _FilledParts(weight.fill, initializer)
        self.add_weight(
            weight.name,
            weight.shape,
            initializer=initializer,
            regularizer=self._regularizers.get(weight.kind),
            constraint=self._constraints.get(weight.kind),
        )

    def call(self, inputs: torch.Tensor, states: Nest) -> tuple[torch.Tensor, Any]:
        """One step: h', and the new state as a list if it came as one."""
        h: Any = states
        if _nest.is_nested(states):
            if len(states) != 1:
                raise ShapeError(f"{self.where}: expected states as [h] or h, got {len(states)} elements.")
            h = states[0]
        self._checked(inputs, state=(h, self._spec.units))
        bias = self._parameters.get("bias")
        new_h = self._step(inputs, h, self.kernel, self.recurrent_kernel, bias, spec=self._spec)
        return new_h, [new_h] if isinstance(states, list | tuple) else new_h

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        spec = self._spec
        config = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype, "units": spec.units}
        for name in ("activation", "recurrent_activation"):
            if hasattr(spec, name):
                config[name] = activation_name(getattr(spec, name))
        config["use_bias"] = spec.use_bias
        config |= {f"{_WORDS[kind]}_initializer": _keras_form(value) for kind, value in self._initializers.items()}
        config |= {f"{_WORDS[kind]}_regularizer": value for kind, value in self._regularizers.items()}
        config |= {f"{_WORDS[kind]}_constraint": value for kind, value in self._constraints.items()}
        return {**config, "dropout": 0.0, "recurrent_dropout": 0.0}


class _FilledParts:
    """Keras's `unit_forget_bias`: ones for some gates, the given initializer for the others."""

    def __init__(self, fill: tuple[float, ...], other: Any) -> None:
        self._fill, self._other = fill, other

    def __call__(self, shape: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        size = shape[0] // len(self._fill)
        parts = [torch.ones(size, dtype=dtype) if value else self._other((size,), dtype=dtype) for value in self._fill]
        return torch.cat(parts)


def _keras_form(initializer: Any) -> Any:
    """An initializer in Keras's serialized form."""
    data = serialize(initializer)
    if not isinstance(data, dict):
        return data
    return {"module": "keras.initializers", **data, "registered_name": None}


def keras_activation(value: Any, where: str) -> Activation:
    """As `as_activation`, but None is none."""
    return as_activation("linear" if value is None else value, where)
