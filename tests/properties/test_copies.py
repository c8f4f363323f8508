"""Properties of copies, state_dicts, configs and gradients over random compositions of cells and wrappers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import torch
from hypothesis import given

import cellweave as cw
from cellweave.cells import cell_config, cell_from_config
from helpers import nest
from properties.compositions import DTYPE, Case, Tree, assert_same, cases, few, results, start_again, tables


def _run(case: Case, cell: Any) -> list[torch.Tensor]:
    return results(cw.dynamic_rnn(cell, case.inputs(), case.lengths, dtype=DTYPE))


def _seen_by(cell: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in cell.state_dict().items()}


@few(50)
@given(cases())
def test_a_state_dict_into_an_unbuilt_copy(case: Case) -> None:
    """After a run; keys in any order; what follows is the same, masks included."""
    cell = case.cell()
    _run(case, cell)
    saved = _seen_by(cell)
    expected = [_run(case, cell), _run(case, cell)]
    for order in (list, sorted):
        other = case.tree.make(case.depth)
        other.load_state_dict({key: saved[key] for key in order(saved)})
        assert_same(_run(case, other), expected[0])
        assert_same(_run(case, other), expected[1])
        assert [name for name, _ in other.named_parameters()] == [name for name, _ in cell.named_parameters()]


def _storages(cell: Any) -> set[int]:
    tensors = [*cell.parameters(), *cell.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}


@few(50)
@given(cases())
def test_a_deepcopy_shares_nothing(case: Case) -> None:
    cell = case.cell()
    _run(case, cell)
    other = copy.deepcopy(cell)
    assert not _storages(cell) & _storages(other)
    assert not {id(m) for m in cell.modules()} & {id(m) for m in other.modules()}
    before = _seen_by(cell)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    _run(case, other)
    if not case.tree.has("v2_dropout"):  # whose streams belong to the process
        assert_same(list(_seen_by(cell).values()), list(before.values()))


@few(50)
@given(cases())
def test_copies_go_on_alike(case: Case) -> None:
    """Shared objects stay shared, streams go on from where they stand."""
    cell = case.cell()
    _run(case, cell)
    saved = _seen_by(cell)
    expected = _run(case, cell)
    cell.load_state_dict(saved)
    for other in (copy.deepcopy(cell), pickle.loads(pickle.dumps(cell))):
        assert len(list(other.parameters())) == len(list(cell.parameters()))
        assert list(cw.variable_names(other)) == list(cw.variable_names(cell))
        if case.tree.has("v2_dropout"):
            other.load_state_dict(saved)
        assert_same(_run(case, other), expected)


@few(50)
@given(cases("multi", "fed"))
def test_a_config_rebuilds_a_cell(case: Case) -> None:
    """Not through MultiRNNCell, whose config holds no cells, nor with fed tensors."""
    cell = case.cell()
    data = cell_config(cell)
    other = cell_from_config(data, None, "here", safe_mode=False)
    saved = _seen_by(cell)
    assert _without_code(cell_config(other)) == _without_code(data)
    found = []
    for one in (cell, other):
        start_again()
        one.load_state_dict(saved)
        found.append(_run(case, one))
    assert_same(*found)


def _without_code(data: Any) -> Any:
    """A config without marshalled code, which need not be the same bytes twice."""
    if isinstance(data, dict):
        return {key: _without_code(value) for key, value in data.items() if key not in ("dropout_fn", "residual_fn")}
    return data


@few(50)
@given(cases())
def test_names_are_the_modules_own(case: Case) -> None:
    """One name per parameter, the same whatever else ran, and the same by build and by call."""
    called = case.tree.make(case.depth)
    _run(case, called)
    again = case.tree.make(case.depth)
    _run(case, again)
    names = cw.variable_names(called)
    assert list(names) == list(cw.variable_names(again))
    assert {id(p) for p in names.values()} == {id(p) for p in called.parameters()}
    assert all(name.startswith("rnn/") for name in names)
    built = cw.variable_names(case.cell())
    assert [f"rnn/{name}" for name in built] == list(names)
    assert [p.shape for p in built.values()] == [p.shape for p in names.values()]


def _smooth(tree: Tree) -> Tree:
    """The same composition without clips, whose gradients jump."""
    options = {key: None if key in ("cell_clip", "proj_clip") else value for key, value in tree.options.items()}
    return Tree(tree.kind, options, tuple(_smooth(child) for child in tree.inside))


@few(50)
@given(cases(levels=2))
def test_gradients_are_right(case: Case) -> None:
    """Of inputs, initial states and weights, by finite differences in float64."""
    case = Case(_smooth(case.tree), min(case.batch, 2), min(case.time, 2), case.depth, None)
    cell = case.cell()
    saved, zeros = _seen_by(cell), cell.get_initial_state(batch_size=case.batch, dtype=DTYPE)
    names, weights = zip(*[(n, p.detach().clone().requires_grad_()) for n, p in cell.named_parameters()], strict=True)
    leaves = [torch.full_like(leaf, 0.2).requires_grad_() for leaf in nest.flatten(zeros)]
    lengths = [case.time, *range(case.batch - 1)]

    class Unroll(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, xs: torch.Tensor, state: Any) -> Any:
            return cw.dynamic_rnn(self.cell, xs, lengths, initial_state=state)

    module = Unroll()

    def run(xs: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        start_again()
        for key, wrapper in cell.named_modules():
            if hasattr(wrapper, "streams"):
                wrapper.set_extra_state(saved[f"{key}._extra_state".removeprefix(".")])
        state = nest.pack(zeros, list(rest[: len(leaves)]))
        given = {f"cell.{name}": weight for name, weight in zip(names, rest[len(leaves) :], strict=True)}
        return tuple(results(torch.func.functional_call(module, given, (xs, state))))

    xs = case.inputs().requires_grad_()
    assert torch.autograd.gradcheck(run, (xs, *leaves, *weights), fast_mode=True)


@few(50)
@given(cases("variational"))
def test_dtypes_follow_the_module(case: Case) -> None:
    """`.float()` moves weights and leaves streams alone; what is made of it is float32.

    Variational noise has a dtype of its own.
    """
    cell = case.cell()
    _run(case, cell)
    stood = tables(cell)
    cell.float()
    assert_same(tables(cell), stood)
    out, state = cw.dynamic_rnn(cell, case.inputs().float(), case.lengths, dtype="float32")
    assert {leaf.dtype for leaf in results((out, state))} == {torch.float32}
