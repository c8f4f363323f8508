"""Layers in the graphs that compilers and exporters trace: operators, and torch's own layers as what they are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cellweave.ops.common._autocast import autocast_rounds
from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._native_backend import native_result
from cellweave.ops.common._native_halves import HALVES, in_dtype, in_float32
from cellweave.ops.common._native_ops import run_operator
from cellweave.ops.common._op_arguments import draw_bits
from cellweave.ops.common._run_text import RunText
from cellweave.ops.common._torch_backend import run_torch_in_graph
from cellweave.ops.common._triton_ops import run_triton_in_graph


def run_in_graph(
    backend: str,
    name: str,
    call: LayerCall,
    weights: Sequence[str],
    text: RunText,
    streams: torch.Tensor | None,
    keeps: torch.Tensor | None,
    noise: list[torch.Tensor] | None,
) -> LayerResult:
    """Put a layer into the graph that is being traced.

    Args:
        backend: "native", "triton" or "torch", which takes neither masks nor lengths. name: "rnn", "gru" or "lstm".
        call: Without masks. weights: Names of the call's, in the order of its spec. text: The spec.
        streams, keeps, noise: The masks, as `masks_of_streams` takes them.
    """
    if backend == "triton":
        return run_triton_in_graph(name, call, text, streams, keeps, noise)
    if backend == "torch":
        return run_torch_in_graph(name, call)
    dtype = call.x.dtype
    if dtype in HALVES:
        call = in_float32(call)
    bits = draw_bits(dtype) if dtype in HALVES and streams is not None else 0
    arguments = (
        call.x, list(call.state), list(call.reset_state) if call.reset_state else None,
        [call.weights[weight] for weight in weights], call.lengths, call.resets, streams, keeps, noise,
        text.text, text.whole, text.real, call.threads, call.bfloat16 or autocast_rounds(dtype), bits,
    )  # fmt: skip
    found = native_result(call, *run_operator(name, arguments))
    return in_dtype(found, dtype) if dtype in HALVES else found
