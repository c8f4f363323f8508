"""One time step at a time on the native core, with weights that stay packed between steps."""

from __future__ import annotations

import torch

from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._library import LSTM, SequenceStruct, core
from cellweave.ops.common._native_call import NativeCall
from cellweave.ops.common._native_forward import point_to_row_biases
from cellweave.ops.common._native_frame import NativeOp, flatten

#: Multiplications of one step from which on a second thread pays, which has to be woken for each step.
_WORTH_A_THREAD = 1 << 20
_ALIGNMENT = 64


class NativeStep:
    """Steps of one layer: `step(x) -> output`; the state lives here.

    Args:
        op: The recurrence.
        call: One step, T = 1, without lengths, resets and masks other than expected zoneout: gives weights, sizes and
            the first state.
    """

    def __init__(self, op: NativeOp, call: LayerCall) -> None:
        frame, sources, constants = flatten(op, call)
        native = NativeCall(frame, [*sources, *constants])
        self._native = native
        self._like = torch.empty((native.B, native.P), dtype=native.dtype, device="cpu")
        work = native.B * (native.I + native.P) * native.H * native.layout.forward_columns
        self._is_shared = work >= _WORTH_A_THREAD
        self._threads = torch.get_num_threads() if self._is_shared else 1
        is_lstm = native.layout.op == LSTM
        with torch.inference_mode(False):  # whose tensors refuse to be changed outside of it
            h, c = native.start[-1].detach(), native.start[0].detach()
            # Two sets of states: each step reads one and writes the other.
            self._h = [h.clone(), torch.empty_like(h)]
            self._c = [c.clone(), torch.empty_like(c)] if is_lstm else []
        self._cells = torch.empty((2, native.B, native.H), dtype=native.dtype, device="cpu") if is_lstm else None
        # Inputs are multiplied as a call over a whole sequence does it, so that steps give its bits.
        self._gates = torch.empty((native.form.bare.numbers,), dtype=native.dtype, device="cpu")
        self._turn = 0
        self._packed = self._scratch = _aligned(0)
        self._point()
        self._forward = core().bare_forward(native.layout.op)

    def _point(self) -> None:
        """Make the structs of both turns, for so many threads."""
        self._fresh = True  # the next step packs the weights
        self._structs = (self._struct(0), self._struct(1))

    def _struct(self, turn: int) -> SequenceStruct:
        native = self._native
        s = native.struct(native.form.bare, self._gates)
        s.kept = point_to_row_biases(native, s)
        if native.loop_masks:
            s.use_masks([mask.struct(0) for mask in native.loop_masks])
        s.threads, s.x = self._threads, native.x.data_ptr()
        s.h0, s.h_last = self._h[turn].data_ptr(), self._h[1 - turn].data_ptr()
        s.out = s.hs = self._h[1 - turn].data_ptr()
        if self._cells is not None:
            s.c0, s.c_last, s.cs = self._c[turn].data_ptr(), self._c[1 - turn].data_ptr(), self._cells.data_ptr()
        if turn == 0:
            self._packed = _aligned(core().packed_bytes(s))
        s.packed = self._packed.data_ptr()
        if turn == 0:
            self._scratch = _aligned(core().scratch_bytes(s, backward=False))
        s.scratch, s.scratch_bytes = self._scratch.data_ptr(), self._scratch.numel()
        return s

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The output `[B, P]` of the next step for `x [B, I]`, dense and of the layer's dtype."""
        turn = self._turn
        if self._is_shared and torch.get_num_threads() != self._threads:  # a forked child must not use its parent's
            self._threads = torch.get_num_threads()
            self._point()
        s = self._structs[turn]
        out = torch.empty_like(self._like)  # half the time of torch.empty
        s.x = x.data_ptr()
        s.out = s.hs = out.data_ptr()
        if self._forward(s):
            if x.data_ptr() % x.itemsize:  # numbers across its words, which the core refuses
                return self(x.clone())
            core().forward(s)  # says what is wrong
        if self._fresh:
            self._fresh = False
            self._structs[0].packed_ready = self._structs[1].packed_ready = 1
        self._turn = 1 - turn
        return out

    @property
    def state(self) -> tuple[torch.Tensor, ...]:
        """Copies of the state: `(h,)` or `(c, h)`."""
        return tuple(leaf.clone() for leaf in self._now())

    def restart(self, rows: torch.Tensor, fresh: tuple[torch.Tensor, ...] | None) -> None:
        """Replace the state of `rows [B]`, booleans, by that of `fresh`, laid out as `state`; None: by zeros."""
        column = rows[:, None]
        if fresh is None:
            for leaf in self._now():
                leaf.masked_fill_(column, 0.0)
            return
        for leaf, other in zip(self._now(), fresh, strict=True):
            torch.where(column, other, leaf, out=leaf)

    def _now(self) -> tuple[torch.Tensor, ...]:
        turn = self._turn
        return (self._c[turn], self._h[turn]) if self._c else (self._h[turn],)


def _aligned(size: int) -> torch.Tensor:
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device="cpu")
    first = -memory.data_ptr() % _ALIGNMENT
    return memory[first : first + size]
