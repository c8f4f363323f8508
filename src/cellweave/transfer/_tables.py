"""Which tensors of a checkpoint count as variables, and the graph that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cellweave.checkpoint import Checkpoint, Graph, VariableInfo, read_graph
from cellweave.transfer._graph_reader import is_partitions

#: Operations by which a graph reads a variable; freezing leaves them around the constant that takes its place.
_READS = ("Identity", "ReadVariableOp", "Enter")
#: Which inputs of an operation are weights where graphs were stripped of such; numbers in them are none.
_WEIGHTS = {
    "MatMul": slice(2), "BiasAdd": slice(1, 2), "Add": slice(2), "AddV2": slice(2), "Mul": slice(2),
    "Conv2D": slice(1, 2), "Gather": slice(1), "GatherV2": slice(1),
}  # fmt: skip


def variable_table(checkpoint: Checkpoint) -> Mapping[str, VariableInfo]:
    """The variables of a checkpoint. Of a frozen graph these are the constants that it reads as variables."""
    if checkpoint.format != "frozen graph":
        return checkpoint.variables
    nodes = read_graph(checkpoint.path).nodes
    switched = {node.name: node.inputs[0] for node in nodes if node.op == "Switch"}  # a branch reads what it is given
    read: set[str] = set()
    taken: set[str] = set()
    for node in nodes:
        inputs = [name.split(":")[0] for name in node.inputs]
        if node.op in _READS:
            read.update(switched.get(name, name) for name in inputs[:1])
        elif is_partitions(node):
            taken.update(inputs)
        else:
            taken.update(inputs[_WEIGHTS.get(node.op, slice(0))])
    return {
        name: info
        for name, info in checkpoint.variables.items()
        if (name in read or (name in taken and info.shape)) and "float" in info.dtype
    }


def graph_beside(checkpoint: Checkpoint) -> Graph | None:
    """The graph of a checkpoint, where one lies beside it: `.meta`, `saved_model.pb`, or the frozen graph itself."""
    path = Path(checkpoint.path)
    if checkpoint.format == "frozen graph":
        return read_graph(path)
    saved = path.parent.parent / "saved_model.pb"
    for candidate in (path.with_name(path.name + ".meta"), saved if path.parent.name == "variables" else None):
        if candidate is not None and candidate.is_file():
            return read_graph(candidate)
    return None
