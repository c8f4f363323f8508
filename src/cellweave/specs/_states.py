"""State tuples of the cells."""

from __future__ import annotations

from typing import Any, NamedTuple

from cellweave._errors import DTypeError


class _Pair(NamedTuple):
    c: Any
    h: Any


class LSTMStateTuple(_Pair):
    """State of an LSTM: `c` first, then `h`; each `[B, H]` (`h` is `[B, P]` under a projection).

    Source: TF1 `tf.nn.rnn_cell.LSTMStateTuple`.
    """

    __slots__ = ()

    @property
    def dtype(self) -> Any:
        """The common dtype of c and h. Raises DTypeError when they differ."""
        if self.c.dtype != self.h.dtype:
            raise DTypeError(f"LSTMStateTuple.dtype: expected one dtype, got c {self.c.dtype} and h {self.h.dtype}.")
        return self.c.dtype
