"""Running a recurrence as one kernel per step, where one for the whole sequence does not fit the device.

Each step is a product of torch's, of h and the recurrent weight, and an elementwise kernel; a cell with two products in
a row has two of each. Nothing is captured into a CUDA graph.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from cellweave.ops.common._triton_backend import Launch
from cellweave.ops.common._triton_schedule import step_tile, step_warps

_COMMON = "cellweave.ops.common._triton_step_device"


class Step:
    """A kernel that is launched at one step after the other.

    Attributes:
        launch: All but the number of the step.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self._start = launch.function()[(launch.grid,)]
        on_device = any(isinstance(value, torch.Tensor) and value.is_cuda for value in launch.arguments.values())
        self._arguments = launch.arguments | (launch.options if on_device else {})

    def __call__(self, **step: int) -> None:
        """Launch it."""
        self._start(**self._arguments, **step)


class Steps:
    """The kernels of one call, run step by step.

    Args:
        module: Where the recurrence has its own.
        given: Arguments by name; a kernel takes those that it knows.
    """

    def __init__(self, module: str, given: Mapping[str, Any]) -> None:
        self._module, self._given = module, given

    def cell(self, name: str) -> Step:
        """One of the recurrence's kernels, over the cell's units: of whole rows where those are normalized."""
        return self.kernel(name, self._given["H"], whole_rows=self._given["NORM"])

    def kernel(
        self,
        name: str,
        width: int,
        module: str = "",
        more: Mapping[str, Any] | None = None,
        *,
        whole_rows: bool = False,
    ) -> Step:
        """One kernel, over tiles of `[B, width]`."""
        rows, columns = step_tile(self._given["B"], width, whole_rows=whole_rows)
        known = {**self._given, "ROWS": rows, "U": columns, "WIDTH": width, **(more or {})}
        function = getattr(importlib.import_module(module or self._module), name)
        arguments = {name: known[name] for name in function.arg_names if name != "step"}
        grid = -(-self._given["B"] // rows) * -(-width // columns)
        # programs wait for nobody, so the launch is an ordinary one
        options = {"num_warps": step_warps(columns), "enable_fp_fusion": True}
        return Step(Launch(module or self._module, name, grid, arguments, options))

    def first_state(
        self, start: torch.Tensor, current: torch.Tensor, saved: torch.Tensor | None, reset: torch.Tensor | None
    ) -> None:
        """Fill `current` with the state that step 0 starts from, and `saved` at that step."""
        more = {"start": start, "current": current, "saved": saved, "reset": reset}
        self.kernel("first_state", start.shape[1], _COMMON, more)()

    def first_gradient(
        self, past: torch.Tensor, product: torch.Tensor, d_start: torch.Tensor, d_reset: torch.Tensor | None
    ) -> None:
        """Fill `d_start` with the gradient of the state that step 0 started from."""
        more = {"past": past, "product": product, "d_start": d_start, "d_reset": d_reset}
        self.kernel("first_gradient", past.shape[1], _COMMON, more)()


def device_of(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Its device as the current one, to launch on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def sums_for(start: torch.Tensor | None) -> torch.Tensor | None:
    """Where gradients of a given state are added up, in float32; None where no state is given."""
    return None if start is None else torch.zeros_like(start, dtype=torch.float32)


def sums_by_row(norms: torch.Tensor | None, rows: int) -> torch.Tensor | None:
    """Where each row's share of the gradients of gammas and betas is added up, in float32."""
    return None if norms is None else norms.new_zeros((norms.shape[0], rows, norms.shape[1]), dtype=torch.float32)


def over_rows(sums: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """The gradients `[n, width]` of which each row has its share in `[n, B, width]`."""
    return None if sums is None else sums.sum(1).to(dtype)


def in_dtype(sums: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Such sums as autograd takes them."""
    return None if sums is None else sums.to(dtype)
