"""A woven unroll is the unroll step by step: results, gradients, and where every random stream stands afterwards."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

import cellweave as cw
from cellweave.scopes import seed_state
from helpers import nest
from helpers.fake_backend import Fake, fakes
from properties.compositions import DTYPE, Case, Tree, cases, few, results, tables

#: Rounding of sums in another order, in float64.
RTOL = ATOL = 1e-11


def assert_near(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Equal up to rounding; NaN equals nothing but NaN."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=RTOL, atol=ATOL, equal_nan=True)


def _standing(cell: Any) -> list[Any]:
    """All that is random: streams of the cell, of the process, torch's own generator, counts of unseeded ops."""
    state = seed_state()
    return [*tables(cell), sorted(map(repr, state.eager_blocks.items())), state.unseeded_ops, torch.get_rng_state()]


def _grads(tensors: list[torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    loss = sum((t * torch.randn(t.shape, dtype=t.dtype, generator=generator)).sum() for t in tensors)
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


def _history(case: Case, backend: str | None, setting: dict[str, Any]) -> tuple[list[torch.Tensor], list[Any]]:
    """Results and gradients of several unrolls in a row, and where all streams stand after each."""
    cell = case.cell() if setting["built"] else _unbuilt(case)
    cw.set_random_seed(setting["graph_seed"])
    torch.manual_seed(11)
    found: list[torch.Tensor] = []
    stood: list[Any] = []
    with ExitStack() as stack:
        stack.enter_context(cw.use_backend(backend))
        if setting["one_run"]:
            stack.enter_context(cw.session_run())
        for _ in range(setting["calls"]):
            xs = case.inputs().requires_grad_()
            zeros = cell.get_initial_state(batch_size=case.batch, dtype=DTYPE)
            state = nest.pack(zeros, [torch.full_like(z, 0.2).requires_grad_() for z in nest.flatten(zeros)])
            out = setting["unroll"](cell, xs, case.lengths, state)
            tensors = results(out)
            leaves = [xs, *nest.flatten(state), *cell.parameters()]
            found += [*tensors, *_grads(tensors, leaves)]
            stood.append(_standing(cell))
    return found, stood


def _unbuilt(case: Case) -> Any:
    cw.set_random_seed(None)
    torch.manual_seed(7)
    return case.tree.make(case.depth)


def _without_some_seeds(tree: Tree) -> Tree:
    """The same composition where some wrappers take their seeds from the graph or from torch's generator."""
    options = {
        key: None if key == "seed" and value is not None and value < 2 else value for key, value in tree.options.items()
    }
    return replace(tree, options=options, inside=tuple(_without_some_seeds(child) for child in tree.inside))


def _dynamic(cell: Any, xs: torch.Tensor, lengths: Any, state: Any) -> Any:
    return cw.dynamic_rnn(cell, xs, lengths, initial_state=state)


def _with_resets(cell: Any, xs: torch.Tensor, lengths: Any, state: Any) -> Any:
    resets = torch.rand(xs.shape[:2], generator=torch.Generator().manual_seed(xs.shape[1])) < 0.4
    fresh = nest.pack(state, [leaf * 2.0 for leaf in nest.flatten(state)]) if xs.shape[2] > 1 else None
    return cw.dynamic_rnn(cell, xs, lengths, initial_state=state, resets=resets, reset_state=fresh)


def _static(cell: Any, xs: torch.Tensor, lengths: Any, state: Any) -> Any:
    return cw.static_rnn(cell, list(xs.unbind(1)), state, sequence_length=lengths)


def _backwards(cell: Any, xs: torch.Tensor, lengths: Any, state: Any) -> Any:
    forward = cw.GRUCell(1, dtype="float64")
    forward.build([xs.shape[0], xs.shape[2]])
    with torch.no_grad():
        for parameter in forward.parameters():
            parameter.fill_(0.1)
    return cw.bidirectional_dynamic_rnn(forward, cell, xs, lengths, torch.zeros(xs.shape[0], 1, dtype=DTYPE), state)


settings = st.fixed_dictionaries(
    {
        "built": st.booleans(),
        "graph_seed": st.sampled_from([None, 3]),
        "one_run": st.booleans(),
        "unseeded": st.booleans(),
        "fake": st.booleans(),
        "calls": st.integers(1, 3),
    }
)


def _check(case: Case, setting: dict[str, Any], unroll: Any) -> None:
    """Against the best backends there are, and against layers that compute as single steps do."""
    if setting["unseeded"]:
        case = replace(case, tree=_without_some_seeds(case.tree))
    expected, stood = _history(case, "reference", {**setting, "unroll": unroll})
    with fakes(Fake()) if setting["fake"] else nullcontext():
        got, stands = _history(case, None, {**setting, "unroll": unroll})
    assert_near(got, expected)
    for a, b in zip(stands, stood, strict=True):
        for one, other in zip(a, b, strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@few(150)
@given(cases(), settings)
def test_dynamic(case: Case, setting: dict[str, Any]) -> None:
    _check(case, setting, _dynamic)


@few(60)
@given(cases(), settings)
def test_static(case: Case, setting: dict[str, Any]) -> None:
    _check(case, setting, _static)


@few(60)
@given(cases(), settings)
def test_backwards(case: Case, setting: dict[str, Any]) -> None:
    _check(case, setting, _backwards)


@few(60)
@given(cases(), settings)
def test_resets(case: Case, setting: dict[str, Any]) -> None:
    _check(case, setting, _with_resets)
