"""What the Keras-style cells share: arguments, list states, configs."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._checks import check_positive_int
from cellweave._errors import ArgumentError, ShapeError
from cellweave._types import DTypeLike, Nest
from cellweave.cells._rnn_cell import keras_zero_state, plain_zeros
from cellweave.cells._spec_cell import SpecWeights
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name
from cellweave.scopes import recordable
from cellweave.specs import CellSpec, WeightSpec

#: Keras's default initializers, by kind of weight.
_DEFAULTS = {"kernel": "glorot_uniform", "recurrent_kernel": "orthogonal", "bias": "zeros"}


class KerasCell(SpecWeights):
    """Base of the Keras-style cells: separate input and recurrent kernels, states as lists, no `zero_state`."""

    _spec: CellSpec
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

    @recordable
    @plain_zeros
    def get_initial_state(self, inputs: Nest = None, batch_size: Any = None, dtype: DTypeLike = None) -> Any:
        """Zeros per `state_size`; batch size and dtype come from `inputs` if given, else both are required.

        Raises:
            ArgumentError: one is missing.
        """
        return keras_zero_state(self, inputs, batch_size, dtype)

    def _only_state(self, states: Nest) -> torch.Tensor:
        """The one state out of `[h]` or `h`."""
        if not _nest.is_nested(states):
            return states  # type: ignore[no-any-return]
        if len(states) != 1:
            raise ShapeError(f"{self.where}: expected states as [h] or h, got {len(states)} elements.")
        return states[0]  # type: ignore[no-any-return]

    def _optional_bias(self) -> torch.Tensor | None:
        return self._parameters.get("bias")

    def _common_config(self, activations: dict[str, Any]) -> dict[str, Any]:
        config = {"name": self.name, "trainable": self.trainable, "dtype": self.dtype, "units": self._spec.units}
        config.update({key: activation_name(value) for key, value in activations.items()})
        config["use_bias"] = self._spec.use_bias
        names = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}
        config.update({f"{names[kind]}_initializer": _keras_form(value) for kind, value in self._initializers.items()})
        return config

    def _tail_config(self) -> dict[str, Any]:
        names = {"kernel": "kernel", "recurrent_kernel": "recurrent", "bias": "bias"}
        config: dict[str, Any] = {f"{names[kind]}_regularizer": value for kind, value in self._regularizers.items()}
        config.update({f"{names[kind]}_constraint": value for kind, value in self._constraints.items()})
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


def positive_units(where: str, units: Any) -> int:
    """The checked `units` argument."""
    return check_positive_int(f"{where} units", units)
