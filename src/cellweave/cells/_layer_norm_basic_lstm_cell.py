"""LayerNormBasicLSTMCell."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from cellweave._checks import check_number, check_positive_int
from cellweave._types import Nest
from cellweave.cells._candidate_dropout import CandidateDropout
from cellweave.cells._registry import register
from cellweave.cells._spec_cell import SpecCell, pair_of
from cellweave.ops.common import activation_name, as_activation
from cellweave.ops.lstm import lstm_step
from cellweave.specs import LSTMSpec, LSTMStateTuple, SteppedSpec


@register
class LayerNormBasicLSTMCell(SpecCell):
    """The long short-term memory with layer normalization and recurrent dropout.

        i, j, f, o = split([x, h] kernel);  each normalized: n(z) = (z - mean)/sqrt(variance + 1e-12)*gamma + beta
        c' = n(c*sigmoid(f + forget_bias) + sigmoid(i)*drop(act(j)));  h' = act(c')*sigmoid(o)

    Mean and variance are a row's own. The state holds the normalized c'. Without `layer_norm` there is a bias, which
    starts like a kernel, not at zero: as in TF1. Dropout acts at every step, until `eval()`.

    Args:
        num_units: Units H.
        forget_bias: Added to the forget gate when run, never stored; default 1.
        input_size: Accepted for TF1 callers, without effect.
        activation: A function or its name; default tanh.
        layer_norm: Normalize; else a bias is added.
        norm_gain, norm_shift: Starting values of every gamma and beta.
        dropout_keep_prob: Probability of keeping an element of act(j); a number, or a tensor, which always drops.
        dropout_prob_seed: Seed of its random op.
        reuse: Share existing variables: True, or AUTO_REUSE to create or share. Needs a store.
        kwargs: `name`, `dtype`, `trainable`.
    Shapes: inputs `[B, I]`, output `[B, H]`, `kernel` `[I + H, 4H]` in order i, j, f, o; `input_gamma`, `input_beta`,
        and the same of `transform`, `forget`, `output`, `state`, `[H]`; or `bias` `[4H]`.
    Raises:
        ArgumentError: a size that is not positive, an unknown activation, a probability outside [0, 1].
    Numerics: float16 adds 1e-3 to the variance.
    Source: Ba et al. 2016; Semeniuta et al. 2016; TF1 `tf.contrib.rnn.LayerNormBasicLSTMCell`.
    """

    _call_forgets_names = True  # a plain `RNNCell` in TF1
    _spec: LSTMSpec

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        input_size: Any = None,
        activation: Any = "tanh",
        layer_norm: bool = True,
        norm_gain: float = 1.0,
        norm_shift: float = 0.0,
        dropout_keep_prob: Any = 1.0,
        dropout_prob_seed: int | None = None,
        reuse: Any = None,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        spec = LSTMSpec(
            check_positive_int(f"{where} num_units", num_units),
            as_activation(activation, where),
            forget_bias=check_number("LayerNormBasicLSTMCell forget_bias", forget_bias),
            use_bias=not layer_norm,
            layer_norm=bool(layer_norm),
            norm_gain=check_number("LayerNormBasicLSTMCell norm_gain", norm_gain),
            norm_shift=check_number("LayerNormBasicLSTMCell norm_shift", norm_shift),
        )
        super().__init__(spec, _reuse=reuse, **kwargs)
        self._dropout = CandidateDropout(dropout_keep_prob, dropout_prob_seed, where)

    def spec(self) -> LSTMSpec | SteppedSpec:
        """What a step computes, as data; with dropout, why it runs step by step."""
        return SteppedSpec("its dropout acts inside a step") if self._drops() else self._spec

    def _drops(self) -> bool:
        return self._dropout.drops and (self.training or isinstance(self._dropout.keep, torch.Tensor))

    def _make_weights(self, depth: int) -> None:
        for weight in self._spec.weights(depth):
            self._add(dataclasses.replace(weight, fill=None) if weight.kind == "bias" else weight)

    def call(self, inputs: torch.Tensor, state: Nest) -> tuple[torch.Tensor, LSTMStateTuple]:
        """One step.

        Args:
            inputs: `[B, I]`.
            state: `(c, h)`, each `[B, H]`.
        Returns:
            h' `[B, H]` and the new state.
        """
        c, h = pair_of(state, self.where)
        self._checked(inputs, **{"state c": (c, self._spec.units), "state h": (h, self._spec.units)})
        drop = (lambda j: self._dropout(j, self)) if self._drops() else None
        c, h = lstm_step(inputs, c, h, self.named_weights(), spec=self._spec, on_candidate=drop)
        return h, LSTMStateTuple(c, h)

    def get_extra_state(self) -> torch.Tensor:
        """Seeds and positions of the dropout's streams, int64 `[streams, 8]`."""
        return self._dropout.table.to_tensor()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Continue the streams from what `get_extra_state` returned."""
        self._dropout.table.load_tensor(state.cpu(), self.where)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_units": self._spec.units,
            "forget_bias": self._spec.forget_bias,
            "activation": activation_name(self._spec.activation),
            "layer_norm": self._spec.layer_norm,
            "norm_gain": self._spec.norm_gain,
            "norm_shift": self._spec.norm_shift,
            "dropout_keep_prob": self._dropout.keep,
            "dropout_prob_seed": self._dropout.seed,
            "reuse": self._reuse,
        }
