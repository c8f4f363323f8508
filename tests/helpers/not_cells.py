"""Things that are no recurrent cells."""

from __future__ import annotations

from typing import Any

import torch


class _NoState:
    """Callable with sizes, but neither zero_state nor get_initial_state."""

    state_size = output_size = 3

    def __call__(self, inputs: Any, state: Any) -> Any:
        return inputs, state


class _NotCallable:
    state_size = output_size = 3

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return torch.zeros(batch_size, 3)


NOT_CELLS: dict[str, Any] = {
    "str": "x",
    "none": None,
    "module": torch.nn.Linear(4, 3),
    "stateless": _NoState(),
    "data": _NotCallable(),
}
