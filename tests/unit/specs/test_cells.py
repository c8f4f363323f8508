"""Specs: weights of each cell as the contract's table lists them, and what is derived from the options."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cellweave._errors import ArgumentError
from cellweave.specs import GRUSpec, LSTMSpec, LSTMStateTuple, RNNSpec

D, N, P = 4, 3, 2


def _shapes(spec: Any) -> dict[str, tuple[int, ...]]:
    return {weight.name: weight.shape for weight in spec.weights(D)}


TABLE: list[tuple[Any, dict[str, tuple[int, ...]]]] = [
    (RNNSpec(N), {"kernel": (D + N, N), "bias": (N,)}),
    (RNNSpec(N, joined_kernel=False), {"kernel": (D, N), "recurrent_kernel": (N, N), "bias": (N,)}),
    (RNNSpec(N, joined_kernel=False, use_bias=False), {"kernel": (D, N), "recurrent_kernel": (N, N)}),
    (
        GRUSpec(N),
        {
            "gates/kernel": (D + N, 2 * N),
            "gates/bias": (2 * N,),
            "candidate/kernel": (D + N, N),
            "candidate/bias": (N,),
        },
    ),
    (
        GRUSpec(N, joined_kernel=False),
        {"kernel": (D, 3 * N), "recurrent_kernel": (N, 3 * N), "bias": (3 * N,)},
    ),
    (
        GRUSpec(N, joined_kernel=False, reset_after=True),
        {"kernel": (D, 3 * N), "recurrent_kernel": (N, 3 * N), "bias": (2, 3 * N)},
    ),
    (GRUSpec(N, joined_kernel=False, use_bias=False), {"kernel": (D, 3 * N), "recurrent_kernel": (N, 3 * N)}),
    (
        RNNSpec(N, joined_kernel=False, transposed=True),
        {"kernel": (N, D), "recurrent_kernel": (N, N), "bias": (N,)},
    ),
    (
        GRUSpec(N, joined_kernel=False, reset_after=True, transposed=True),
        {"kernel": (3 * N, D), "recurrent_kernel": (3 * N, N), "bias": (2, 3 * N)},
    ),
    (
        LSTMSpec(N, joined_kernel=False, projection=P, transposed=True),
        {"kernel": (4 * N, D), "recurrent_kernel": (4 * N, P), "bias": (4 * N,), "projection/kernel": (P, N)},
    ),
    (LSTMSpec(N), {"kernel": (D + N, 4 * N), "bias": (4 * N,)}),
    (
        LSTMSpec(N, peepholes=True, projection=P),
        {
            "kernel": (D + P, 4 * N),
            "bias": (4 * N,),
            "w_f_diag": (N,),
            "w_i_diag": (N,),
            "w_o_diag": (N,),
            "projection/kernel": (N, P),
        },
    ),
    (
        LSTMSpec(N, joined_kernel=False),
        {"kernel": (D, 4 * N), "recurrent_kernel": (N, 4 * N), "bias": (4 * N,)},
    ),
]


@pytest.mark.parametrize("kind", [RNNSpec, GRUSpec, LSTMSpec])
def test_transposed_needs_two_kernels(kind: Any) -> None:
    with pytest.raises(ArgumentError, match=rf"{kind.__name__}: .*joined_kernel=False.*got True"):
        kind(N, transposed=True)


@pytest.mark.parametrize("spec, shapes", TABLE, ids=lambda value: type(value).__name__)
def test_weights_in_creation_order(spec: Any, shapes: dict[str, tuple[int, ...]]) -> None:
    assert list(_shapes(spec).items()) == list(shapes.items())


@pytest.mark.parametrize("spec", [RNNSpec(N), GRUSpec(N)])
def test_sizes(spec: Any) -> None:
    assert spec.state_size == spec.output_size == N


def test_sizes_of_an_lstm() -> None:
    assert LSTMSpec(N).state_size == LSTMStateTuple(N, N) and LSTMSpec(N).output_size == N
    projected = LSTMSpec(N, projection=P)
    assert projected.state_size == LSTMStateTuple(N, P) and projected.output_size == P


def _fills(spec: Any) -> dict[str, Any]:
    return {weight.name: weight.fill for weight in spec.weights(D) if weight.kind == "bias"}


def test_starting_values_of_biases() -> None:
    assert _fills(GRUSpec(N)) == {"gates/bias": 1.0, "candidate/bias": 0.0}
    assert _fills(RNNSpec(N)) == {"bias": 0.0}
    assert _fills(LSTMSpec(N)) == {"bias": (0.0, 0.0, 0.0, 0.0)}
    assert _fills(LSTMSpec(N, gate_order="ifjo", unit_forget_bias=True)) == {"bias": (0.0, 1.0, 0.0, 0.0)}
    assert _fills(LSTMSpec(N, unit_forget_bias=True)) == {"bias": (0.0, 0.0, 1.0, 0.0)}


def test_only_biases_have_a_fixed_start() -> None:
    for spec, _ in TABLE:
        assert all((weight.fill is None) == (weight.kind != "bias") for weight in spec.weights(D))


def test_slices_of_a_checkpoint() -> None:
    spec = LSTMSpec(N, peepholes=True, projection=P, unit_pieces=3, proj_pieces=2)
    pieces = {weight.name: weight.pieces for weight in spec.weights(D)}
    assert pieces == {"kernel": 3, "bias": 1, "w_f_diag": 1, "w_i_diag": 1, "w_o_diag": 1, "projection/kernel": 2}


def test_specs_are_values() -> None:
    assert LSTMSpec(N, peepholes=True) == LSTMSpec(N, peepholes=True) != LSTMSpec(N)
    assert len({GRUSpec(N), GRUSpec(N), GRUSpec(N + 1)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRUSpec(N).units = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: LSTMSpec(N, coupled=True), r"LSTMSpec: expected gate_order with each of f, j, o once, got 'ijfo'"),
        (
            lambda: LSTMSpec(N, gate_order="jfo"),
            "LSTMSpec: expected gate_order with each of f, i, j, o once, got 'jfo'",
        ),
        (lambda: LSTMSpec(N, gate_order="ifgo"), "LSTMSpec: expected gate_order with each of"),
        (lambda: LSTMSpec(N, peepholes=True, peephole_order="fi"), "expected peephole_order with each of f, i, o once"),
        (
            lambda: GRUSpec(N, gate_order="rzn", joined_kernel=False),
            "GRUSpec: expected gate_order with each of r, u, c",
        ),
        (lambda: GRUSpec(N, use_bias=False), "GRUSpec: expected use_bias=True with joined_kernel=True, got False"),
        (lambda: GRUSpec(N, gate_order="urc"), "GRUSpec: expected gate_order 'ruc' with joined_kernel=True, got 'urc'"),
    ],
)
def test_what_does_not_go_together(make: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        make()
