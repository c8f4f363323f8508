"""A layer call as a flat list of tensors and what remains: the form in which autograd and torch.library keep calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._masks import BoundMask
from cellweave.ops.common._native_layout import NativeLayout
from cellweave.specs import CellSpec, RunSpec

MaybeTensors = Sequence[torch.Tensor | None]


class NativeOp(NamedTuple):
    """A recurrence on the native core.

    Attributes:
        name: Such as "lstm".
        layout_of: Where a cell's weights and gates lie.
        reference: Runs a call step by step.
    """

    name: str
    layout_of: Callable[[CellSpec], NativeLayout]
    reference: Callable[[LayerCall], LayerResult]


class Frame(NamedTuple):
    """A call without its tensors.

    Those come in a list: the sources, which gradients flow to (inputs, state, reset state if any, weights), then the
    constants (lengths, resets, the given noise of each mask; None where there is none).

    Attributes:
        op, layout, spec, threads: What runs, and how.
        masks: Without given noise.
        leaves: How many tensors a state has.
        fresh: As many tensors as the reset state has, 0 if there is none.
        bfloat16: As of the call.
        forms: What calls of this frame share, by their sizes.
    """

    op: NativeOp
    layout: NativeLayout
    spec: RunSpec
    masks: tuple[BoundMask, ...]
    threads: int
    leaves: int
    fresh: int
    bfloat16: bool
    forms: dict[Any, Any]

    @property
    def sources(self) -> int:
        """How many tensors gradients flow to."""
        return 1 + self.leaves + self.fresh + len(self.layout.names)

    def call(self, tensors: MaybeTensors) -> LayerCall:
        """The call with these tensors."""
        found = list(tensors)
        fresh, weights, constants = 1 + self.leaves, 1 + self.leaves + self.fresh, self.sources
        lengths, resets, *noise = found[constants:]
        return LayerCall(
            self.spec,
            found[0],  # type: ignore[arg-type]
            tuple(found[1:fresh]),  # type: ignore[arg-type]
            dict(zip(self.layout.names, found[weights:constants], strict=True)),  # type: ignore[arg-type]
            with_noise(self.masks, noise),
            lengths,
            resets,
            tuple(found[fresh:weights]) if self.fresh else None,  # type: ignore[arg-type]
            self.threads,
            bfloat16=self.bfloat16,
        )


def flatten(op: NativeOp, call: LayerCall) -> tuple[Frame, list[torch.Tensor], list[torch.Tensor | None]]:
    """The call's frame, sources and constants."""
    weights, fresh, masks = call.weights, call.reset_state or (), call.masks
    frame = _frame_of(op, call, len(fresh))
    sources = [call.x, *call.state, *fresh, *[weights[name] for name in frame.layout.names]]
    constants = [call.lengths, call.resets]
    if masks:
        constants += [mask.noise for mask in masks]
        masks = tuple([mask if mask.noise is None else dataclasses.replace(mask, noise=None) for mask in masks])
        frame = frame._replace(masks=masks)
    return frame, sources, constants


def _frame_of(op: NativeOp, call: LayerCall, fresh: int) -> Frame:
    """The call's frame without masks; that of an earlier call where there was one like it."""
    spec, threads, memo, bfloat16 = call.spec, call.threads, call.memo, call.bfloat16
    frame: Frame | None = None if memo is None else memo.get(_FRAME)
    if (
        frame is None
        or frame.spec is not spec
        or frame.threads != threads
        or frame.fresh != fresh
        or frame.bfloat16 != bfloat16
    ):
        frame = Frame(op, op.layout_of(spec.cell), spec, (), threads, len(call.state), fresh, bfloat16, {})
        if memo is not None:
            memo[_FRAME] = frame
    return frame


#: Where a layer's memo has its frame.
_FRAME = "native frame"


def recurs_on_outputs(spec: RunSpec, lengths: object, resets: object) -> bool:
    """A step's output is the very operand of the next step, and so h after each step."""
    if lengths is not None or resets is not None:
        return False
    # masks of each gate's own leave the state as it is; a trace takes a list
    return all([mask.per_gate or mask.place not in ("h", "output") for mask in spec.masks])  # noqa: C419


def with_noise(masks: Sequence[BoundMask], noise: MaybeTensors) -> tuple[BoundMask, ...]:
    """The masks with the noise that was given for some of them."""
    pairs = zip(masks, noise, strict=True)
    return tuple(mask if given is None else dataclasses.replace(mask, noise=given) for mask, given in pairs)
