"""Which tensors of a checkpoint count as variables, and the graph that lies beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cellweave.checkpoint import Checkpoint, Graph, VariableInfo, read_graph

#: Operations by which a graph reads a variable; freezing leaves them around the constant that takes its place.
_READS = ("Identity", "ReadVariableOp", "Enter")


def variable_table(checkpoint: Checkpoint) -> Mapping[str, VariableInfo]:
    """The variables of a checkpoint. Of a frozen graph these are the constants that it reads as variables."""
    if checkpoint.format != "frozen graph":
        return checkpoint.variables
    graph = read_graph(checkpoint.path)
    read = {name.split(":")[0] for node in graph.nodes if node.op in _READS for name in node.inputs[:1]}
    return {name: info for name, info in checkpoint.variables.items() if name in read and "float" in info.dtype}


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
