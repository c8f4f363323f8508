"""Oracle cells from the trees in a golden manifest."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from oracles import composition, tf1
from oracles.tf1 import Cell

Tree = dict[str, Any]
PLAIN: dict[str, type[Cell]] = {
    "BasicRNNCell": tf1.BasicRNNCell,
    "GRUCell": tf1.GRUCell,
    "BasicLSTMCell": tf1.LSTMCell,
    "LSTMCell": tf1.LSTMCell,
}


def base_name(class_name: str) -> str:
    """The name of a class in a variable's path."""
    special = class_name.replace("RNN", "Rnn").replace("GRU", "Gru").replace("LSTM", "Lstm")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", special).lower()


class Builder:
    """Builds cells for inputs of a known depth and gives them their weights by full name.

    Attributes:
        run: Number of the run, from 0: which value fed tensors hold.
    """

    def __init__(self, dtype: str, graph_seed: int | None) -> None:
        self.dtype, self.graph_seed, self.run = dtype, graph_seed, 0
        self.named: list[tuple[str, Cell]] = []

    def build(self, tree: Tree, depth: int, prefix: str) -> Cell:
        """The cell of a tree whose variables live under `prefix`."""
        name, kwargs = tree["class"], dict(tree["kwargs"])
        base = kwargs.pop("name", base_name(name))
        if name == "MultiRNNCell":
            cells = []
            for k, sub in enumerate(tree["cells"]):
                cells.append(self.build(sub, depth, f"{prefix}{base}/cell_{k}/"))
                depth = cells[-1].output_size
            return composition.MultiRNNCell(cells, **kwargs)
        if name in PLAIN:
            cell = PLAIN[name](depth, **kwargs)
            self.named.append((f"{prefix}{base}/", cell))
            return cell
        cell = self.build(tree["cell"], depth, prefix)
        if name == "ResidualWrapper":
            return composition.ResidualWrapper(cell, kwargs.get("residual_fn", "sum"))
        if name == "DeviceWrapper":
            return composition.DeviceWrapper(cell)
        return composition.DropoutWrapper(
            cell,
            {kind: self._keep(kwargs.get(f"{kind}_keep_prob", 1.0)) for kind in ("input", "state", "output")},
            kwargs["seed"],
            self.graph_seed,
            self.dtype,
            kwargs.get("variational_recurrent", False),
            kwargs.get("input_size"),
            composition.VISITORS.get(kwargs.get("dropout_state_filter_visitor", ""), composition.default_visitor),
        )

    def _keep(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fed = value["placeholder"]
        return lambda: fed[self.run] if isinstance(fed, list) else fed

    def set_weights(self, arrays: dict[str, np.ndarray]) -> None:
        """Give every cell its weights out of `arrays`, by full variable name."""
        for prefix, cell in self.named:
            cell.set_weights({suffix: arrays[prefix + suffix] for suffix in cell.shapes})

    def grads(self) -> dict[str, np.ndarray]:
        """The gradients summed so far, by full variable name."""
        return {prefix + suffix: grad for prefix, cell in self.named for suffix, grad in cell.grads.items()}
