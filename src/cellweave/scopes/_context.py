"""What is open right now in this thread: a store or graph, a variable scope, the layer that owns new variables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cellweave._errors import ArgumentError, ScopeError

if TYPE_CHECKING:
    from cellweave.scopes._graph import Graph
    from cellweave.scopes._layer import Layer
    from cellweave.scopes._seeds import SeedState
    from cellweave.scopes._store import VariableStore


class _AutoReuse:
    def __repr__(self) -> str:
        return "AUTO_REUSE"

    def __reduce__(self) -> str:
        return "AUTO_REUSE"


#: For `reuse=`: create a variable, or share it when it exists.
AUTO_REUSE = _AutoReuse()


class Branch:
    """Identity of a scope that was named automatically outside every store and scope."""


@dataclass
class VariableScope:
    """A place for variables: a path and the defaults that hold in it.

    Attributes:
        name: Full path, "" for the root.
        reuse: False: new names only; True: existing names only; AUTO_REUSE: either.
        initializer, regularizer, constraint, dtype, partitioner, custom_getter: Defaults for `get_variable`.
    Source: TF1 `tf.VariableScope`.
    """

    name: str = ""
    reuse: Any = False
    initializer: Any = None
    regularizer: Any = None
    constraint: Any = None
    dtype: Any = None
    partitioner: Any = None
    custom_getter: Any = None
    branch: Branch | None = field(default=None, repr=False)

    def reuse_variables(self) -> None:
        """From here on only existing variables are returned. Raises ScopeError outside a store."""
        check_reuse(True, "reuse_variables")
        self.reuse = True

    def set_initializer(self, initializer: Any) -> None:
        """Set the default initializer of kernels in this scope."""
        self.initializer = initializer

    def set_regularizer(self, regularizer: Any) -> None:
        """Set the default regularizer of variables in this scope."""
        self.regularizer = regularizer

    def set_dtype(self, dtype: Any) -> None:
        """Set the default dtype of variables in this scope."""
        self.dtype = dtype

    def set_partitioner(self, partitioner: Any) -> None:
        """Set the default number of checkpoint slices of variables in this scope."""
        self.partitioner = partitioner

    def set_custom_getter(self, custom_getter: Any) -> None:
        """Set what stands between `get_variable` and the variable in this scope."""
        self.custom_getter = custom_getter

    def child(self, name: str, **changes: Any) -> VariableScope:
        """A scope of this name below this one."""
        return replace(self, name=f"{self.name}/{name}" if self.name else name, **changes)


def check_reuse(reuse: Any, where: str) -> None:
    """Raise unless variables can be shared here when that is asked for."""
    if reuse not in (None, False, True) and reuse is not AUTO_REUSE:
        raise ArgumentError(f"{where}: expected reuse None, False, True or AUTO_REUSE, got {reuse!r}.")
    if reuse and frame.store is None:
        raise ScopeError(
            f"{where}: expected an open variable store because reuse={reuse!r} shares variables, got none. "
            "Wrap the code in `with cellweave.VariableStore():`."
        )


class _Frame(threading.local):
    """The open scope of one thread."""

    def __init__(self) -> None:
        self.store: VariableStore | None = None
        self.graph: Graph | None = None
        self.seeds: SeedState | None = None
        self.scope = VariableScope()
        self.counts: dict[str, int] = {}
        self.owner: Layer | None = None
        #: The layers whose calls are under way around the owner, outermost first.
        self.around: tuple[Layer, ...] = ()
        #: How to take back what the first calls that are under way have made.
        self.undo: list[Callable[[], None]] | None = None
        #: What stores and graphs have to close, innermost last.
        self.installed: list[AbstractContextManager[None]] = []


frame = _Frame()


def nothing_is_open() -> bool:
    """Whether neither a store nor a scope is open: names that are taken here are forgotten at once."""
    return frame.store is None and not frame.scope.name


@contextmanager
def opened(scope: VariableScope, owner: Layer | None = None, *, reopened: bool = False) -> Iterator[VariableScope]:
    """Make `scope` the current one.

    Opening counts the name as taken; leaving forgets what was counted below it. A scope that is reopened by its object
    leaves all counts as they were.
    """
    outer, outer_owner, outer_around = frame.scope, frame.owner, frame.around
    before = dict(frame.counts) if reopened else None
    transient = frame.store is None and not outer.name
    frame.counts[scope.name] = frame.counts.get(scope.name, 0) + 1
    frame.scope = scope
    if owner is not None:
        if outer_owner is not None and outer_owner is not owner:
            frame.around = (*outer_around, outer_owner)
        frame.owner = owner
    try:
        yield scope
    finally:
        frame.scope, frame.owner, frame.around = outer, outer_owner, outer_around
        if before is not None:
            frame.counts.clear()
            frame.counts.update(before)
        else:
            for name in [name for name in frame.counts if name.startswith(scope.name + "/")]:
                del frame.counts[name]
        if transient:  # nothing outlives the outermost scope where no store keeps it
            frame.counts.clear()


def unique_name(prefix: str) -> str:
    """`prefix`, or `prefix_1`, `prefix_2`, ... when the open scope has used it already."""
    path = f"{frame.scope.name}/{prefix}" if frame.scope.name else prefix
    if not frame.counts.get(path):
        return prefix
    index = 1
    while frame.counts.get(f"{path}_{index}"):
        index += 1
    return f"{prefix}_{index}"


@contextmanager
def installed(store: VariableStore, graph: Graph | None = None) -> Iterator[None]:
    """Make a store (and graph) current, starting at its root scope."""
    saved = (frame.store, frame.graph, frame.seeds, frame.scope, frame.counts, frame.owner, frame.around)
    frame.store, frame.scope, frame.counts, frame.owner = store, VariableScope(), store.scope_counts, None
    frame.around = ()
    if graph is not None:
        frame.graph, frame.seeds = graph, graph.seeds
    try:
        yield
    finally:
        frame.store, frame.graph, frame.seeds, frame.scope, frame.counts, frame.owner, frame.around = saved


@contextmanager
def seeded_by(seeds: SeedState) -> Iterator[None]:
    """Let random ops take their seeds from here."""
    outer, frame.seeds = frame.seeds, seeds
    try:
        yield
    finally:
        frame.seeds = outer


@contextmanager
def undone_on_error(*undo: Callable[[], None]) -> Iterator[None]:
    """Take back what was made inside when it fails: the given steps, and those of every such block inside."""
    outermost = frame.undo is None
    journal: list[Callable[[], None]] = [] if frame.undo is None else frame.undo
    frame.undo = journal
    mark = len(journal)
    journal.extend(undo)
    try:
        yield
    except BaseException:
        for step in reversed(journal[mark:]):
            step()
        del journal[mark:]
        raise
    finally:
        if outermost:
            frame.undo = None
