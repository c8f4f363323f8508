"""Layers in half precision on the native core, which computes them in float32.

Inputs, weights and states are taken as the float32 numbers that they are, all sums and states stay float32 from the
first step to the last, and what comes out is rounded once. Where the processor has tiles for it, the products of a
bfloat16 layer round what they multiply to bfloat16 (`LayerCall.bfloat16`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import torch

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._native_step import NativeStep

#: The dtypes of such layers.
HALVES = (torch.bfloat16, torch.float16)


def in_float32(call: LayerCall, packed: Collection[str] = ()) -> LayerCall:
    """The call in float32; masks draw what they draw in its own dtype.

    Args:
        packed: Names of weights that stay what they are, for a call that needs them only if they are not packed yet.
    """
    dtype = call.x.dtype
    return dataclasses.replace(
        call,
        x=call.x.float(),
        state=tuple([leaf.float() for leaf in call.state]),
        weights={name: w if name in packed else w.float() for name, w in call.weights.items()},
        masks=tuple([dataclasses.replace(mask, dtype=dtype) for mask in call.masks]),
        reset_state=None if call.reset_state is None else tuple([leaf.float() for leaf in call.reset_state]),
        bfloat16=dtype == torch.bfloat16,
    )


def in_dtype(result: LayerResult, dtype: torch.dtype) -> LayerResult:
    """The result rounded to a dtype."""
    return LayerResult(
        result.outputs.to(dtype),
        tuple([leaf.to(dtype) for leaf in result.state]),
        tuple([leaf.to(dtype) for leaf in result.states]),
    )


class HalfStep:
    """Steps of a layer in half precision: `step(x) -> output`; the state stays float32 from step to step.

    Args:
        step: The layer's steps in float32. dtype: Of inputs and outputs.
    """

    def __init__(self, step: NativeStep, dtype: torch.dtype) -> None:
        self._step, self._dtype = step, dtype

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The output `[B, P]` of the next step for `x [B, I]`."""
        return self._step(x.float()).to(self._dtype)

    @property
    def state(self) -> tuple[torch.Tensor, ...]:
        """Copies of the state, rounded."""
        return tuple([leaf.to(self._dtype) for leaf in self._step.state])

    def restart(self, rows: torch.Tensor, fresh: tuple[torch.Tensor, ...] | None) -> None:
        """As `NativeStep.restart`."""
        self._step.restart(rows, None if fresh is None else tuple([leaf.float() for leaf in fresh]))
