"""Zeros that many calls start from."""

from __future__ import annotations

import torch

#: Elements up to which zeros are kept, and how many tensors of them.
_FEW, _MOST = 1 << 14, 64

_kept: dict[tuple[int, int, torch.dtype, bool], torch.Tensor] = {}
_by_address: dict[int, torch.Tensor] = {}


def zeros_to_start(rows: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """Zeros `[rows, width]` to start from; nobody writes into them or hands them out, so that small ones are kept.

    Args:
        like: An ordinary tensor of their dtype and device.
    """
    if rows * width > _FEW or like.device.type != "cpu":
        return like.new_zeros(rows, width)
    key = (rows, width, like.dtype, torch.is_inference_mode_enabled())  # no gradient may meet those of inference mode
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= _MOST:
            _kept.clear()
            _by_address.clear()
        found = _kept[key] = torch.zeros((rows, width), dtype=like.dtype, device="cpu")
        _by_address[found.data_ptr()] = found  # which keeps its memory from others
    return found


def are_zeros(tensor: torch.Tensor) -> bool:
    """Whether a tensor on the CPU holds nothing but zeros."""
    return tensor.data_ptr() in _by_address or not tensor.any()
