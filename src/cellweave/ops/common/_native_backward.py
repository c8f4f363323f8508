"""The backward pass of a layer on the native core."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from cellweave.ops.common._library import GRU_AFTER, GRU_BEFORE, SequenceStruct, core
from cellweave.ops.common._native_call import POOL, NativeCall, dense, matrix, transposed
from cellweave.ops.common._native_forward import Saved, scratch_bytes
from cellweave.ops.common._native_frame import MaybeTensors
from cellweave.ops.common._native_layout import InputProduct, RecurrentProduct
from cellweave.ops.common._products import multiply
from cellweave.ops.common._zeros import are_zeros

Gradients = list[torch.Tensor | None]
#: Up to so many rows the ones that sum them are kept.
_FEW_ROWS = 1 << 12


class _Loop(NamedTuple):
    """What the backward time loop leaves: gradients of the states, and buffers for the products after it."""

    d_start: list[torch.Tensor]
    d_fresh: list[torch.Tensor]
    gates: torch.Tensor  # gradients before activation
    rh: torch.Tensor | None
    proj_in: torch.Tensor | None
    d_proj: torch.Tensor | None
    d_peephole: torch.Tensor | None
    d_norm: torch.Tensor | None
    gate_h: torch.Tensor | None  # what each gate multiplied, where that differs from gate to gate


def native_backward(
    call: NativeCall, saved: Saved, upstream: MaybeTensors, needed: Sequence[bool], *, keep: bool
) -> Gradients:
    """Gradients of the call's sources.

    Args:
        call, saved: The call, and what its forward pass saved. Unless `keep`, the gates are overwritten.
        upstream: Gradients of outputs, last state and states after each step as the core gives them; None: zeros.
        needed: Of each source.
    Returns:
        One for each source, None where none is needed.
    """
    frame = call.frame
    gates = POOL.empty(tuple(saved.gates.shape), call.dtype).copy_(saved.gates) if keep else saved.gates
    fresh, weights = 1 + frame.leaves, 1 + frame.leaves + frame.fresh
    loop = _run_loop(call, saved, gates, upstream, with_fresh=any(needed[fresh:weights]))
    if call.form.rounds:
        loop = _rounded(loop)
    found: Gradients = [_gradient_of_x(call, loop.gates) if needed[0] else None]
    for number, d_state in enumerate(loop.d_start + loop.d_fresh, start=1):
        found.append(d_state if needed[number] else None)
    found += [None] * (weights - len(found))
    return found + _gradients_of_weights(call, saved.hs, loop, needed[weights:])


def _run_loop(
    call: NativeCall, saved: Saved, gates: torch.Tensor, upstream: MaybeTensors, *, with_fresh: bool
) -> _Loop:
    layout, dtype, T, B = call.layout, call.dtype, call.T, call.B
    s = call.struct(call.form.back, gates)
    s.h0, s.c0 = call.start[-1].data_ptr(), call.start[0].data_ptr()
    held = _point_to_inputs(call, s, saved, upstream)
    d_start = [torch.empty_like(leaf) for leaf in call.start]
    s.d_h0, s.d_c0 = d_start[-1].data_ptr(), d_start[0].data_ptr()
    d_fresh = [torch.empty_like(leaf) for leaf in call.fresh] if with_fresh else []
    if d_fresh:
        s.d_reset_h, s.d_reset_c = d_fresh[-1].data_ptr(), d_fresh[0].data_ptr()
    rh = proj_in = d_proj = d_peephole = d_norm = gate_h = None
    if layout.op == GRU_BEFORE:
        rh = POOL.empty((T * B, call.H), dtype)
        s.rh = rh.data_ptr()
    if layout.projection is not None:
        proj_in, d_proj = POOL.empty((T * B, call.H), dtype), POOL.empty((T * B, call.P), dtype)
        s.proj_in, s.d_proj = proj_in.data_ptr(), d_proj.data_ptr()
    if layout.peepholes is not None:
        d_peephole = torch.empty((B, 3, call.H), dtype=dtype, device="cpu")
        s.d_peephole = d_peephole.data_ptr()
    if layout.norms:
        d_norm = POOL.empty((B, 2 * len(layout.norms), call.H), dtype)
        s.d_norm = d_norm.data_ptr()
    if call.form.by_gate:
        gate_h = POOL.empty((2 if rh is not None else call.frame.spec.cell.gate_count, T * B, call.P), dtype)
        s.gate_h = gate_h.data_ptr()
    scratch = POOL.empty((scratch_bytes(call, call.form.back, s),), torch.uint8)
    s.scratch = scratch.data_ptr()
    core().backward(s)
    del held
    if call.first_reset is not None:  # those rows started from the reset state
        for fresh, first in zip(d_fresh, d_start, strict=False):
            fresh += first.masked_fill(~call.first_reset, 0.0)
        d_start = [first.masked_fill(call.first_reset, 0.0) for first in d_start]
    return _Loop(d_start, d_fresh, gates, rh, proj_in, d_proj, d_peephole, d_norm, gate_h)


def _rounded(loop: _Loop) -> _Loop:
    """What the products after the loop multiply, in bfloat16; they round what it meets."""
    gates = POOL.empty(tuple(loop.gates.shape), torch.bfloat16).copy_(loop.gates)
    return loop._replace(gates=gates, d_proj=None if loop.d_proj is None else loop.d_proj.bfloat16())


def _point_to_inputs(call: NativeCall, s: SequenceStruct, saved: Saved, upstream: MaybeTensors) -> MaybeTensors:
    """Everything that the loop reads beside gates and weights; returns the dense upstream gradients, to keep."""
    s.hs = saved.hs.data_ptr()
    if saved.cs is not None:
        s.cs = saved.cs.data_ptr()
    if saved.raw is not None:
        s.proj_raw = saved.raw.data_ptr()
    if saved.norms is not None:
        s.norm_kept = saved.norms.data_ptr()
    if not call.plain:
        s.lengths = None if call.lengths is None else call.lengths.data_ptr()
        s.resets = None if call.resets is None else call.resets.data_ptr()
    if call.loop_masks:
        s.use_masks([mask.struct(0) for mask in call.loop_masks])
    held = [None if d is None else dense(d) for d in upstream]
    leaves = ("c", "h") if call.frame.leaves == 2 else ("h",)
    names = ["d_out", *[f"d_{leaf}_last" for leaf in leaves], *[f"d_{leaf}_states" for leaf in leaves]]
    for name, d in zip(names, held, strict=False):
        if d is not None:
            setattr(s, name, d.data_ptr())
    return held


def _gradient_of_x(call: NativeCall, gates: torch.Tensor) -> torch.Tensor:
    d_x = _from_each_gate(call, gates) if call.of_gates else _from_gates(call, gates)
    if call.input_masks:
        call.mask_inputs(d_x, d_x, 0, call.input_masks, zero_padding=False)
    return d_x


def _from_gates(call: NativeCall, gates: torch.Tensor) -> torch.Tensor:
    rows: torch.Tensor | None = None
    for product in call.layout.inputs:
        kernel, columns = call.weights[product.kernel], (product.last - product.first) * call.H
        from_gates = kernel if call.layout.transposed else transposed(kernel, call.I, columns, columns)
        d_gates = call.gate_group(gates, (product.first, product.last))
        rows = multiply(d_gates, from_gates) if rows is None else multiply(d_gates, from_gates, rows, add=True)
    return torch.empty((0,)) if rows is None else rows.view(call.T, call.B, call.I)


def _from_each_gate(call: NativeCall, gates: torch.Tensor) -> torch.Tensor:
    """The same where each gate has masks of its own."""
    d_x: torch.Tensor | None = None
    for gate, masks in enumerate(call.of_gates):
        product, columns, block = _input_block(call, gate, call.weights)
        part = multiply(call.gate_group(gates, (product.first, product.last))[:, columns], block.t())
        part = part.view(call.T, call.B, call.I)
        call.mask_inputs(part, part, 0, masks, zero_padding=False)
        d_x = part if d_x is None else d_x.add_(part)
    return torch.empty((0,)) if d_x is None else d_x


def _input_block(call: NativeCall, gate: int, kernels: Sequence[Any]) -> tuple[InputProduct, slice, Any]:
    """A gate's input product, its columns in that, and its block `[I, H]` of the kernel, in its memory."""
    layout, H, I = call.layout, call.H, call.I
    column = layout.gates[gate]
    product = next(product for product in layout.inputs if product.first <= column < product.last)
    kernel, first = kernels[product.kernel], column - product.first
    columns = slice(first * H, (first + 1) * H)
    if kernel is None:
        return product, columns, None
    block = kernel[columns].t() if layout.transposed else kernel[:I, columns]
    return product, columns, block


def _gradients_of_weights(call: NativeCall, hs: torch.Tensor, loop: _Loop, needed: Sequence[bool]) -> Gradients:
    layout, gates = call.layout, loop.gates
    found: Gradients = [None] * len(needed)
    if not any(needed):
        return found
    for number in layout.kernels:
        if needed[number]:
            found[number] = torch.empty_like(call.weights[number])
    _input_gradients(call, gates, found, needed)
    if loop.gate_h is not None:
        _recurrent_gradients_by_gate(call, loop, loop.gate_h, found)
    for part in layout.recurrent if loop.gate_h is None else ():
        weight = found[part.weight]
        if weight is not None:
            _recurrent_gradient(call, part, hs, loop, weight)
    if layout.row_biases is not None and needed[layout.row_biases]:
        found[layout.row_biases] = _gradient_of_row_biases(call, gates)
    if layout.peepholes is not None and loop.d_peephole is not None:
        _sums_of_rows(loop.d_peephole, layout.peepholes, found, needed)
    if loop.d_norm is not None:
        numbers = [number for norm in layout.norms for number in norm or (None, None)]
        _sums_of_rows(loop.d_norm, numbers, found, needed)
    last = layout.projection
    if last is not None and needed[last] and loop.proj_in is not None and loop.d_proj is not None:
        found[last] = _by_layout(call, loop.proj_in.t(), loop.d_proj)
    return found


def _sums_of_rows(sums: torch.Tensor, numbers: Sequence[int | None], found: Gradients, needed: Sequence[bool]) -> None:
    """Gradients that the loop leaves per row, `[B, k, H]`, to the k weights with these numbers; None: to none."""
    for number, total in zip(numbers, sums.sum(0), strict=True):
        if number is not None:
            found[number] = total.clone() if needed[number] else None


def _input_gradients(call: NativeCall, gates: torch.Tensor, found: Gradients, needed: Sequence[bool]) -> None:
    """Rows of the kernels that meet the inputs, and biases."""
    x: torch.Tensor | None = None
    for product in call.layout.inputs:
        d_gates = call.gate_group(gates, (product.first, product.last))
        kernel = found[product.kernel]
        if kernel is not None and not call.of_gates:
            x = _used_inputs(call) if x is None else x
            if not call.layout.transposed and kernel.shape[0] != call.I:
                kernel = matrix(kernel, call.I, d_gates.shape[1], d_gates.shape[1])
            _by_layout(call, x, d_gates, kernel)
        if product.bias is not None and call.layout.row_biases is None and needed[product.bias]:
            found[product.bias] = _sum_of_rows(d_gates)
    for gate in range(len(call.of_gates)):
        product, columns, block = _input_block(call, gate, found)
        if block is not None:
            d_gates = call.gate_group(gates, (product.first, product.last))
            _into_block(call, _used_inputs(call, gate), d_gates[:, columns], block)


def _into_block(call: NativeCall, operands: torch.Tensor, d_gate: torch.Tensor, block: torch.Tensor) -> None:
    """`operands d_gate` into a gate's block of the gradient of a kernel."""
    if call.layout.transposed:
        multiply(d_gate.t(), operands.t(), block.t())
    else:
        multiply(operands, d_gate, block)


def _used_inputs(call: NativeCall, gate: int | None = None) -> torch.Tensor:
    """The transpose `[I, T * B]` of the inputs as they were multiplied, by this gate: masked, zero past a row's end."""
    return transposed(call.masked_inputs(call.x, 0, gate), call.T * call.B, call.I, call.I)


def _sum_of_rows(value: torch.Tensor) -> torch.Tensor:
    """As a product with ones: more than twice as fast as torch's sum, whose order differs."""
    rows, columns = value.shape
    ones = (
        _kept_ones(rows, value.dtype) if rows <= _FEW_ROWS else torch.ones((1, rows), dtype=value.dtype, device="cpu")
    )
    total = torch.mm(ones, value).view(columns)
    return total.float() if value.dtype == torch.bfloat16 else total


@functools.lru_cache(maxsize=64)
def _kept_ones(rows: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.ones((1, rows), dtype=dtype, device="cpu")


def _recurrent_gradients_by_gate(call: NativeCall, loop: _Loop, gate_h: torch.Tensor, found: Gradients) -> None:
    """What each gate multiplied times its gradients, into its block of the recurrent weights."""
    layout, H = call.layout, call.H
    for gate, (number, joined, column, _) in enumerate(layout.gate_weights):
        weight = found[number]
        if weight is None:
            continue
        from_state = 3 if layout.op == GRU_AFTER and gate == 2 else gate  # the candidate's own recurrent product
        first, last = layout.group_of(layout.gates[from_state])
        columns = slice((layout.gates[from_state] - first) * H, (layout.gates[from_state] - first + 1) * H)
        d_gate = call.gate_group(loop.gates, (first, last))[:, columns]
        above, units = call.I if joined else 0, slice(column * H, (column + 1) * H)
        block = weight[units].t() if layout.transposed else weight[above : above + call.P, units]
        operands = loop.rh if layout.op == GRU_BEFORE and gate == 2 else gate_h[gate]
        _into_block(call, operands.t(), d_gate, block)  # type: ignore[union-attr]


def _recurrent_gradient(
    call: NativeCall, part: RecurrentProduct, hs: torch.Tensor, loop: _Loop, weight: torch.Tensor
) -> None:
    """Operands times gate gradients, into the weight's rows and columns that are recurrent."""
    T, B, P, H = call.T, call.B, call.P, call.H
    columns, width = (part.last - part.first) * H, weight.shape[1]
    if call.layout.transposed:
        target = weight[part.column * H : part.column * H + columns]
    else:
        target = matrix(weight, P, columns, width, (call.I * width if part.joined else 0) + part.column * H)
    group = call.layout.group_of(part.first)
    used = None
    if group != (part.first, part.last):
        used = slice((part.first - group[0]) * H, (part.last - group[0]) * H)
    if part.reset and loop.rh is not None:
        _by_layout(call, transposed(loop.rh, T * B, H, H), call.gate_group(loop.gates, group), target, columns=used)
        return
    if T == 0:
        target.zero_()
        return
    # The operand of a step lies at the memory index of the step before; that of the first step is the first state.
    reverse, start = call.frame.spec.reverse, call.start[-1]
    if T > 1:
        before = transposed(hs, (T - 1) * B, P, P, B * P if reverse else 0)
        _by_layout(call, before, call.gate_group(loop.gates, group, 0 if reverse else 1, T - 1), target, columns=used)
    if T == 1 or not are_zeros(start):  # mostly they are, and a product costs as much as a step
        first = call.gate_group(loop.gates, group, T - 1 if reverse else 0, 1)
        _by_layout(call, start.t(), first, target, add=T > 1, columns=used)


def _by_layout(
    call: NativeCall,
    operands: torch.Tensor,
    d_gates: torch.Tensor,
    out: torch.Tensor | None = None,
    *,
    add: bool = False,
    columns: slice | None = None,
) -> torch.Tensor:
    """`operands d_gates[:, columns]`, or its transpose where weights are transposed; arguments as of `multiply`."""
    if call.layout.transposed:
        return multiply(d_gates.t(), operands.t(), out, add=add, rows=columns)
    return multiply(operands, d_gates, out, add=add, columns=columns)


def _gradient_of_row_biases(call: NativeCall, gates: torch.Tensor) -> torch.Tensor:
    """Both rows of a bias `[2, 3H]`; they differ in the candidate's columns only."""
    from_x, from_h = (_sum_of_rows(call.gate_group(gates, group)) for group in call.layout.groups)
    candidate = call.layout.gates[2] * call.H
    found = from_x.repeat(2, 1)
    found[1, candidate : candidate + call.H] = from_h
    return found
