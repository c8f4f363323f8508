"""Running a recurrence as one kernel per step, where one for the whole sequence does not fit the device.

Each step is a product of torch's, of h and the recurrent weight, and an elementwise kernel; a cell with two products in
a row has two of each. Where each gate multiplies an h of its own, a kernel makes these before the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from cellweave.ops.common._gate_columns import GateColumns
from cellweave.ops.common._triton_graphs import clock_for, run_in_graphs
from cellweave.ops.common._triton_launch import NUMBERS, Launch, kernel_of
from cellweave.ops.common._triton_schedule import step_tile, step_warps

#: Of a step: launches what it takes, given the step's number.
Part = Callable[[int], object]
_COMMON, _OF_GATES = (f"cellweave.ops.common._triton_{name}_device" for name in ("step", "gate"))


class Step:
    """A kernel that is launched at one step, or for one gate, after the other.

    Attributes:
        launch: All but the number of the step, or gate.
    """

    def __init__(self, launch: Launch) -> None:
        names = launch.function().arg_names
        self._place = next((place for place, name in enumerate(names) if name in NUMBERS), None)
        self.launch, self._start, self._values = launch, launch.starter(), launch.values()

    def __call__(self, number: int = 0) -> None:
        """Launch it, at a step or for a gate."""
        if self._place is not None:
            self._values[self._place] = number
        self._start(*self._values)


class Steps:
    """The kernels of one call, run step by step.

    Args:
        module: Where the recurrence has its own.
        given: Arguments by name; a kernel takes those that it knows. BY_GATE: each gate has an h of its own.
        over: Input products of the steps that `run` runs, `[T, B, W]`.
    """

    def __init__(self, module: str, given: Mapping[str, Any], over: torch.Tensor | None = None) -> None:
        self._count = 0 if over is None else over.shape[0]
        self._clock = None if over is None else clock_for(over, self._count)
        self._module, self._given = module, {**given, "clock": self._clock}

    def run(self, *parts: Part, backward: bool = False) -> None:
        """Run all steps, each by its parts in turn, from the first to the last or the other way round."""
        first, way = (self._count - 1, -1) if backward else (0, 1)

        def one(step: int) -> None:
            for part in parts:
                part(step)

        if self._clock is not None:
            run_in_graphs(one, self._count, self._clock, first, way)
            return
        for number in range(self._count):
            one(first + way * number)

    def cell(self, name: str) -> Step:
        """One of the recurrence's kernels, over the cell's units: of whole rows where those are normalized."""
        return self.kernel(name, self._given["H"], whole_rows=self._given["NORM"])

    def kernel(
        self,
        name: str,
        width: int,
        module: str = "",
        more: Mapping[str, Any] | None = None,
        *,
        whole_rows: bool = False,
        rows: int | None = None,
    ) -> Step:
        """One kernel, over tiles of `[rows, width]`, B rows if nothing else is said."""
        count = self._given["B"] if rows is None else rows
        tile, columns = step_tile(count, width, whole_rows=whole_rows)
        known = {**self._given, "ROWS": tile, "U": columns, "WIDTH": width, **(more or {})}
        parameters = kernel_of(module or self._module, name).arg_names
        arguments = {name: known[name] for name in parameters if name not in NUMBERS}
        grid = -(-count // tile) * -(-width // columns)
        # programs wait for nobody, so the launch is an ordinary one
        options = {"num_warps": step_warps(columns), "enable_fp_fusion": True}
        return Step(Launch(module or self._module, name, grid, arguments, options))

    def product(
        self, value: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, columns: Sequence[GateColumns]
    ) -> Part:
        """What fills `out [B, n]` at a step with the product of `value [B, P]` and a weight.

        Args:
            columns: Of the weight and `out`.
        """
        if not self._given["BY_GATE"]:
            return lambda step: torch.mm(value, weight, out=out)
        out.zero_()  # columns of a gate that the cell has not
        operands, operate = self._over_gates("gate_operands", value, columns)
        parts = [(part.own(operands, columns), part.of(weight), part.of(out)) for part in columns]

        def run(step: int) -> None:
            operate(step)
            for operand, own, there in parts:
                torch.bmm(operand, own, out=there)

        return run

    def product_back(
        self, d_out: torch.Tensor, weight: torch.Tensor, d_value: torch.Tensor, columns: Sequence[GateColumns]
    ) -> Part:
        """What fills `d_value` at a step with the gradient of the value in `product`."""
        if not self._given["BY_GATE"]:
            back = weight.t()
            return lambda step: torch.mm(d_out, back, out=d_value)
        operands, gather = self._over_gates("gate_gradients", d_value, columns)
        parts = [(part.of(d_out), part.of(weight).mT, part.own(operands, columns)) for part in columns]

        def run(step: int) -> None:
            for d, own, operand in parts:
                torch.bmm(d, own, out=operand)
            gather(step)

        return run

    def _over_gates(self, name: str, value: torch.Tensor, columns: Sequence[GateColumns]) -> tuple[torch.Tensor, Step]:
        """Room for what the gates multiply in place of `value`, and a kernel between both."""
        first, last = min(part.first for part in columns), max(part.last for part in columns)
        operands = value.new_empty(last - first, *value.shape)
        more = {"value": value, "operands": operands, "FIRST": first, "LAST": last}
        return operands, self.kernel(name, value.shape[1], _OF_GATES, more)

    def first_state(
        self, start: torch.Tensor, current: torch.Tensor, saved: torch.Tensor | None, reset: torch.Tensor | None
    ) -> None:
        """Fill `current` with the state that step 0 starts from, and `saved` at that step."""
        more = {"start": start, "current": current, "saved": saved, "reset": reset}
        self.kernel("first_state", start.shape[1], _COMMON, more)()

    def first_gradient(
        self, past: torch.Tensor, product: torch.Tensor, d_start: torch.Tensor, d_reset: torch.Tensor | None
    ) -> None:
        """Fill `d_start` with the gradient of the state that step 0 started from."""
        more = {"past": past, "product": product, "d_start": d_start, "d_reset": d_reset}
        self.kernel("first_gradient", past.shape[1], _COMMON, more)()


def device_of(tensor: torch.Tensor) -> AbstractContextManager[None]:
    """Its device as the current one, to launch on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def add_products(
    total: torch.Tensor,
    values: torch.Tensor,
    weight: torch.Tensor,
    columns: Sequence[GateColumns],
    given: Mapping[str, Any],
) -> None:
    """Add to `total [T * B, n]` the products of all steps' `values [T, B, P]` and a weight.

    Args:
        columns: Of the weight and `total`. given: Arguments of the kernels of steps.
    """
    if given["BY_GATE"]:
        for operand, part, gate in _operands(values, columns, given):
            part.of(total)[gate] += operand @ part.of(weight)[gate]
    else:
        total.addmm_(values.flatten(0, 1), weight)


def recurrent_weight_gradient(
    values: torch.Tensor, d_total: torch.Tensor, columns: Sequence[GateColumns], given: Mapping[str, Any]
) -> torch.Tensor:
    """The gradient of the weight in `add_products` from that of the total, where each gate has an h of its own."""
    found = d_total.new_zeros(values.shape[2], d_total.shape[1])
    for operand, part, gate in _operands(values, columns, given):
        part.of(found)[gate] = operand.t() @ part.of(d_total)[gate]
    return found


def _operands(
    values: torch.Tensor, columns: Sequence[GateColumns], given: Mapping[str, Any]
) -> Iterator[tuple[torch.Tensor, GateColumns, int]]:
    """What each gate multiplies at all steps, `[T * B, P]`, overwritten by the next; and which gate of its part."""
    T, B, width = values.shape
    operand = torch.empty_like(values)
    more = {"values": values, "operands": operand, "ALL": T * B}
    with device_of(values):
        kernel = Steps(_OF_GATES, given).kernel("operands_of_gate", width, more=more, rows=T * B)
    for part in columns:
        for gate in range(part.last - part.first):
            with device_of(values):
                kernel(part.first + gate)
            yield operand.flatten(0, 1), part, gate


def sums_for(start: torch.Tensor | None) -> torch.Tensor | None:
    """Where gradients of a given state are added up, in float32; None where no state is given."""
    return None if start is None else torch.zeros_like(start, dtype=torch.float32)


def sums_by_row(norms: torch.Tensor | None, rows: int) -> torch.Tensor | None:
    """Where each row's share of the gradients of gammas and betas is added up, in float32."""
    return None if norms is None else norms.new_zeros((norms.shape[0], rows, norms.shape[1]), dtype=torch.float32)


def over_rows(sums: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """The gradients `[n, width]` of which each row has its share in `[n, B, width]`."""
    return None if sums is None else sums.sum(1).to(dtype)


def in_dtype(sums: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Such sums as autograd takes them."""
    return None if sums is None else sums.to(dtype)
