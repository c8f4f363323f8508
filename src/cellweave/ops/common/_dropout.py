"""Dropping values by uniform noise, in TensorFlow's own arithmetic."""

from __future__ import annotations

import torch


def drop_by_threshold(value: torch.Tensor, noise: torch.Tensor, keep: float) -> torch.Tensor:
    """Zero the elements whose noise is below `1 - keep`, divide the others by `keep`.

    Args:
        value: Any shape, floating. noise: U[0, 1) of its shape and dtype.
        keep: Probability of keeping an element, in (0, 1].
    Source: TF 2.15 `tf.nn.dropout`, which a per-step DropoutWrapper calls.
    """
    kept = noise >= torch.tensor(1.0 - keep, dtype=noise.dtype, device=noise.device)
    return torch.where(kept, value * (1.0 / keep), torch.zeros((), dtype=value.dtype, device=value.device))


def drop_by_floor(value: torch.Tensor, noise: torch.Tensor, keep: float | torch.Tensor) -> torch.Tensor:
    """`value / keep * floor(keep + noise)`: keeps the elements whose noise is at least `1 - keep`.

    A `keep` of 0 gives NaN. A tensor `keep` receives a gradient.

    Source: TF1 `DropoutWrapper`, variational mode; and TF1 `tf.nn.dropout` with a fed keep probability.
    """
    if isinstance(keep, torch.Tensor):
        keep = keep.to(device=value.device, dtype=value.dtype, copy=True)  # it may be fed anew before backward
        return value / keep * torch.floor(keep.detach() + noise)
    keep_value = torch.tensor(keep, dtype=value.dtype, device=value.device)
    return value / keep_value * torch.floor(keep_value + noise)


def kept_elements(noise: torch.Tensor, keep: float, *, by_floor: bool) -> torch.Tensor:
    """1 where `drop_by_floor` or `drop_by_threshold` keeps an element, else 0; with a `keep` of 0 everywhere."""
    if by_floor:
        return torch.floor(torch.tensor(keep, dtype=noise.dtype, device=noise.device) + noise)
    return (noise >= torch.tensor(1.0 - keep, dtype=noise.dtype, device=noise.device)).to(noise.dtype)
