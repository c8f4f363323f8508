"""cuDNN layers against the NumPy oracle and against torch's own layers: outputs, states and all gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import cellweave as cw
from cellweave.ops.common._library import missing_reason
from helpers.cudnn_cases import MODES, CudnnCase, make_data, make_layer, oracle_results, results_of
from helpers.tolerances import (
    CUDNN_HALF,
    LAYER_GRADIENT,
    LAYER_VALUE,
    REFERENCE_GRADIENT,
    REFERENCE_VALUE,
    assert_close,
    assert_no_worse,
)

pytestmark = pytest.mark.usefixtures("nan_poison")

DTYPES = ("float32", "float64")
STACKS = [CudnnCase(m, L, d, dtype=t) for m in MODES for L in (1, 2, 3) for d in (1, 2) for t in DTYPES]
OPTIONS = [
    CudnnCase(mode, L, directions, I=5, skip=skip, ragged=ragged, dtype=dtype)
    for mode in MODES
    for L, directions, skip, ragged in (
        (1, 1, True, False),
        (2, 2, True, True),
        (3, 1, False, True),
        (2, 2, False, True),
    )
    for dtype in DTYPES
]


def _id(case: CudnnCase) -> str:
    return case.id


def _results(case: CudnnCase, backend: str | None, data: Any) -> dict[str, Any]:
    layer = make_layer(case, data)
    with cw.use_backend(backend):
        return results_of(lambda x, states: layer(x, states, data.lengths), list(layer.parameters()), data, case.dtype)


def _compare(case: CudnnCase, got: dict[str, Any], base: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert got.keys() == wanted.keys()
    for key in wanted:
        pairs = [(key, got[key], base[key], wanted[key])]
        if key == "d parameters":
            assert len(got[key]) == len(wanted[key])
            triples = zip(got[key], base[key], wanted[key], strict=True)
            pairs = [(f"{key}[{number}]", *triple) for number, triple in enumerate(triples)]
        for name, mine, theirs, truth in pairs:
            bound = (LAYER_GRADIENT if key.startswith("d ") else LAYER_VALUE)[case.dtype]
            assert_close(name, theirs, truth, bound)
            assert_no_worse(name, mine, theirs, truth, case.dtype)


@pytest.mark.parametrize("backend", ["reference", "native", None], ids=["stepwise", "native", "chosen"])
@pytest.mark.parametrize("case", [*STACKS, *OPTIONS], ids=_id)
def test_against_the_oracle(case: CudnnCase, backend: str | None) -> None:
    if backend == "native" and missing_reason() is not None:
        pytest.skip(f"native: {missing_reason()}")
    data = make_data(case)
    wanted = oracle_results(case, data)
    _compare(case, _results(case, backend, data), _results(case, "reference", data), wanted)


def _torch_run(module: torch.nn.RNNBase, lengths: list[int] | None) -> Any:
    def run(x: torch.Tensor, states: tuple[torch.Tensor, ...]) -> Any:
        given: Any = states if len(states) == 2 else states[0]
        if lengths is None:
            out, last = module(x, given)
        else:
            packed, last = module(pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False), given)
            out, _ = pad_packed_sequence(packed, total_length=x.shape[0])
        return out, last if isinstance(last, tuple) else (last,)

    return run


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("case", STACKS, ids=_id)
def test_against_torch(case: CudnnCase, ragged: bool) -> None:
    """The same weights in `torch.nn`: values and every gradient."""
    data = make_data(case)
    data.lengths = [case.T, 1, case.T // 2] if ragged else None  # torch packs no empty row
    layer = make_layer(case, data)
    module = layer.to_torch()
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in layer.named_parameters()]
    wanted = results_of(_torch_run(module, data.lengths), list(module.parameters()), data, case.dtype)
    got = _results(case, None, data)
    for key in wanted:
        bound = (REFERENCE_GRADIENT if key.startswith("d ") else REFERENCE_VALUE)[case.dtype]
        pairs = zip(got[key], wanted[key], strict=True) if key == "d parameters" else [(got[key], wanted[key])]
        for number, (mine, theirs) in enumerate(pairs):
            assert_close(f"{key} {number}", mine, theirs, 2 * bound)


@pytest.mark.parametrize("options", [(1, 1, False), (2, 2, False), (2, 1, True)], ids=["L1", "L2-bi", "L2-skip"])
@pytest.mark.parametrize("mode", MODES)
def test_half_precision(mode: str, options: tuple[int, int, bool]) -> None:
    """float16 runs step by step in float16; it is judged by the oracle, at its own tolerance."""
    layers, directions, skip = options
    case = CudnnCase(mode, layers, directions, I=5, skip=skip, dtype="float16")
    data = make_data(case)
    wanted, got = oracle_results(case, data), _results(case, None, data)
    for key in wanted:
        pairs = zip(got[key], wanted[key], strict=True) if key == "d parameters" else [(got[key], wanted[key])]
        for number, (mine, truth) in enumerate(pairs):
            assert mine.dtype == torch.float16
            assert_close(f"{key} {number}", mine, truth, CUDNN_HALF)


@pytest.mark.parametrize("mode", MODES)
def test_gradcheck(mode: str) -> None:
    case = CudnnCase(mode, 2, 2, T=3, B=2, I=2, H=2, ragged=True, dtype="float64")
    data = make_data(case)
    layer = make_layer(case, data)
    x = torch.tensor(data.x).requires_grad_()
    states = tuple(torch.tensor(state).requires_grad_() for state in data.states)
    names = [name for name, _ in layer.named_parameters()]
    assert len(names) == 16

    def run(x: torch.Tensor, *rest: torch.Tensor) -> Any:
        given, weights = rest[: len(states)], rest[len(states) :]
        out, last = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x, given, data.lengths))
        return (out, *last)

    assert torch.autograd.gradcheck(run, (x, *states, *layer.parameters()), fast_mode=True)
