"""Steps of an export that is to take any number of them: one step, traced once, in torch's `scan`.

Imported when an export comes by: what it needs of torch takes long to import.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._higher_order_ops.scan import scan_op
from torch._higher_order_ops.utils import materialize_as_graph
from torch.fx.experimental.symbolic_shapes import is_concrete_int

from cellweave import _nest
from cellweave._errors import ModeError, ShapeError
from cellweave._types import Nest
from cellweave.layers._cell_step import step_with_lengths
from cellweave.layers._readiness import is_ready
from cellweave.layers._stepping import Task, padded, restarted
from cellweave.layers._traced_plans import draws_masks
from cellweave.scopes import Loop, running_loop


def has_open_steps(task: Task) -> bool:
    """Whether an export asks for any number of steps."""
    return _is_open(task.ran)


def scan_through(
    cell: Any, task: Task, inputs: Nest, active: torch.Tensor | None, resets: torch.Tensor | None, fresh: Nest
) -> tuple[Any, Any]:
    """What `step_through` gives, by one operator for all steps.

    Args:
        cell, task: As `step_through` takes them.
        inputs: The task's, with zeros past each row's end.
        active: `[T, B]` bool, true where a row is within its length.
        resets: `[T, B]` bool; fresh: what they start from.
    Raises:
        ModeError: the step draws random masks, makes its variables, or is another one at its second call. ShapeError:
            it gives a state of another shape or dtype than it takes.
    """
    if isinstance(cell, torch.nn.Module) and draws_masks(cell):
        raise ModeError(f"{task.where}: expected a cell in evaluation mode to export, got one that draws random masks.")
    if not is_ready(cell):
        raise ModeError(
            f"{task.where}: expected a cell that has its variables, to export it for any number of steps, got a new "
            f"{type(cell).__name__}. Call the model once before."
        )
    sequences = [*_nest.flatten(inputs), *[flags for flags in (active, resets) if flags is not None]]
    start = [_own(leaf) for leaf in _nest.flatten(task.state)]
    with running_loop(None) as loop:
        step = _Step(cell, task, fresh, loop, lengths=active is not None, resets=resets is not None)
        first = (*start, *[sequence[0] for sequence in sequences])
        graph, captured = _traced(step, first)
        again, others = _traced(step, first)
    if graph.code != again.code or not _alike(captured, others):
        raise ModeError(
            f"{task.where}: expected {type(cell).__name__} to compute the same at every step, to export it for any "
            "number of steps, got one whose steps differ. Count steps in the state, or export for one number of steps."
        )
    outside = [_own(tensor) if _is_real(tensor) else tensor for tensor in captured]
    found = list(scan_op(graph, start, sequences, (*outside, *_with_sizes(graph, first))))
    state = _nest.pack(step.state, found[: len(start)])
    return _nest.pack(step.outputs, [padded(leaf, task.steps) for leaf in found[len(start) :]]), state


class _Step:
    """One step on tensors in a row: leaves of the state and of the inputs; then whether rows are active and reset.

    Attributes:
        state, outputs: What the last call gave, in its structures.
    """

    def __init__(self, cell: Any, task: Task, fresh: Nest, loop: Loop, *, lengths: bool, resets: bool) -> None:
        self._cell, self._task, self._fresh, self._loop = cell, task, fresh, loop
        self._lengths, self._resets = lengths, resets
        self.state: Nest = task.state
        self.outputs: Nest = None

    def __call__(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest, task = list(tensors), self._task
        resets = rest.pop() if self._resets else None
        active = rest.pop() if self._lengths else None
        leaves = len(_nest.flatten(task.state))
        state, now = _nest.pack(task.state, rest[:leaves]), _nest.pack(task.inputs, rest[leaves:])
        self._loop.next_step()
        if resets is not None:
            state = restarted(resets, self._fresh, state)
        self.outputs, self.state = step_with_lengths(self._cell, now, state, active, task.where, task.dtype)
        made = _nest.flatten(self.state)
        for old, new in zip(rest[:leaves], made, strict=True):
            if new.shape != old.shape or new.dtype != old.dtype:
                raise ShapeError(
                    f"{task.where}: expected a new state {list(old.shape)} {old.dtype} as the one before, to export "
                    f"any number of steps, got {list(new.shape)} {new.dtype}."
                )
        # torch's operator forbids results that are an argument, or one another.
        return tuple([_own(leaf) for leaf in (*made, *_nest.flatten(self.outputs))])


def _own(leaf: torch.Tensor) -> torch.Tensor:
    """A copy in memory of its own."""
    return leaf.clone(memory_format=torch.contiguous_format)


def _traced(step: _Step, arguments: tuple[torch.Tensor, ...]) -> tuple[fx.GraphModule, list[torch.Tensor]]:
    """A step's graph, whose last arguments are the tensors that the step reads beside its own; and those."""
    module = materialize_as_graph(step, arguments)
    graph = module.graph
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    captured: dict[int, torch.Tensor] = {}
    places: dict[int, fx.Node] = {}
    for node in list(graph.nodes):
        value = getattr(module, node.target) if node.op == "get_attr" else None
        if not isinstance(value, torch.Tensor):
            continue
        if id(value) not in captured:
            with graph.inserting_after(last):
                last = graph.placeholder(f"captured_{len(captured)}")
            last.meta = dict(node.meta)
            captured[id(value)], places[id(value)] = value, last
        node.replace_all_uses_with(places[id(value)])
        graph.erase_node(node)
    module.recompile()
    return module, list(captured.values())


def _with_sizes(module: fx.GraphModule, arguments: tuple[torch.Tensor, ...]) -> list[Any]:
    """Open sizes of a step's tensors, as further arguments of its graph: inductor looks for them there alone."""
    found: dict[Any, Any] = {}
    sizes: list[Any] = [size for tensor in arguments for size in tensor.shape]
    for size in sizes:
        if _is_open(size):
            found.setdefault(size.node.expr, size)
    last = [node for node in module.graph.nodes if node.op == "placeholder"][-1]
    for number, size in enumerate(found.values()):
        with module.graph.inserting_after(last):
            last = module.graph.placeholder(f"size_{number}")
        last.meta = {"val": size}
    module.recompile()
    return list(found.values())


def _alike(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    """Whether two traces read the same tensors; constants of a step are made anew by each."""
    return all(a is b or (_is_real(a) and _is_real(b) and torch.equal(a, b)) for a, b in zip(ones, others, strict=True))


def _is_open(size: Any) -> bool:
    """Whether an export leaves a size open."""
    return isinstance(size, torch.SymInt) and not is_concrete_int(size)


def _is_real(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)
