"""Let a character model of TensorFlow 0.x write text, from nothing but its checkpoint.

    python char_rnn.py model.ckpt-22299 chars.json --prompt "The " --length 200

The checkpoint is one of char-rnn-tensorflow: an embedding, a stack of BasicLSTMCells, a softmax layer. `chars.json`
lists its characters by index.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

import cellweave as cw


class CharRNN(nn.Module):
    """The model that the checkpoint is of; sizes from `cellweave inspect`."""

    def __init__(self, characters: int = 65, units: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, units)
        self.cell = cw.MultiRNNCell([cw.BasicLSTMCell(units) for _ in range(layers)])
        self.softmax = nn.Linear(units, characters)

    def forward(self, ids: torch.Tensor, state: Any = None) -> tuple[torch.Tensor, Any]:
        """Logits `[B, T, characters]` and the state after the last character, for ids `[B, T]`."""
        outputs, state = cw.dynamic_rnn(self.cell, self.embedding(ids), initial_state=state, dtype="float32")
        return self.softmax(outputs), state


@torch.no_grad()
def greedy(model: CharRNN, prompt: list[int], length: int) -> list[int]:
    """The likeliest character after the prompt, again and again."""
    logits, state = model(torch.tensor([prompt]))
    found: list[int] = []
    for _ in range(length):
        found.append(int(logits[0, -1].argmax()))
        logits, state = model(torch.tensor([[found[-1]]]), state)
    return found


def main() -> None:
    """Load, read the prompt, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("chars", type=Path, help="JSON list of the characters")
    parser.add_argument("--prompt", default="The ")
    parser.add_argument("--length", type=int, default=200)
    options = parser.parse_args()
    chars = json.loads(options.chars.read_text(encoding="utf-8"))
    model = CharRNN(len(chars))
    cw.load_tf1(model, options.checkpoint)
    written = greedy(model, [chars.index(c) for c in options.prompt], options.length)
    print(options.prompt + "".join(chars[i] for i in written))


if __name__ == "__main__":
    main()
