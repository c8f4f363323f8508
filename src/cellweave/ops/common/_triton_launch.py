"""How a Triton kernel is launched, and launched again at the price of a launch.

To find what is compiled for a call, Triton looks at each of its arguments and makes texts of what it finds: with the
fifty of a time loop ten times what the launch itself takes. What it found is kept here, by the same properties.
"""

from __future__ import annotations

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
#: Compiled kernels by what they were compiled for.
_compiled: dict[Hashable, Any] = {}


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
        return getattr(importlib.import_module(self.module), self.kernel)

    def values(self) -> list[Any]:
        """The arguments in the order of the kernel's parameters; 0 for one of `NUMBERS`."""
        given = dict.fromkeys(NUMBERS, 0) | self.arguments
        return [given[name] for name in self.function().arg_names]

    def starter(self) -> Callable[..., object]:
        """What launches it on the current device, with its arguments in the order of the kernel's parameters."""
        function, values = self.function(), self.values()
        if not any(isinstance(value, torch.Tensor) and value.is_cuda for value in values):
            return function[(self.grid,)]  # type: ignore[no-any-return]  # interpreted
        key = (
            self.module, self.kernel, torch.cuda.current_device(), *self.options.values(),
            *_compiled_for(function.params, values),
        )  # fmt: skip
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


def _compiled_for(parameters: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """What of its arguments a kernel is compiled for."""
    found: list[Any] = []
    for parameter, value in zip(parameters, values, strict=True):
        if isinstance(value, torch.Tensor):
            found += [value.dtype, value.data_ptr() % _ALIGNMENT == 0]
        elif not parameter.is_constexpr and (isinstance(value, float) or parameter.do_not_specialize):
            found.append(type(value))
        else:
            found.append(value)
    return found
