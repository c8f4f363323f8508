"""cellweave's operators in the words of ONNX, as torch's exporter takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch

from cellweave._errors import ModeError
from cellweave.onnx._nodes import Values, nodes_of_export
from cellweave.onnx._operators import misses, run_operator
from cellweave.onnx._scan import ScanInputs, run_scan
from cellweave.ops.common._run_text import run_from_text
from cellweave.specs import ZONES

#: The most tensors that a forward operator saves for its backward.
_SAVED = 4


class _List(list[Any]):
    """Values of an output that is a list of tensors, with what torch's exporter asks of a single value."""

    name: str | None = None

    def producer(self) -> None:
        """No single node."""


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """A table for `torch.onnx.export(..., custom_translation_table=)`.

    With it a layer of a model becomes one ONNX `LSTM`, `GRU` or `RNN`; what these do not compute, a `Scan` over the
    step. `export` does this and more: it joins two directions in one operator and stores weights as operators want
    them.

    Returns:
        A new dict: torch operator -> what writes its nodes.
    """
    return {getattr(torch.ops.cellweave, f"{kind}_forward").default: _translate for kind in ("rnn", "gru", "lstm")}


def _translate(
    x: Any, state: Any, fresh: Any, weights: Any, lengths: Any, resets: Any, streams: Any, keeps: Any, noise: Any,
    run: Any, whole: Any, real: Any, threads: Any, bfloat16: Any, bits: Any, save: Any,
) -> Any:  # fmt: skip
    """Outputs, last state and what backward would need, which no exported model reads."""
    spec, nodes = run_from_text(run, whole, real), nodes_of_export()
    if any(mask.place not in ZONES for mask in spec.masks):
        raise ModeError("cellweave.onnx: expected a module in evaluation mode, got one that draws random masks.")
    by_name = dict(zip([weight.name for weight in spec.cell.weights(1)], weights, strict=True))
    if misses(spec, x.dtype):
        outputs, last = run_scan(nodes, spec, ScanInputs(x, state, lengths, resets, fresh or (), keeps), by_name)
    else:
        outputs, last = run_operator(nodes, spec, x, state, by_name, lengths)
    _describe(last[: len(state)], state)
    return [outputs, _List(last), _List(ir.Value() for _ in range(_SAVED))]


def _describe(values: Sequence[ir.Value], like: Values) -> None:
    """Types and shapes, which torch's exporter does not give to members of lists."""
    for value, model in zip(values, like, strict=True):
        value.type, value.shape = model.type, model.shape
