"""The gated recurrent unit on the native core."""

from __future__ import annotations

import functools
from typing import cast

from cellweave.ops.common._library import GRU_AFTER, GRU_BEFORE
from cellweave.ops.common._native_backend import native_backend
from cellweave.ops.common._native_layout import (
    GateWeight,
    InputProduct,
    NativeLayout,
    RecurrentProduct,
    activation_code,
    norm_numbers,
)
from cellweave.ops.gru._reference import gru_sequence
from cellweave.specs import CellSpec, GRUSpec, gru_norms

#: Block of the gate buffer that holds the candidate's recurrent product, where the reset comes after it.
_FROM_STATE = 3


@functools.lru_cache(maxsize=256)
def gru_layout(spec: CellSpec) -> NativeLayout:
    """Gates in one buffer `[T * B, 3H]`, or `[T * B, 4H]` where the reset comes after the product."""
    spec = cast(GRUSpec, spec)
    return _joined(spec) if spec.joined_kernel else _split(spec)


def _names(spec: GRUSpec) -> tuple[str, ...]:
    return tuple(weight.name for weight in spec.weights(1))


def _joined(spec: GRUSpec) -> NativeLayout:
    return NativeLayout(
        op=GRU_BEFORE,
        names=_names(spec),
        units=spec.units,
        width=spec.units,
        columns=3,
        forward_columns=3,
        gates=(0, 1, 2),
        gate_weights=(GateWeight(0, True, 0, 2), GateWeight(0, True, 1, 2), GateWeight(2, True, 0, 1)),
        inputs=(InputProduct(0, 1, 0, 2), InputProduct(2, 3, 2, 3)),
        recurrent=(RecurrentProduct(0, True, 0, 0, 2), RecurrentProduct(2, True, 0, 2, 3, reset=True)),
        activation=activation_code(spec.activation),
        gate_activation=activation_code(spec.recurrent_activation),
        norms=norm_numbers(_names(spec), gru_norms(spec)),
        norm_epsilon=spec.norm_epsilon,
    )


def _split(spec: GRUSpec) -> NativeLayout:
    order = spec.gate_order
    columns = {gate: order.index(gate) for gate in "ruc"}
    gates = (columns["r"], columns["u"], columns["c"])
    return NativeLayout(
        op=GRU_AFTER if spec.reset_after else GRU_BEFORE,
        names=_names(spec),
        units=spec.units,
        width=spec.units,
        columns=4 if spec.reset_after else 3,
        forward_columns=3,
        gates=(*gates, _FROM_STATE) if spec.reset_after else gates,
        gate_weights=tuple(GateWeight(1, False, column, 3) for column in gates),
        inputs=(InputProduct(0, 2 if spec.use_bias else None, 0, 3),),
        recurrent=_recurrent_products(spec),
        activation=activation_code(spec.activation),
        gate_activation=activation_code(spec.recurrent_activation),
        row_biases=2 if spec.use_bias and spec.reset_after else None,
        transposed=spec.transposed,
        norms=norm_numbers(_names(spec), gru_norms(spec)),
        norm_epsilon=spec.norm_epsilon,
    )


def _recurrent_products(spec: GRUSpec) -> tuple[RecurrentProduct, ...]:
    """The gates r and u together where they are neighbours, the candidate by itself."""
    found: list[RecurrentProduct] = []
    for column, gate in enumerate(spec.gate_order):
        if gate == "c":
            block = _FROM_STATE if spec.reset_after else column
            found.append(RecurrentProduct(1, False, column, block, block + 1, reset=not spec.reset_after))
        elif found and found[-1].last == column and spec.gate_order[column - 1] != "c":
            found[-1] = RecurrentProduct(1, False, found[-1].column, found[-1].first, column + 1)
        else:
            found.append(RecurrentProduct(1, False, column, column, column + 1))
    return tuple(found)


NATIVE = native_backend("gru", gru_layout, gru_sequence)
