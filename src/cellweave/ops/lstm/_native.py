"""The LSTM on the native core."""

from __future__ import annotations

import functools
from typing import cast

from cellweave.ops.common._library import LSTM
from cellweave.ops.common._native_backend import native_backend
from cellweave.ops.common._native_layout import (
    GateWeight,
    InputProduct,
    NativeLayout,
    RecurrentProduct,
    activation_code,
)
from cellweave.ops.lstm._reference import lstm_sequence
from cellweave.specs import CellSpec, LSTMSpec


@functools.lru_cache(maxsize=256)
def lstm_layout(spec: CellSpec) -> NativeLayout:
    """Gates in one buffer `[T * B, 4H]`, in the kernel's own order."""
    spec = cast(LSTMSpec, spec)
    names = tuple(weight.name for weight in spec.weights(1))
    number = names.index
    recurrent = number("kernel" if spec.joined_kernel else "recurrent_kernel")
    gates = tuple(spec.gate_order.index(gate) for gate in "ijfo")
    return NativeLayout(
        op=LSTM,
        names=names,
        units=spec.units,
        width=spec.output_size,
        columns=4,
        forward_columns=4,
        gates=gates,
        gate_weights=tuple(GateWeight(recurrent, spec.joined_kernel, column, 4) for column in gates),
        inputs=(InputProduct(0, number("bias") if spec.use_bias else None, 0, 4),),
        recurrent=(RecurrentProduct(recurrent, spec.joined_kernel, 0, 0, 4),),
        activation=activation_code(spec.activation),
        gate_activation=activation_code(spec.recurrent_activation),
        peepholes=(number("w_f_diag"), number("w_i_diag"), number("w_o_diag")) if spec.peepholes else None,
        projection=None if spec.projection is None else number("projection/kernel"),
        forget_bias=spec.forget_bias,
        cell_clip=spec.cell_clip,
        proj_clip=spec.proj_clip,
        transposed=spec.transposed,
    )


NATIVE = native_backend("lstm", lstm_layout, lstm_sequence)
