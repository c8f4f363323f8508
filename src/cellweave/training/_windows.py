"""Windows of a text for truncated backpropagation: rows are read side by side, each on from where it stopped."""

from __future__ import annotations

import torch


class TextWindows:
    """A text cut into `rows` contiguous rows, read `time` tokens at a time.

    Row b of window i continues row b of window i - 1, so the recurrent state is carried from window to window. What
    does not fill a row is left out.

    Args:
        tokens: Token numbers `[N]`, at least 2.
        rows: Rows B wanted; a text shorter than that gets fewer.
        time: Tokens T per window.
    """

    def __init__(self, tokens: torch.Tensor, rows: int, time: int) -> None:
        pairs = len(tokens) - 1
        self.rows = min(rows, pairs)
        self.time = time
        self._length = pairs // self.rows
        used = self.rows * self._length
        self._inputs = tokens[:used].view(self.rows, self._length).t()  # [length, B]
        self._targets = tokens[1 : used + 1].view(self.rows, self._length).t()

    @property
    def full_windows(self) -> int:
        """Windows of exactly T tokens."""
        return self._length // self.time

    @property
    def all_windows(self) -> int:
        """Windows that cover every token; the last may be shorter."""
        return -(-self._length // self.time)

    def window(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets (the inputs one token later) of a window, each int64 `[T, B]`."""
        here = slice(index * self.time, (index + 1) * self.time)
        return self._inputs[here].long().contiguous(), self._targets[here].long().contiguous()
