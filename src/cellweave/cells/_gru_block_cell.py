"""GRUBlockCell."""

from __future__ import annotations

from cellweave.cells._gru_block_core import GRUBlockCore
from cellweave.cells._registry import register


@register
class GRUBlockCell(GRUBlockCore):
    """The gated recurrent unit of TF1's block op, with the variable names that op's first cell had.

        r, u = sigmoid([x, h] w_ru + b_ru);  c = tanh([x, r*h] w_c + b_c);  h' = u*h + (1 - u)*c

    It computes what `GRUCell` does. TensorFlow deprecated it for `GRUBlockCellV2`, which differs in names only.

    Args:
        num_units: Units H.
        cell_size: The old name of `num_units`; one of the two is required.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default `gru_cell`.
        kwargs: `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, state and output `[B, H]`, `w_ru` `[I + H, 2H]` (reset, update), `b_ru` `[2H]` (starts at
        one), `w_c` `[I + H, H]`, `b_c` `[H]`.
    Raises:
        ArgumentError: both sizes or neither; a dtype that weights cannot have.
    Source: Cho et al. 2014; TF1 `tf.contrib.rnn.GRUBlockCell`.
    """

    spec = GRUBlockCore.spec  # below this class, what changes a step needs its own
    _tf_names = {  # noqa: RUF012  # read only
        "gates/kernel": "w_ru", "gates/bias": "b_ru", "candidate/kernel": "w_c", "candidate/bias": "b_c",
    }  # fmt: skip
