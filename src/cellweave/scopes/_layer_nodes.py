"""The members of a layer that speak of recorded nodes, losses and updates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from cellweave import _nest
from cellweave._errors import ArgumentError, ArgumentTypeError, ModeError, NodeError
from cellweave._types import Nest
from cellweave.scopes._context import frame
from cellweave.scopes._graph import REGULARIZATION_LOSSES, Graph, is_probing
from cellweave.scopes._symbols import SymbolicTensor, graph_of, symbols_in

if TYPE_CHECKING:
    from cellweave.scopes._variables import VariableRecord


@dataclass(eq=False)
class Node:
    """One recorded call of a layer.

    Attributes:
        layer: The layer called.
        inputs, outputs: Symbolic tensors in the caller's structure; of a cell's call, `inputs` without the state.
        input_masks, output_masks: Their masks, None where there is none.
        inbound_layers: Layers whose outputs are inputs here.
    """

    layer: Any
    inputs: Nest
    outputs: Nest
    input_masks: Nest
    output_masks: Nest
    inbound_layers: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class _Declared:
    """A loss or an update, and whether it was declared to depend on inputs."""

    value: Any
    conditional: bool


def _shapes(tensors: Nest) -> Any:
    return _nest.map_structure(lambda tensor: tuple(tensor.shape) if hasattr(tensor, "shape") else None, tensors)


class LayerNodes:
    """Part of `Layer`: recorded nodes, losses, updates and masks."""

    if TYPE_CHECKING:
        _records: dict[str, VariableRecord]
        trainable: bool

        @property
        def where(self) -> str: ...

    _graph: Graph | None
    _inbound_nodes: list[Node]
    _outbound_nodes: list[Node]
    _losses: list[_Declared]
    _updates: list[_Declared]
    _regularized: set[str]
    _activity_regularizer: Any
    #: Whether masks pass through this layer.
    supports_masking = False
    #: Whether updates count although the layer is not trainable.
    stateful = False

    def _init_nodes(self, activity_regularizer: Any) -> None:
        if activity_regularizer is not None and frame.graph is None:
            raise ArgumentError(
                f"{self.where}: expected no activity_regularizer in eager mode, got one. "
                "Build the layer inside `with cellweave.Graph():`."
            )
        self._activity_regularizer = activity_regularizer

    @staticmethod
    def _fresh_nodes() -> dict[str, Any]:
        """The attributes that speak of a recorded graph, as they are outside one."""
        names = ("_inbound_nodes", "_outbound_nodes", "_losses", "_updates")
        return {**{name: [] for name in names}, "_graph": None, "_regularized": set()}

    # Recording

    def recorded(
        self, symbols: list[SymbolicTensor], inputs: Nest, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call on symbolic tensors and return its symbolic outputs."""
        graph = self._graph = graph_of(symbols, self.where)
        masks = _nest.map_structure(lambda leaf: getattr(leaf, "mask", None), inputs)
        given = any(mask is not None for mask in _nest.flatten(masks))
        out_masks = self.compute_mask(inputs, masks if given else None)
        with graph.opened():
            outputs = graph.record_module(self, (inputs, *args), dict(kwargs))  # type: ignore[arg-type]
        node = Node(self, inputs, outputs, masks if given else None, out_masks)
        index = len(self._inbound_nodes)
        self._inbound_nodes.append(node)
        for symbol in symbols_in(inputs):
            if symbol.history is not None:
                source = symbol.history[0]
                source._outbound_nodes.append(node)
                node.inbound_layers.append(source)
        for position, symbol in enumerate(symbols_in(outputs)):
            symbol.history = (self, index, position)
        if out_masks is not None:
            for symbol, mask in zip(symbols_in(outputs), _nest.flatten(out_masks), strict=False):
                symbol.mask = mask
        if self._activity_regularizer is not None:
            for symbol in symbols_in(outputs):
                self.add_loss(graph.record(self._activity_regularizer, (symbol,), {}), inputs=inputs)
        return outputs

    # Nodes

    def _need_graph(self, what: str) -> Graph:
        if self._graph is None:
            raise ModeError(f"{self.where}.{what}: expected a layer of a recorded graph, got one in eager mode.")
        return self._graph

    def _need_recorded(self, what: str) -> None:
        """Raise inside `call`: its tensors are no symbols, and each run of a model would add them again."""
        if is_probing():
            raise ModeError(
                f"{self.where}.{what}: expected tensors of the recorded graph, got some of the inside of a call, which "
                "is recorded as one step. Add what is computed of its outputs where it is called."
            )

    def _only_node(self, what: str) -> Node:
        """Node 0, as TF1's code (not its page) does where there are several."""
        if not self._inbound_nodes:
            raise NodeError(f"{self.where}.{what}: expected a recorded call, got none.")
        return self._inbound_nodes[0]

    def _node_at(self, index: int, what: str) -> Node:
        if not self._inbound_nodes:
            raise ModeError(f"{self.where}.{what}: expected a recorded call, got none.")
        if not -len(self._inbound_nodes) <= index < len(self._inbound_nodes):
            raise ArgumentError(
                f"{self.where}.{what}: expected a node index below {len(self._inbound_nodes)}, got {index}."
            )
        return self._inbound_nodes[index]

    def __getattr__(self, name: str) -> Any:
        # A property that raises AttributeError lands here; nn.Module would replace its message.
        prop = getattr(type(self), name, None)
        if isinstance(prop, property) and prop.fget is not None and "_inbound_nodes" in self.__dict__:
            return prop.fget(self)
        alias = self.__dict__.get("_aliases", {}).get(name)
        if alias is not None:
            return getattr(self, alias)
        return super().__getattr__(name)  # type: ignore[misc]

    @property
    def graph(self) -> Graph:
        """The graph the layer belongs to. Raises ModeError in eager mode."""
        return self._need_graph("graph")

    @property
    def inbound_nodes(self) -> list[Node]:
        """Recorded calls of this layer."""
        return list(self._inbound_nodes)

    @property
    def outbound_nodes(self) -> list[Node]:
        """Recorded calls that take this layer's outputs."""
        return list(self._outbound_nodes)

    @property
    def input(self) -> Any:
        """Input of the first recorded call. Raises ModeError in eager mode, NodeError without a call."""
        self._need_graph("input")
        return self._only_node("input").inputs

    @property
    def output(self) -> Any:
        """Output of the first recorded call. Raises ModeError in eager mode, NodeError without a call."""
        self._need_graph("output")
        return self._only_node("output").outputs

    def _common_shape(self, what: str, of: Callable[[Node], Nest]) -> Any:
        self._need_graph(what)
        self._only_node(what)
        shapes = [_shapes(of(node)) for node in self._inbound_nodes]
        if any(shape != shapes[0] for shape in shapes):
            raise NodeError(
                f"{self.where}.{what}: expected one shape in all {len(shapes)} recorded calls, got several."
            )
        return shapes[0]

    @property
    def input_shape(self) -> Any:
        """Shape of the inputs, None where open; NodeError when recorded calls differ."""
        return self._common_shape("input_shape", lambda node: node.inputs)

    @property
    def output_shape(self) -> Any:
        """Shapes of the outputs (a cell: output and state); NodeError when recorded calls differ."""
        return self._common_shape("output_shape", lambda node: node.outputs)

    def get_input_at(self, node_index: int) -> Any:
        """Input of a recorded call, -1 for the last. Raises ModeError without calls, ArgumentError past the last."""
        self._need_graph("get_input_at")
        return self._node_at(node_index, "get_input_at").inputs

    def get_output_at(self, node_index: int) -> Any:
        """Output of a recorded call."""
        self._need_graph("get_output_at")
        return self._node_at(node_index, "get_output_at").outputs

    def get_input_shape_at(self, node_index: int) -> Any:
        """Input shape of a recorded call."""
        self._need_graph("get_input_shape_at")
        return _shapes(self._node_at(node_index, "get_input_shape_at").inputs)

    def get_output_shape_at(self, node_index: int) -> Any:
        """Output shape of a recorded call."""
        self._need_graph("get_output_shape_at")
        return _shapes(self._node_at(node_index, "get_output_shape_at").outputs)

    @property
    def input_mask(self) -> Any:
        """Mask of `input`. Raises NodeError without a recorded call."""
        return self._only_node("input_mask").input_masks

    @property
    def output_mask(self) -> Any:
        """Mask of `output`. Raises NodeError without a recorded call."""
        return self._only_node("output_mask").output_masks

    def get_input_mask_at(self, node_index: int) -> Any:
        """Mask of the input of a recorded call."""
        return self._node_at(node_index, "get_input_mask_at").input_masks

    def get_output_mask_at(self, node_index: int) -> Any:
        """Mask of the output of a recorded call."""
        return self._node_at(node_index, "get_output_mask_at").output_masks

    def compute_mask(self, inputs: Nest, mask: Nest = None) -> Any:
        """Mask of the output: None, or the input's where the layer supports masking.

        Raises:
            ArgumentTypeError: a mask came, and the layer does not support masking.
        """
        if self.supports_masking:
            return mask
        if any(part is not None for part in _nest.flatten(mask)):
            raise ArgumentTypeError(
                f"{self.where}.compute_mask: expected no mask because the layer does not support masking, got one."
            )
        return None

    # Losses and updates

    @property
    def activity_regularizer(self) -> Any:
        """The function given at construction, or None."""
        return self._activity_regularizer

    @property
    def losses(self) -> list[Any]:
        """Regularization losses: values in eager mode, symbolic tensors in graph mode, those of `add_loss` included."""
        records = [record for record in self._records.values() if record.regularizer is not None]
        if self._graph is None:
            return [record.regularizer(getattr(self, record.attribute)) for record in records]
        for record in records:
            if record.full_name not in self._regularized:
                self._regularized.add(record.full_name)
                loss = self._graph.regularizer_loss(
                    getattr(self, record.attribute),
                    record.regularizer,
                    functools.partial(self._graph.parameter, self, record.attribute),  # type: ignore[arg-type]
                )
                self._losses.append(_Declared(loss, conditional=False))
        return [loss.value for loss in self._losses]

    def _declare_loss(self, graph: Graph, value: Any, conditional: bool) -> None:
        self._losses.append(_Declared(value, conditional))
        graph.add_to_collection(REGULARIZATION_LOSSES, value)

    def add_loss(self, losses: Any, inputs: Nest = None) -> None:
        """Add symbolic losses, which also join the graph's "regularization_losses".

        Args:
            losses: A symbolic tensor or a list of them.
            inputs: What they depend on; None: they are unconditional.
        Raises:
            ModeError: in eager mode, or inside `call`, which is recorded as one step.
        """
        graph = self._need_graph("add_loss")
        self._need_recorded("add_loss")
        for loss in _nest.flatten(losses):
            self._declare_loss(graph, loss, inputs is not None)

    def get_losses_for(self, inputs: Nest) -> list[Any]:
        """Losses that depend on `inputs`; None: the unconditional ones. Raises ModeError in eager mode."""
        self._need_graph("get_losses_for")
        listed = self.losses  # makes the regularizers' losses
        return _depending(self._losses, inputs) if listed else []

    @property
    def updates(self) -> list[Any]:
        """Updates added; empty when the layer is neither trainable nor stateful."""
        if not self.trainable and not self.stateful:
            return []
        return [update.value for update in self._updates]

    def add_update(self, updates: Any, inputs: Nest = None) -> None:
        """Add updates (symbolic tensors that a step is to compute); ignored in eager mode.

        Args:
            updates: One update or a list of them.
            inputs: What they depend on; None: they are unconditional.
        Raises:
            ModeError: inside `call` of a recorded layer.
        """
        if self._graph is not None:
            self._need_recorded("add_update")
            self._updates.extend(_Declared(update, inputs is not None) for update in _nest.flatten(updates))

    def get_updates_for(self, inputs: Nest) -> list[Any]:
        """Updates that depend on `inputs`; None: the unconditional ones. Raises ModeError in eager mode."""
        self._need_graph("get_updates_for")
        return _depending(self._updates, inputs) if self.updates else []


def _ancestors(node: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found.add(current)
            waiting.extend(current.all_input_nodes)
    return found


def _depending(declared: list[_Declared], inputs: Nest) -> list[Any]:
    if inputs is None:
        return [item.value for item in declared if not item.conditional]
    sources = {symbol.node for symbol in symbols_in(inputs)}
    return [
        item.value
        for item in declared
        if item.conditional and isinstance(item.value, SymbolicTensor) and _ancestors(item.value.node) & sources
    ]


def apply_constraints(module: torch.nn.Module) -> None:
    """Apply the `constraint` of every variable in `module`, in place; call it after an optimizer's step.

    Raises:
        ArgumentTypeError: no module.
    Source: TF1 optimizers applied a variable's constraint after each update.
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentTypeError(f"apply_constraints: expected a module, got {module!r}.")
    with torch.no_grad():
        for layer in module.modules():
            for record in getattr(layer, "_records", {}).values():
                if record.constraint is not None:
                    variable = getattr(layer, record.attribute)
                    variable.copy_(record.constraint(variable))
