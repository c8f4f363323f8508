"""A run's spec as text and numbers: what an operator of `torch.library` can take, and a saved program keep."""

from __future__ import annotations

import ast
import functools
from typing import Any, NamedTuple

from cellweave._errors import ArgumentError
from cellweave.specs import CellSpec, GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec

_CELLS: dict[str, type[Any]] = {"rnn": RNNSpec, "gru": GRUSpec, "lstm": LSTMSpec}
_FIELDS = {
    "rnn": ("units", "activation", "joined_kernel", "use_bias", "transposed"),
    "gru": (
        "units", "activation", "recurrent_activation", "reset_after", "gate_order", "joined_kernel", "use_bias",
        "transposed",
    ),
    "lstm": (
        "units", "activation", "recurrent_activation", "gate_order", "forget_bias", "peepholes", "cell_clip",
        "projection", "proj_clip", "joined_kernel", "use_bias", "unit_forget_bias", "unit_pieces", "proj_pieces",
        "peephole_order", "clip_passes_gradient", "coupled", "layer_norm", "norm_gain", "norm_shift",
        "transposed",
    ),
}  # fmt: skip
_RUN_FIELDS = ("residual", "lengths", "resets", "reverse", "all_states")


class RunText(NamedTuple):
    """A run in three parts: numbers stand apart, because torch.compile may hold them as symbols.

    Attributes:
        text: Words and flags; a number is the index of its place in `whole` or `real`, as `("whole", 0)`.
        whole, real: The numbers.
    """

    text: str
    whole: list[int]
    real: list[float]


def run_to_text(kind: str, run: RunSpec) -> RunText:
    """The run as an operator takes it, in plain Python that torch.compile can trace.

    Args:
        kind: "rnn", "gru" or "lstm". run: Activations by name.
    """
    whole: list[int] = []
    real: list[float] = []
    text = f"('{kind}', ("
    for name in _FIELDS[kind]:
        value = getattr(run.cell, name)
        if value is None or isinstance(value, bool | str):
            text += _constant(value)
        elif isinstance(value, int):
            text += "('whole', " + str(len(whole)) + "), "
            whole.append(value)
        else:
            text += "('real', " + str(len(real)) + "), "
            real.append(value)
    text += "), ("
    for mask in run.masks:
        text += "('" + mask.place + "', " + _constant(mask.per_step) + _constant(mask.per_row) + "), "
    text += "), ("
    for name in _RUN_FIELDS:
        text += _constant(getattr(run, name))
    return RunText(text + "))", whole, real)


def _constant(value: str | bool | None) -> str:
    if isinstance(value, str):
        return "'" + value + "', "
    return "None, " if value is None else "True, " if value else "False, "


def run_from_text(text: str, whole: list[int], real: list[float]) -> RunSpec:
    """The run that `run_to_text` wrote.

    Raises:
        ArgumentError: text of another form.
    """
    return _read(text, tuple(whole), tuple(real))


@functools.lru_cache(maxsize=256)
def _read(text: str, whole: tuple[int, ...], real: tuple[float, ...]) -> RunSpec:
    numbers = {"whole": whole, "real": real}
    try:
        kind, fields, masks, flags = ast.literal_eval(text)
        values = [numbers[value[0]][value[1]] if isinstance(value, tuple) else value for value in fields]
        cell: CellSpec = _CELLS[kind](**dict(zip(_FIELDS[kind], values, strict=True)))
        placed = tuple(MaskSpec(*mask) for mask in masks)
        return RunSpec(cell, placed, **dict(zip(_RUN_FIELDS, flags, strict=True)))
    except (ValueError, SyntaxError, LookupError, TypeError) as error:
        raise ArgumentError(f"cellweave operator: expected a run's text, got {text!r}.") from error
