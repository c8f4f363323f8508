"""A module of torch.nn and its counterpart in cellweave.nn with the same weights, run side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

import cellweave
from helpers.tolerances import assert_close

NAMES = ("RNN", "LSTM", "GRU")
#: The two add up in another order; largest difference measured over tests/unit/nn: 1.5e-6 in float32, 2e-15 in float64.
DIFFERENCE = {torch.float32: 5e-6, torch.float64: 1e-13}


def twins(name: str, *args: Any, seed: int = 0, **kwargs: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Both modules, made under the same seed."""
    found = []
    for home in (torch.nn, cellweave.nn):
        torch.manual_seed(seed)
        found.append(getattr(home, name)(*args, **kwargs))
    return found[0], found[1]


def leaves(value: Any) -> list[torch.Tensor]:
    """The tensors of a result, those of packed sequences included."""
    if isinstance(value, PackedSequence):
        return [value.data, *(part for part in value[1:] if part is not None)]
    if isinstance(value, tuple | list):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


def random_state(module: Any, rows: int | None, dtype: torch.dtype = torch.float32) -> Any:
    """A state `[L * D, B, size]`, or without the batch axis."""
    count = module.num_layers * (2 if module.bidirectional else 1)
    batch = () if rows is None else (rows,)
    h = torch.randn(count, *batch, module.proj_size or module.hidden_size, dtype=dtype)
    return (h, torch.randn(count, *batch, module.hidden_size, dtype=dtype)) if module.mode == "LSTM" else h


def _fresh(value: Any) -> tuple[Any, list[torch.Tensor]]:
    """A copy whose floating tensors ask for gradients, and those tensors."""
    if value is None:
        return None, []
    if isinstance(value, PackedSequence):
        data = value.data.detach().clone().requires_grad_()
        return PackedSequence(data, *value[1:]), [data]
    if isinstance(value, tuple):
        parts = [_fresh(part) for part in value]
        return tuple(part for part, _ in parts), [leaf for _, found in parts for leaf in found]
    copy = value.detach().clone().requires_grad_()
    return copy, [copy]


def run(module: torch.nn.Module, inputs: Any, hx: Any, seed: int = 1, **call: Any) -> tuple[Any, list[Any]]:
    """Results, and the gradients of inputs, state and parameters under random upstream gradients."""
    inputs, sources = _fresh(inputs)
    hx, more = _fresh(hx)
    sources += [*more, *module.parameters()]
    torch.manual_seed(seed)
    result = module(inputs, hx, **call)
    loss = torch.zeros((), dtype=sources[0].dtype)
    numbers = torch.Generator().manual_seed(seed)
    for leaf in leaves(result):
        if leaf.is_floating_point():
            loss = loss + (leaf * torch.randn(leaf.shape, generator=numbers, dtype=leaf.dtype)).sum()
    return result, list(torch.autograd.grad(loss, sources, allow_unused=True))


def assert_alike(pair: tuple[torch.nn.Module, torch.nn.Module], inputs: Any, hx: Any = None) -> None:
    """Fail unless both give the same values and gradients."""
    (theirs, d_theirs), (ours, d_ours) = run(pair[0], inputs, hx), run(pair[1], inputs, hx)
    assert type(ours[0]) is type(theirs[0])
    for number, (a, b) in enumerate(zip(leaves(ours), leaves(theirs), strict=True)):
        assert_close(f"result {number}", a, b, DIFFERENCE.get(b.dtype, 0.0))
        assert a.dtype == b.dtype
    for number, (a, b) in enumerate(zip(d_ours, d_theirs, strict=True)):
        assert (a is None) == (b is None), f"gradient {number}"
        if b is not None:
            assert_close(f"gradient {number}", a, b, DIFFERENCE[b.dtype])
