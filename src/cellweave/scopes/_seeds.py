"""Seeds of random ops: the graph seed, and the pair of numbers that each op gets from it and its own seed."""

from __future__ import annotations

import torch

from cellweave._errors import ArgumentTypeError
from cellweave.scopes._context import frame

_PRIME = 2**31 - 1
#: What TensorFlow uses as graph seed when only the op has a seed.
_DEFAULT_GRAPH_SEED = 87654321


class SeedState:
    """The graph seed, and how many ops without a seed of their own have asked for one."""

    def __init__(self) -> None:
        self.graph_seed: int | None = None
        self.unseeded_ops = 0
        #: Counts the resets, so that streams which restart at one can tell.
        self.resets = 0
        #: Streams shared by the whole process: block numbers of eager ops, by (seed, seed2, dtype).
        self.eager_blocks: dict[tuple[int, int, torch.dtype], int] = {}

    def reset(self, seed: int | None) -> None:
        """Set the graph seed and forget all counts."""
        self.graph_seed, self.unseeded_ops = seed, 0
        self.resets += 1
        self.eager_blocks.clear()


_process = SeedState()


def seed_state() -> SeedState:
    """The seeds of the graph that is open or run by a Model, else those of the process."""
    return _process if frame.seeds is None else frame.seeds


def set_random_seed(seed: int | None) -> None:
    """Set the graph seed: of the current `Graph`, or of everything outside one.

    Ops that have drawn already keep their seeds. Streams that the TF2 wrappers share start anew.

    Args:
        seed: Any int, also negative or large; None unsets it, and streams without a seed of their own then start
            from torch's default generator.
    Source: TF1 `tf.set_random_seed`.
    """
    if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
        raise ArgumentTypeError(f"set_random_seed: expected an int or None, got {seed!r}.")
    seed_state().reset(None if seed is None else int(seed.__index__()))


def op_seeds(op_seed: int | None) -> tuple[int, int]:
    """The pair (seed, seed2) of a random op.

    Args:
        op_seed: The op's own seed or None.
    Returns:
        Two ints of at most 64 bits. Without graph seed and op seed they come from torch's default generator.
    Source: TensorFlow `random_seed.get_seed`.
    """
    state = seed_state()
    if op_seed is None and state.graph_seed is None:
        drawn = torch.randint(-(2**63), 2**63 - 1, (2,), device="cpu").tolist()
        return drawn[0] % 2**64, drawn[1] % 2**64
    if op_seed is None:
        op_seed = state.unseeded_ops
        state.unseeded_ops += 1
    graph_seed = _DEFAULT_GRAPH_SEED if state.graph_seed is None else state.graph_seed
    pair = (graph_seed % _PRIME, op_seed % _PRIME)
    return pair if pair != (0, 0) else (0, _PRIME)


def seeded_generator(op_seed: int | None) -> torch.Generator | None:
    """A generator for an initializer; None (torch's default one) when neither it nor the graph has a seed."""
    if op_seed is None and seed_state().graph_seed is None:
        return None
    seed, seed2 = op_seeds(op_seed)
    return torch.Generator(device="cpu").manual_seed((seed << 31 | seed2) % 2**63)
