"""One layer run with its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from cellweave.ops.common._masks import BoundMask
from cellweave.specs import RunSpec


class LayerResult(NamedTuple):
    """What running a call gives.

    Attributes:
        outputs: `[T, B, O]`.
        state: The state after each row's last step, as `LayerCall.state`.
        states: The state after each step, at the step's memory index, before a reset that follows: `[T, B, size]` each,
            in the order of `state`. Past a row's end, whichever way it is read, the state after its last step. `()`
            unless the spec asks for them.
    """

    outputs: torch.Tensor
    state: tuple[torch.Tensor, ...]
    states: tuple[torch.Tensor, ...] = ()


@dataclass(eq=False, slots=True)  # not frozen: one is made at every call, and freezing costs 2 us
class LayerCall:
    """A run with its tensors, time major.

    Attributes:
        spec: What runs.
        x: Inputs `[T, B, I]`.
        state: RNN, GRU: `(h,)`; LSTM: `(c, h)`; each `[B, size]`.
        weights: By `WeightSpec.name`.
        masks: In the order of `spec.masks`.
        lengths: Steps per row, `[B]` int32 on x's device, each in 0..T.
        resets: `[T, B]` bool, by memory index: True replaces the row's state before that step. Past a row's end it has
            no effect.
        reset_state: What replaces it, as `state`; None: zeros.
        threads: How many threads a native time loop may use.
        memo: Where a backend keeps what later calls of this layer can use; None: nowhere.
        bfloat16: Products may round what they multiply to bfloat16; sums and states keep the dtype.
    """

    spec: RunSpec
    x: torch.Tensor
    state: tuple[torch.Tensor, ...]
    weights: Mapping[str, torch.Tensor]
    masks: tuple[BoundMask, ...] = ()
    lengths: torch.Tensor | None = None
    resets: torch.Tensor | None = None
    reset_state: tuple[torch.Tensor, ...] | None = None
    threads: int = 1
    memo: dict[str, Any] | None = None
    bfloat16: bool = False


def aligned(call: LayerCall) -> LayerCall:
    """The call with copies of those tensors whose numbers lie across the machine's words; itself without any."""

    def placed(tensor: Any) -> Any:
        return tensor if tensor is None or tensor.data_ptr() % tensor.itemsize == 0 else tensor.clone()

    def all_placed(tensors: Iterable[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple([placed(tensor) for tensor in tensors])

    given = (call.x, call.lengths, *call.state, *(call.reset_state or ()), *call.weights.values())
    if all(placed(tensor) is tensor for tensor in given):
        return call
    return replace(
        call, x=placed(call.x), lengths=placed(call.lengths), state=all_placed(call.state),
        reset_state=None if call.reset_state is None else all_placed(call.reset_state),
        weights=dict(zip(call.weights, all_placed(call.weights.values()), strict=True)),
    )  # fmt: skip
