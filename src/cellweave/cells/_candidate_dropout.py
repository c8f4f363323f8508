"""Recurrent dropout on an LSTM's candidate, drawn at every step inside the cell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._errors import ArgumentError, ModeError
from cellweave.ops.common import Site, StreamTable, drop_by_floor, drop_by_threshold
from cellweave.scopes import current_run, is_probing, op_seeds


class CandidateDropout:
    """One random op per call of a cell, as a TF1 session holds them; in a loop it is the same op at every step.

    Args:
        keep: Probability of keeping an element: a number, or a tensor, which always drops.
        seed: The op's own seed, or None.
        where: Who drops, for errors.
    """

    def __init__(self, keep: Any, seed: int | None, where: str) -> None:
        if isinstance(keep, torch.Tensor):
            self.keep: Any = keep
        else:
            self.keep = float(keep)
            if not 0.0 <= self.keep <= 1.0:
                raise ArgumentError(f"{where} dropout_keep_prob: expected a probability in [0, 1], got {keep!r}.")
        self.seed = None if seed is None else int(seed)
        self.table = StreamTable()
        self._where = where

    @property
    def drops(self) -> bool:
        """Whether anything may be dropped."""
        return isinstance(self.keep, torch.Tensor) or self.keep < 1.0

    def __call__(self, candidate: torch.Tensor, layer: Any) -> torch.Tensor:
        """The candidate `[B, H]` with elements dropped.

        Args:
            layer: The cell, whose calls are counted.
        """
        if isinstance(self.keep, torch.Tensor):
            return drop_by_floor(candidate, self._noise(candidate, layer), self.keep)
        if self.keep == 0.0:
            raise ArgumentError(f"{self._where}: expected dropout_keep_prob above 0 in a call, got 0.0.")
        return drop_by_threshold(candidate, self._noise(candidate, layer), self.keep)

    def _noise(self, like: torch.Tensor, layer: Any) -> torch.Tensor:
        if is_probing():
            return torch.empty_like(like)
        if torch.compiler.is_exporting():
            raise ModeError(f"{self._where}: expected a cell in evaluation mode to export, got one that draws masks.")
        run = current_run()
        stream = self.table.get(Site("state", 0, run.node, run.op_of(layer)), lambda: op_seeds(self.seed))
        noise = stream.peek(like.shape, like.dtype, like.device)[0]
        count = like.numel()
        stream.advance(count)
        if run.loop is not None:  # so that steps that TF1 would not have run can be taken back
            _, drawn = run.loop.drawn.get(id(stream), (None, 0))
            run.loop.drawn[id(stream)] = (lambda steps: stream.advance(count, -steps), drawn + 1)
        return noise
