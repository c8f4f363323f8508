"""LSTMBlockCell."""

from __future__ import annotations

from typing import Any

from cellweave._checks import check_number, check_positive_int
from cellweave._types import DTypeLike
from cellweave.cells._lstm_core import LSTMCore
from cellweave.cells._registry import register
from cellweave.specs import LSTMSpec


@register
class LSTMBlockCell(LSTMCore):
    """The long short-term memory of TF1's block op: tanh only, no projection.

        i, j, f, o = split([x, h] kernel + bias)
        c' = c*sigmoid(f + forget_bias + w_f*c) + sigmoid(i + w_i*c)*tanh(j), clipped to ±cell_clip
        h' = sigmoid(o + w_o*c')*tanh(c')

    Two things differ from `LSTMCell`: the bound on c stops no gradient, and the peepholes are made in the order i, f,
    o.

    Args:
        num_units: Units H.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        cell_clip: Bound on c; None, 0 and negative values: none.
        use_peephole: Diagonal weights from c to the gates; the output gate sees the new, clipped c.
        dtype: Dtype of the weights; default: the first input's.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default `lstm_cell`, as that of `LSTMCell`.
    Shapes: inputs `[B, I]`, output `[B, H]`, `kernel` `[I + H, 4H]` in order i, j, f, o, `bias` `[4H]`, `w_i_diag`,
        `w_f_diag`, `w_o_diag` `[H]`.
    Raises:
        ArgumentError: a size that is not positive, or a dtype that weights cannot have.
    Source: Zaremba et al. 2014; TF1 `tf.contrib.rnn.LSTMBlockCell`.
    """

    spec = LSTMCore.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        cell_clip: float | None = None,
        use_peephole: bool = False,
        dtype: DTypeLike = None,
        reuse: Any = None,
        name: str | None = "lstm_cell",
        **kwargs: Any,
    ) -> None:
        self._cell_clip = cell_clip
        units = check_positive_int("LSTMBlockCell num_units", num_units)
        spec = block_lstm_spec(units, forget_bias, cell_clip, use_peephole)
        super().__init__(spec, True, name=name, dtype=dtype, _reuse=reuse, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "forget_bias": self._spec.forget_bias,
            "cell_clip": self._cell_clip,
            "use_peephole": self._spec.peepholes,
            "reuse": self._reuse,
        }


def block_lstm_spec(units: int, forget_bias: float, cell_clip: float | None, use_peephole: bool) -> LSTMSpec:
    """What TF1's block ops compute; a bound that is not above 0 is none."""
    bound = None if cell_clip is None else check_number("LSTMBlockCell cell_clip", cell_clip)
    return LSTMSpec(
        units,
        forget_bias=check_number("LSTMBlockCell forget_bias", forget_bias),
        peepholes=bool(use_peephole),
        cell_clip=bound if bound is not None and bound > 0 else None,
        peephole_order="ifo",
        clip_passes_gradient=True,
    )
