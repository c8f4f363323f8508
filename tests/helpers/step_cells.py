"""A user's own cells, which no backend knows: they run step by step."""

from __future__ import annotations

from typing import Any

import torch

import cellweave as cw

D, N = 4, 6  # inputs and units


class Nested(cw.RNNCell):
    """A user's own cell: a nested state, two outputs, a constant, a leaf that it passes on."""

    state_size = ((N, 3), N)
    output_size = (N, 3)

    def call(self, inputs: torch.Tensor, state: Any) -> Any:
        (a, b), c = state
        kernel = cw.get_variable("kernel", [D, N])
        new = torch.tanh(inputs @ kernel + a * torch.tensor(0.5))
        return (new, b), ((new * c, torch.sigmoid(b + inputs[:, :3])), c)


class Flat(Nested):
    """With one output."""

    output_size = N

    def call(self, inputs: torch.Tensor, state: Any) -> Any:
        (new, _), state = super().call(inputs, state)
        return new, state
