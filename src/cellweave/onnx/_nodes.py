"""Building nodes of an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import evaluator

Values = Sequence[ir.Value]


class Nodes:
    """Appends nodes to a list, in the graph's order.

    Args:
        found: The list.
        version: Of ONNX's operators.
    """

    def __init__(self, found: list[ir.Node], version: int) -> None:
        self._found, self._version = found, version

    def __call__(self, kind: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        """The output of a new node of one output. Attributes that are None are left out."""
        return self.several(1, kind, *inputs, **attributes)[0]

    def several(self, count: int, kind: str, *inputs: ir.Value | None, **attributes: Any) -> Values:
        """The `count` outputs of a new node."""
        given = list(inputs)
        while given and given[-1] is None:
            given.pop()
        kept = ir.convenience.convert_attributes({k: v for k, v in attributes.items() if v is not None})
        node = ir.Node("", kind, given, kept, num_outputs=count, version=self._version)
        self._found.append(node)
        return node.outputs

    def constant(self, value: Any, dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
        """A constant; shapes and axes are int64."""
        return self("Constant", value=ir.tensor(np.asarray(value, dtype.numpy())))


def nodes_of_export() -> Nodes:
    """Where torch's exporter puts the nodes of the operator that is being translated."""
    recorder: Any = evaluator.default()
    return Nodes(recorder.nodes, recorder.opset.version)
