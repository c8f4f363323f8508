"""GRUBlockCellV2."""

from __future__ import annotations

from cellweave.cells._gru_block_core import GRUBlockCore
from cellweave.cells._registry import register


@register
class GRUBlockCellV2(GRUBlockCore):
    """The gated recurrent unit of TF1's block op, with `GRUCell`'s variable names.

        r, u = sigmoid([x, h] gates_kernel + gates_bias);  c = tanh([x, r*h] candidate_kernel + candidate_bias)
        h' = u*h + (1 - u)*c

    Args:
        num_units: Units H.
        cell_size: The old name of `num_units`; one of the two is required.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default `gru_cell`.
        kwargs: `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `gates_kernel` `[I + H, 2H]` (reset, update), `gates_bias`
        `[2H]` (starts at one), `candidate_kernel` `[I + H, H]`, `candidate_bias` `[H]`.
    Raises:
        ArgumentError: both sizes or neither; a dtype that weights cannot have.
    Source: Cho et al. 2014; TF1 `tf.contrib.rnn.GRUBlockCellV2`.
    """

    spec = GRUBlockCore.spec  # below this class, what changes a step needs its own
