"""Dense layers that only a graph tells, and cells' kernels that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cellweave.checkpoint import Graph, Node, take_inventory
from cellweave.transfer._graph_layers import add_layers_of_graph
from cellweave.transfer._graph_reader import GraphReader
from cellweave.transfer._recognise import recognise


def told(*nodes: tuple[str, ...]) -> list[str]:
    """The layers that a graph of `name, operation, inputs...` shows among the variables w [9, 8] and v [8]."""
    made = [Node(name, op, inputs, "", {"num_split": 4}) for name, op, *rest in nodes for inputs in [tuple(rest)]]
    graph = Graph(Path("m.meta"), tuple(made), {}, (), {}, {node.name: node for node in made})
    found = recognise(take_inventory({"w": np.zeros((9, 8)), "v": np.zeros(8)}))
    add_layers_of_graph(GraphReader(graph), found)
    return [layer.kind for layer in found.layers]


BEGIN = [("w", "VariableV2"), ("v", "VariableV2"), ("x", "Placeholder"), ("h", "Placeholder")]
STEP = [("join", "ConcatV2", "x", "h", "axis"), ("mul", "MatMul", "join", "w"), ("add", "BiasAdd", "mul", "v")]
AGAIN = [("join2", "ConcatV2", "x", "out", "axis"), ("mul2", "MatMul", "join2", "w")]


@pytest.mark.parametrize(
    ("steps", "layers"),
    [
        ([("mul", "MatMul", "x", "w"), ("add", "BiasAdd", "mul", "v"), ("out", "Relu", "add")], ["Linear"]),
        ([*STEP, ("out", "Relu", "add")], ["Linear"]),  # two inputs, and nothing comes back
        ([*STEP, ("out", "Tanh", "add"), *AGAIN], []),
        ([*STEP, ("gates", "Split", "axis", "add"), ("out", "Mul", "gates", "gates:3"), *AGAIN], []),
    ],
)
def test_a_cells_kernel_of_another_name_is_no_dense_layer(steps: list[tuple[str, ...]], layers: list[str]) -> None:
    assert told(*BEGIN, *steps) == layers
