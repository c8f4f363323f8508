"""Go on with temperatures where TensorFlow 1's GRU left off, from its SavedModel.

    python temperatures.py path/to/saved_model inputs.npz

The model is a stack of two GRUs in dropout wrappers with the state in one tensor, and a dense layer; `inputs.npz` holds
`features` [batch, days, 2], the lowest and highest temperature of each day. It prints the next days.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

import cellweave as cw

#: The model was trained to tell the next days from that many last outputs.
DAYS_AHEAD = 8


class Temperatures(nn.Module):
    """The model that the checkpoint is of; sizes and dropout from `cellweave inspect`."""

    def __init__(self, units: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.keep = torch.tensor(1.0)  # fed by a placeholder in TF1
        cells = [cw.DropoutWrapper(cw.GRUCell(units), output_keep_prob=self.keep) for _ in range(layers)]
        self.cell = cw.MultiRNNCell(cells, state_is_tuple=False)
        self.dense = nn.Linear(units, 2)

    def forward(self, days: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Temperatures `[B, T, 2]` of the days that follow, and the state `[B, layers * units]`."""
        outputs, state = cw.dynamic_rnn(self.cell, days, initial_state=state, dtype="float32")
        return self.dense(outputs), state


@torch.no_grad()
def go_on(model: Temperatures, days: torch.Tensor, rounds: int) -> torch.Tensor:
    """Days after `days`, eight in a round: the last outputs become the next inputs."""
    outputs, state = model(days)
    found = []
    for _ in range(rounds):
        outputs, state = model(outputs[:, -DAYS_AHEAD:], state)
        found.append(outputs)
    return torch.cat(found, dim=1)


def main() -> None:
    """Load, read the days, tell the next ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of the SavedModel")
    parser.add_argument("inputs", type=Path, help="an .npz file with `features`")
    parser.add_argument("--rounds", type=int, default=2, help="of eight days")
    options = parser.parse_args()
    model = Temperatures()
    cw.load_tf1(model, options.checkpoint)
    with np.load(options.inputs) as inputs:
        days = torch.from_numpy(inputs["features"])
    for low, high in go_on(model, days[:1], options.rounds)[0].tolist():
        print(f"{low:6.1f} {high:6.1f}")


if __name__ == "__main__":
    main()
