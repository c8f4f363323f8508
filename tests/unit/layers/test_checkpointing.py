"""torch.utils.checkpoint around unrolls with random masks: the second run draws what the first one drew."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import cellweave as cw
from cellweave import keras
from helpers.tolerances import assert_same_bits
from helpers.woven import both_ways
from properties.compositions import tables

B, T, D, N = 3, 5, 4, 6
F32: dict[str, Any] = {"dtype": "float32"}
DROP: dict[str, Any] = {"input_keep_prob": 0.6, "output_keep_prob": 0.6, "state_keep_prob": 0.6}
VARIATIONAL: dict[str, Any] = {**DROP, "variational_recurrent": True, "input_size": D, **F32}

CELLS: dict[str, Any] = {
    "per step": lambda seed: cw.DropoutWrapper(cw.LSTMCell(N), **DROP, seed=seed),
    "variational": lambda seed: cw.DropoutWrapper(cw.GRUCell(N), **VARIATIONAL, seed=seed),
    "stack": lambda seed: cw.MultiRNNCell(
        [cw.DropoutWrapper(cw.GRUCell(D), **kwargs, seed=seed) for kwargs in (VARIATIONAL, DROP)]
    ),
    "tf2": lambda seed: cw.RNNCellDropoutWrapper(keras.LSTMCell(N), **DROP, seed=seed),
    "tf2 variational": lambda seed: cw.RNNCellDropoutWrapper(keras.GRUCell(N), **VARIATIONAL, seed=seed),
}


def history(make: Any, run: Any) -> list[torch.Tensor]:
    """Outputs and gradients of two calls in one backward pass and of one behind it; then where the streams stand."""
    torch.manual_seed(3)
    cw.set_random_seed(7)
    cell = make()
    cw.dynamic_rnn(cell, torch.zeros(B, T, D), **F32)

    def part(x: torch.Tensor, lengths: Any) -> torch.Tensor:
        outputs, state = cw.dynamic_rnn(cell, x, lengths, **F32)
        return outputs.sin().sum(2) + sum(leaf.sum() for leaf in torch.utils._pytree.tree_leaves(state))

    found: list[torch.Tensor] = []
    for calls in (2, 1):
        x = torch.randn(B, T, D).requires_grad_()
        values = [run(part, x * (1 + k), [[5, 2, 4], None][k]) for k in range(calls)]
        grads = torch.autograd.grad(sum((v**2).sum() for v in values), [x, *cell.parameters()])
        found += [*values, *grads]
    return found + tables(cell)


@both_ways
@pytest.mark.parametrize("seed", [None, 5], ids=["no seed", "seed"])
@pytest.mark.parametrize("name", CELLS)
def test_the_second_run_draws_the_same(name: str, seed: int | None, backend: str | None) -> None:
    with cw.use_backend(backend):
        plain = history(lambda: CELLS[name](seed), lambda part, *args: part(*args))
        saved = history(
            lambda: CELLS[name](seed),
            lambda part, *args: checkpoint(part, *args, use_reentrant=False, context_fn=cw.repeated_masks),
        )
    for number, (a, b) in enumerate(zip(saved, plain, strict=True)):
        if a.is_floating_point():
            assert_same_bits(f"result {number}", a, b)
        else:
            assert torch.equal(a, b), f"result {number}"


def test_nested_checkpoints() -> None:
    def nested(part: Any, *args: Any) -> Any:
        options: dict[str, Any] = {"use_reentrant": False, "context_fn": cw.repeated_masks}
        return checkpoint(lambda *a: checkpoint(part, *a, **options) + part(*a), *args, **options)

    plain = history(lambda: CELLS["stack"](None), lambda part, *args: part(*args) + part(*args))
    for number, (a, b) in enumerate(zip(history(lambda: CELLS["stack"](None), nested), plain, strict=True)):
        assert torch.equal(a, b), f"result {number}"


def test_one_session_run_around_it() -> None:
    """A mask that an unroll of the same run drew before is drawn again by the second run."""

    def inside(part: Any, *args: Any) -> Any:
        with cw.session_run():
            return part(*args) + checkpoint(part, *args, use_reentrant=False, context_fn=cw.repeated_masks)

    def plainly(part: Any, *args: Any) -> Any:
        with cw.session_run():
            return part(*args) + part(*args)

    plain = history(lambda: CELLS["variational"](5), plainly)
    for number, (a, b) in enumerate(zip(history(lambda: CELLS["variational"](5), inside), plain, strict=True)):
        assert torch.equal(a, b), f"result {number}"


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", [name for name in CELLS if name != "tf2 variational"])
def test_other_masks_are_refused(name: str, reentrant: bool) -> None:
    """Without the contexts gradients would be wrong; TF2's variational masks are drawn once, when a wrapper is made."""
    cell = CELLS[name](None)
    x = torch.randn(B, T, D).requires_grad_()
    value = checkpoint(lambda x: cw.dynamic_rnn(cell, x, **F32)[0], x, use_reentrant=reentrant)
    with pytest.raises(cw.ModeError, match="expected a backward pass to draw no new masks.*context_fn"):
        value.sum().backward()


@pytest.mark.parametrize("name", ["per step", "variational"])
def test_compiled_parts_draw_the_same(name: str) -> None:
    def results(through: Any) -> list[torch.Tensor]:
        torch.manual_seed(3)
        cell = CELLS[name](5)
        cw.dynamic_rnn(cell, torch.zeros(B, T, D), **F32)
        x = torch.randn(B, T, D).requires_grad_()
        run = through(lambda x: cw.dynamic_rnn(cell, x, **F32)[0].sin())
        values = [run(x) for _ in range(2)]
        grads = torch.autograd.grad(sum((v**2).sum() for v in values), [x, *cell.parameters()])
        return [*values, *grads, *tables(cell)]

    def checkpointed(part: Any) -> Any:
        compiled = torch.compile(part, backend="aot_eager", fullgraph=True)
        return lambda x: checkpoint(compiled, x, use_reentrant=False, context_fn=cw.repeated_masks)

    for number, (a, b) in enumerate(zip(results(checkpointed), results(lambda part: part), strict=True)):
        assert torch.equal(a, b), f"result {number}"


@pytest.mark.parametrize("reentrant", [False, True])
def test_other_masks_are_refused_in_compiled_parts(reentrant: bool) -> None:
    cell = CELLS["variational"](None)
    cw.dynamic_rnn(cell, torch.zeros(B, T, D), **F32)
    part = torch.compile(lambda x: cw.dynamic_rnn(cell, x, **F32)[0], backend="aot_eager", fullgraph=True)
    x = torch.randn(B, T, D).requires_grad_()
    value = checkpoint(part, x, use_reentrant=reentrant)
    with pytest.raises(cw.ModeError, match="expected a backward pass to draw no new masks.*context_fn"):
        value.sum().backward()


def test_a_compiled_checkpoint_is_refused() -> None:
    """A graph that makes the part again has no contexts that could send the streams back."""
    cell = CELLS["per step"](None)
    cw.dynamic_rnn(cell, torch.zeros(B, T, D), **F32)
    part = lambda x: cw.dynamic_rnn(cell, x, **F32)[0]  # noqa: E731
    x = torch.randn(B, T, D).requires_grad_()
    value = torch.compile(lambda x: checkpoint(part, x, use_reentrant=False), backend="aot_eager")(x)
    with pytest.raises(cw.ModeError, match="outside of compiled code"):
        value.sum().backward()


def test_without_masks_nothing_is_asked_for() -> None:
    cell = cw.DropoutWrapper(cw.GRUCell(N), **DROP).eval()
    x = torch.randn(B, T, D).requires_grad_()
    part = lambda x: cw.dynamic_rnn(cell, x, **F32)[0]  # noqa: E731
    value = checkpoint_sequential([part], 1, x, use_reentrant=False)
    (d_x,) = torch.autograd.grad(value.sin().sum(), [x])
    assert_same_bits("d_x", d_x, torch.autograd.grad(part(x).sin().sum(), [x])[0])


def test_a_forward_pass_in_a_hook_may_draw() -> None:
    """A backward pass that computes something else, without gradients, draws as any code does."""
    cell = CELLS["per step"](None)
    x = torch.randn(B, T, D).requires_grad_()
    seen: list[torch.Tensor] = []
    x.register_hook(lambda _: seen.append(cw.dynamic_rnn(cell, torch.zeros(B, T, D), **F32)[0]))
    (x**2).sum().backward()
    assert len(seen) == 1


def test_a_graph_that_is_kept_runs_backward_twice() -> None:
    cell = CELLS["stack"](5)
    cw.dynamic_rnn(cell, torch.zeros(B, T, D), **F32)
    x = torch.randn(B, T, D, requires_grad=True)

    def part(x: torch.Tensor) -> torch.Tensor:
        return cw.dynamic_rnn(cell, x, **F32)[0]

    y = checkpoint(part, x, use_reentrant=False, context_fn=cw.repeated_masks)
    stands = tables(cell)
    first, second = [torch.autograd.grad(y.sum(), [x, *cell.parameters()], retain_graph=True) for _ in range(2)]
    for number, (a, b) in enumerate(zip(first, second, strict=True)):
        assert_same_bits(f"gradient {number}", a, b)
    assert all(torch.equal(a, b) for a, b in zip(tables(cell), stands, strict=True))
