"""What goes on around a call that decides how its layers may run, whatever they are."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook


def autocast_is_on(device_type: str) -> bool:
    """Whether `torch.autocast` is on for a device."""
    if device_type == "meta" or not torch.amp.is_autocast_available(device_type):
        return False
    return torch.is_autocast_enabled(device_type)


def is_transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


def is_undisturbed(device_type: str) -> bool:
    """Whether nothing at all goes on around a call: no mode, trace, transform, autocast or hook on all modules.

    False also on devices other than CPU and CUDA. Asked at every call, so all in one place.
    """
    return (
        (device_type == "cpu" or device_type == "cuda")
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._get_tracing_state() is None
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
        and not torch.is_autocast_enabled(device_type)
        and not _has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def needs_steps(device_type: str) -> str:
    """Why only single steps in torch's operations give what is wanted of a call; "" for no reason."""
    if device_type == "meta":
        return "its tensors have no values"
    if torch._C._len_torch_dispatch_stack():
        return "a mode of torch watches every operation"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace is on"
    return ""
