"""Numbers by which compiled code finds a cell again: one for each object, whatever it was copied from."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import cellweave as cw
from cellweave import keras
from cellweave.cells import cell_of_number

CELLS: dict[str, Callable[[], Any]] = {
    "cell": lambda: cw.GRUCell(3),
    "keras": lambda: keras.LSTMCell(3),
    "wrapper": lambda: cw.DropoutWrapper(cw.GRUCell(3), 0.5),
    "stack": lambda: cw.MultiRNNCell([cw.GRUCell(3), cw.GRUCell(3)]),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
def test_copies_have_their_own(name: str, copied: Callable[[Any], Any]) -> None:
    cell = CELLS[name]()
    other = copied(cell)
    assert cell._cell_number != other._cell_number
    assert cell_of_number(cell._cell_number) is cell and cell_of_number(other._cell_number) is other


def test_a_constructor_that_forgets_the_base() -> None:
    class Mine(cw.RNNCell):
        def __init__(self) -> None:
            pass

    cell = Mine()
    assert cell_of_number(cell._cell_number) is cell


def test_a_number_keeps_nothing_alive() -> None:
    cell = cw.GRUCell(3)
    number = cell._cell_number
    del cell
    gc.collect()
    assert cell_of_number(number) is None
