"""How a Triton kernel is launched, and launched again at the price of a launch.

To find what is compiled for a call, Triton looks at each of its arguments and makes texts of what it finds: with the
fifty of a time loop ten times what the launch itself takes. What it found is kept here, by the same properties.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch

from cellweave.ops.common._triton_schedule import WARPS

#: What every kernel is compiled with. Cooperative: a grid that does not fit fails, where it would wait forever.
OPTIONS = {"num_warps": WARPS, "maxnreg": 255, "launch_cooperative_grid": True, "enable_fp_fusion": True}
#: Bytes of which addresses are multiples, or are not: Triton compiles for either.
_ALIGNMENT = 16
#: Parameters that each launch of a kernel has a number of its own for.
NUMBERS = ("step", "gate")
#: Types of what is no tensor among arguments.
_CONSTANTS = frozenset([bool, int, float, str, type(None)])
#: Compiled kernels by what they were compiled for.
_compiled: dict[Hashable, Any] = {}


def kernel_of(module: str, name: str) -> Any:
    """A kernel; its module, which needs Triton, is imported here."""
    return getattr(importlib.import_module(module), name)


class Launch(NamedTuple):
    """A kernel with everything that it is launched with.

    Attributes:
        kernel: Its name in `module`. grid: Programs. arguments: By name, tensors and constants. options: What it is
            compiled with.
    """

    module: str
    kernel: str
    grid: int
    arguments: dict[str, Any]
    options: dict[str, Any] = OPTIONS

    def function(self) -> Any:
        """The kernel."""
        return kernel_of(self.module, self.kernel)

    def values(self) -> list[Any]:
        """The arguments in the order of the kernel's parameters; 0 for one of `NUMBERS`."""
        given = dict.fromkeys(NUMBERS, 0) | self.arguments
        return [given[name] for name in self.function().arg_names]

    def starter(self) -> Callable[..., object]:
        """What launches it on the current device, with its arguments in the order of the kernel's parameters."""
        function, values = self.function(), self.values()
        if not next(value for value in values if type(value) not in _CONSTANTS).is_cuda:
            return function[(self.grid,)]  # type: ignore[no-any-return]  # interpreted
        seen = _compiled_for(_said_by_type(self.module, self.kernel), values)
        key = (self.module, self.kernel, torch.cuda.current_device(), *self.options.values(), *seen)
        if key not in _compiled:
            _compiled[key] = function.warmup(*values, grid=(self.grid,), **self.options)
        return _compiled[key][(self.grid, 1, 1)]  # type: ignore[no-any-return]

    def run(self) -> None:
        """Launch it; where it is interpreted, fail if a program gave up waiting."""
        counters: torch.Tensor = self.arguments["counters"]
        if not counters.is_cuda:
            self.starter()(*self.values())
            if counters[:, 1].any():
                raise RuntimeError(f"{self.kernel}: expected all programs to meet, got one that waited in vain.")
            return
        with torch.cuda.device(counters.device):
            self.starter()(*self.values())


@functools.cache
def _said_by_type(module: str, kernel: str) -> tuple[bool, ...]:
    """Of a kernel's parameters, those whose numbers it is not compiled for."""
    return tuple(bool(p.do_not_specialize) and not p.is_constexpr for p in kernel_of(module, kernel).params)


def _compiled_for(by_type: Sequence[bool], values: Sequence[Any]) -> list[Any]:
    """What of its arguments a kernel is compiled for, and their other numbers, which rarely change."""
    found: list[Any] = []
    for of_any_number, value in zip(by_type, values, strict=True):
        if of_any_number:
            continue
        if type(value) in _CONSTANTS:
            found.append(value)
        else:
            found.append(value.dtype)
            found.append(value.data_ptr() % _ALIGNMENT == 0)
    return found
