"""What native calls share that differ in nothing but their tensors: sizes, and the core's structs but for addresses."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import torch

from cellweave.ops.common._library import DTYPE_CODES, SPLIT_ROWS, SequenceStruct, core, new_sequence
from cellweave.ops.common._native_frame import Frame, recurs_on_outputs
from cellweave.ops.common._native_layout import NativeLayout

#: Where input products are made ahead of the loop and nothing is saved, the sequence runs in parts whose gates take
#: about this many bytes, so that they stay in cache.
PART_BYTES = 6 << 20
#: Below so many rows the products of one step do not fill the processor, so those of inputs are made for all steps at
#: once; up to the second number also where the input weights, of this many bytes, would not stay in its caches.
_FEW_ROWS, _SOME_ROWS, _LARGE_WEIGHTS = 4, 32, 16 << 20
#: From this many rows per thread on, and up to this many units, threads share out rows: no barrier per step. Forward
#: with more than half of these units needs twice as many: 8 rows make no full tiles, which cost 7 % more than barriers.
_ROWS_PER_THREAD, _FEW_UNITS = 8, 256
#: Forms that one frame keeps: rows in groups by length come in many.
_MOST_FORMS = 16


class CallForm:
    """Calls of one frame and one size.

    Args:
        frame: What runs. sizes: `(T, B, I)` and the dtype. lengths, resets: Whether there are any.

    Attributes:
        T, B, I, H, P, dtype, size: Sizes; what a number takes in bytes.
        plain: A step's output is what the next step multiplies.
        by_gate, gate_inputs: Gates multiply h, or the inputs, by masks of their own.
        ahead: Input products are made for all steps ahead of the loop, not step by step in it.
        rounds: Products round what they multiply to bfloat16.
    """

    def __init__(
        self, frame: Frame, sizes: tuple[int, int, int], dtype: torch.dtype, *, lengths: bool, resets: bool
    ) -> None:
        layout = frame.layout
        self.T, self.B, self.I = sizes
        self.H, self.P, self.dtype, self.size = layout.units, layout.width, dtype, dtype.itemsize
        self.plain = recurs_on_outputs(frame.spec, lengths or None, resets or None)
        self.by_gate = any(mask.per_gate and mask.place != "input" for mask in frame.spec.masks)
        self.gate_inputs = any(mask.per_gate and mask.place == "input" for mask in frame.spec.masks)
        self.ahead = self._multiplies_ahead(layout)
        self.rounds = frame.bfloat16 and dtype == torch.float32 and core().has_bfloat16
        self._frame, self._lengths = frame, lengths

    @functools.cached_property
    def bare(self) -> Pass:
        """Forward, nothing saved."""
        columns = self._frame.layout.forward_columns
        row = self.B * columns * self.H * self.size
        steps = self.T
        if self.ahead and row * steps > PART_BYTES and self._may_cut():
            steps = max(1, PART_BYTES // row)
        return Pass(self, self._frame, "bare", columns, steps)

    @functools.cached_property
    def saving(self) -> Pass:
        """Forward, with what backward needs."""
        return Pass(self, self._frame, "saving", self._frame.layout.columns, self.T)

    @functools.cached_property
    def back(self) -> Pass:
        """Backward."""
        return Pass(self, self._frame, "back", self._frame.layout.columns, self.T)

    def _multiplies_ahead(self, layout: NativeLayout) -> bool:
        if self.B < _FEW_ROWS or self.by_gate or self.gate_inputs:
            return True
        return self.B < _SOME_ROWS and self.I * self.H * layout.forward_columns * self.size > _LARGE_WEIGHTS

    def _may_cut(self) -> bool:
        """Parts of the sequence can run by themselves: a row's step numbers follow from their memory indices."""
        spec = self._frame.spec
        return not (spec.reverse and self._lengths and any(mask.per_step for mask in spec.masks))


class Pass:
    """One way in which the core runs a form.

    Args:
        form, frame: Of what. kind: "bare", "saving" or "back". columns: Blocks of H that a row of gates has.
        steps: Of a part of the sequence; all of them if it runs in one.

    Attributes:
        steps: As given.
        numbers: How many the gate buffer of a part holds; 0 where the core needs none.
        rings: Where rings of two steps lie in a block that begins with the gates, in bytes: of h, of c, and the block's
            end.
        scratch: Bytes of scratch that a call without masks needs, by whether its weights are packed elsewhere.
    """

    def __init__(self, form: CallForm, frame: Frame, kind: str, columns: int, steps: int) -> None:
        layout, save = frame.layout, kind != "bare"
        s = self._blank = SequenceStruct.from_buffer_copy(_template(layout, form.dtype, save))
        s.T, s.B, s.threads, s.reverse = form.T, form.B, frame.threads, frame.spec.reverse
        s.products = form.rounds
        needed = _ROWS_PER_THREAD if kind == "back" or 2 * layout.units <= _FEW_UNITS else 2 * _ROWS_PER_THREAD
        if frame.threads > 1 and frame.threads * needed <= form.B and layout.units <= _FEW_UNITS:
            s.split = SPLIT_ROWS
        block = layout.units * form.size
        places = _places(layout)
        self.steps = steps
        self.numbers = steps * form.B * columns * form.H if save or form.ahead else 0
        self.rings = list(
            itertools.accumulate(
                [_aligned(numbers * form.size) for numbers in (self.numbers, 2 * form.B * form.P, 2 * form.B * form.H)]
            )
        )
        self.scratch: dict[bool, int] = {}
        rows = steps * form.B
        self._gates = [(name, (rows * first + column) * block) for name, first, column in places.gates(save=save)]
        #: Field, number of the weight, bytes from its start.
        self._weights = [
            (name, number, (form.I * joined + column) * block) for name, number, joined, column in places.recurrent
        ]
        self._weights += [(name, number, column * block) for name, number, column in places.single]
        if kind != "back":
            s.I, s.ahead = form.I, form.ahead
            row = form.I if layout.transposed else 1
            self._weights += [(name, number, column * row * block) for name, number, column in places.inputs]
            self._weights += [(name, number, column * block) for name, number, column in places.biases]
            if layout.transposed:
                s.wx_unit0 = s.wx_unit1 = s.wx_unit2 = s.wx_unit3 = form.I
        self._kept: tuple[list[int], SequenceStruct] | None = None

    def struct(self, weights: Sequence[torch.Tensor], gates: torch.Tensor) -> SequenceStruct:
        """A new struct: sizes, options, weights, and what begins with the gate buffer if there is one."""
        addresses = [weight.data_ptr() for weight in weights]
        kept = self._kept
        if kept is None or kept[0] != addresses:
            s = SequenceStruct.from_buffer_copy(self._blank)
            for name, number, offset in self._weights:
                setattr(s, name, addresses[number] + offset)
            kept = self._kept = (addresses, s)
        s = SequenceStruct.from_buffer_copy(kept[1])
        if self.numbers:
            base = gates.data_ptr()
            for name, offset in self._gates:
                setattr(s, name, base + offset)
        return s


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def form_of(frame: Frame, x: torch.Tensor, lengths: torch.Tensor | None, resets: torch.Tensor | None) -> CallForm:
    """The form of a call with these dense inputs `[T, B, I]`, kept with the frame."""
    sizes, dtype, forms = x.shape, x.dtype, frame.forms
    key = (sizes, dtype, lengths is None, resets is None)
    found: CallForm | None = forms.get(key)
    if found is None:
        if len(forms) >= _MOST_FORMS:
            forms.clear()
        T, B, I = sizes
        found = CallForm(frame, (T, B, I), dtype, lengths=lengths is not None, resets=resets is not None)
        forms[key] = found
    return found


@functools.lru_cache(maxsize=512)
def _template(layout: NativeLayout, dtype: torch.dtype, save: bool) -> SequenceStruct:
    s = new_sequence()
    s.op, s.dtype, s.H, s.P, s.save = layout.op, DTYPE_CODES[dtype], layout.units, layout.width, save
    s.activation, s.gate_activation, s.forget_bias = layout.activation, layout.gate_activation, layout.forget_bias
    s.cell_clip = -1.0 if layout.cell_clip is None else layout.cell_clip
    s.proj_clip = -1.0 if layout.proj_clip is None else layout.proj_clip
    s.norm_epsilon = layout.norm_epsilon
    s.clip_passes, s.coupled = layout.clip_passes, layout.first_gate
    for gate, weight in enumerate(layout.gate_weights, layout.first_gate):
        setattr(s, f"w_ld{gate}", 1 if layout.transposed else weight.columns * layout.units)
        setattr(s, f"w_unit{gate}", layout.width if layout.transposed else 1)
    if layout.projection is not None and layout.transposed:
        s.projection_ld, s.projection_unit = 1, layout.units
    for gate, column in enumerate(layout.gates, layout.first_gate):
        first, last = layout.group_of(column)
        setattr(s, f"gate_ld{gate}", (last - first) * layout.units)
        product = next((p for p in layout.inputs if p.first <= column < p.last), None)
        if product is not None:
            blocks = product.last - product.first
            setattr(s, f"wx_ld{gate}", 1 if layout.transposed else blocks * layout.units)
    return s


class _Places:
    """Fields of a struct that point into tensors; places in those are counted in blocks of H columns.

    Attributes:
        recurrent: (field, number of the weight, columns of the rows that lie above it or 0, first column; where weights
            are transposed, what lies before its first row).
        inputs, biases: (field, number of the weight, first column).
        single: The same of all other weights.
    """

    def __init__(self, layout: NativeLayout) -> None:
        first_gate, row = layout.first_gate, layout.width if layout.transposed else 1
        self._gates = [
            (f"gate{gate}", layout.group_of(column)[0], column - layout.group_of(column)[0])
            for gate, column in enumerate(layout.gates, first_gate)
        ]
        self._needed = [column < layout.forward_columns for column in layout.gates]
        self.recurrent = [
            (f"w{gate}", weight.weight, weight.columns if weight.joined else 0, weight.column * row)
            for gate, weight in enumerate(layout.gate_weights, first_gate)
        ]
        by_gate = [
            (gate, product, column - product.first)
            for product in layout.inputs
            for gate, column in enumerate(layout.gates, first_gate)
            if product.first <= column < product.last
        ]
        self.inputs = [(f"wx{gate}", product.kernel, column) for gate, product, column in by_gate]
        self.biases = [
            (f"bias{gate}", product.bias, column) for gate, product, column in by_gate if product.bias is not None
        ]
        self.single: list[tuple[str, int, int]] = []
        if layout.row_biases is not None:
            self.biases = []  # made from both rows at every call
            self.single.append(("bias_h", layout.row_biases, 3 + layout.gates[2]))
        for gate, number in enumerate(layout.peepholes or ()):
            if number is not None:
                self.single.append((f"peephole{gate}", number, 0))
        if layout.projection is not None:
            self.single.append(("projection", layout.projection, 0))
        for number, norm in enumerate(layout.norms):
            if norm is not None:
                self.single += [(f"gamma{number}", norm[0], 0), (f"beta{number}", norm[1], 0)]

    def gates(self, *, save: bool) -> list[tuple[str, int, int]]:
        """(field, first block of its group, block within the group's rows) of each gate; without `save` fewer."""
        return [gate for gate, needed in zip(self._gates, self._needed, strict=True) if save or needed]


@functools.lru_cache(maxsize=512)
def _places(layout: NativeLayout) -> _Places:
    return _Places(layout)
