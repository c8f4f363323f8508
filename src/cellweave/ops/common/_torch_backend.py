"""The record of torch's own layers; those of CUDA devices, which are cuDNN's, have no second derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._native_autograd import graph_is_kept
from cellweave.ops.common._records import Backend, RunContext
from cellweave.specs import RunSpec

Run = Callable[[LayerCall], LayerResult]


#: What runs torch's layer of each recurrence, where compiled code finds it.
_runs: dict[str, Run] = {}


def torch_backend(name: str, refuses: Callable[[RunSpec, RunContext], str | None], run: Run, reference: Run) -> Backend:
    """The record of torch's layers for a recurrence.

    Args:
        name: "rnn", "gru" or "lstm". refuses, run: As in `Backend`. reference: Runs a call step by step, for second
            derivatives on CUDA devices.
    """

    def run_anywhere(call: LayerCall) -> LayerResult:
        return run_with_second_derivatives(run, reference, call) if call.x.is_cuda else run(call)

    _runs[name] = run
    return Backend("torch", refuses, run_anywhere)


def run_torch_in_graph(name: str, call: LayerCall) -> LayerResult:
    """Run a call by torch's layer in a graph, where nothing has second derivatives. Without masks and lengths."""
    return _runs[name](call)


def run_with_second_derivatives(run: Run, reference: Run, call: LayerCall) -> LayerResult:
    """What `run` gives, with its gradients; their own derivatives are the reference's, run again."""
    sources = _sources(call)
    if not torch.is_grad_enabled() or not any(source.requires_grad for source in sources):
        return run(call)
    leaves = len(call.state)
    out, *rest = _Once.apply(run, reference, call, *sources)  # type: ignore[no-untyped-call]
    return LayerResult(out, tuple(rest[:leaves]), tuple(rest[leaves:]))


def _sources(call: LayerCall) -> list[torch.Tensor]:
    """What gradients flow to; torch's layers know no resets."""
    return [call.x, *call.state, *call.weights.values()]


def _with_sources(call: LayerCall, sources: Sequence[torch.Tensor]) -> LayerCall:
    first = 1 + len(call.state)
    weights = dict(zip(call.weights, sources[first:], strict=True))
    return replace(call, x=sources[0], state=tuple(sources[1:first]), weights=weights)


def _flat(result: LayerResult) -> list[torch.Tensor]:
    return [result.outputs, *result.state, *result.states]


class _Once(torch.autograd.Function):
    """A run whose own graph is kept inside, out of sight of second derivatives."""

    @staticmethod
    def forward(ctx: Any, run: Run, reference: Run, call: LayerCall, *sources: torch.Tensor) -> Any:
        """The run's results."""
        with torch.enable_grad():
            inner = [source.detach().requires_grad_(source.requires_grad) for source in sources]
            results = _flat(run(_with_sources(call, inner)))
        ctx.reference, ctx.call, ctx.inner, ctx.results = reference, call, inner, results
        ctx.save_for_backward(*sources)
        return tuple(result.detach() for result in results)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        """Gradients of the sources that need one."""
        needed, again = ctx.needs_input_grad[3:], torch.is_grad_enabled()
        with torch.enable_grad():
            if again:
                # views: else a weight made from x would bring x's gradient twice
                sources = [s.view_as(s) if asked else s for s, asked in zip(ctx.saved_tensors, needed, strict=True)]
                results = _flat(ctx.reference(_with_sources(ctx.call, sources)))
            else:
                sources, results = ctx.inner, ctx.results
        pairs = [(r, d) for r, d in zip(results, upstream, strict=True) if r.requires_grad]
        asked_for = [source for source, asked in zip(sources, needed, strict=True) if asked]
        found = iter(
            torch.autograd.grad(
                [r for r, _ in pairs], asked_for, [d for _, d in pairs], allow_unused=True, create_graph=again,
                retain_graph=again or graph_is_kept(),
            )
        )  # fmt: skip
        return (None, None, None, *[next(found) if asked else None for asked in needed])
