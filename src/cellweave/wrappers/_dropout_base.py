"""What TF1's and TF2's dropout wrappers share: checks, and the order in which things are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError
from cellweave._types import DTypeLike, Nest, dtype_name
from cellweave.ops.common import drop_by_floor, drop_by_threshold
from cellweave.scopes import Run, SymbolicTensor, current_run, fed_value
from cellweave.specs import DropoutSpec, describe
from cellweave.wrappers._base import Wrapper
from cellweave.wrappers._function_config import function_config, with_function
from cellweave.wrappers._mask_draws import EagerDraws, RunDraw, StepDraws
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
        dtype: DTypeLike,
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

    def _described(self, per_row: bool) -> DropoutSpec:
        x, state, output = [value if type(value) is float else None for value in self._keep.values()]
        return DropoutSpec(describe(self.wrapped_cell)[0], x, state, output, self._variational, per_row)

    def _active(self, kind: str) -> bool:
        keep = self._keep[kind]
        return keep != 1.0 and self.training if isinstance(keep, float) else True

    # What a weave asks, which draws the masks of a whole sequence in one go

    def acting(self) -> tuple[Any, ...]:
        """How each kind of mask acts in the next call, in the order input, state, output; then the noise's dtype.

        "" not at all, "constant" or "fed" by a probability in (0, 1], else why only single steps can have it.
        """
        return (*[self._acting(keep) for keep in self._keep.values()], self._run_noise_dtype())

    def _acting(self, keep: KeepProb) -> str:
        if isinstance(keep, float):
            if keep == 1.0 or not self.training:
                return ""
            return "constant" if keep else "a keep probability is 0"
        fed: torch.Tensor = fed_value(keep, current_run().fed) if isinstance(keep, SymbolicTensor) else keep
        if fed.requires_grad:
            return "a fed keep probability takes a gradient"
        if fed.device.type == "meta" or not 0.0 < float(fed) <= 1.0:
            return "a fed keep probability is outside (0, 1]"
        return "fed"

    @property
    def has_own_visitor(self) -> bool:
        """Whether a function of the caller's decides which states are dropped."""
        return self._given_visitor is not None

    def keep_now(self, kind: str) -> float:
        """The keep probability of a kind of mask in the run that is open."""
        keep = self._keep[kind]
        return float(fed_value(keep, current_run().fed) if isinstance(keep, SymbolicTensor) else keep)

    def dropped_leaves(self, state: Nest) -> list[tuple[int, int]]:
        """For each leaf of the state that is dropped: its position, and the index of its mask."""
        chosen = places(self._visitor, state, self.where)
        return [(place.leaf, place.leaf if self._variational else place.pruned) for place in chosen]

    def next_op(self) -> int:
        """Number of the op that its next call is, where masks are drawn per step."""
        return current_run().op_of(self)

    def ops_made(self) -> int:
        """Number of the op that its next call is outside a loop."""
        return current_run().ops_made(self)

    @property
    def is_seeded(self) -> bool:
        """Whether a seed of its own decides its masks."""
        return self._seed is not None

    def _run_noise_dtype(self) -> torch.dtype | None:
        """Dtype of variational noise; None per step."""
        raise NotImplementedError

    def noise_size(self, kind: str, index: int) -> tuple[int | None, ...]:
        """Axes of a variational mask after the batch's; of none, (None,)."""
        raise NotImplementedError

    def run_draw(self, kind: str, index: int, rows: int, width: int, dtype: torch.dtype) -> RunDraw | torch.Tensor:
        """A variational mask's draw in the run that is open, taken from its stream; or its noise itself."""
        raise NotImplementedError

    def step_draws(self, kind: str, index: int, elements: int, dtype: torch.dtype, op: int) -> StepDraws | EagerDraws:
        """What a mask of so many elements is going to take from its stream at every step of the loop that is open."""
        raise NotImplementedError

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
            raise ArgumentError(f"{self.where}: expected a floating {kind} to drop, got {dtype_name(value.dtype)}.")
        keep = self._keep[kind]
        if isinstance(keep, SymbolicTensor):
            keep = fed_value(keep, run.fed)
        noise_per_run, noise_per_step = self._noise_per_run, self._noise_per_step
        if torch.compiler.is_dynamo_compiling():  # streams are no tensors: compiled code stops here and goes on
            from cellweave.wrappers._untraced import outside

            noise_per_run, noise_per_step = partial(outside, noise_per_run), partial(outside, noise_per_step)
        if self._variational:
            return drop_by_floor(value, noise_per_run(kind, index, value, run), keep)
        if isinstance(keep, torch.Tensor):
            return drop_by_floor(value, noise_per_step(kind, index, value, run, op), keep)
        if keep == 0.0:
            raise ArgumentError(f"{self.where}: expected {kind}_keep_prob above 0 in a call, got 0.0.")
        return drop_by_threshold(value, noise_per_step(kind, index, value, run, op), keep)
