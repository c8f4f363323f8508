"""DropoutWrapper."""

from __future__ import annotations

from typing import Any

import torch

from cellweave import _nest
from cellweave._errors import DTypeError, ShapeError
from cellweave._shape import TensorShape
from cellweave._types import DTypeLike, Size, dtype_name
from cellweave.cells import register
from cellweave.scopes import Run, current_run
from cellweave.specs import DropoutSpec
from cellweave.wrappers._base import CellWrapper
from cellweave.wrappers._dropout_base import DropoutBehavior
from cellweave.wrappers._mask_draws import RunDraw, StepDraws
from cellweave.wrappers._mask_streams import MaskStreams
from cellweave.wrappers._state_filter import default_visitor


@register
class DropoutWrapper(DropoutBehavior, CellWrapper):
    """Dropout on a cell's input, outgoing state and output.

    A constant keep probability acts in training mode only (`.train()`), and 1.0 draws nothing. A tensor one is fed by
    the caller, who may write another value into it between calls: it always acts.

    Per step, every step draws a fresh mask per element. Variational, one mask per run is shared by all steps, and by
    all rows of the batch unless `mask_per_row`. One unroll is one run, and so is a call outside any unroll; see
    `session_run` for runs of several calls. Streams continue from run to run and are part of `state_dict()`.

    Args:
        cell: Any recurrent cell.
        input_keep_prob, output_keep_prob, state_keep_prob: Probabilities of keeping an element, in [0, 1].
        variational_recurrent: One mask per run (Gal & Ghahramani 2016).
        input_size: Size of the inputs (an int, TensorShape or structure); needed for variational input masks. All
            elements of an axis of 1 share a mask.
        dtype: Dtype of variational noise; needed with `variational_recurrent`.
        seed: Seed of the masks, any int. Without one they start from the graph seed, else from torch's generator.
        dropout_state_filter_visitor: Function from a part of the state to a bool or one level of bools: which parts
            are dropped. Default: everything but the c of an LSTM.
        mask_per_row: Variational masks `[B, size]` in place of `[1, size]`. Keyword only.
    Raises:
        ArgumentTypeError: no cell; a visitor that cannot be called. ArgumentError: a keep probability outside [0, 1];
            variational without `dtype`, or without `input_size` where inputs are dropped; 0.0 in a call.
    Source: Zaremba et al. 2014; Gal & Ghahramani 2016; TF1 `tf.nn.rnn_cell.DropoutWrapper`.
    """

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
        *,
        mask_per_row: bool = False,
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
            default_visitor,
        )
        self._mask_per_row = bool(mask_per_row)
        self.streams = MaskStreams(self._seed)

    def spec(self) -> DropoutSpec:
        """What it does to the cell inside, as data. A subclass that changes a step has to give its own."""
        return self._described(self._mask_per_row)

    def _noise_per_step(self, kind: str, index: int, value: torch.Tensor, run: Run, op: int) -> torch.Tensor:
        return self.streams.per_step(kind, index, value, run, op)

    def _noise_per_run(self, kind: str, index: int, value: torch.Tensor, run: Run) -> torch.Tensor:
        dtype = self._dtype  # the one given, or what .to() made of it
        if dtype is None or value.dtype != dtype:
            wanted = "None" if dtype is None else dtype_name(dtype)
            raise DTypeError(
                f"{self.where}: expected {kind} of the wrapper's dtype {wanted}, got {dtype_name(value.dtype)}."
            )
        sizes = _nest.flatten(self._size_of(kind))
        if index >= len(sizes):
            raise ShapeError(f"{self.where}: expected {len(sizes)} {kind} leaves as in its size, got more.")
        dims = TensorShape(sizes[index]).dims
        axes = tuple(value.shape[1:])
        if len(axes) != len(dims) or any(dim not in (1, n) for dim, n in zip(dims, axes, strict=True)):
            raise ShapeError(
                f"{self.where}: expected {kind} [B, {', '.join(map(str, dims))}], got {list(value.shape)}."
            )
        rows = value.shape[0] if self._mask_per_row else 1
        drawn = [1 if dim == 1 else n for dim, n in zip(dims, axes, strict=True)]  # TF1 broadcasts a size of 1
        return self.streams.per_run(kind, index, (rows, *drawn), dtype, value.device, run)

    def _size_of(self, kind: str) -> Size:
        return {"input": self._input_size, "state": self.cell.state_size, "output": self.cell.output_size}[kind]

    def _run_noise_dtype(self) -> torch.dtype | None:
        return self._dtype if self._variational else None

    def noise_size(self, kind: str, index: int) -> tuple[int | None, ...]:
        """Axes of a variational mask after the batch's; of none, (None,)."""
        sizes = _nest.flatten(self._size_of(kind))
        return TensorShape(sizes[index]).dims if index < len(sizes) else (None,)

    def run_draw(self, kind: str, index: int, rows: int, width: int, dtype: torch.dtype) -> RunDraw:
        """A variational mask's draw in the run that is open, taken from its stream."""
        return self.streams.draw(kind, index, (rows if self._mask_per_row else 1, width), dtype, current_run())

    def step_draws(self, kind: str, index: int, elements: int, dtype: torch.dtype, op: int) -> StepDraws:
        """What a mask of so many elements is going to take from its stream at every step of the loop that is open."""
        return self.streams.draws(kind, index, elements, current_run(), op)

    def get_extra_state(self) -> torch.Tensor:
        """Seeds and positions of the mask streams, int64 `[streams, 8]`."""
        return self.streams.table.to_tensor()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Continue the streams from what `get_extra_state` returned."""
        self.streams.table.load_tensor(state.cpu(), self.where)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; a visitor as its marshalled code."""
        config = super().get_config()
        if self._mask_per_row:
            config["mask_per_row"] = True
        return config
