"""TensorShape: a shape with unknown dimensions, as TF1's state and output sizes use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from cellweave._errors import ArgumentError, ArgumentTypeError


class TensorShape:
    """A tensor's shape, in elements per axis; a dimension may be unknown (None).

    In a structure (a state size, say) a TensorShape is one leaf, unlike a tuple of ints.

    Args:
        dims: An int, a sequence of ints and Nones, or another TensorShape.
    Raises:
        ArgumentTypeError: a dimension is neither an int nor None. ArgumentError: it is negative.
    Source: TF1 `tf.TensorShape`.
    """

    __slots__ = ("_dims",)
    _dims: tuple[int | None, ...]

    def __init__(self, dims: int | Sequence[int | None] | TensorShape) -> None:
        if isinstance(dims, TensorShape):
            self._dims = dims._dims
        elif hasattr(dims, "__index__") and not hasattr(dims, "__len__"):
            self._dims = (_as_dim(dims),)
        elif isinstance(dims, Iterable):
            self._dims = tuple(_as_dim(dim) for dim in dims)
        else:
            raise ArgumentTypeError(f"TensorShape: expected an int or a sequence of ints and Nones, got {dims!r}.")

    @property
    def dims(self) -> tuple[int | None, ...]:
        """The dimensions, None where unknown."""
        return self._dims

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self._dims)

    ndims = rank

    def as_list(self) -> list[int | None]:
        """The dimensions as a list."""
        return list(self._dims)

    def is_fully_defined(self) -> bool:
        """Whether no dimension is unknown."""
        return all(dim is not None for dim in self._dims)

    def num_elements(self) -> int | None:
        """Product of the dimensions, None when one is unknown."""
        product = 1
        for dim in self._dims:
            if dim is None:
                return None
            product *= dim
        return product

    def __len__(self) -> int:
        return len(self._dims)

    def __iter__(self) -> Iterator[int | None]:
        return iter(self._dims)

    @overload
    def __getitem__(self, index: int) -> int | None: ...

    @overload
    def __getitem__(self, index: slice) -> TensorShape: ...

    def __getitem__(self, index: int | slice) -> int | TensorShape | None:
        """A dimension; of a slice a shape, so that it stays one leaf of a structure."""
        return TensorShape(self._dims[index]) if isinstance(index, slice) else self._dims[index]

    def concatenate(self, other: int | Sequence[int | None] | TensorShape) -> TensorShape:
        """The shape of these dimensions, then the other's."""
        return TensorShape((*self._dims, *TensorShape(other)._dims))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TensorShape):
            return self._dims == other._dims
        if isinstance(other, tuple | list):
            return self._dims == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._dims)

    def __reduce__(self) -> tuple[type[TensorShape], tuple[tuple[int | None, ...]]]:
        return (TensorShape, (self._dims,))

    def __repr__(self) -> str:
        return f"TensorShape({list(self._dims)})"


def _as_dim(dim: Any) -> int | None:
    if dim is None:
        return None
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        raise ArgumentTypeError(f"TensorShape: expected ints or None, got {dim!r}.")
    size = int(dim.__index__())
    if size < 0:
        raise ArgumentError(f"TensorShape: expected dimensions >= 0, got {size}.")
    return size
