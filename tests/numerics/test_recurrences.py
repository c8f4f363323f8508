"""`dynamic_rnn` over every cell against the NumPy oracle: outputs, final states and all gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave.ops.common._library import missing_reason
from helpers import nest
from helpers.recurrence_cases import (
    VARIANTS,
    RecurrenceCase,
    RecurrenceData,
    laid_out,
    library_state,
    make_cell,
    make_data,
    recurrence_cases,
)
from helpers.tolerances import REFERENCE_GRADIENT, REFERENCE_VALUE, assert_close, assert_no_worse
from oracles.composition import flatten
from oracles.unroll import unroll, unroll_backward

BACKENDS = ("reference", "native")
Results = dict[str, Any]

pytestmark = pytest.mark.usefixtures("nan_poison")


def _needs(backend: str) -> None:
    reason = missing_reason()
    if backend == "native" and reason is not None:
        pytest.skip(f"native: {reason}")


def _from_oracle(data: RecurrenceData) -> tuple[Results, Results]:
    out, final, caches = unroll(data.oracle, data.x, data.state, data.lengths)
    d_x, d_state = unroll_backward(data.oracle, data.x, caches, data.d_out, data.d_state)
    values = {"out": out, **{f"final{k}": leaf for k, leaf in enumerate(flatten(final))}}
    grads = {"x": d_x, **{f"state{k}": leaf for k, leaf in enumerate(flatten(d_state))}, **data.oracle.grads}
    return values, grads


def _from_library(case: RecurrenceCase, data: RecurrenceData, backend: str) -> tuple[Results, Results]:
    dtype, time_major = getattr(torch, case.dtype), case.layout == "timemajor"
    cell = make_cell(case, data.weights)
    x = laid_out(data.x if time_major else data.x.swapaxes(0, 1), case.layout, dtype).requires_grad_()
    state, leaves = library_state(data.state, cell, case.layout, dtype)
    with cw.use_backend(backend):
        out, final = cw.dynamic_rnn(cell, x, sequence_length=data.lengths, initial_state=state, time_major=time_major)
    wanted = torch.tensor(data.d_out if time_major else data.d_out.swapaxes(0, 1), dtype=dtype)
    loss = (out * wanted).sum()
    for leaf, upstream in zip(nest.flatten(final), flatten(data.d_state), strict=True):
        loss = loss + (leaf * torch.tensor(upstream, dtype=dtype)).sum()
    sources = [x, *leaves, *cell.weights]
    found = torch.autograd.grad(loss, sources, allow_unused=True)
    grads = [torch.zeros_like(s) if g is None else g for s, g in zip(sources, found, strict=True)]
    if not time_major:
        out, grads[0] = out.transpose(0, 1), grads[0].transpose(0, 1)
    values = {"out": out, **{f"final{k}": leaf for k, leaf in enumerate(nest.flatten(final))}}
    names = ["x", *(f"state{k}" for k in range(len(leaves))), *data.weights]
    return values, dict(zip(names, grads, strict=True))


@functools.lru_cache(maxsize=2)
def _expected(case: RecurrenceCase) -> tuple[RecurrenceData, tuple[Results, Results], tuple[Results, Results]]:
    data = make_data(case)
    return data, _from_oracle(data), _from_library(case, data, "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", recurrence_cases(), ids=lambda case: case.id)
def test_against_the_oracle(case: RecurrenceCase, backend: str) -> None:
    _needs(backend)
    data, expected, reference = _expected(case)
    got = reference if backend == "reference" else _from_library(case, data, backend)
    bounds = (REFERENCE_VALUE[case.dtype], REFERENCE_GRADIENT[case.dtype])
    for kind, bound, mine, base, wanted in zip(("", "d "), bounds, got, reference, expected, strict=True):
        assert mine.keys() == wanted.keys()
        for name in wanted:
            assert_close(kind + name, base[name], wanted[name], bound)
            terms = case.T * case.B if name in data.weights else 1
            assert_no_worse(kind + name, mine[name], base[name], wanted[name], case.dtype, terms)


class _Unroll(torch.nn.Module):
    def __init__(self, cell: Any, pack: Callable[..., Any], lengths: list[int]) -> None:
        super().__init__()
        self.cell, self.pack, self.lengths = cell, pack, lengths

    def forward(self, x: torch.Tensor, *leaves: torch.Tensor) -> Any:
        out, state = cw.dynamic_rnn(self.cell, x, sequence_length=self.lengths, initial_state=self.pack(*leaves))
        return (out, *nest.flatten(state))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_gradcheck(variant: Any, backend: str) -> None:
    _needs(backend)
    case = RecurrenceCase(variant, 3, 2, 2, "ragged", "plain", "float64")
    data = make_data(case)
    cell = make_cell(case, data.weights)
    _, leaves = library_state(data.state, cell, "plain", torch.float64)
    whole = isinstance(cell.state_size, cw.LSTMStateTuple)
    module = _Unroll(cell, cw.LSTMStateTuple if whole else lambda leaf: leaf, [3, 1])
    x = torch.tensor(data.x.swapaxes(0, 1)).requires_grad_()
    names = [name for name, _ in module.named_parameters()]

    def run(x: torch.Tensor, *rest: torch.Tensor) -> Any:
        state, weights = rest[: len(leaves)], rest[len(leaves) :]
        return torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (x, *state))

    with cw.use_backend(backend):
        torch.autograd.gradcheck(run, (x, *leaves, *(p for _, p in module.named_parameters())), fast_mode=True)


def test_table_covers_what_it_must() -> None:
    cases = recurrence_cases()
    assert {c.T for c in cases} == {0, 1, 2, 7, 65} and {c.B for c in cases} == {1, 3, 32}
    assert {c.H for c in cases} == {1, 7, 8, 9, 63, 64, 65}
    for variant in VARIANTS:
        mine = [c for c in cases if c.variant is variant]
        assert {c.lengths for c in mine} == {"full", "ragged"}
        assert {c.layout for c in mine} == {"plain", "strided", "offset", "timemajor"}
    ragged = [make_data(c).lengths for c in cases if c.lengths == "ragged" and c.B > 1 and c.T == 7]
    assert all(0 in lengths and 7 in lengths for lengths in ragged)
    assert len({case.id for case in cases}) == len(cases)


def test_gates_stay_inside_two() -> None:
    for case in recurrence_cases():
        if case.variant.name == "lstm" and case.T == 7:
            data = make_data(case)
            _, _, caches = unroll(data.oracle, data.x, data.state, data.lengths)
            gates = np.stack([cache[4][g] for _, cache in caches for g in "izfo"])
            assert np.abs(gates).max() < 6 and np.mean(np.abs(gates) < 2) > 0.9
