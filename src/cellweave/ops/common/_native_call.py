"""A layer call in the form that the native core takes: dense memory, addresses, masks."""

from __future__ import annotations

from typing import Any

import torch

from cellweave.ops.common._library import DTYPE_CODES, PLACE_CODES, MaskStruct, SequenceStruct, any_byte, core, new_mask
from cellweave.ops.common._masks import MANTISSA_BITS, BoundMask
from cellweave.ops.common._native_form import Pass, form_of
from cellweave.ops.common._native_frame import Frame, MaybeTensors, with_noise
from cellweave.ops.common._packed_weights import PackedWeights
from cellweave.ops.common._pool import BufferPool, Workspaces, after_fork
from cellweave.ops.common._sequence import within

#: Elements of a sequence from which on a second thread pays for masking it: a mask takes about 0.3 ns for each.
_WORTH_A_THREAD = 1 << 15


def _advise(address: int, size: int) -> None:
    core().advise_huge_pages(address, size)


#: Gates, cells and other large buffers that no caller sees.
POOL = BufferPool(_advise)
after_fork(POOL)
#: Bytes of a buffer that each thread keeps for calls without gradients.
_LARGEST_KEPT = 8 << 20
#: Buffers of calls without gradients, which nothing needs afterwards.
WORKSPACES = Workspaces(POOL, _LARGEST_KEPT)
after_fork(WORKSPACES)
#: Weights of calls without gradients, packed.
PACKED = PackedWeights()
after_fork(PACKED)


def release_workspace() -> None:
    """Free the buffers and packed weights that are kept for later calls."""
    PACKED.release()
    WORKSPACES.release()
    POOL.release()


class NativeCall:
    """The tensors of a call as the core needs them: dense, the state of the first step after its resets.

    Attributes:
        frame, layout, form: What runs, and what it shares with calls like it.
        T, B, I, H, P, dtype, size: Of the form.
        x, weights, lengths, resets, fresh: Dense; resets past a row's end taken out.
        start: Operands of the first step.
        first_reset: Rows that are reset before their first step, `[B, 1]`, or None.
        input_masks, loop_masks: With what all parts of the sequence share.
        plain: Of the form.
        of_gates: The masks on inputs that each gate has for itself, by the gate; none where no gate has any.
    """

    def __init__(self, frame: Frame, tensors: MaybeTensors) -> None:
        self.frame, self.layout = frame, frame.layout
        found: list[Any] = [t if t is None or (t.is_contiguous() and not t.is_neg()) else dense(t) for t in tensors]
        self.x: torch.Tensor = found[0]
        constants = frame.sources
        form = self.form = form_of(frame, self.x, found[constants], found[constants + 1])
        self.T, self.B, self.I, self.H, self.P = form.T, form.B, form.I, form.H, form.P
        self.dtype, self.size, self.plain = form.dtype, form.size, form.plain
        fresh, weights = 1 + frame.leaves, 1 + frame.leaves + frame.fresh
        self.start: tuple[torch.Tensor, ...] = tuple(found[1:fresh])
        self.weights: list[torch.Tensor] = found[weights:constants]
        self.lengths: torch.Tensor | None = found[constants]
        self.resets: torch.Tensor | None = None
        self.first_reset: torch.Tensor | None = None
        self.fresh: tuple[torch.Tensor, ...] = tuple(found[fresh:weights])
        if found[constants + 1] is not None and self.T > 0:
            self._take_resets(found[constants + 1])
        self.input_masks: list[PlacedMask] = []
        self.loop_masks: list[PlacedMask] = []
        self.of_gates: list[list[PlacedMask]] = []
        if frame.masks:
            for mask in with_noise(frame.masks, found[constants + 2 :]):
                self._place(mask)

    def _place(self, mask: BoundMask) -> None:
        on_input = mask.spec.place == "input"
        if not mask.spec.per_gate:
            (self.input_masks if on_input else self.loop_masks).append(PlacedMask(mask, self))
            return
        gates = self.frame.spec.cell.gate_count
        placed = [PlacedMask(mask, self, (gate, gates)) for gate in range(gates)]
        if on_input:
            self.of_gates = [
                [*kept, new] for kept, new in zip(self.of_gates or [[] for _ in placed], placed, strict=True)
            ]
        else:
            self.loop_masks += placed

    def _take_resets(self, resets: torch.Tensor) -> None:
        if self.lengths is not None:
            resets = resets & within(self.lengths, self.T)
        self.resets = resets
        step = self.T - 1 if self.frame.spec.reverse else 0
        if any_byte(resets.data_ptr() + step * self.B, self.B):
            self.first_reset = resets[step][:, None]
            self.start = self.after_resets(self.first_reset, self.start)

    def widen(self) -> None:
        """Make the weights numbers of the call's dtype, where they came as they are because they may be packed."""
        self.weights = [w if w.dtype == self.dtype else w.to(self.dtype) for w in self.weights]

    def after_resets(self, rows: torch.Tensor, state: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The state with these rows `[B, 1]` replaced."""
        if not self.fresh:
            return tuple(leaf.masked_fill(rows, 0.0) for leaf in state)
        return tuple(torch.where(rows, fresh, leaf) for fresh, leaf in zip(self.fresh, state, strict=True))

    def struct(self, kind: Pass, gates: torch.Tensor) -> SequenceStruct:
        """Sizes, options, weights, what rows start from anew, and what begins with the gate buffer if there is one."""
        s = kind.struct(self.weights, gates)
        if self.fresh and self.resets is not None:
            s.reset_h, s.reset_c = self.fresh[-1].data_ptr(), self.fresh[0].data_ptr()
        return s

    def gate_group(self, gates: torch.Tensor, group: tuple[int, int], first: int = 0, steps: int | None = None) -> Any:
        """A group of the whole sequence's gate buffer from memory index `first` on, dense `[steps * B, blocks * H]`."""
        columns, rows = (group[1] - group[0]) * self.H, (self.T if steps is None else steps) * self.B
        return matrix(gates, rows, columns, columns, self.T * self.B * group[0] * self.H + first * self.B * columns)

    def mask_inputs(
        self, x: torch.Tensor, out: torch.Tensor, first: int, masks: list[PlacedMask], *, zero_padding: bool
    ) -> None:
        """Multiply `x [steps, B, I]` by masks on inputs, from memory index `first` on."""
        steps, reverse = x.shape[0], self.frame.spec.reverse
        structs = [mask.struct(self.steps_before(first, steps)) for mask in masks]
        lengths = self.lengths_from(first, steps) if zero_padding or reverse else None
        threads = self.frame.threads if x.numel() >= _WORTH_A_THREAD else 1
        core().mask_sequence(
            DTYPE_CODES[self.dtype], x.data_ptr(), out.data_ptr(), (steps, self.B, self.I), structs,
            lengths=None if lengths is None else lengths.data_ptr(), reverse=reverse, threads=threads,
        )  # fmt: skip

    def masked_inputs(self, x: torch.Tensor, first: int, gate: int | None = None) -> torch.Tensor:
        """The inputs `[steps, B, I]` as they are multiplied, by this gate: masked, zero past a row's end."""
        masks = self.input_masks if gate is None else self.input_masks + self.of_gates[gate]
        if not masks and self.lengths is None:
            return x
        out = POOL.empty(tuple(x.shape), self.dtype)
        self.mask_inputs(x, out, first, masks, zero_padding=True)
        return out

    def steps_before(self, first: int, steps: int) -> int:
        """How many steps come before those at the memory indices `first .. first + steps - 1`."""
        return self.T - first - steps if self.frame.spec.reverse else first

    def lengths_from(self, first: int, steps: int) -> torch.Tensor | None:
        """Lengths counted from memory index `first`, each in 0..steps."""
        if self.lengths is None or (first == 0 and steps == self.T):
            return self.lengths
        return (self.lengths - first).clamp_(0, steps)


class PlacedMask:
    """A mask with what all parts of a sequence share.

    Args:
        gate: Of a mask that each gate has for itself: which gate, of how many.
    """

    def __init__(self, mask: BoundMask, call: NativeCall, gate: tuple[int, int] | None = None) -> None:
        drawn = not mask.expected  # else every element of every step keeps the same share
        self.mask, self.per_step = mask, mask.spec.per_step and drawn
        self.rows = call.B if (mask.spec.per_step or mask.spec.per_row) and drawn else 1
        self.factors: torch.Tensor | None = None
        if mask.noise is not None and drawn:
            self.rows, width = mask.noise.shape
            self.factors = mask.factors(call.B, width, call.x)
        dtype = mask.dtype or call.dtype
        self.threshold, self.scale = mask.threshold(dtype), mask.scale(dtype)
        self.bits = 0 if mask.dtype is None else MANTISSA_BITS[mask.dtype]
        self.place, self.first, self.width = PLACE_CODES[mask.spec.place], 0, 0
        if gate is not None:
            number, gates = gate
            width = call.I if mask.spec.place == "input" else call.P
            self.first, self.width = number * width, gates * width
            if mask.spec.place == "h":
                self.place = PLACE_CODES["gate"] + call.layout.first_gate + number

    def struct(self, steps_before: int) -> MaskStruct:
        """The mask for a part of the sequence that so many steps come before."""
        mask = self.mask
        stride = mask.stride if self.per_step else 0
        counter = (mask.seed2 << 64) + mask.block + stride * steps_before
        factors = None if self.factors is None else self.factors.data_ptr()
        return new_mask(
            mask.seed,
            counter,
            stride,
            self.threshold,
            self.scale,
            factors,
            self.rows,
            self.place,
            self.first,
            self.width,
            self.bits,
        )


def dense(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as its memory must be for the core: contiguous, no sign pending."""
    return tensor.resolve_neg().contiguous()


def matrix(tensor: torch.Tensor, rows: int, columns: int, ld: int, first: int = 0) -> torch.Tensor:
    """A view of dense memory: element (r, c) lies `first + r * ld + c` after the tensor's start."""
    return tensor.as_strided((rows, columns), (ld, 1), tensor.storage_offset() + first)


def transposed(tensor: torch.Tensor, rows: int, columns: int, ld: int, first: int = 0) -> torch.Tensor:
    """The transpose of `matrix` with the same arguments, `[columns, rows]`."""
    return tensor.as_strided((columns, rows), (1, ld), tensor.storage_offset() + first)
