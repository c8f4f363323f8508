"""EmbeddingWrapper."""

from __future__ import annotations

import math
from typing import Any

import torch

from cellweave import _nest
from cellweave._checks import check_positive_int
from cellweave._errors import ArgumentTypeError
from cellweave._types import Nest, dtype_name
from cellweave.cells import register
from cellweave.initializers import RandomUniform, deserialize, serialize
from cellweave.scopes import get_variable_scope
from cellweave.specs import SteppedSpec
from cellweave.wrappers._owning_wrapper import OwningWrapper


@register
class EmbeddingWrapper(OwningWrapper):
    """Looks a cell's inputs up in a table: the cell reads `embedding[ids]`.

    Args:
        cell: Any recurrent cell.
        embedding_classes: Rows C of the table.
        embedding_size: Columns E.
        initializer: Of the table; default: the scope's, else uniform between ±sqrt(3), of variance 1.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B]` or `[B, 1]` of whole numbers, `embedding` `[C, E]` in the state's dtype. Its scope is
        `embedding_wrapper`, in which the cell's lies; the table comes before the cell's weights.
    Raises:
        ArgumentTypeError: no cell; in a call, inputs that are no whole numbers. ArgumentError: a size that is not
            positive. In a call, IndexError: a number outside 0..C-1.
    Source: TF1 `tf.contrib.rnn.EmbeddingWrapper`.
    """

    def __init__(
        self,
        cell: Any,
        embedding_classes: int,
        embedding_size: int,
        initializer: Any = None,
        reuse: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(cell, reuse, **kwargs)
        self._classes = check_positive_int("EmbeddingWrapper embedding_classes", embedding_classes)
        self._size = check_positive_int("EmbeddingWrapper embedding_size", embedding_size)
        self._initializer = deserialize(initializer, "EmbeddingWrapper")

    def spec(self) -> SteppedSpec:
        """Why it runs step by step."""
        return SteppedSpec("its inputs are numbers of rows")

    def call(self, inputs: Any, state: Nest, **kwargs: Any) -> tuple[Any, Any]:
        """One step of the cell on rows of the table."""
        if not isinstance(inputs, torch.Tensor) or inputs.is_floating_point() or inputs.is_complex():
            got = dtype_name(inputs.dtype) if isinstance(inputs, torch.Tensor) else type(inputs).__name__
            raise ArgumentTypeError(f"{self.where}: expected inputs as whole numbers, got {got}.")
        if "embedding" not in self._parameters or "embedding" in self._adopted:
            self._make_table(next((leaf.dtype for leaf in _nest.flatten(state) if leaf.is_floating_point()), None))
        rows = torch.nn.functional.embedding(inputs.reshape(-1).long(), self.embedding)
        return self.cell(rows, state, **kwargs)  # type: ignore[no-any-return]

    def _make_table(self, dtype: torch.dtype | None) -> None:
        bound = math.sqrt(3.0)
        initializer = self._initializer or get_variable_scope().initializer or RandomUniform(-bound, bound)
        self.add_weight("embedding", [self._classes, self._size], dtype, initializer=initializer)

    def _make_weights(self, dims: tuple[int | None, ...]) -> None:
        self._make_table(self._dtype)

    def _inner_shape(self, dims: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return dims[0], self._size

    def _weight_attributes(self) -> tuple[str, ...]:
        return ("embedding",)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data; the cell as `{"class_name", "config"}`."""
        return {
            **super().get_config(),
            "embedding_classes": self._classes,
            "embedding_size": self._size,
            "initializer": serialize(self._initializer),
        }
