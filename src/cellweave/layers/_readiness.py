"""Whether a cell's variables exist, all of them."""

from __future__ import annotations

from typing import Any

from cellweave.scopes import Layer
from cellweave.specs import describe
from cellweave.wrappers import CellWrapper, KerasCellWrapper, MultiRNNCell


def is_ready(cell: Any) -> bool:
    """Whether a call makes no variable and does nothing that only a first call does."""
    if isinstance(cell, MultiRNNCell):
        return cell.first_call_done and all(is_ready(inner) for inner in cell.cells_inside())
    if isinstance(cell, CellWrapper):  # which has no variables and no first call of its own
        return is_ready(cell.wrapped_cell)
    if isinstance(cell, KerasCellWrapper):
        return cell.first_call_done and _has_variables(cell.wrapped_cell)
    return cell.first_call_done if isinstance(cell, Layer) else True


def has_variables(cell: Any) -> bool:
    """Whether all cells that describe themselves have their variables, and the others have been called."""
    if isinstance(cell, MultiRNNCell):
        return cell.built and all(has_variables(inner) for inner in cell.cells_inside())
    if isinstance(cell, CellWrapper):
        return has_variables(cell.wrapped_cell)
    if isinstance(cell, KerasCellWrapper):
        return cell.built and _has_variables(cell.wrapped_cell)
    if describe(cell)[0] is None:
        return is_ready(cell)
    return _has_variables(cell) and not getattr(cell, "has_unchecked_weights", False)


def _has_variables(cell: Any) -> bool:
    """The same of a cell whose `call` is used in place of a call."""
    if isinstance(cell, MultiRNNCell):
        return all(has_variables(inner) for inner in cell.cells_inside())
    if isinstance(cell, CellWrapper):
        return has_variables(cell.wrapped_cell)
    if isinstance(cell, KerasCellWrapper):
        return _has_variables(cell.wrapped_cell)
    return cell.built if isinstance(cell, Layer) else True
