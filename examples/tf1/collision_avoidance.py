"""What a robot's policy network of TensorFlow 1 does, from its checkpoint.

    python collision_avoidance.py network_01900000 inputs.npz

An LSTM reads the other agents, as many as there are; dense layers join its last state with the robot's own.
`inputs.npz` holds `x` [batch, 138] and the constants `norm_avg`, `norm_std` [138], which are in the model's graph and
not in its checkpoint. It prints the chosen action and the value of each row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import cellweave as cw

#: Columns of the input: how many agents there are, the robot's own state, then each agent's.
OWN_STATE, AGENTS, AGENT_STATE = 4, 19, 7


class Policy(nn.Module):
    """The model that the checkpoint is of; sizes from `cellweave inspect`."""

    def __init__(self, average: torch.Tensor, deviation: torch.Tensor, units: int = 64) -> None:
        super().__init__()
        self.average, self.deviation = average, deviation
        self.cell = cw.LSTMCell(units)
        self.layer1 = nn.Linear(OWN_STATE + units, 256)
        self.layer2 = nn.Linear(256, 256)
        self.fullyconnected1 = nn.Linear(256, 256)
        self.logits_p = nn.Linear(256, 11)
        self.logits_v = nn.Linear(256, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the actions `[B, 11]` and values `[B]`, for `[B, 138]`."""
        z = (x - self.average) / self.deviation
        agents = z[:, 1 + OWN_STATE :].reshape(-1, AGENTS, AGENT_STATE)
        _, state = cw.dynamic_rnn(self.cell, agents, sequence_length=x[:, 0].long(), dtype="float32")
        y = torch.cat([z[:, 1 : 1 + OWN_STATE], state.h], dim=1)
        for layer in (self.layer1, self.layer2, self.fullyconnected1):
            y = torch.relu(layer(y))
        return self.logits_p(y), self.logits_v(y).squeeze(1)


@torch.no_grad()
def main() -> None:
    """Load, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("inputs", type=Path, help="an .npz file with `x`, `norm_avg`, `norm_std`")
    options = parser.parse_args()
    with np.load(options.inputs) as stored:
        inputs = {name: torch.from_numpy(stored[name]) for name in ("x", "norm_avg", "norm_std")}
    model = Policy(inputs["norm_avg"], inputs["norm_std"])
    cw.load_tf1(model, options.checkpoint)
    logits, values = model(inputs["x"])
    for row, (action, value) in enumerate(zip(logits.argmax(1).tolist(), values.tolist(), strict=True)):
        print(f"row {row:2}: action {action:2}, value {value:6.3f}")


if __name__ == "__main__":
    main()
