"""The language model: an embedding, recurrent layers under dropout, and an output layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from cellweave._nest import map_structure
from cellweave._types import Nest
from cellweave.cells import BasicRNNCell, GRUCell, LSTMCell
from cellweave.layers import dynamic_rnn
from cellweave.training._settings import ModelConfig
from cellweave.wrappers import DropoutWrapper, MultiRNNCell

_CELLS: Mapping[str, Callable[[int], Any]] = {"lstm": LSTMCell, "gru": GRUCell, "rnn": BasicRNNCell}
#: Embeddings and output weights start uniform in ± this (Zaremba et al. 2014, small model).
_INITIAL_SCALE = 0.1


class LanguageModel(nn.Module):
    """Predicts each next token of a text from all before it.

    `MultiRNNCell([DropoutWrapper(cell), ...])` runs through `dynamic_rnn`; embedding and output layer take a whole
    window at once.

    Args:
        config: Sizes, cell and dropout.
        vocabulary_size: Tokens V.
        seed: Seed of the dropout masks; the layers get consecutive ones. Weights start from torch's default generator.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, seed: int = 0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, config.embedding)
        self.cell = MultiRNNCell([self._layer(config, number, seed) for number in range(config.layers)])
        self.cell.build([None, config.embedding])
        self.output_kernel = None if config.tied else nn.Parameter(torch.empty(vocabulary_size, config.units))
        self.output_bias = nn.Parameter(torch.zeros(vocabulary_size))
        nn.init.uniform_(self.embedding.weight, -_INITIAL_SCALE, _INITIAL_SCALE)
        if self.output_kernel is not None:
            nn.init.uniform_(self.output_kernel, -_INITIAL_SCALE, _INITIAL_SCALE)

    @staticmethod
    def _layer(config: ModelConfig, number: int, seed: int) -> DropoutWrapper:
        return DropoutWrapper(
            _CELLS[config.cell](config.units),
            input_keep_prob=config.input_keep,
            state_keep_prob=config.state_keep,
            output_keep_prob=config.output_keep,
            variational_recurrent=config.variational,
            input_size=config.embedding if number == 0 else config.units,
            dtype=torch.float32,
            seed=seed + number,  # equal seeds would give every layer the same masks
            mask_per_row=config.mask_per_row,
        )

    def initial_state(self, rows: int) -> Nest:
        """The state before a text's first token: zeros for `rows` rows."""
        return self.cell.zero_state(rows, torch.float32)

    def forward(self, tokens: torch.Tensor, state: Nest) -> tuple[torch.Tensor, Nest]:
        """Run over a window.

        Args:
            tokens: Token numbers int64 `[T, B]`.
            state: State before the window, as `initial_state` or an earlier call gave it. Not modified.
        Returns:
            Logits `[T, B, V]` of each next token, and the state after the window (with its gradient history).
        """
        outputs, state = dynamic_rnn(self.cell, self.embedding(tokens), initial_state=state, time_major=True)
        kernel = self.embedding.weight if self.output_kernel is None else self.output_kernel
        return nn.functional.linear(outputs, kernel, self.output_bias), state

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor, state: Nest) -> tuple[torch.Tensor, Nest]:
        """Mean cross entropy in nats per token of a window, and the state after it, cut off from its history.

        Args:
            inputs, targets: Token numbers int64 `[T, B]`.
            state: State before the window.
        """
        logits, state = self(inputs, state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return loss, map_structure(torch.Tensor.detach, state)
