"""One step of an LSTM on a tile: what its kernels of whole sequences and of single steps share."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import activated, at_least, at_most, slope


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
def cell_forward(
    i, j, f, c, diagonal_f, diagonal_i, forget_bias,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
):  # fmt: skip
    """Activated gates i, j, f and the new c before its clip, from the gates' totals and the old c."""
    f += forget_bias
    if PEEPHOLES:
        f += diagonal_f * c
        i += diagonal_i * c
    f, j = activated(f, GATE_ACTIVATION), activated(j, ACTIVATION)
    if COUPLED:
        i = 1.0 - f
    else:
        i = activated(i, GATE_ACTIVATION)
    return i, j, f, f * c + i * j


@triton.jit
def clipped(c, cell_clip, CLIP: tl.constexpr):
    """A new c within its bounds, if it has any."""
    if CLIP > 0:
        c = at_most(at_least(c, -cell_clip), cell_clip)
    return c


@triton.jit
def output_gate(o, new_c, diagonal_o, GATE_ACTIVATION: tl.constexpr, PEEPHOLES: tl.constexpr):
    """The activated output gate, from its total and the new c."""
    if PEEPHOLES:
        o += diagonal_o * new_c
    return activated(o, GATE_ACTIVATION)


@triton.jit
def output_backward(
    d_m, d_c, o, total_c, new_c, diagonal_o, cell_clip,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, PEEPHOLES: tl.constexpr, CLIP: tl.constexpr,
):  # fmt: skip
    """Gradients of the total of o and of the new c before its clip.

    Args:
        d_m, d_c: Gradients of the new h before its projection, and of the new c. o: Activated.
    """
    value = activated(new_c, ACTIVATION)
    d_o = d_m * value * slope(o, GATE_ACTIVATION)
    d_c += d_m * o * slope(value, ACTIVATION)
    if PEEPHOLES:
        d_c += d_o * diagonal_o
    if CLIP == 1:
        d_c = tl.where(tl.abs(total_c) <= cell_clip, d_c, 0.0)
    return d_o, d_c


@triton.jit
def cell_backward(
    d_c, i, j, f, c, diagonal_f, diagonal_i,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
):  # fmt: skip
    """Gradients of the totals of i, j and f, and that of the old c, from that of the new c before its clip."""
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
    return d_i, d_j, d_f, d_old


@triton.jit
def step_forward(
    i, j, f, o, c, diagonal_f, diagonal_i, diagonal_o, forget_bias, cell_clip,
    ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr, COUPLED: tl.constexpr, PEEPHOLES: tl.constexpr,
    CLIP: tl.constexpr,
):  # fmt: skip
    """Activated gates, new c and new h before its projection, from the gates' totals and the old c."""
    i, j, f, total_c = cell_forward(
        i, j, f, c, diagonal_f, diagonal_i, forget_bias, ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES
    )
    new_c = clipped(total_c, cell_clip, CLIP)
    o = output_gate(o, new_c, diagonal_o, GATE_ACTIVATION, PEEPHOLES)
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
    new_c = clipped(total_c, cell_clip, CLIP)
    d_o, d_c = output_backward(
        d_m, d_c, o, total_c, new_c, diagonal_o, cell_clip, ACTIVATION, GATE_ACTIVATION, PEEPHOLES, CLIP
    )
    d_i, d_j, d_f, d_old = cell_backward(
        d_c, i, j, f, c, diagonal_f, diagonal_i, ACTIVATION, GATE_ACTIVATION, COUPLED, PEEPHOLES
    )
    return d_i, d_j, d_f, d_o, d_old, new_c
