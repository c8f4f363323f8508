"""LSTMCell."""

from __future__ import annotations

from typing import Any

from cellweave._checks import check_flag, check_number, check_positive_int
from cellweave._errors import ArgumentError
from cellweave._types import DTypeLike
from cellweave.cells._lstm_core import LSTMCore
from cellweave.cells._registry import register
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.specs import LSTMSpec, WeightSpec


@register
class LSTMCell(LSTMCore):
    """The long short-term memory with peepholes, clipping and projection.

        i, j, f, o = split([x, h] kernel + bias)
        c' = sigmoid(f + forget_bias + w_f*c)*c + sigmoid(i + w_i*c)*act(j), clipped to ±cell_clip
        h' = sigmoid(o + w_o*c')*act(c'), times projection_kernel, clipped to ±proj_clip

    Args:
        num_units: Units H.
        use_peepholes: Diagonal weights from c to the gates; the output gate sees the new, clipped c.
        cell_clip: Bound on c, 0 included; None: none.
        initializer: Of kernel, peepholes and projection; default: the scope's, else Glorot uniform.
        num_proj: Width P of the projected output; None: no projection.
        proj_clip: Bound on the projected output; ignored without a projection.
        num_unit_shards, num_proj_shards: Slices of `kernel`, `projection_kernel` in a TF1 checkpoint; no other effect.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        state_is_tuple: State as `LSTMStateTuple(c, h)`, else one tensor `[B, H + P]` with c first.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        name: Name of the cell and its scope; default: scope `lstm_cell`, name `lstm_cell_1` and so on.
        dtype: Dtype of the weights; default: the first input's.
    Shapes: inputs `[B, I]`, output `[B, P]` (P = H without projection), `kernel` `[I + P, 4H]` in order i, j, f, o,
        `bias` `[4H]`, `w_f_diag`, `w_i_diag`, `w_o_diag` `[H]`, `projection_kernel` `[H, P]`.
    Raises:
        ArgumentError: a size that is not positive, a negative clip, an unknown activation, a dtype weights cannot have.
        ArgumentTypeError: a size or a number that is none, `use_peepholes` that is a size.
    Source: Hochreiter & Schmidhuber 1997; Gers et al. 2002; Sak et al. 2014; TF1 `tf.nn.rnn_cell.LSTMCell`.
    """

    spec = LSTMCore.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int | None = None,
        num_proj_shards: int | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: DTypeLike = None,
        **kwargs: Any,
    ) -> None:
        spec = LSTMSpec(
            check_positive_int("LSTMCell num_units", num_units),
            as_activation(activation, "LSTMCell"),
            forget_bias=check_number("LSTMCell forget_bias", forget_bias),
            peepholes=check_flag("LSTMCell use_peepholes", use_peepholes),
            cell_clip=_bound("cell_clip", cell_clip),
            projection=None if num_proj is None else check_positive_int("LSTMCell num_proj", num_proj),
            proj_clip=_bound("proj_clip", proj_clip),
            unit_pieces=_pieces("num_unit_shards", num_unit_shards),
            proj_pieces=_pieces("num_proj_shards", num_proj_shards),
        )
        super().__init__(spec, state_is_tuple, name=name, dtype=dtype, _reuse=reuse, **kwargs)
        self._initializer = deserialize(initializer, "LSTMCell")
        self._shards = (num_unit_shards, num_proj_shards)

    def _initializer_of(self, weight: WeightSpec) -> Any:
        return None if weight.kind == "bias" else self._initializer

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "use_peepholes": self._spec.peepholes,
            "cell_clip": self._spec.cell_clip,
            "initializer": serialize(self._initializer),
            "num_proj": self._spec.projection,
            "proj_clip": self._spec.proj_clip,
            "num_unit_shards": self._shards[0],
            "num_proj_shards": self._shards[1],
            "forget_bias": self._spec.forget_bias,
            "state_is_tuple": self._state_is_tuple,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
        }


def _bound(what: str, value: Any) -> float | None:
    if value is None:
        return None
    bound = check_number(f"LSTMCell {what}", value)
    if not bound >= 0:
        raise ArgumentError(f"LSTMCell {what}: expected a bound >= 0 or None, got {value!r}.")
    return bound


def _pieces(what: str, value: int | None) -> int:
    return 1 if value is None else check_positive_int(f"LSTMCell {what}", value)
