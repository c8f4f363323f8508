"""Recorded graphs: symbolic inputs, and the calls made on them, on torch.fx nodes."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from cellweave import _nest
from cellweave._errors import ModeError
from cellweave._types import DTypeLike, ShapeLike, as_dtype, shape_dims
from cellweave.scopes._context import frame, installed, undone_on_error
from cellweave.scopes._run import session_run
from cellweave.scopes._seeds import SeedState
from cellweave.scopes._store import VariableStore
from cellweave.scopes._symbols import SymbolicTensor, graph_of, symbols_in

#: An unknown dimension is tried at both sizes: what differs in a result is unknown there too.
_PROBE_SIZES = (3, 5)

_Function = TypeVar("_Function", bound=Callable[..., Any])


class ModuleRef:
    """A module inside a node's arguments, by its key in the graph."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __repr__(self) -> str:
        return self.key

    def resolve(self, module_of: Callable[[str], nn.Module]) -> Any:
        """What stands in the argument's place when the node runs."""
        return module_of(self.key)


class ParameterRef(ModuleRef):
    """A parameter inside a node's arguments, by the key of the module that holds it."""

    def resolve(self, module_of: Callable[[str], nn.Module]) -> Any:
        """The parameter."""
        return module_of(self.key).value


class VariableHolder(nn.Module):
    """Holds one parameter that recorded functions use directly."""

    def __init__(self, value: nn.Parameter, full_name: str, from_store: bool) -> None:
        super().__init__()
        self.value = value
        self.full_name = full_name
        self.from_store = from_store
        self.name = full_name.replace("/", "_")


class _Tracer(fx.Tracer):
    """Records nodes and learns each result's shape by running the call on stand-ins without values."""

    def __init__(self, owner: Graph) -> None:
        super().__init__()
        self.owner = owner
        self.graph = owner.fx_graph
        self.root = nn.Module()

    def create_arg(self, a: Any) -> Any:
        def recorded(value: Any) -> Any:
            if isinstance(value, nn.Parameter):
                return ParameterRef(self.owner.key_of(self.owner.holder_of(value)))
            if isinstance(value, fx.Proxy):
                return value.node
            if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                raise ModeError(
                    "Graph: expected parameters or constants beside symbolic tensors, got a value computed from "
                    "parameters, which a Model would not compute again. Compute it inside a Layer."
                )
            return value

        return fx.node.map_aggregate(a, recorded)

    def create_proxy(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None = None,
        type_expr: Any = None,
        proxy_factory_fn: Any = None,
    ) -> Any:
        symbols = symbols_in(args, kwargs)
        if symbols:
            graph_of(symbols, str(getattr(target, "__name__", target)))
        recorded = self.create_arg(args), self.create_arg(kwargs)
        try:
            results = self.owner.learn(kind, target, args, kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise ModeError(
                f"{getattr(target, '__name__', target)}: expected a call whose path and shapes follow from shapes, "
                "got one that looks at values. A symbolic tensor has none until a Model runs."
            ) from error
        node = self.create_node(kind, target, *recorded, name)
        node.meta["id"] = self.owner.next_id()
        result = self._wrap(node, results)
        node.meta["shape"] = _nest.map_structure(lambda leaf: list(getattr(leaf, "shape", ())), result)
        return result

    def _wrap(self, node: fx.Node, results: tuple[Any, Any]) -> Any:
        first, second = results
        if isinstance(first, torch.Size):
            first, second = tuple(first), tuple(second)
        if _nest.is_nested(first):
            keys = sorted(first) if isinstance(first, dict) else range(len(first))
            pairs = zip(keys, _nest.children(first), _nest.children(second), strict=True)
            items = []
            for key, a, b in pairs:
                item = self.create_node("call_function", take, (node, key), {}, f"{node.name}_{key}")
                item.meta["id"] = self.owner.next_id()
                items.append(self._wrap(item, (a, b)))
            return _nest.rebuild(first, items)
        if isinstance(first, torch.Tensor) or first != second:
            return SymbolicTensor(node, self.owner, (first, second))
        return first  # the same for every size: a plain value


def take(structure: Any, key: Any) -> Any:
    """One part of a node's result."""
    return structure[key]


def _known_sizes(values: Any) -> list[int]:
    leaves = _nest.flatten(values)
    shapes: list[tuple[int | None, ...]] = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]
    shapes += [leaf.shape.dims for leaf in leaves if isinstance(leaf, SymbolicTensor) and leaf.is_tensor]
    return sorted({size for shape in shapes for size in shape if size is not None})


class _Probing(threading.local):
    active = False


_probing = _Probing()


def is_probing() -> bool:
    """Whether shapes are being learnt: tensors have no values and no stream may move."""
    return _probing.active


@contextmanager
def probing() -> Iterator[None]:
    """Run layers for their shapes and variables only: random streams stay where they are."""
    outer, _probing.active = _probing.active, True
    try:
        yield
    finally:
        _probing.active = outer


class Graph:
    """A recorded graph with a variable store, seeds and layer names of its own.

    Inside `with Graph():` TF1's graph rules hold for variables (see `VariableStore`), `cellweave.Input` makes symbolic
    tensors, and layers called on them are recorded. `cellweave.Model` runs what was recorded.

    Attributes:
        store: Its variables.
        seeds: Its graph seed.
    Source: TF1 `tf.Graph`, as far as layers need it.
    """

    def __init__(self) -> None:
        self.store = VariableStore()
        self.seeds = SeedState()
        self.fx_graph = fx.Graph()
        self.tracer = _Tracer(self)
        self.modules: dict[str, nn.Module] = {}
        #: (owning layer or None, name, variable, regularizer) of variables whose losses are not recorded yet.
        self.regularized: list[tuple[Any, str, nn.Parameter, Callable[[Any], Any]]] = []
        self._holders: dict[int, VariableHolder] = {}
        self._regularizer_losses: dict[int, Any] = {}
        self._collections: dict[str, list[Any]] = {}
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._ids = 0

    def __enter__(self) -> Graph:
        context = installed(self.store, self)
        context.__enter__()
        frame.installed.append(context)  # of this thread: another one may have the same object open
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        frame.installed.pop().__exit__(kind, error, trace)

    def opened(self) -> AbstractContextManager[Any]:
        """Make this graph the current one; where it is that already, its open scope stays open."""
        return nullcontext() if frame.graph is self else self

    def __deepcopy__(self, memo: dict[int, Any]) -> Graph:
        return self

    def add_to_collection(self, name: str, value: Any) -> None:
        """Append to a named list, such as "regularization_losses"."""
        self._collections.setdefault(name, []).append(value)

    def get_collection(self, name: str) -> list[Any]:
        """A copy of a named list; empty when nothing was added."""
        if name == REGULARIZATION_LOSSES:
            self._record_regularizers()
        return list(self._collections.get(name, []))

    def _record_regularizers(self) -> None:
        waiting, self.regularized = self.regularized, []
        for owner, name, variable, regularizer in waiting:
            if owner is not None:
                _ = owner.losses  # records them and adds them to the collection
                continue
            holder = self.holder_of(variable, name)
            self.regularizer_loss(variable, regularizer, functools.partial(self.parameter, holder, "value"))

    def regularizer_loss(
        self, variable: nn.Parameter, regularizer: Callable[[Any], Any], symbol: Callable[[], SymbolicTensor]
    ) -> Any:
        """The loss of a variable's regularizer, recorded and added to the collection once."""
        if id(variable) not in self._regularizer_losses:
            loss = self._regularizer_losses[id(variable)] = self.record(regularizer, (symbol(),), {})
            self.add_to_collection(REGULARIZATION_LOSSES, loss)
        return self._regularizer_losses[id(variable)]

    def holder_of(self, variable: nn.Parameter, name: str = "variable") -> VariableHolder:
        """The module that holds a parameter which no recorded layer owns."""
        holder = self._holders.get(id(variable))
        if holder is None:
            known = [key for key, value in self.store.variables.items() if value is variable]
            holder = self._holders[id(variable)] = VariableHolder(variable, (known or [name])[0], bool(known))
        return holder

    def next_id(self) -> int:
        """Number of the next node, from 1."""
        self._ids += 1
        return self._ids

    def key_of(self, module: nn.Module) -> str:
        """The name that a module has in this graph's models."""
        for key, known in self.modules.items():
            if known is module:
                return key
        stem = str(getattr(module, "name", type(module).__name__)).replace(".", "_")
        key, index = stem, 1
        while key in self.modules:
            key, index = f"{stem}_{index}", index + 1
        self.modules[key] = module
        return key

    def placeholder(self, shape: tuple[int | None, ...], dtype: torch.dtype, name: str | None) -> SymbolicTensor:
        """A new input node."""
        first, second = (self._stand_in(shape, dtype, size) for size in _PROBE_SIZES)
        node = self.fx_graph.placeholder(name or f"input_{self._ids + 1}")
        node.meta.update(id=self.next_id(), shape=list(shape))
        return SymbolicTensor(node, self, (first, second))

    def _stand_in(self, shape: tuple[int | None, ...], dtype: torch.dtype, unknown: int) -> torch.Tensor:
        with self._fake:
            return torch.empty([unknown if dim is None else dim for dim in shape], dtype=dtype)

    def _resized(self, symbol: SymbolicTensor, which: int, size: int, axis: int) -> Any:
        """The stand-in of a symbol with its open batch axis set to a size; below three axes that is the first."""
        first, second = symbol.probes
        if not isinstance(first, torch.Tensor):
            return symbol.probes[which]
        dims = list(symbol.probes[which].shape)
        place = axis if len(dims) > 2 else 0
        if len(dims) > place and (first.shape[place], second.shape[place]) == _PROBE_SIZES:
            dims[place] = size
        with self._fake:
            return torch.empty(dims, dtype=first.dtype, device=first.device)

    def record(self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a function's call; modules among its arguments are kept by name."""
        captured: dict[str, SymbolicTensor] = {}

        def reference(value: Any) -> Any:
            if isinstance(value, nn.Module):
                captured.update(symbols_held_by(value))
                return ModuleRef(self.key_of(value))
            return value

        args, kwargs = fx.node.map_aggregate((args, kwargs), reference)
        with self.opened(), undone_on_error():
            return self.tracer.create_proxy("call_function", _WithCaptured(target), (captured, *args), dict(kwargs))

    def record_module(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a module's call."""
        return self.tracer.create_proxy(
            "call_module", self.key_of(module), args, {**kwargs, CAPTURED: symbols_held_by(module)}
        )

    def parameter(self, module: nn.Module, attribute: str) -> SymbolicTensor:
        """The symbol of a module's parameter."""
        target = f"{self.key_of(module)}.{attribute}"
        return self.tracer.create_proxy("get_attr", target, (), {})  # type: ignore[no-any-return]

    def learn(self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Results of a call on stand-ins of both sizes.

        Where they do not go with the known sizes among the arguments (a state made for a fixed batch, say), the open
        batch axis, first or second, is taken to have one of those sizes.
        """
        try:
            return self._probe(kind, target, args, kwargs, 0), self._probe(kind, target, args, kwargs, 1)
        except (ValueError, RuntimeError):
            if any(symbol.has_open_depth for symbol in symbols_in(args, kwargs)):
                raise
            for size, axis in itertools.product(_known_sizes((args, kwargs)), (0, 1)):
                with contextlib.suppress(ValueError, RuntimeError):
                    first, second = (self._probe(kind, target, args, kwargs, which, (size, axis)) for which in (0, 1))
                    return first, second
            raise

    def _probe(
        self,
        kind: str,
        target: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        which: int,
        fixed: tuple[int, int] | None = None,
    ) -> Any:
        def stand_in(value: Any) -> Any:
            if isinstance(value, SymbolicTensor):
                return value.probes[which] if fixed is None else self._resized(value, which, *fixed)
            return value.resolve(self.modules.__getitem__) if isinstance(value, ModuleRef) else value

        if kind == "get_attr":
            key, attribute = target.split(".", 1)
            return self._fake.from_tensor(getattr(self.modules[key], attribute))
        real_args, real_kwargs = fx.node.map_aggregate((args, kwargs), stand_in)
        with probing(), session_run(), self._fake:
            return execute(kind, target, tuple(real_args), dict(real_kwargs), self.modules.__getitem__)


#: TF1's name of the collection that holds every loss added to layers.
REGULARIZATION_LOSSES = "regularization_losses"

#: Keyword under which a node carries the symbolic tensors that its module holds inside.
CAPTURED = "captured_symbols"


def symbols_held_by(module: nn.Module) -> dict[str, SymbolicTensor]:
    """Symbolic tensors that a module and its children were built with, such as fed keep probabilities."""
    found: dict[str, SymbolicTensor] = {}
    for part in module.modules():
        for symbol in getattr(part, "symbolic_inputs", tuple)():
            found[symbol.node.name] = symbol
    return found


class _WithCaptured:
    """A recorded function whose first argument holds what its modules captured."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "function")
        self.__qualname__ = self.__name__
        self.__module__ = getattr(function, "__module__", __name__)

    def __call__(self, captured: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        with session_run() as run:
            run.fed.update(captured)
            return self.function(*args, **kwargs)


def execute(
    kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], module_of: Callable[[str], nn.Module]
) -> Any:
    """Run one node's call on real arguments (or stand-ins)."""
    if kind == "call_module":
        with session_run() as run:
            run.fed.update(kwargs.pop(CAPTURED, {}))
            return module_of(target)(*args, **kwargs)
    if kind == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    return target(*args, **kwargs)


def fed_value(symbol: SymbolicTensor, value_in_run: dict[str, Any]) -> Any:
    """The value of a captured symbol in the run that is open."""
    if symbol.node.name not in value_in_run:
        raise ModeError(
            f"{symbol.node.name}: expected a value fed by a Model, got a call outside one. "
            "Record the call inside the graph, or give the layer a torch tensor."
        )
    return value_in_run[symbol.node.name]


def recordable(function: _Function) -> _Function:
    """Make a function record one node when any argument is symbolic."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        symbols = symbols_in(args, kwargs)
        if not symbols:
            return function(*args, **kwargs)
        return graph_of(symbols, function.__name__).record(function, args, kwargs)

    return wrapper  # type: ignore[return-value]


def Input(shape: ShapeLike, dtype: DTypeLike = "float32", name: str | None = None) -> SymbolicTensor:  # noqa: N802 (TF's name)
    """A symbolic tensor that a `Model` is fed with.

    Args:
        shape: All axes, the batch included; None where a size is open, such as `(None, None, 64)`.
        dtype: Its dtype.
        name: Its name; default `input_<k>`.
    Raises:
        ModeError: no `Graph` is open.
    Source: TF1 `tf.placeholder`, `tf.keras.Input`.
    """
    if frame.graph is None:
        raise ModeError("Input: expected an open graph, got none. Call it inside `with cellweave.Graph():`.")
    return frame.graph.placeholder(shape_dims(shape), as_dtype(dtype, "Input"), name)
