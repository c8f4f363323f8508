"""A CUDA device that is not there: Triton compiles for it, and what would be launched is written down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.compiler.compiler import CompiledKernel
from triton.runtime import driver

from cellweave.ops.common import _triton_launch
from helpers.cross_compile import HOPPER


class _Driver:
    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return HOPPER


class Started(list[tuple[Any, ...]]):
    """The arguments of each launch: grid, stream, kernel and its own."""


def pretend_a_device(patch: pytest.MonkeyPatch) -> Started:
    """Let tensors of the processor seem to lie on such a device."""
    started = Started()

    def load(kernel: Any) -> None:
        kernel.function, kernel.module = kernel.hash, None
        kernel._run = lambda *arguments: started.append(arguments)

    patch.setattr(driver, "_active", _Driver())
    patch.setattr(CompiledKernel, "_init_handles", load)
    patch.setattr(torch.Tensor, "is_cuda", True)
    patch.setattr(torch.cuda, "current_device", lambda: 0)
    patch.setattr(_triton_launch, "_compiled", {})
    return started
