"""RNNCellDropoutWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import DTypeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, Nest, dtype_name
from cellweave.cells import register
from cellweave.scopes import Run
from cellweave.specs import DropoutSpec
from cellweave.wrappers._base import KerasCellWrapper
from cellweave.wrappers._dropout_base import DropoutBehavior
from cellweave.wrappers._mask_draws import EagerDraws
from cellweave.wrappers._mask_streams import EagerStreams
from cellweave.wrappers._state_filter import visit_everything


@register
class RNNCellDropoutWrapper(DropoutBehavior, KerasCellWrapper):
    """Dropout on a cell's input, outgoing state and output: TF2's form.

    It differs from `DropoutWrapper` in this: it owns the cell's variables; by default every item of the state is
    dropped, an LSTM's c too; variational noise is drawn once, when the wrapper is made; and streams belong to the
    process: wrappers with equal seeds draw from one stream, which `set_random_seed` starts anew.

    A constant keep probability acts in training mode only; a tensor one always acts.

    Args:
        cell: Anything with `call(inputs, state)`, `state_size` and `output_size`.
        input_keep_prob, output_keep_prob, state_keep_prob: Probabilities of keeping an element, in [0, 1].
        variational_recurrent: One mask for all steps and rows.
        input_size: Size of the inputs; needed for variational input masks.
        dtype: Dtype of the noise and of the wrapper; needed with `variational_recurrent`; default float32.
        seed: Seed of the masks, any int.
        dropout_state_filter_visitor: Function from a part of the state to a bool or one level of bools.
        kwargs: `name`, `trainable`.
    Raises:
        MemberError: no cell. ArgumentTypeError: a visitor that cannot be called, an unknown keyword.
        ArgumentError: as `DropoutWrapper`.
    Source: TF2 `tf.nn.RNNCellDropoutWrapper`.
    """

    _class_base_name = "dropout_wrapper"
    #: Masks of several wrappers may follow each other in one stream.
    shares_streams = True

    def __init__(
        self,
        cell: Any,
        input_keep_prob: Any = 1.0,
        output_keep_prob: Any = 1.0,
        state_keep_prob: Any = 1.0,
        variational_recurrent: bool = False,
        input_size: Any = None,
        dtype: DTypeLike = None,
        seed: int | None = None,
        dropout_state_filter_visitor: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, dtype=dtype, **kwargs)
        self._init_dropout(
            {"input": input_keep_prob, "state": state_keep_prob, "output": output_keep_prob},
            variational_recurrent,
            input_size,
            dtype,
            seed,
            dropout_state_filter_visitor,
            visit_everything,
        )
        self.streams = EagerStreams(self._seed)
        if self._variational:
            self._draw_noise()

    def _draw_noise(self) -> None:
        """Draw every variational mask; TF2 does this at construction and never again."""
        dtype = self._dtype or torch.float32
        keep_input = self._keep["input"]
        drops_input = not isinstance(keep_input, float) or keep_input < 1.0
        sizes = {"state": self.cell.state_size, "output": self.cell.output_size}
        if drops_input:
            sizes = {"input": self._input_size, **sizes}
        for kind, size in sizes.items():
            for index, leaf in enumerate(_nest.flatten(size)):
                shape = [1, *[int(dim or 0) for dim in TensorShape(leaf).dims]]
                noise = self.streams.draw(kind, index, shape, dtype, torch.get_default_device())
                self.register_buffer(f"noise_{kind}_{index}", noise)

    def spec(self) -> DropoutSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return self._described(per_row=False)

    def _drop_state(self, state: Nest, run: Run, op: int) -> Any:
        if self._variational:
            _nest.same_structure(self.cell.state_size, state, f"{self.where}: variational state")
        return super()._drop_state(state, run, op)

    def _noise_per_step(self, kind: str, index: int, value: torch.Tensor, run: Run, op: int) -> torch.Tensor:
        return self.streams.draw(kind, index, tuple(value.shape), value.dtype, value.device)

    def _noise_per_run(self, kind: str, index: int, value: torch.Tensor, run: Run) -> torch.Tensor:
        noise = self._noise(kind, index)
        if noise is None:
            raise ShapeError(f"{self.where}: expected as many {kind} leaves as in its size, got more.")
        if noise.dtype != value.dtype:
            raise DTypeError(
                f"{self.where}: expected {kind} of {dtype_name(noise.dtype)}, got {dtype_name(value.dtype)}."
            )
        if noise.shape[1:] != value.shape[1:]:
            raise ShapeError(f"{self.where}: expected {kind} [B, {noise.shape[-1]}], got {list(value.shape)}.")
        return noise

    def _noise(self, kind: str, index: int) -> torch.Tensor | None:
        return getattr(self, f"noise_{kind}_{index}", None)

    def _run_noise_dtype(self) -> torch.dtype | None:
        return next((buffer.dtype for buffer in self._buffers.values() if buffer is not None), None)

    def noise_size(self, kind: str, index: int) -> tuple[int | None, ...]:
        """Axes of a variational mask after the batch's; of none, (None,)."""
        noise = self._noise(kind, index)
        return (None,) if noise is None else tuple(noise.shape[1:])

    def run_draw(self, kind: str, index: int, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """The noise of a variational mask, `[1, width]`."""
        noise: torch.Tensor = getattr(self, f"noise_{kind}_{index}")
        return noise

    def step_draws(self, kind: str, index: int, elements: int, dtype: torch.dtype, op: int) -> EagerDraws:
        """What a mask of so many elements is going to take from its stream at every step."""
        return self.streams.draws(kind, index, elements, dtype)

    def get_extra_state(self) -> torch.Tensor:
        """Where its masks' streams stand, int64 `[rows, 5]`."""
        return self.streams.to_tensor()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Continue from what `get_extra_state` returned; streams shared with other wrappers move too."""
        self.streams.load_tensor(state.cpu(), self.where)
