"""The plain recurrent network on the native core."""

from __future__ import annotations

import functools
from typing import cast

from cellweave.ops.common._library import RNN
from cellweave.ops.common._native_backend import native_backend
from cellweave.ops.common._native_layout import (
    GateWeight,
    InputProduct,
    NativeLayout,
    RecurrentProduct,
    activation_code,
)
from cellweave.ops.rnn._reference import rnn_sequence
from cellweave.specs import CellSpec, RNNSpec


@functools.lru_cache(maxsize=256)
def rnn_layout(spec: CellSpec) -> NativeLayout:
    """One gate: the new state before its activation."""
    spec = cast(RNNSpec, spec)
    names = tuple(weight.name for weight in spec.weights(1))
    recurrent = names.index("kernel" if spec.joined_kernel else "recurrent_kernel")
    code = activation_code(spec.activation)
    return NativeLayout(
        op=RNN,
        names=names,
        units=spec.units,
        width=spec.units,
        columns=1,
        forward_columns=1,
        gates=(0,),
        gate_weights=(GateWeight(recurrent, spec.joined_kernel, 0, 1),),
        inputs=(InputProduct(0, names.index("bias") if spec.use_bias else None, 0, 1),),
        recurrent=(RecurrentProduct(recurrent, spec.joined_kernel, 0, 0, 1),),
        activation=code,
        gate_activation=code,
        transposed=spec.transposed,
    )


NATIVE = native_backend("rnn", rnn_layout, rnn_sequence)
