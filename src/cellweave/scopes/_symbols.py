"""Symbolic tensors: what stands for a tensor while a graph is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from cellweave import _nest
from cellweave._errors import ArgumentError, MemberError, ModeError
from cellweave._shape import TensorShape
from cellweave._types import Nest

if TYPE_CHECKING:
    from cellweave.scopes._graph import Graph

#: Members of tensors that ask for values.
_NEED_VALUES = frozenset({"item", "tolist", "numpy", "data_ptr", "storage", "backward"})


class SymbolicTensor(fx.Proxy):
    """A tensor of a recorded graph: shape and dtype are known as far as the inputs' are, values are not.

    Torch functions, methods and operators on it record nodes. `cellweave.Input` makes the first ones.

    Attributes:
        graph: The graph it belongs to.
        mask: Its mask, a SymbolicTensor or None.
        history: (layer, node index, tensor index) of the layer call that made it, or None.
    """

    def __init__(self, node: fx.Node, graph: Graph, probes: tuple[Any, Any]) -> None:
        super().__init__(node, graph.tracer)
        self.graph = graph
        self.probes = probes
        self.mask: SymbolicTensor | None = None
        self.history: tuple[Any, int, int] | None = None

    @property
    def is_tensor(self) -> bool:
        """Whether it stands for a tensor; else for a number that depends on an open dimension."""
        return isinstance(self.probes[0], torch.Tensor)

    @property
    def has_open_depth(self) -> bool:
        """Whether the last of several axes is unknown: no size may be guessed for it."""
        return self.is_tensor and len(self.shape) > 1 and self.shape[len(self.shape) - 1] is None

    @property
    def shape(self) -> TensorShape:
        """Dimensions, None where unknown."""
        a, b = self.probes
        return TensorShape([x if x == y else None for x, y in zip(a.shape, b.shape, strict=True)])

    @property
    def dtype(self) -> torch.dtype:
        """The dtype."""
        return self.probes[0].dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        """The device."""
        return self.probes[0].device  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.node.name

    def __getattr__(self, name: str) -> Any:
        member = getattr(torch.Tensor, name, None)
        if name in _NEED_VALUES or (name.endswith("_") and not name.startswith("_") and member is not None):
            raise self._no_value(name)
        if not self.is_tensor or member is None or name.startswith("__"):
            raise MemberError(f"{self.node.name}: expected a member of a tensor, got {name!r}.")
        if callable(member):
            return lambda *args, **kwargs: self.tracer.create_proxy("call_method", name, (self, *args), kwargs)
        return self.tracer.create_proxy("call_function", getattr, (self, name), {})

    def dim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def _no_value(self, use: str) -> ModeError:
        return ModeError(
            f"{self.node.name}: expected a real tensor for {use}, got a symbolic one. "
            "It has no value until a Model runs."
        )

    def __bool__(self) -> bool:
        raise self._no_value("a condition")

    def __int__(self) -> int:
        raise self._no_value("int()")

    def __float__(self) -> float:
        raise self._no_value("float()")

    def __index__(self) -> int:
        raise self._no_value("an index")

    def __len__(self) -> int:
        size = self.shape[0] if self.is_tensor and len(self.shape) else None
        if size is None:
            raise self._no_value("len()")
        return size

    def __iter__(self) -> Iterator[Any]:
        if not self.is_tensor or not len(self.shape) or self.shape[0] is None:
            raise self._no_value("a loop over its first axis")
        return iter(self.unbind(0))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise self._no_value("writing in place")

    def __hash__(self) -> int:
        return id(self)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        symbols = symbols_in(args, kwargs or {})
        name = getattr(function, "__name__", "function")
        graph_of(symbols, name)
        if kwargs and kwargs.get("training"):
            raise ModeError(
                f"{name}: expected a function without a training mode, got training=True, which no Model could switch. "
                "Call it inside a Layer."
            )
        if name.endswith("_") and not name.endswith("__"):
            raise symbols[0]._no_value(f"writing in place by {name}")
        return super().__torch_function__(function, types, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> SymbolicTensor:
        return self

    def __repr__(self) -> str:
        if not self.is_tensor:
            return f"SymbolicValue({self.node.name})"
        return f"SymbolicTensor({self.node.name}, shape={list(self.shape)}, dtype={self.dtype})"


def symbols_in(*values: Nest) -> list[SymbolicTensor]:
    """The symbolic tensors among the leaves."""
    return [leaf for value in values for leaf in _nest.flatten(value) if isinstance(leaf, SymbolicTensor)]


def graph_of(symbols: list[SymbolicTensor], where: str) -> Graph:
    """The one graph that all symbols belong to."""
    graph = symbols[0].graph
    if any(symbol.graph is not graph for symbol in symbols):
        raise ArgumentError(f"{where}: expected symbolic tensors of one graph, got tensors of several.")
    return graph
