"""A program is written once, and again when anything that it rests on has changed."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.weave import kept_program, program_of, still_holds
from helpers import nest

X = torch.zeros(4, 2, 3)


def program(cell: Any, x: torch.Tensor = X) -> Any:
    return program_of(cell, x, nest.flatten(cell.get_initial_state(batch_size=2, dtype="float32")))


def drop(cell: Any, **kwargs: Any) -> Any:
    return cw.DropoutWrapper(cell, **{"input_keep_prob": 0.5, "state_keep_prob": 0.5, "seed": 1, **kwargs})


def test_it_is_kept_per_width_dtype_and_device() -> None:
    cell = drop(cw.GRUCell(3))
    first = program(cell)
    assert program(cell) is first and program(cell, torch.zeros(9, 7, 3)) is first
    others = [program(cell, x) for x in (torch.zeros(4, 2, 5), X.double(), X.to("meta"))]
    assert len({id(p) for p in [first, *others]}) == 4 and program(cell) is first
    assert program(copy.deepcopy(cell)) is not first


def test_many_widths_do_not_pile_up() -> None:
    cell = cw.GRUCell(3)
    for width in range(1, 40):
        program(cell, torch.zeros(1, 1, width))
    assert sum(kept_program(cell, torch.zeros(1, 1, width)) is not None for width in range(1, 40)) <= 8


def _swap(cell: Any) -> None:
    cell.cell.cells[1] = cw.GRUCell(3)


def _replace(cell: Any) -> None:
    cell.cell = cw.MultiRNNCell(list(cell.cell.cells))


def _hook(cell: Any) -> None:
    cell.cell.cells[0].register_forward_hook(lambda *_: None)


def _own_call(cell: Any) -> None:
    cell.cell.cells[0].call = lambda inputs, state: (inputs, state)


def _fed(cell: Any) -> None:
    cell._keep["input"] = torch.tensor(0.5)


def _keep(cell: Any) -> None:
    cell._keep["output"] = 0.5


CHANGES: dict[str, Callable[[Any], Any]] = {
    "mode": lambda cell: cell.eval(),
    "a cell": _swap,
    "a wrapper's cell": _replace,
    "a hook": _hook,
    "a call": _own_call,
    "what is fed": _fed,
    "what is kept": _keep,
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_makes_a_new_one(change: str) -> None:
    cell = drop(cw.MultiRNNCell([cw.GRUCell(3), cw.GRUCell(3)]))
    first = program(cell)
    assert still_holds(first, cell, [])
    CHANGES[change](cell)
    assert not still_holds(first, cell, [])
    second = program(cell)
    assert second is not first
    assert [len(p.sites) for p in (first, second)] == [
        3,
        {"mode": 0, "what is kept": 4, "a hook": 3}.get(change, 3),
    ] or (change in ("a hook", "a call") and second.refusal)


def test_a_hook_that_goes_brings_the_old_program_back() -> None:
    cell = cw.GRUCell(3)
    first = program(cell)
    handle = cell.register_forward_hook(lambda *_: None)
    assert "a hook stands on GRUCell" in program(cell).refusal
    handle.remove()
    assert program(cell) is first


def test_a_visitor_of_the_callers_is_asked_each_time() -> None:
    chosen = {"c": False}
    visitor = lambda state: (  # noqa: E731
        cw.LSTMStateTuple(c=chosen["c"], h=True) if isinstance(state, cw.LSTMStateTuple) else True
    )
    cell = drop(cw.LSTMCell(3), dropout_state_filter_visitor=visitor)
    first = program(cell)
    assert [placed.spec.place for placed in first.runs[0].masks] == ["input", "h"] and program(cell) is first
    chosen["c"] = True
    assert [placed.spec.place for placed in program(cell).runs[0].masks] == ["input", "c", "h"]


def test_cells_are_not_kept_alive() -> None:
    cell = drop(cw.MultiRNNCell([cw.GRUCell(3), cw.LSTMCell(3)]))
    program(cell)
    refs = [weakref.ref(module) for module in cell.modules()]
    del cell
    gc.collect()
    assert [ref() for ref in refs if ref() is not None] == []


def test_a_hook_inside_a_cell() -> None:
    class Mine(cw.GRUCell):
        def __init__(self) -> None:
            super().__init__(3)
            self.inner = torch.nn.Identity()

    cell = drop(Mine())
    first = program(cell)
    handle = cell.cell.inner.register_forward_hook(lambda *_: None)
    assert "a hook stands on Mine" in program(cell).refusal
    handle.remove()
    assert program(cell) is first


def test_of_what_is_no_module_nothing_is_kept() -> None:
    class Plain:
        state_size = output_size = 3

        def zero_state(self, rows: int, dtype: Any) -> torch.Tensor:
            return torch.zeros(rows, 3)

        def __call__(self, inputs: Any, state: Any) -> Any:
            return inputs, state

    cell = Plain()
    made = program_of(cell, X, [torch.zeros(2, 3)])
    assert made.refusal == "Plain has no spec()" and program_of(cell, X, [torch.zeros(2, 3)]) is not made
