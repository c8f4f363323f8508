"""How gradients reach a time loop of kernels: input products around it, what is kept, second derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from cellweave.ops.common._autocast import without_autocast
from cellweave.ops.common._gate_columns import GateColumns, product_by_gate, values_gradient, weight_gradient
from cellweave.ops.common._recompute import gates_come_again

Tensors = Sequence[Any]
#: Inputs as they are multiplied, their weight and its bias stand before a loop's other tensors.
_LEADING = 3
#: Dimensions of inputs that all gates share.
_FOR_ALL_GATES = 3


class Loop(Protocol):
    """A time loop with its constants: what `LoopFunction` runs. Its first tensor are the input products."""

    @property
    def columns(self) -> Sequence[GateColumns]:
        """Of the input products."""

    def forward(self, tensors: Tensors, *, save: bool, gates: bool = True) -> tuple[Tensors, Tensors]:
        """Results, and what backward needs: with the gates, or without."""

    def backward(self, tensors: Tensors, saved: Tensors, upstream: Tensors) -> Tensors:
        """A gradient for each tensor, None for none.

        The first tensor is overwritten with its own gradient. Its values are the input products where gates were not
        kept, else nothing.
        """

    def unfilled(self, products: torch.Tensor, *, save: bool) -> tuple[Tensors, Tensors]:
        """What `forward` gives for such input products, with undefined contents."""

    def again(self, tensors: Tensors) -> Tensors:
        """The results by the reference, differentiable to any order."""


def input_products(
    columns: Sequence[GateColumns], x: torch.Tensor, from_x: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Products of all inputs, `[T, B, I]` or `[G, T, B, I]`, and their weight `[I, W]`, with the bias: `[T, B, W]`."""
    flat = x.flatten(-3, -2)
    if x.dim() > _FOR_ALL_GATES:
        found = product_by_gate(flat, from_x, columns)
        found = found if bias is None else found + bias
    else:
        found = flat @ from_x if bias is None else torch.addmm(bias, flat, from_x)
    return found.view(*x.shape[-3:-1], from_x.shape[1])


class LoopFunction(torch.autograd.Function):
    """A time loop as autograd runs it: the kernels' gradients, and second derivatives by the reference.

    Input products are made inside, so that they are not kept.
    """

    @staticmethod
    def forward(ctx: Any, loop: Loop, gates: bool, *tensors: torch.Tensor | None) -> Any:
        """The loop's results."""
        products = input_products(loop.columns, *tensors[:_LEADING])  # type: ignore[arg-type]
        results, saved = loop.forward([products, *tensors[_LEADING:]], save=True, gates=gates)
        ctx.loop, ctx.gates, ctx.count = loop, gates, len(tensors)
        ctx.save_for_backward(*tensors, *saved)
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        """Gradients of the tensors."""
        tensors, saved = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        needed = ctx.needs_input_grad[2:]
        with without_autocast(tensors[0].device.type):
            if torch.is_grad_enabled():
                return (None, None, *_differentiable(ctx.loop, tensors, upstream, needed))
            dense = [d.contiguous() for d in upstream]
            return (None, None, *loop_gradients(ctx.loop, tensors, saved, dense, needed, gates=ctx.gates))


def loop_gradients(
    loop: Loop, tensors: Tensors, saved: Tensors, upstream: Tensors, needed: Sequence[bool], *, gates: bool = True
) -> Tensors:
    """A gradient for each tensor that needs one, None for the others.

    Args:
        tensors: As of `run_loop`, dense. saved: As the loop's forward gives it. upstream: Dense. gates: They were kept.
    """
    x, from_x, bias = tensors[:_LEADING]
    columns, by_gate = loop.columns, x.dim() > _FOR_ALL_GATES
    products = x.new_empty(*x.shape[-3:-1], from_x.shape[1]) if gates else input_products(columns, x, from_x, bias)
    d_products, *found = loop.backward([products, *tensors[_LEADING:]], saved, upstream)
    flat, values, d_x, d_from_x = d_products.flatten(0, 1), x.flatten(-3, -2), None, None
    if needed[0]:
        d_x = (values_gradient(flat, from_x, columns) if by_gate else flat @ from_x.t()).view_as(x)
    if needed[1]:
        d_from_x = weight_gradient(values, flat, columns) if by_gate else values.t() @ flat
    d_bias = flat.sum(0) if needed[2] else None
    return d_x, d_from_x, d_bias, *[d if asked else None for d, asked in zip(found, needed[_LEADING:], strict=True)]


def _differentiable(loop: Loop, tensors: Tensors, upstream: Tensors, needed: Sequence[bool]) -> Tensors:
    with torch.enable_grad():
        given = [t.view_as(t) if asked else t for t, asked in zip(tensors, needed, strict=True)]
        asked_for = [t for t, asked in zip(given, needed, strict=True) if asked]
        results = loop.again([input_products(loop.columns, *given[:_LEADING]), *given[_LEADING:]])
        grads = torch.autograd.grad(list(results), asked_for, list(upstream), create_graph=True, allow_unused=True)
    found = iter(grads)
    return [next(found) if asked else None for asked in needed]


def run_loop(loop: Loop, tensors: Sequence[torch.Tensor | None]) -> Tensors:
    """The loop's results, with gradients where they are asked for.

    Args:
        tensors: Inputs as `used_inputs` gives them, their weight and its bias; then the loop's, without the input
            products.
    """
    dense = dense_tensors(tensors)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in dense):
        results: Tensors = LoopFunction.apply(loop, not gates_come_again(), *dense)  # type: ignore[no-untyped-call]
        return results
    return loop.forward(with_products(loop, dense), save=False)[0]


def dense_tensors(tensors: Tensors) -> list[Any]:
    """The tensors as kernels read them."""
    return [None if tensor is None else tensor.contiguous() for tensor in tensors]


def with_products(loop: Loop, tensors: Tensors) -> Tensors:
    """A loop's tensors, from those that `run_loop` takes."""
    return [input_products(loop.columns, *tensors[:_LEADING]), *tensors[_LEADING:]]
