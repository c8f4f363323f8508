"""TensorArray: the list of tensors that `raw_rnn` emits into."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cellweave._errors import ArgumentError, ShapeError


class TensorArray:
    """A growing list of equally shaped tensors, one per time step.

    Writing returns a new array and leaves the old one as it was; gradients flow through every entry.

    Args:
        dtype: Kept for TF1 callers; entries keep their own dtype.
        size: Number of entries, unset until written.
        dynamic_size: Whether it grows when written past its end; one of size 0 always does.
        clear_after_read, tensor_array_name, infer_shape, element_shape, colocate_with_first_write_call, name: Accepted
            for TF1 callers, without effect.
    Source: TF1 `tf.TensorArray`.
    """

    def __init__(
        self,
        dtype: object = None,
        size: int | None = 0,
        dynamic_size: bool | None = True,
        clear_after_read: bool | None = None,
        tensor_array_name: str | None = None,
        *,
        infer_shape: bool = True,
        element_shape: object = None,
        colocate_with_first_write_call: bool = True,
        name: str | None = None,
    ) -> None:
        size = 0 if size is None else size
        if size < 0:
            raise ArgumentError(f"TensorArray: expected size >= 0, got {size}.")
        self._items: list[torch.Tensor | None] = [None] * size
        self._dynamic = bool(dynamic_size) or size == 0
        self.dtype = dtype
        self._element: torch.Tensor | None = None

    def _copy(self, items: list[torch.Tensor | None]) -> TensorArray:
        other = TensorArray(self.dtype)
        other._items, other._dynamic, other._element = items, self._dynamic, self._element
        return other

    @classmethod
    def of(cls, items: Sequence[torch.Tensor], element: torch.Tensor | None = None) -> TensorArray:
        """An array of these entries; one of none stacks to no entries like `element`."""
        made = cls()._copy(list(items))
        made._element = element
        return made

    def size(self) -> int:
        """Number of entries."""
        return len(self._items)

    def write(self, index: int, value: torch.Tensor) -> TensorArray:
        """A copy of this array with `value` at `index`; it grows when `index` is past its end.

        Raises:
            ArgumentError: a negative index, or one past the end of an array that does not grow.
        """
        if index < 0 or (index >= len(self._items) and not self._dynamic):
            raise ArgumentError(f"TensorArray.write: expected an index in 0..{len(self._items) - 1}, got {index}.")
        items = self._items + [None] * max(0, index + 1 - len(self._items))
        items[index] = value
        return self._copy(items)

    def read(self, index: int) -> torch.Tensor:
        """The tensor at `index`.

        Raises:
            ArgumentError: nothing was written there.
        """
        item = self._items[index] if 0 <= index < len(self._items) else None
        if item is None:
            raise ArgumentError(f"TensorArray.read: expected a written index below {len(self._items)}, got {index}.")
        return item

    def unstack(self, value: torch.Tensor) -> TensorArray:
        """An array holding the slices of `value` along its first axis."""
        if value.dim() == 0:
            raise ShapeError("TensorArray.unstack: expected a tensor with a first axis, got a scalar.")
        return self._copy(list(value.unbind(0)))

    def stack(self) -> torch.Tensor:
        """All entries in one tensor, `[size, ...]`.

        Raises:
            ArgumentError: the array is empty and knows no entry's shape, or an entry was never written. ShapeError:
                entries of several shapes.
        """
        if not self._items and self._element is not None:
            return self._element.new_zeros((0, *self._element.shape))
        written = [item for item in self._items if item is not None]
        if not written or len(written) != len(self._items):
            raise ArgumentError(
                f"TensorArray.stack: expected {max(1, len(self._items))} written entries, got {len(written)}."
            )
        other = next((item for item in written if item.shape != written[0].shape), None)
        if other is not None:
            shapes = list(written[0].shape), list(other.shape)
            raise ShapeError(f"TensorArray.stack: expected entries of one shape, got {shapes[0]} and {shapes[1]}.")
        return torch.stack(written)
