"""Layers with masks of each gate's own, and their oracle: factors of the weights' rows, of each row and step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from cellweave.ops.common import BoundMask, LayerCall
from cellweave.specs import GRUSpec, MaskSpec
from helpers.layer_cases import VARIANTS, LayerCase, LayerData, backend_of, context_of, make_call, make_data
from helpers.tolerances import LAYER_GRADIENT, LAYER_VALUE, assert_close
from oracles.activations import Array
from oracles.composition import flatten, rebuild
from oracles.layer import mask_values

NAMES = (
    "rnn", "rnn-split", "gru", "gru-split", "gru-after", "lstm", "lstm-split", "coupled-all", "coupled-norm",
    "norm-all", "rnn-norm", "gru-norm", "gru-norm-after",
)  # fmt: skip
T, B, H = 4, 3, 6
#: Drawn at every step, a row for each batch row.
KINDS = {"shared": (False, False), "rows": (False, True), "steps": (True, True)}
KEEP = {"input": 0.6, "h": 0.7}
Factors = dict[str, Array]  # by place, [T, B, G, N]


def gate_masks(
    spec: Any, depth: int, per_step: bool, per_row: bool, dtype: str
) -> tuple[tuple[BoundMask, ...], Factors]:
    bound, factors = [], {}
    for number, (place, width) in enumerate((("input", depth), ("h", spec.output_size))):
        rows, columns = B if per_row else 1, spec.gate_count * width
        stream, stride = (11 + number, 5, 2**64 - 3), 999 if per_step else 0
        mask = MaskSpec(place, per_step, per_row, per_gate=True)  # type: ignore[arg-type]
        bound.append(BoundMask(mask, KEEP[place], True, *stream, stride))
        values = mask_values(
            T if per_step else 1, (rows, columns), dtype, KEEP[place], by_floor=True, stream=stream, stride=stride
        )
        shape = (T, B, spec.gate_count, width)
        factors[place] = np.broadcast_to(values, (T, B, columns)).reshape(shape)
    return tuple(bound), factors


def _blocks(spec: Any, depth: int) -> list[tuple[str, int, str, int, int]]:
    """Weight, first row, place, gate and first column of each block that a mask multiplies."""
    n = spec.units
    if isinstance(spec, GRUSpec) and spec.joined_kernel:
        places = [("gates/kernel", 0, 0), ("gates/kernel", 1, n), ("candidate/kernel", 2, 0)]
        return [
            (name, first, place, gate, column)
            for name, gate, column in places
            for first, place in ((0, "input"), (depth, "h"))
        ]
    order = getattr(spec, "gate_order", "a")
    counted = [gate for gate in ("ruc" if isinstance(spec, GRUSpec) else "ijfoa") if gate in order]
    recurrent = ("kernel", depth) if spec.joined_kernel else ("recurrent_kernel", 0)
    return [
        (name, first, place, counted.index(gate), column * n)
        for column, gate in enumerate(order)
        for name, first, place in (("kernel", 0, "input"), (*recurrent, "h"))
    ]


def _oracle(data: LayerData, depth: int, factors: Factors, reverse: bool) -> tuple[Any, dict[str, Array]]:
    """Outputs, last state and gradients, each row and step with weights of its own."""
    oracle, spec = data.oracle, data.run.cell
    blocks = _blocks(spec, depth)
    ends = [T] * B if data.lengths is None else data.lengths
    out, last = np.zeros((T, B, oracle.output_size)), [leaf.copy() for leaf in flatten(data.state)]
    d_x, d_state = np.zeros_like(data.x), [np.zeros_like(leaf) for leaf in flatten(data.state)]
    grads = {name: np.zeros_like(weight) for name, weight in data.weights.items()}
    for b in range(B):
        order = [ends[b] - 1 - s if reverse else s for s in range(ends[b])]
        state, steps = _packed(data.state, [leaf[b : b + 1] for leaf in flatten(data.state)]), []
        for s, m in enumerate(order):
            whole = {name: np.ones_like(weight) for name, weight in data.weights.items()}
            for name, first, place, gate, column in blocks:
                rows = factors[place][s, b, gate]
                whole[name][first : first + len(rows), column : column + spec.units] *= rows[:, None]
            oracle.set_weights({name: weight * whole[name] for name, weight in data.weights.items()})
            out[m, b], state, cache = oracle.forward(data.x[m, b : b + 1], state)
            steps.append((m, whole, cache))
        d = _packed(data.state, [leaf[b : b + 1] for leaf in flatten(data.d_state)])
        for leaf, value in zip(last, flatten(state), strict=True):
            leaf[b] = value
        for m, whole, cache in reversed(steps):
            oracle.set_weights(data.weights)  # which forgets the gradients
            d_x[m, b], d = oracle.backward(cache, data.d_out[m, b : b + 1], d)
            for name, factor in whole.items():
                grads[name] += oracle.grads[name] * factor
        for leaf, value in zip(d_state, flatten(d), strict=True):
            leaf[b] = value
    return (out, last), {"x": d_x, **{f"state{k}": leaf for k, leaf in enumerate(d_state)}, **grads}


def _packed(like: Any, leaves: list[Array]) -> Any:
    return rebuild(like, leaves) if isinstance(like, tuple | list) else leaves[0]


def gate_case(name: str, dtype: str, *, reverse: bool) -> LayerCase:
    variant = next(variant for variant in VARIANTS if variant.name == name)
    return LayerCase(variant, T, B, H, lengths="ragged" if reverse else "full", reverse=reverse, dtype=dtype)


def _call(case: LayerCase, data: LayerData, masks: tuple[BoundMask, ...]) -> LayerCall:
    run = dataclasses.replace(case.run(), masks=tuple(mask.spec for mask in masks))
    return dataclasses.replace(make_call(case, data), spec=run, masks=masks)


def gate_call(name: str, kind: str) -> LayerCall:
    """A call in float32."""
    case = gate_case(name, "float32", reverse=False)
    data = make_data(case)
    return _call(case, data, gate_masks(data.run.cell, case.D, *KINDS[kind], "float32")[0])


def check_gate_masks(name: str, kind: str, backend: str, dtype: str, *, reverse: bool) -> None:
    """Fail unless a backend gives the oracle's outputs, last state and gradients."""
    case = gate_case(name, dtype, reverse=reverse)
    data = make_data(case)
    masks, factors = gate_masks(data.run.cell, case.D, *KINDS[kind], dtype)
    call = _call(case, data, masks)
    assert backend_of(call.spec, backend).refuses(call.spec, context_of(case)) is None
    (out, last), expected = _oracle(data, case.D, factors, reverse)
    got, got_last, _ = backend_of(call.spec, backend).run(call)
    state = list(call.state)
    upstream = [torch.tensor(value, dtype=got.dtype) for value in flatten(data.d_state)]
    if isinstance(data.state, list):  # Keras keeps h before c
        got_last, state = tuple(reversed(got_last)), state[::-1]
    assert_close("out", got, out, LAYER_VALUE[dtype])
    for leaf, wanted in zip(got_last, last, strict=True):
        assert_close("state", leaf, wanted, LAYER_VALUE[dtype])
    d_out = torch.tensor(data.d_out, dtype=got.dtype)
    found = torch.autograd.grad([got, *got_last], [call.x, *state, *call.weights.values()], [d_out, *upstream])
    names = ["x", *(f"state{k}" for k in range(len(state))), *call.weights]
    for what, grad in zip(names, found, strict=True):
        assert_close(f"d {what}", grad, expected[what], 2 * LAYER_GRADIENT[dtype])
