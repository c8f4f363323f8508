"""One step of the phased long short-term memory, in torch operations."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def phased_lstm_step(
    time: torch.Tensor,
    inputs: torch.Tensor,
    c: torch.Tensor,
    h: torch.Tensor,
    weights: Mapping[str, torch.Tensor],
    *,
    leak: float | torch.Tensor,
    peepholes: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One step of an LSTM whose update a rhythmic gate k lets through.

        i, f = sigmoid([x, h, c] W_m + b_m);  j = tanh([x, h] W_n + b_n);  z = f*c + i*j
        o = sigmoid([x, h, z] W_o + b_o);  y = tanh(z)*o;  c and z in the products only with peepholes
        p = ((time - phase) mod period)/period
        k = 2 p/on, where p < on/2;  2 - 2 p/on, where p < on;  else leak*p
        c' = k*z + (1 - k)*c;  h' = k*y + (1 - k)*h

    Args:
        time: `[B, 1]`, in any floating dtype; p is computed in it.
        inputs: `[B, I]`. c, h: `[B, H]`.
        weights: By name: `mask_gates/kernel` `[I + H (+ H), 2H]`, `new_input/kernel` `[I + H, H]`, `output_gate/kernel`
            `[I + H (+ H), H]`, their biases, `period`, `phase`, `ratio_on` `[H]`.
        leak: How much passes while the gate is closed. peepholes: See above.
    Returns:
        c' and h' `[B, H]`. The modulus passes the gradient of `time - phase` and none to its own period.
    Source: Neil et al. 2016; TF1 `tf.contrib.rnn.PhasedLSTMCell`.
    """

    def linear(name: str, *parts: torch.Tensor) -> torch.Tensor:
        return torch.cat(parts, dim=1) @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    seen = (inputs, h, c) if peepholes else (inputs, h)
    i, f = torch.sigmoid(linear("mask_gates", *seen)).chunk(2, dim=1)
    j = torch.tanh(linear("new_input", inputs, h))
    new_c = c * f + i * j
    seen = (inputs, h, new_c) if peepholes else (inputs, h)
    new_h = torch.tanh(new_c) * torch.sigmoid(linear("output_gate", *seen))
    k = _openness(time, weights["period"], weights["phase"], weights["ratio_on"], leak, inputs.dtype)
    return k * new_c + (1 - k) * c, k * new_h + (1 - k) * h


def _openness(
    time: torch.Tensor,
    period: torch.Tensor,
    phase: torch.Tensor,
    ratio_on: torch.Tensor,
    leak: float | torch.Tensor,
    dtype: torch.dtype,
) -> torch.Tensor:
    """K `[B, H]`."""
    period = period.to(time.dtype)
    shifted = time - phase.to(time.dtype)
    within = torch.remainder(shifted.detach(), period.detach()) - shifted.detach() + shifted
    cycle = (within / period).to(dtype)
    rising = 2 * cycle / ratio_on
    k = torch.where(cycle < ratio_on, 2 - rising, leak * cycle)
    return torch.where(cycle < 0.5 * ratio_on, rising, k)
