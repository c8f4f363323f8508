"""One step of an LSTM on a tile: what its kernels of whole sequences and of single steps share."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import activated, slope


@triton.jit
def load_diagonals(peephole, units, H, PEEPHOLES: tl.constexpr):
    """Peephole weights of f, i and o for some units, `[1, units]`; zeros where there are none."""
    if PEEPHOLES:
        inside = units < H
        f = tl.load(peephole + units, mask=inside, other=0.0).to(tl.float32)[None, :]
        i = tl.load(peephole + H + units, mask=inside, other=0.0).to(tl.float32)[None, :]
        o = tl.load(peephole + 2 * H + units, mask=inside, other=0.0).to(tl.float32)[None, :]
    else:
        f = tl.zeros_like(units).to(tl.float32)[None, :]
        i, o = f, f
    return f, i, o


@triton.jit
def step_forward(
    i, j, f, o, c, diagonal_f, diagonal_i, diagonal_o, forget_bias, cell_clip,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr,
):  # fmt: skip
    """Activated gates, new c and new h before its projection, from the gates' totals and the old c."""
    f += forget_bias
    if PEEPHOLES:
        f += diagonal_f * c
        i += diagonal_i * c
    f, j = activated(f, GATE_ACTIVATION), activated(j, ACTIVATION)
    if COUPLED:
        i = 1.0 - f
    else:
        i = activated(i, GATE_ACTIVATION)
    new_c = f * c + i * j
    if CLIP > 0:
        new_c = tl.minimum(tl.maximum(new_c, -cell_clip), cell_clip)
    if PEEPHOLES:
        o += diagonal_o * new_c
    o = activated(o, GATE_ACTIVATION)
    return i, j, f, o, new_c, o * activated(new_c, ACTIVATION)


@triton.jit
def step_backward(
    d_m, d_c, i, j, f, o, c, diagonal_f, diagonal_i, diagonal_o, cell_clip,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr,
):  # fmt: skip
    """Gradients of the gates' totals i, j, f, o, that of the old c, and the new c.

    Args:
        d_m, d_c: Gradients of the new h before its projection, and of the new c. i, j, f, o: Activated gates. c: Old.
    """
    total_c = f * c + i * j
    new_c = total_c
    if CLIP > 0:
        new_c = tl.minimum(tl.maximum(total_c, -cell_clip), cell_clip)
    value = activated(new_c, ACTIVATION)
    d_o = d_m * value * slope(o, GATE_ACTIVATION)
    d_c += d_m * o * slope(value, ACTIVATION)
    if PEEPHOLES:
        d_c += d_o * diagonal_o
    if CLIP == 1:
        d_c = tl.where(tl.abs(total_c) <= cell_clip, d_c, 0.0)
    d_f, d_i, d_j = d_c * c, d_c * j, d_c * i * slope(j, ACTIVATION)
    if COUPLED:
        d_f -= d_i
        d_i = tl.zeros_like(d_f)
    else:
        d_i *= slope(i, GATE_ACTIVATION)
    d_f *= slope(f, GATE_ACTIVATION)
    d_old = d_c * f
    if PEEPHOLES:
        d_old += d_f * diagonal_f + d_i * diagonal_i
    return d_i, d_j, d_f, d_o, d_old, new_c
