"""What TF1's and TF2's dropout wrappers share: checks, and the order in which things are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, DTypeError
from cellweave._types import Nest, dtype_name
from cellweave.ops.common import drop_by_floor, drop_by_threshold
from cellweave.scopes import Run, SymbolicTensor, current_run, fed_value
from cellweave.wrappers._base import Wrapper
from cellweave.wrappers._function_config import function_config, with_function
from cellweave.wrappers._state_filter import Visitor, places

#: A constant as a Python float, or a tensor that the caller feeds.
KeepProb = float | torch.Tensor | SymbolicTensor


def as_keep_prob(value: Any, what: str, where: str) -> KeepProb:
    """A keep probability, checked. Constants are rounded through float32, as TF1 kept them.

    Raises:
        ArgumentError: a value outside [0, 1]. ArgumentTypeError: neither a number nor a scalar tensor.
    """
    if isinstance(value, SymbolicTensor):
        return value
    if isinstance(value, torch.Tensor):
        if value.dim() != 0:
            raise ArgumentTypeError(
                f"{where}: expected {what} as a number or a scalar tensor, got shape {list(value.shape)}."
            )
        if value.device.type != "meta" and not 0.0 <= float(value.detach()) <= 1.0:
            raise ArgumentError(f"{where}: expected {what} in [0, 1], got {float(value.detach())}.")
        return value
    if not isinstance(value, int | float | np.number) and not (isinstance(value, np.ndarray) and value.ndim == 0):
        raise ArgumentTypeError(f"{where}: expected {what} as a number or a scalar tensor, got {value!r}.")
    number = float(np.float32(value))
    if not 0.0 <= number <= 1.0:
        raise ArgumentError(f"{where}: expected {what} in [0, 1], got {value!r}.")
    return number


class DropoutBehavior(Wrapper):
    """Mixin of the dropout wrappers. The wrapper gives `_noise_per_step` and `_noise_per_run`."""

    def _init_dropout(
        self,
        keep_probs: dict[str, Any],
        variational_recurrent: bool,
        input_size: Any,
        dtype: torch.dtype | None,
        seed: int | None,
        visitor: Any,
        default_visitor: Visitor,
    ) -> None:
        where = type(self).__name__
        if visitor is not None and not callable(visitor):
            raise ArgumentTypeError(f"{where}: expected dropout_state_filter_visitor as a function, got {visitor!r}.")
        if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
            raise ArgumentTypeError(f"{where}: expected seed as an int or None, got {seed!r}.")
        keep = {kind: as_keep_prob(value, f"{kind}_keep_prob", where) for kind, value in keep_probs.items()}
        if variational_recurrent and dtype is None:
            raise ArgumentError(f"{where}: expected dtype because variational_recurrent=True, got None.")
        drops_input = not isinstance(keep["input"], float) or keep["input"] < 1.0
        if variational_recurrent and drops_input and input_size is None:
            raise ArgumentError(
                f"{where}: expected input_size because inputs are dropped with variational_recurrent=True, got None."
            )
        self._keep = keep
        self._variational = bool(variational_recurrent)
        self._input_size = input_size
        self._noise_dtype = dtype
        self._seed = None if seed is None else int(seed.__index__())
        self._given_visitor = visitor
        self._visitor: Visitor = default_visitor if visitor is None else visitor

    def symbolic_inputs(self) -> list[SymbolicTensor]:
        """Keep probabilities that a recorded graph feeds."""
        return [value for value in self._keep.values() if isinstance(value, SymbolicTensor)]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; a visitor as its marshalled code."""
        config = {
            **super().get_config(),
            "input_keep_prob": self._keep["input"],
            "output_keep_prob": self._keep["output"],
            "state_keep_prob": self._keep["state"],
            "variational_recurrent": self._variational,
            "input_size": self._input_size,
            "seed": self._seed,
        }
        if self._given_visitor is not None:
            config.update(function_config("dropout_fn", self._given_visitor))
        return config

    @classmethod
    def _loaded(
        cls, arguments: dict[str, Any], custom_objects: Mapping[str, Any] | None, safe_mode: bool
    ) -> dict[str, Any]:
        return with_function(
            arguments, "dropout_fn", "dropout_state_filter_visitor", custom_objects, safe_mode, cls.__name__
        )

    def _active(self, kind: str) -> bool:
        keep = self._keep[kind]
        return keep != 1.0 and self.training if isinstance(keep, float) else True

    def _noise_per_step(self, kind: str, index: int, value: torch.Tensor, run: Run, op: int) -> torch.Tensor:
        raise NotImplementedError

    def _noise_per_run(self, kind: str, index: int, value: torch.Tensor, run: Run) -> torch.Tensor:
        raise NotImplementedError

    def call(self, inputs: Nest, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """Drop the inputs, run the cell, drop the new state where the visitor says so, drop the output."""
        if not any(self._active(kind) for kind in self._keep):
            return self._step(inputs, state, **kwargs)
        run = current_run()
        op = 0 if self._variational else run.op_of(self)
        if self._active("input"):
            inputs = self._drop_all("input", inputs, run, op)
        output, new_state = self._step(inputs, state, **kwargs)
        if self._active("state"):
            new_state = self._drop_state(new_state, run, op)
        if self._active("output"):
            output = self._drop_all("output", output, run, op)
        return output, new_state

    def _drop_all(self, kind: str, values: Nest, run: Run, op: int) -> Any:
        leaves = _nest.flatten(values)
        return _nest.pack(values, [self._drop(kind, i, leaf, run, op) for i, leaf in enumerate(leaves)])

    def _drop_state(self, state: Nest, run: Run, op: int) -> Any:
        leaves = _nest.flatten(state)
        for place in places(self._visitor, state, self.where):
            index = place.leaf if self._variational else place.pruned
            leaves[place.leaf] = self._drop("state", index, leaves[place.leaf], run, op)
        return _nest.pack(state, leaves)

    def _drop(self, kind: str, index: int, value: Any, run: Run, op: int) -> torch.Tensor:
        if not isinstance(value, torch.Tensor):
            raise ArgumentTypeError(f"{self.where}: expected {kind} leaves as tensors, got {type(value).__name__}.")
        if not value.dtype.is_floating_point:
            raise DTypeError(f"{self.where}: expected a floating {kind} to drop, got {dtype_name(value.dtype)}.")
        keep = self._keep[kind]
        if isinstance(keep, SymbolicTensor):
            keep = fed_value(keep, run.fed)
        if self._variational:
            return drop_by_floor(value, self._noise_per_run(kind, index, value, run), keep)
        if isinstance(keep, torch.Tensor):
            return drop_by_floor(value, self._noise_per_step(kind, index, value, run, op), keep)
        if keep == 0.0:
            raise ArgumentError(f"{self.where}: expected {kind}_keep_prob above 0 in a call, got 0.0.")
        return drop_by_threshold(value, self._noise_per_step(kind, index, value, run, op), keep)
