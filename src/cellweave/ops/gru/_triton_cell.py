"""One step of a gated recurrent unit on a tile: what its kernels of whole sequences and of single steps share."""

from __future__ import annotations

import triton
import triton.language as tl

from cellweave.ops.common._triton_device import slope


@triton.jit
def mix(u, h, value):
    """The new h from the update gate, the old h and the candidate."""
    return u * h + (1.0 - u) * value


@triton.jit
def mix_back(d_new, u, h, value, ACTIVATION: tl.constexpr, GATE_ACTIVATION: tl.constexpr):
    """Gradients of the totals of candidate and update gate, and of the old h by this way."""
    d_value = d_new * (1.0 - u) * slope(value, ACTIVATION)
    return d_value, d_new * (h - value) * slope(u, GATE_ACTIVATION), d_new * u


@triton.jit
def reset_back(d_gated, gated, r, GATE_ACTIVATION: tl.constexpr):
    """Gradients of the reset gate's total and of what it multiplies, `gated`, from that of their product."""
    return d_gated * gated * slope(r, GATE_ACTIVATION), d_gated * r
