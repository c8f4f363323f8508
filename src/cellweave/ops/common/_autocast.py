"""Products that autocast leaves alone."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def without_autocast(device_type: str = "cpu") -> contextlib.AbstractContextManager[Any]:
    """Products run in the dtype of what they multiply, like the loops between them.

    Backward needs it too: it may run in a block of the caller's that forward was not in.
    """
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else _NOTHING


def autocast_rounds(dtype: torch.dtype) -> bool:
    """Whether autocast on the CPU lets layers of this dtype round to bfloat16 what they multiply."""
    return (
        dtype == torch.float32
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


_NOTHING = contextlib.nullcontext()
