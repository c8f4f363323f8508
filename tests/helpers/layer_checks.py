"""A case of the layer table run by the oracle, the reference and a backend, and compared."""

from __future__ import annotations

import functools
from typing import Any

import torch

from helpers.layer_cases import LayerCase, LayerData, backend_of, make_call, make_data, on_device
from helpers.tolerances import LAYER_GRADIENT, LAYER_VALUE, assert_close, assert_no_worse
from oracles.composition import flatten, rebuild
from oracles.layer import layer_backward, layer_forward

#: Values and gradients by name.
Results = tuple[dict[str, Any], dict[str, Any]]


def _named(kind: str, state: Any) -> dict[str, Any]:
    leaves = flatten(state)
    names = ("h",) if len(leaves) == 1 else ("h", "c") if isinstance(state, list) else ("c", "h")
    return {f"{kind} {name}": leaf for name, leaf in zip(names, leaves, strict=True)}


def from_oracle(data: LayerData) -> Results:
    """Outputs and last state, and the gradients of everything."""
    out, last, run = layer_forward(data.oracle, data.x, data.state, **data.oracle_options())
    states = data.run.all_states
    d_x, d_state, d_fresh = layer_backward(run, data.d_out, data.d_state, data.d_states if states else None)
    grads = {"x": d_x, **_named("state", d_state), **(_named("fresh", d_fresh) if data.fresh is not None else {})}
    names = [weight.name for weight in data.run.cell.weights(1)]
    values = {"out": out, **_named("last", last), **(_states(data, run.states) if states else {})}
    return values, grads | {name: data.oracle.grads[name] for name in names}


def _states(data: LayerData, leaves: Any) -> dict[str, Any]:
    """States after each step, in the order of the oracle's leaves."""
    return _named("states", rebuild(data.state, list(leaves)) if isinstance(data.state, tuple | list) else leaves[0])


def from_backend(case: LayerCase, data: LayerData, backend: str, device: str = "cpu") -> Results:
    """The same from the library."""
    call, dtype = on_device(make_call(case, data), device), getattr(torch, case.dtype)
    out, last, states = backend_of(data.run, backend).run(call)
    assert len(states) == (len(last) if data.run.all_states else 0)
    upstream = _named("last", data.d_state)
    values = {"out": out, **_named("last", last)}
    if data.run.all_states:
        upstream |= _states(data, data.d_states)
        values |= _named("states", states)
    loss = (out * torch.tensor(data.d_out, dtype=dtype, device=device)).sum()
    for name, d in upstream.items():
        loss = loss + (values[name] * torch.tensor(d, dtype=dtype, device=device)).sum()
    sources = {"x": call.x, **_named("state", call.state)}
    sources |= _named("fresh", call.reset_state) if call.reset_state is not None else {}
    sources |= call.weights
    found = torch.autograd.grad(loss, list(sources.values()), allow_unused=True)
    zeros = zip(sources.items(), found, strict=True)
    return values, {name: torch.zeros_like(source) if d is None else d for (name, source), d in zeros}


@functools.lru_cache(maxsize=2)
def _expected(case: LayerCase) -> tuple[LayerData, Results, Results]:
    data = make_data(case)
    return data, from_oracle(data), from_backend(case, data, "reference")


def check_layer(case: LayerCase, backend: str) -> None:
    """Fail unless the backend's values and gradients are as near to the oracle as the reference lets expect."""
    data, expected, reference = _expected(case)
    got = reference if backend == "reference" else from_backend(case, data, backend)
    bounds = (LAYER_VALUE[case.dtype], LAYER_GRADIENT[case.dtype])
    for kind, bound, mine, base, wanted in zip(("", "d "), bounds, got, reference, expected, strict=True):
        assert mine.keys() == wanted.keys()
        for name in wanted:
            assert_close(kind + name, base[name], wanted[name], bound)
            terms = case.T * case.B if name in data.weights else 1
            assert_no_worse(kind + name, mine[name], base[name], wanted[name], case.dtype, terms)
