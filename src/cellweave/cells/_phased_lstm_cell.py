"""PhasedLSTMCell."""

from __future__ import annotations

import math
from typing import Any

import torch

from cellweave import _nest
from cellweave._checks import check_matrix, check_number, check_positive_int
from cellweave._errors import ArgumentTypeError
from cellweave._types import Nest, ShapeLike
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SteppedCell, pair_of
from cellweave.initializers import Constant, RandomUniform
from cellweave.ops.phased import phased_lstm_step
from cellweave.specs import LSTMStateTuple, PhasedLSTMSpec, WeightSpec


@register
class PhasedLSTMCell(SteppedCell):
    """The long short-term memory with a rhythmic gate: each unit is updated in a part of its own period only.

        i, f = sigmoid([x, h, c] mask_gates);  j = tanh([x, h] new_input);  z = f*c + i*j
        o = sigmoid([x, h, z] output_gate);  y = tanh(z)*o;  c and z in the products only with peepholes
        p = ((time - phase) mod period)/period;  k = 2 p/ratio_on rising, then falling, then leak*p
        c' = k*z + (1 - k)*c;  h' = k*y + (1 - k)*h

    Inputs are a pair: times, which may be float64, and features. `dynamic_rnn` takes the pair of their sequences.

    Args:
        num_units: Units H.
        use_peepholes: The gates see c too.
        leak: How much passes while a unit's gate is closed; a number or a tensor.
        ratio_on: Starting share of a period in which the gate is open.
        trainable_ratio_on: Whether that share is trained.
        period_init_min, period_init_max: Bounds of the first periods, whose logarithms are uniform.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `(times [B, 1], features [B, I])`, output `[B, H]`, state `LSTMStateTuple(c, h)`, `mask_gates_kernel`
        `[I + H (+ H), 2H]` (i, f), `new_input_kernel` `[I + H, H]`, `output_gate_kernel` `[I + H (+ H), H]`, a bias of
        each, `period`, `phase`, `ratio_on` `[H]`.
    Raises:
        ArgumentError: a size that is not positive. ArgumentTypeError: inputs that are no pair.
    Numerics: p is computed in the times' dtype; large times need float64.
    Source: Neil et al. 2016; TF1 `tf.contrib.rnn.PhasedLSTMCell`.
    """

    _spec: PhasedLSTMSpec
    _call_forgets_names = True  # a plain `RNNCell` in TF1
    _stepped_because = "its inputs are times and features"
    spec = SteppedCell.spec  # below this class, what changes a step needs its own

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        leak: Any = 0.001,
        ratio_on: float = 0.1,
        trainable_ratio_on: bool = True,
        period_init_min: float = 1.0,
        period_init_max: float = 1000.0,
        reuse: Any = None,
        **kwargs: Any,
    ) -> None:
        units = check_positive_int("PhasedLSTMCell num_units", num_units)
        super().__init__(
            PhasedLSTMSpec(units, bool(use_peepholes), check_number("PhasedLSTMCell ratio_on", ratio_on)),
            _reuse=reuse,
            **kwargs,
        )
        self._leak, self._trainable_ratio_on = leak, bool(trainable_ratio_on)
        self._period_bounds = (
            check_number("PhasedLSTMCell period_init_min", period_init_min),
            check_number("PhasedLSTMCell period_init_max", period_init_max),
        )

    def build(self, input_shape: ShapeLike) -> None:
        """Make the weights for `(times, features)`, or for features `[B, I]` alone."""
        pair = _nest.is_sequence(input_shape) and len(input_shape) == 2 and _nest.is_sequence(input_shape[0])
        super().build(input_shape[1] if pair else input_shape)

    def _take_dtype(self, inputs: Any) -> list[Any]:
        return super()._take_dtype(inputs[1] if _nest.is_sequence(inputs) and len(inputs) == 2 else inputs)

    def _build_from(self, inputs: Any) -> None:
        _, features = _pair_of_inputs(inputs, self.where)
        super()._build_from(features)

    def _make_weights(self, depth: int) -> None:
        for weight in self._spec.weights(depth):
            if weight.name == "ratio_on":
                start = Constant(weight.fill)
                self.add_weight(weight.name, weight.shape, initializer=start, trainable=self._trainable_ratio_on)
            else:
                self._add(weight)

    def _initializer_of(self, weight: WeightSpec) -> Any:
        if weight.name == "period":
            low, high = (math.log(bound) for bound in self._period_bounds)
            return lambda shape, dtype: torch.exp(RandomUniform(low, high)(shape, dtype))
        if weight.name == "phase":  # anywhere in the unit's own period
            return lambda shape, dtype: RandomUniform(0.0, 1.0)(shape, dtype) * self.period.detach().cpu()
        return None

    def call(self, inputs: Nest, state: Nest) -> tuple[torch.Tensor, LSTMStateTuple]:
        """One step.

        Args:
            inputs: `(times [B, 1], features [B, I])`.
            state: `(c, h)`, each `[B, H]`.
        Returns:
            h' `[B, H]` and the new state.
        """
        time, features = _pair_of_inputs(inputs, self.where)
        c, h = pair_of(state, self.where)
        self._checked(features, **{"state c": (c, self._spec.units), "state h": (h, self._spec.units)})
        check_matrix(self.where, "times", time, 1, features.shape[0])
        weights = self.named_weights()
        c, h = phased_lstm_step(time, features, c, h, weights, leak=self._leak, peepholes=self._spec.peepholes)
        return h, LSTMStateTuple(c, h)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "use_peepholes": self._spec.peepholes,
            "leak": self._leak,
            "ratio_on": self._spec.ratio_on,
            "trainable_ratio_on": self._trainable_ratio_on,
            "period_init_min": self._period_bounds[0],
            "period_init_max": self._period_bounds[1],
            "reuse": self._reuse,
        }


def _pair_of_inputs(inputs: Nest, where: str) -> tuple[Any, Any]:
    if not _nest.is_sequence(inputs) or len(inputs) != 2:
        raise ArgumentTypeError(f"{where}: expected inputs as a pair (times, features), got {_nest.describe(inputs)}.")
    return inputs[0], inputs[1]
