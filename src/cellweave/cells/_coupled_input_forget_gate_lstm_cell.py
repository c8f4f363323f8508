"""CoupledInputForgetGateLSTMCell."""

from __future__ import annotations

from typing import Any

import torch

from cellweave._checks import check_number, check_positive_int
from cellweave._errors import ArgumentError
from cellweave.cells._lstm_core import LSTMCore
from cellweave.cells._registry import register
from cellweave.initializers import deserialize, serialize
from cellweave.ops.common import activation_name, as_activation
from cellweave.specs import LSTMSpec, WeightSpec

#: Matrices that TF1 keeps in numbered variables; `kernel#1` is the second one.
_IN_PIECES = {"kernel": "W", "projection/kernel": "W_P"}


@register
class CoupledInputForgetGateLSTMCell(LSTMCore):
    """The long short-term memory whose input gate is one minus its forget gate.

        j, f, o = split([x, h] W + B);  f* = sigmoid(f + forget_bias + W_F*c)
        c' = f**c + (1 - f*)*act(j);  h' = sigmoid(o + W_O*c')*act(c'), times W_P, clipped to ±proj_clip

    With `layer_norm`, j, f, o and c' are normalized as in `LayerNormBasicLSTMCell`, and no bias is added, though the
    variable `B` exists.

    Args:
        num_units: Units H.
        use_peepholes: Diagonal weights from c to the gates f and o; o sees the new c.
        initializer: Kept in the config and never used, as in TF1: weights start by the scope's initializer, else Glorot
            uniform.
        num_proj: Width P of the projected output; None: no projection.
        proj_clip: Bound on the projected output; ignored without a projection.
        num_unit_shards, num_proj_shards: How many variables `W_0`, `W_1`, ... and `W_P_0`, ... hold the matrices.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        state_is_tuple: State as `LSTMStateTuple(c, h)`, else one tensor `[B, H + P]` with c first.
        activation: A function or its name; default tanh.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        layer_norm: Normalize.
        norm_gain, norm_shift: Starting values of every gamma and beta.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, output `[B, P]` (P = H without projection), `W_0` `[I + P, 3H]` in order j, f, o, `B`
        `[3H]`, `W_F_diag`, `W_O_diag` `[H]`, `W_P_0` `[H, P]`; `transform_gamma` and so on `[H]`.
    Raises:
        ArgumentError: a size that is not positive, a negative clip, more shards than rows, an unknown activation.
    Source: Greff et al. 2015; TF1 `tf.contrib.rnn.CoupledInputForgetGateLSTMCell`.
    """

    spec = LSTMCore.spec  # below this class, what changes a step needs its own
    _call_forgets_names = True  # a plain `RNNCell` in TF1
    _tf_names = {"bias": "B", "w_f_diag": "W_F_diag", "w_o_diag": "W_O_diag"}  # noqa: RUF012  # read only

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int = 1,
        num_proj_shards: int = 1,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = "tanh",
        reuse: Any = None,
        layer_norm: bool = False,
        norm_gain: float = 1.0,
        norm_shift: float = 0.0,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        if proj_clip is not None and not proj_clip >= 0:
            raise ArgumentError(f"{where} proj_clip: expected a bound >= 0 or None, got {proj_clip!r}.")
        spec = LSTMSpec(
            check_positive_int(f"{where} num_units", num_units),
            as_activation(activation, where),
            gate_order="jfo",
            forget_bias=check_number("CoupledInputForgetGateLSTMCell forget_bias", forget_bias),
            peepholes=bool(use_peepholes),
            projection=None if num_proj is None else check_positive_int(f"{where} num_proj", num_proj),
            proj_clip=None
            if proj_clip is None
            else check_number("CoupledInputForgetGateLSTMCell proj_clip", proj_clip),
            use_bias=not layer_norm,
            unit_pieces=check_positive_int(f"{where} num_unit_shards", num_unit_shards),
            proj_pieces=check_positive_int(f"{where} num_proj_shards", num_proj_shards),
            coupled=True,
            layer_norm=bool(layer_norm),
            norm_gain=check_number("CoupledInputForgetGateLSTMCell norm_gain", norm_gain),
            norm_shift=check_number("CoupledInputForgetGateLSTMCell norm_shift", norm_shift),
        )
        super().__init__(spec, state_is_tuple, _reuse=reuse, **kwargs)
        self._initializer = deserialize(initializer, where)

    def _make_weights(self, depth: int) -> None:
        for weight in self._spec.weights(depth):
            for piece in _pieces(weight, self.where):
                self._add(piece)
            if weight.name == "kernel" and not self._spec.use_bias:
                self._add(WeightSpec("bias", (3 * self._spec.units,), "bias", 0.0))

    def _tf_name(self, name: str) -> str:
        stem, _, number = name.rpartition("#")
        return f"{_IN_PIECES[stem]}_{number}" if stem else super()._tf_name(name)

    def _attribute_of(self, name: str) -> str:
        return super()._attribute_of(f"{name}#0" if name in _IN_PIECES else name)

    def _weight_attributes(self) -> tuple[str, ...]:
        return ()  # how many variables there are, the rows of the inputs decide too

    def _parts_of(self, name: str) -> list[torch.Tensor]:
        pieces = {"kernel": self._spec.unit_pieces, "projection/kernel": self._spec.proj_pieces}.get(name)
        if pieces is None:
            return [getattr(self, self._attribute_of(name))]
        return [getattr(self, self._tf_name(f"{name}#{number}")) for number in range(pieces)]

    def _depth(self) -> int:
        return sum(part.shape[0] for part in self._parts_of("kernel")) - self._spec.output_size

    def named_weights(self) -> dict[str, torch.Tensor]:
        """The weights by the names of the spec; a matrix in several variables comes as one."""
        found = {}
        for name, _ in self._weight_names:
            parts = self._parts_of(name)
            found[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return found

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "use_peepholes": self._spec.peepholes,
            "initializer": serialize(self._initializer),
            "num_proj": self._spec.projection,
            "proj_clip": self._spec.proj_clip,
            "num_unit_shards": self._spec.unit_pieces,
            "num_proj_shards": self._spec.proj_pieces,
            "forget_bias": self._spec.forget_bias,
            "state_is_tuple": self._state_is_tuple,
            "activation": activation_name(self._spec.activation),
            "reuse": self._reuse,
            "layer_norm": self._spec.layer_norm,
            "norm_gain": self._spec.norm_gain,
            "norm_shift": self._spec.norm_shift,
        }


def _pieces(weight: WeightSpec, where: str) -> list[WeightSpec]:
    """The variables that a weight is kept in: rows as evenly as can be, the first ones the longer ones."""
    if weight.name not in _IN_PIECES:
        return [weight]
    count, rows = weight.pieces, weight.shape[0]
    if count > rows:
        raise ArgumentError(f"{where}: expected at most {rows} shards of a matrix of {rows} rows, got {count}.")
    sizes = [rows // count + (number < rows % count) for number in range(count)]
    return [
        WeightSpec(f"{weight.name}#{number}", (size, weight.shape[1]), weight.kind) for number, size in enumerate(sizes)
    ]
