"""Between the arrays of a checkpoint and tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cellweave._errors import CheckpointError
from cellweave._types import as_dtype

Array = np.ndarray[Any, Any]


def stored_dtype(name: str) -> torch.dtype:
    """The torch dtype of a stored tensor's dtype.

    Raises:
        CheckpointError: torch has none, as for strings.
    """
    if name == "string":
        raise CheckpointError("load_tf1: expected a variable of numbers, got one of strings.")
    return as_dtype(name, "load_tf1")


def as_tensor(array: Array, dtype: torch.dtype) -> torch.Tensor:
    """A copy of an array as a tensor of this dtype; bfloat16 comes as its bits."""
    copied = np.array(array, order="C")  # of its own, in the machine's byte order, writable
    if not copied.dtype.isnative:
        copied = copied.astype(copied.dtype.newbyteorder("="))
    tensor = torch.from_numpy(copied)
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 and copied.dtype == np.uint16 else tensor
