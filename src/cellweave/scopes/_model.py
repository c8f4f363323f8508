"""Model: runs what a graph recorded between its inputs and outputs, on real tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx, nn

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError
from cellweave._types import Nest, dtype_name
from cellweave.scopes._context import seeded_by
from cellweave.scopes._graph import Graph, ModuleRef, execute, take
from cellweave.scopes._run import Run, session_run
from cellweave.scopes._symbols import SymbolicTensor, graph_of, symbols_in


class _Runner(fx.Interpreter):
    """Executes nodes in order; each one's random ops are its own."""

    def __init__(self, model: Model, run: Run) -> None:
        super().__init__(model.parts, garbage_collect_values=True, graph=model.fx_graph)
        self._run_state = run
        self._parts = model.parts

    def run_node(self, n: fx.Node) -> Any:
        self._run_state.node = n.meta.get("id", 0)
        return super().run_node(n)

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        args, kwargs = super().fetch_args_kwargs_from_env(n)

        def resolve(value: Any) -> Any:
            return value.resolve(self._parts.__getitem__) if isinstance(value, ModuleRef) else value

        return fx.node.map_aggregate((args, kwargs), resolve)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        return execute("call_module", target, tuple(args), dict(kwargs), self._parts.__getitem__)


class Model(nn.Module):
    """What a graph computes from `inputs` to `outputs`, as a module that runs on real tensors.

    One call is one session run: random masks that the graph makes once are drawn once.

    Args:
        inputs: Symbolic inputs (made by `cellweave.Input`), one or a structure of them.
        outputs: Symbolic tensors, one or a structure of them.
        name: Name shown by `summary`.
    Raises:
        ArgumentTypeError: something is not symbolic. ArgumentError: the outputs need an input that is not listed.
    Source: TF1 `tf.Session.run`, `tf.keras.Model`.
    """

    def __init__(self, inputs: Nest, outputs: Nest, name: str = "model") -> None:
        super().__init__()
        for what, value in (("inputs", inputs), ("outputs", outputs)):
            for leaf in _nest.flatten(value):
                if not isinstance(leaf, SymbolicTensor):
                    raise ArgumentTypeError(
                        f"Model: expected {what} to be symbolic tensors, got {type(leaf).__name__}."
                    )
        if not _nest.flatten(outputs):
            raise ArgumentError("Model: expected at least one output, got none.")
        self.name = name
        self.inputs, self.outputs = inputs, outputs
        graph = graph_of(symbols_in(inputs, outputs), "Model")
        self.seeds = graph.seeds
        self.fx_graph = self._extract(graph)
        self.parts = nn.ModuleDict({key: graph.modules[key] for key in self._used_keys()})

    def _extract(self, graph: Graph) -> fx.Graph:
        """A graph of its own holding only the nodes that the outputs need."""
        wanted: set[fx.Node] = set()
        waiting = [symbol.node for symbol in symbols_in(self.outputs)]
        while waiting:
            node = waiting.pop()
            if node not in wanted:
                wanted.add(node)
                waiting.extend(node.all_input_nodes)
        sources = [symbol.node for symbol in symbols_in(self.inputs)]
        extracted = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in sources:
            if node.op != "placeholder":
                raise ArgumentError(f"Model: expected inputs made by cellweave.Input, got {node.name!r}.")
            copies[node] = extracted.node_copy(node)
        for node in graph.fx_graph.nodes:
            if node not in wanted or node in copies:
                continue
            if node.op == "placeholder":
                raise ArgumentError(
                    f"Model: expected every needed input in inputs, got none for {node.name!r}. Add it."
                )
            copies[node] = extracted.node_copy(node, copies.__getitem__)
        extracted.output([copies[symbol.node] for symbol in symbols_in(self.outputs)])
        return extracted

    def _used_keys(self) -> list[str]:
        keys: dict[str, None] = {}

        def note(value: Any) -> Any:
            if isinstance(value, ModuleRef):
                keys[value.key] = None
            return value

        for node in self.fx_graph.nodes:
            if node.op == "call_module":
                keys[str(node.target)] = None
            elif node.op == "get_attr":
                keys[str(node.target).split(".")[0]] = None
            fx.node.map_aggregate((node.args, node.kwargs), note)
        return list(keys)

    @property
    def layers(self) -> list[nn.Module]:
        """The modules that the model calls, in the order of their first call."""
        return list(self.parts.values())

    @property
    def weights(self) -> list[nn.Parameter]:
        """All parameters."""
        return list(self.parameters())

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Copies of all parameters as NumPy arrays."""
        return [weight.detach().cpu().numpy().copy() for weight in self.parameters()]

    def count_params(self) -> int:
        """Number of scalars in all parameters."""
        return sum(weight.numel() for weight in self.parameters())

    def forward(self, *inputs: Any) -> Any:
        """Run on real tensors.

        Args:
            inputs: One argument per top-level input, or one argument in the structure given to the constructor.
        Returns:
            Values in the structure of `outputs`.
        Raises:
            ShapeError, DTypeError, ArgumentError: an input does not fit what was declared.
        """
        given: Any = inputs[0] if len(inputs) == 1 else inputs
        if isinstance(self.inputs, dict):
            _nest.same_structure(self.inputs, given, f"{self.name}")
        values, symbols = _nest.flatten(given), symbols_in(self.inputs)
        if len(values) != len(symbols):
            raise ArgumentError(f"{self.name}: expected {len(symbols)} inputs, got {len(values)}.")
        for symbol, value in zip(symbols, values, strict=True):
            self._check_input(symbol, value)
        with seeded_by(self.seeds), session_run() as run:
            outer = run.node
            try:
                results = _Runner(self, run).run(*values)
            finally:
                run.node = outer
        return _nest.pack(self.outputs, results)

    def _check_input(self, symbol: SymbolicTensor, value: Any) -> None:
        where = f"{self.name}, input {symbol.node.name!r}"
        if not isinstance(value, torch.Tensor):
            raise ArgumentTypeError(f"{where}: expected a tensor, got {type(value).__name__}.")
        dims = symbol.shape.dims
        fits = len(dims) == value.dim() and all(d is None or d == n for d, n in zip(dims, value.shape, strict=True))
        if not fits:
            raise ShapeError(f"{where}: expected shape {list(dims)}, got {list(value.shape)}.")
        if value.dtype != symbol.dtype:
            raise DTypeError(f"{where}: expected {dtype_name(symbol.dtype)}, got {dtype_name(value.dtype)}.")

    def summary(self, print_fn: Any = print) -> None:
        """Print one line per node: name, what it calls, output shape, parameters.

        Args:
            print_fn: Called with each line.
        """
        rows = [("node", "call", "output shape", "parameters")]
        counted: set[int] = set()
        for node in self.fx_graph.nodes:
            if node.op == "output" or node.target is take:  # parts of a result stand in its own row
                continue
            fresh = {id(p): p for part in self._parts_of(node) for p in part.parameters() if id(p) not in counted}
            counted.update(fresh)
            size = sum(parameter.numel() for parameter in fresh.values())
            rows.append((node.name, self._title(node), str(node.meta.get("shape", "")), str(size) if size else ""))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        print_fn(f"{self.name}: {self.count_params()} parameters")
        for row in rows:
            print_fn("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def _parts_of(self, node: fx.Node) -> list[nn.Module]:
        found: list[nn.Module] = [self.parts[str(node.target)]] if node.op == "call_module" else []

        def note(value: Any) -> Any:
            if isinstance(value, ModuleRef):
                found.append(self.parts[value.key])
            return value

        fx.node.map_aggregate((node.args, node.kwargs), note)
        return found

    def _title(self, node: fx.Node) -> str:
        if node.op == "placeholder":
            return "Input"
        if node.op == "call_module":
            return type(self.parts[str(node.target)]).__name__
        return str(getattr(node.target, "__name__", node.target))
