"""What a backend is to whoever chooses one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.specs import RunSpec


@dataclass(frozen=True)
class RunContext:
    """What decides beside the run's spec whether a backend can run it. Hashable.

    Attributes:
        dtype: Of inputs, states and weights.
        device_type: Such as "cpu".
        T, B, I: Steps, rows, input width.
        needs_grad: A gradient may be asked for.
        transforms: A transform of `torch.func` or forward-mode differentiation is active.
        plain: Every tensor is an ordinary dense one: no subclass, not sparse, not quantized.
    """

    dtype: torch.dtype
    device_type: str
    T: int
    B: int
    I: int
    needs_grad: bool
    transforms: bool
    plain: bool = True


@dataclass(frozen=True)
class Backend:
    """One way to run a recurrence over a sequence.

    Attributes:
        name: "reference", "native" or "torch".
        refuses: Why it cannot run this, in words that a user understands; None: it can.
        run: Runs it.
        step: Makes a function of one step's inputs that keeps the state (see `NativeStep`), from a call of one step
            without lengths, resets and masks other than expected zoneout; None: the backend has none.
        remarks: What a user should know of how it runs what it does not refuse; None, or a function that gives None:
            nothing.
    """

    name: str
    refuses: Callable[[RunSpec, RunContext], str | None]
    run: Callable[[LayerCall], LayerResult]
    step: Callable[[LayerCall], StepFunction] | None = None
    remarks: Callable[[RunSpec, RunContext], str | None] | None = None


class StepFunction(Protocol):
    """Runs steps of one layer one by one and keeps its state."""

    def __call__(self, x: torch.Tensor, /) -> torch.Tensor:
        """The output `[B, P]` of the next step for `x [B, I]`."""

    @property
    def state(self) -> tuple[torch.Tensor, ...]:
        """The state after the last step, as LayerCall has it."""

    def restart(self, rows: torch.Tensor, fresh: tuple[torch.Tensor, ...] | None) -> None:
        """Replace the state of `rows [B]`, booleans, by that of `fresh`, laid out as `state`; None: by zeros."""


def refuses_nothing(spec: RunSpec, context: RunContext) -> None:
    """For a backend that can run everything."""
