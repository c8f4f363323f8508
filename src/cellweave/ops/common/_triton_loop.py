"""A recurrence's time loop: one kernel for the whole sequence where that fits the device, else some for each step."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import torch

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._gate_columns import GateColumns
from cellweave.ops.common._gate_masks import each_gate_has_an_h
from cellweave.ops.common._triton_autograd import Tensors
from cellweave.ops.common._triton_backend import (
    call_arguments,
    inner_masks,
    loop_arguments,
    only_by_steps,
    run_of_products,
    step_arguments,
    surroundings,
)
from cellweave.ops.common._triton_launch import Launch
from cellweave.ops.common._triton_masks import mask_table
from cellweave.ops.common._triton_schedule import Schedule
from cellweave.ops.common._triton_steps import over_rows, recurrent_weight_gradient
from cellweave.specs import CellSpec

#: Of the forward and the backward kernel, by cell, rows, bytes of a number and device; None where nothing fits it.
Schedules = Callable[[Any, int, int, torch.device | None], tuple[Schedule | None, Schedule | None]]
#: Of one call, by the names of the kernels.
Named = dict[str, Any]


class SingleSteps(Protocol):
    """A recurrence's module of single steps."""

    def forward(self, cell: Any, tensors: Tensors, made: Mapping[str, Any], given: Mapping[str, Any]) -> Tensors:
        """Run all steps and return the state after them."""

    def backward(self, cell: Any, tensors: Tensors, made: Named, upstream: Tensors, given: Mapping[str, Any]) -> None:
        """Run all steps backward and fill or replace what is made."""

    def gates_again(self, cell: Any, tensors: Tensors, kept: Named, given: Mapping[str, Any]) -> Named:
        """What forward kept none of, from the operands that it did keep."""


class KernelLoop(abc.ABC):
    """The time loop of one call: from input products, states and recurrent weights to outputs and state.

    Its tensors are the input products `[T, B, W]`, the state to start from (c before h), what resets start it from or
    Nones, and the recurrence's own weights, the normalizations last.

    Attributes:
        leaves: Of the state. weights: Names of the own weights. keeps: What backward needs.
        module, kernels: Where the kernels of whole sequences are, and what they are called, forward and backward.
        steps, plan, reference: Run single steps, give the schedules, run a call by the reference.
        columns: Of the input products.
    """

    leaves: ClassVar[tuple[str, ...]] = ("h",)
    weights: ClassVar[tuple[str, ...]]
    keeps: ClassVar[tuple[str, ...]]
    module: ClassVar[str]
    kernels: ClassVar[tuple[str, str]]
    steps: SingleSteps
    plan: ClassVar[Schedules]
    reference: ClassVar[Callable[[LayerCall], LayerResult]]
    #: Names in the kernels of the tensors, of the last state and of all states.
    _taken: ClassVar[tuple[str, ...]]
    _last: ClassVar[tuple[str, ...]]
    _every: ClassVar[tuple[str, ...]]
    #: Of the gradients of states and of what is given.
    _d_states: ClassVar[tuple[str, ...]]
    _upstream: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        states = [pattern.format(leaf) for pattern in ("{}0", "reset_{}") for leaf in cls.leaves]
        cls._taken = ("x_gates", *states, *cls.weights)
        cls._last, cls._every = (tuple(p.format(leaf) for leaf in cls.leaves) for p in ("{}_last", "all_{}"))
        cls._d_states = tuple(f"d_{name}" for name in states)
        cls._upstream = tuple(f"d_{name}" for name in ("out", *cls._last, *cls._every))

    def __init__(self, call: LayerCall, columns: Sequence[GateColumns], widths: dict[str, int]) -> None:
        self._call, self.columns = call, columns
        self._spec: Any = call.spec.cell
        self._around = surroundings(call)
        self._masks = mask_table(inner_masks(call), call.x.shape[1], widths, call.x)

    @functools.cached_property
    def schedules(self) -> tuple[Schedule | None, Schedule | None]:
        """Of the forward and the backward kernel; None where single steps run."""
        if only_by_steps(self._call.spec):
            return None, None
        x = self._call.x
        return type(self).plan(self._spec, x.shape[1], x.dtype.itemsize, x.device)

    def forward(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Tensors, Tensors]:
        """Outputs and the last state; and what backward needs, with the gates or without."""
        if self.schedules[0] is not None:
            launch, results, saved = self.forward_launch(tensors, save=save, gates=gates)
            launch.run()
            return results, saved
        made = self._forward_made(tensors[0], save=save, gates=gates, exchanged=False)
        given = {**self._step_arguments(tensors), "SAVE": save}
        return self._left(made, self.steps.forward(self._spec, tensors, made, given), save=save)

    def backward(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> Tensors:
        """Gradients of the loop's tensors."""
        kept = dict(zip(self.keeps, saved, strict=True))
        if kept["gates"] is None:
            kept |= self.steps.gates_again(self._spec, tensors, kept, self._step_arguments(tensors))
            saved = tuple(kept.values())
        if self.schedules[1] is not None:
            launch, made = self.backward_launch(tensors, saved, upstream)
            launch.run()
        else:
            made = self._backward_made(tensors)
            given = {**self._step_arguments(tensors), **self._backward_given(saved, upstream)}
            self.steps.backward(self._spec, tensors, made, upstream, given)
        of_states, own = [made[name] for name in self._d_states], self._weight_gradients(tensors, kept, made)
        return made["d_gates"], *of_states, *own, over_rows(made.get("d_norms"), made["d_gates"].dtype)

    def unfilled(self, products: torch.Tensor, *, save: bool) -> tuple[Tensors, Tensors]:
        """What `forward` gives for such input products, with undefined contents."""
        made = self._forward_made(products, save=save, gates=True, exchanged=False)
        return self._left(made, [leaf.new_empty(leaf.shape) for leaf in self._call.state], save=save)  # dense

    def forward_launch(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Launch, Tensors, Tensors]:
        """The forward kernel's launch for the whole sequence, its results and what it leaves for backward."""
        schedule, x_gates = cast(Schedule, self.schedules[0]), tensors[0]
        made = self._forward_made(x_gates, save=save, gates=gates, exchanged=True)
        last = [torch.empty_like(leaf) for leaf in tensors[1 : 1 + len(self.leaves)]]
        arguments = {**self._constants, **self._sides(schedule, x_gates), **self._named(tensors), **made, "SAVE": save}
        arguments.update(zip(self._last, last, strict=True))
        return Launch(self.module, self.kernels[0], schedule.grid, arguments), *self._left(made, last, save=save)

    def backward_launch(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> tuple[Launch, Named]:
        """The backward kernel's launch for the whole sequence, and what it makes."""
        schedule, made = cast(Schedule, self.schedules[1]), self._backward_made(tensors)
        given = self._backward_given(saved, upstream)
        arguments = {**self._constants, **self._sides(schedule, tensors[0]), **self._named(tensors), **made, **given}
        return Launch(self.module, self.kernels[1], schedule.grid, arguments), made

    def again(self, tensors: Tensors) -> Tensors:
        """The results by the reference, whose inputs are the products."""
        count, (cell, products, weights) = len(self.leaves), self._for_reference(tensors)
        start, fresh = tuple(tensors[1 : 1 + count]), tuple(tensors[1 + count : 1 + 2 * count])
        call = run_of_products(self._call, cell, products, start, weights, None if fresh[0] is None else fresh)
        out, state, states = type(self).reference(call)
        return out, *state, *states

    @abc.abstractmethod
    def _for_reference(self, tensors: Tensors) -> tuple[CellSpec, torch.Tensor, dict[str, torch.Tensor]]:
        """A cell that gives the same for the products as its inputs, those, and its weights."""

    @abc.abstractmethod
    def _made_inside(self, x_gates: torch.Tensor, *, kept: bool, save: bool, gates: bool) -> Named:
        """What forward fills beside outputs, operands h and states; `kept`: of all steps, also what is only operand."""

    def _made_back(self, tensors: Tensors) -> Named:
        """What backward fills beside the gradients of products and states."""
        return {}

    @abc.abstractmethod
    def _weight_gradients(self, tensors: Tensors, kept: Named, made: Named) -> Tensors:
        """Of the own weights, but for the normalizations."""

    def _weight_gradient(
        self, tensors: Tensors, values: torch.Tensor, d_total: torch.Tensor, columns: Sequence[GateColumns]
    ) -> torch.Tensor:
        """Of a weight with these columns, that multiplies `values [T, B, P]`, from the gradient of all products."""
        if each_gate_has_an_h(self._call.spec):
            return recurrent_weight_gradient(values, d_total, columns, self._step_arguments(tensors))
        return values.flatten(0, 1).t() @ d_total

    @functools.cached_property
    def _constants(self) -> Named:
        """What all kernels of the recurrence take beside tensors of the loop, forward and backward."""
        return call_arguments(self._call, self._around, self._masks) | self._own_constants()

    def _own_constants(self) -> Named:
        """Those of the recurrence."""
        return {}

    def _sides(self, schedule: Schedule, x_gates: torch.Tensor) -> Named:
        """What the kernels of whole sequences take beside that."""
        found = loop_arguments(schedule, x_gates)
        (found["K1"], found["K2"]), (found["M1"], found["M2"]) = schedule.sides[0], schedule.sides[-1]
        return found

    def _step_arguments(self, tensors: Tensors) -> Named:
        """What the kernels of single steps take beside what a step makes."""
        more = step_arguments(self._call.spec, tensors[-1], tensors[0].dtype)
        return {**self._constants, **self._named(tensors), **more}

    def _forward_made(self, x_gates: torch.Tensor, *, save: bool, gates: bool, exchanged: bool) -> Named:
        """What forward fills; operands of all steps also where programs exchange them."""
        (steps, rows), kept = x_gates.shape[:2], save or exchanged
        made = self._made_inside(x_gates, kept=kept, save=save, gates=save and gates)
        made["out"] = out = x_gates.new_empty(steps, rows, self._spec.output_size)
        made["hs"] = torch.empty_like(out) if kept else None
        if self._call.spec.all_states:
            every = [x_gates.new_empty(steps, *state.shape) for state in self._call.state]
            made.update(zip(self._every, every, strict=True))
        else:
            made.update(dict.fromkeys(self._every))
        return made

    def _left(self, made: Named, state: Tensors, *, save: bool) -> tuple[Tensors, Tensors]:
        """Results, and what backward needs if that is to be saved."""
        every = [made[name] for name in self._every] if self._call.spec.all_states else ()
        return (made["out"], *state, *every), tuple([made[name] for name in self.keeps]) if save else ()

    def _backward_made(self, tensors: Tensors) -> Named:
        made, count = self._made_back(tensors), len(self.leaves)
        made["d_gates"] = tensors[0]  # each element is read, if it holds a gate, before its gradient is stored
        d_start = [torch.empty_like(leaf) for leaf in tensors[1 : 1 + count]]
        fresh = tensors[1 + count : 1 + 2 * count]
        d_fresh = [None if leaf is None else torch.zeros_like(leaf) for leaf in fresh]
        made.update(zip(self._d_states, [*d_start, *d_fresh], strict=True))
        return made

    def _backward_given(self, saved: Tensors, upstream: Tensors) -> Named:
        given: Named = dict.fromkeys(self._upstream)  # without gradients of all states where there are none
        given.update(zip(self._upstream, upstream, strict=False))
        given.update(zip(self.keeps, saved, strict=True))
        return given

    def _named(self, tensors: Tensors) -> Named:
        return dict(zip(self._taken, tensors, strict=True))
