"""JAX: `lax.scan` over inputs that are projected outside the loop, jitted; gradients by its own reverse mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import problem
from program import Program
from registry import KEEP, Case

State = tuple[Any, ...]  # h, and c for an LSTM
#: Steps per turn of the compiled loop: up to 1.6 times faster than 1 with one row, the same with many.
_UNROLL = 5


def make(name: str, case: Case) -> Program:
    del name
    parameters = [jnp.asarray(part) for part in problem.split(case, problem.weights(case))]
    x, key = jnp.asarray(problem.inputs(case)), jax.random.key(0)
    layer = _layer(case)
    if case.mode == "inference":
        forward = jax.jit(layer)
        return Program(
            lambda: forward(parameters, x, key).block_until_ready(),
            lambda: {"outputs": np.asarray(forward(parameters, x, key))},
        )
    upstream = jnp.asarray(problem.upstream(case))

    def both(parameters: list[Any], x: Any, key: Any) -> Any:
        outputs, pull = jax.vjp(lambda parameters, x: layer(parameters, x, key), parameters, x)
        return outputs, pull(upstream)

    compiled = jax.jit(lambda *given: both(*given)[1])

    def results() -> dict[str, Any]:
        outputs, (d_parameters, d_x) = jax.jit(both)(parameters, x, key)
        gradients = problem.joined(case, *(np.asarray(gradient) for gradient in d_parameters))
        return {"outputs": np.asarray(outputs), "inputs": np.asarray(d_x), **gradients}

    return Program(lambda: jax.block_until_ready(compiled(parameters, x, key)), results)


def _layer(case: Case) -> Callable[[list[Any], Any, Any], Any]:
    step = {"lstm": _lstm, "gru_before": _gru_before, "gru_after": _gru_after, "rnn": _rnn}[case.kind]
    keep = None if case.variation != "resets" else jnp.asarray(~problem.resets(case), dtype=jnp.float32)[:, :, None]

    def first_state() -> State:
        if case.variation == "step":
            return tuple(jnp.asarray(part) for _, part in sorted(problem.state(case).items(), reverse=True))
        return tuple(jnp.zeros((case.B, case.H)) for _ in range(2 if case.kind == "lstm" else 1))

    def layer(parameters: list[Any], x: Any, key: Any) -> Any:
        kernel, recurrent, bias, recurrent_bias = parameters
        masks = _masks(case, key)
        if "input" in masks:
            x = x * masks["input"]
        projected = (x.reshape(case.T * case.B, case.I) @ kernel + bias).reshape(case.T, case.B, -1)

        def body(state: State, now: Any) -> tuple[State, Any]:
            from_x, kept, state_mask, output_mask = now
            state = state if kept is None else tuple(part * kept for part in state)
            h, *c = step(from_x, state, recurrent, recurrent_bias)
            return (h if state_mask is None else h * state_mask, *c), h if output_mask is None else h * output_mask

        every_step = (projected, keep, masks.get("state"), masks.get("output"))
        return jax.lax.scan(body, first_state(), every_step, unroll=_UNROLL)[1]

    return layer


def _masks(case: Case, key: Any) -> dict[str, Any]:
    """Factors by place, `[T, B or 1, N]`, drawn inside the timed call."""
    if case.variation not in ("variational", "per-step"):
        return {}
    drawn = {}
    sizes = {"input": case.I, "state": case.H, "output": case.H}
    for (place, size), place_key in zip(sizes.items(), jax.random.split(key, 3), strict=True):
        shape = (1, 1, size) if case.variation == "variational" else (case.T, case.B, size)
        mask = jax.random.bernoulli(place_key, KEEP, shape) / KEEP
        drawn[place] = jnp.broadcast_to(mask, (case.T, shape[1], size))
    return drawn


def _lstm(from_x: Any, state: State, recurrent: Any, recurrent_bias: Any) -> State:
    del recurrent_bias
    h, c = state
    i, j, f, o = jnp.split(from_x + h @ recurrent, 4, axis=1)
    c = jax.nn.sigmoid(f + problem.FORGET_BIAS) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru_before(from_x: Any, state: State, recurrent: Any, recurrent_bias: Any) -> State:
    del recurrent_bias
    (h,) = state
    gates = 2 * h.shape[1]
    r, u = jnp.split(jax.nn.sigmoid(from_x[:, :gates] + h @ recurrent[:, :gates]), 2, axis=1)
    c = jnp.tanh(from_x[:, gates:] + (r * h) @ recurrent[:, gates:])
    return (u * h + (1 - u) * c,)


def _gru_after(from_x: Any, state: State, recurrent: Any, recurrent_bias: Any) -> State:
    (h,) = state
    x_u, x_r, x_c = jnp.split(from_x, 3, axis=1)
    h_u, h_r, h_c = jnp.split(h @ recurrent + recurrent_bias, 3, axis=1)
    u, r = jax.nn.sigmoid(x_u + h_u), jax.nn.sigmoid(x_r + h_r)
    return (u * h + (1 - u) * jnp.tanh(x_c + r * h_c),)


def _rnn(from_x: Any, state: State, recurrent: Any, recurrent_bias: Any) -> State:
    del recurrent_bias
    return (jnp.tanh(from_x + state[0] @ recurrent),)
