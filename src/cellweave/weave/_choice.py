"""Which backend runs a layer, and with how many threads."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from cellweave.ops.common import Backend, RunContext
from cellweave.specs import GRUSpec, LSTMSpec, RunSpec
from cellweave.weave._backend import NOTHING, REFERENCE, backends_of, writes_files
from cellweave.weave._cuda_choice import measured

#: Multiplications and additions of one step's recurrence from which on two threads pay. Measured on two cores: a step
#: costs a barrier of about 0.3 us; an LSTM of 64 units at one row gains a third, one of 48 nothing.
FLOPS_WORTH_A_THREAD = 32_000


@dataclass(frozen=True, eq=False)
class Choice:
    """What runs a layer.

    Attributes:
        name: The backend's; "none" where the one asked for cannot.
        backend: None: nothing, or single steps.
        threads: For its time loop.
        why: In words.
        memo: What its backend keeps between calls (`LayerCall.memo`).
    """

    name: str
    backend: Backend | None
    threads: int
    why: str
    memo: dict[str, Any] = field(default_factory=dict)


def choose(spec: RunSpec, context: RunContext, asked: str | None, *, autocast: bool = False) -> Choice:
    """The backend for a layer: the one asked for, or the first in order of speed that can run it.

    Without a wish, on the CPU: native where it can; else torch, where no gradient is asked for; else reference. Under
    `autocast` native computes in the weights' dtype, and single steps as torch casts them; torch's own layers are left
    out. On a CUDA device: what was measured to be faster, where something was; else torch, whose layers are cuDNN's
    there, where it can; else triton; else reference. Under `autocast` both are left out.
    """
    records = {record.name: record for record in backends_of(spec.cell)}
    threads = threads_for(spec, context)
    if asked is not None:
        record = records.get(asked)
        reason = f"{asked} does not know this recurrence" if record is None else record.refuses(spec, context)
        if asked in _NOT_CAST and autocast:
            reason = _NO_AUTOCAST
        if reason is not None:
            return Choice(NOTHING, None, 1, f"{asked}: {reason}")
        return Choice(asked, record, threads, "asked for by use_backend")
    reasons: list[str] = []
    for name, praise in _by_speed(spec, context):
        record = records.get(name)
        if record is None:
            continue
        reason = record.refuses(spec, context)
        if reason is None and autocast and name in _NOT_CAST:
            reason = _NO_AUTOCAST
        if reason is None and name == "torch" and context.device_type != "cuda" and context.needs_grad:
            reason = _NO_GRADIENT
        if reason is None:
            return Choice(name, record, threads, "; ".join([*reasons, praise]))
        reasons.append(f"{name}: {reason}")
    return Choice(REFERENCE, records[REFERENCE], 1, "; ".join(reasons) or "no other backend knows this recurrence")


def choose_in_graph(found: Choice, spec: RunSpec, context: RunContext, asked: str | None) -> Choice:
    """The backend for a layer in a graph, from the one for it outside of graphs.

    In a graph, masks are numbers that only operators read, and nothing can be looked up on the host: torch's own layers
    have neither masks nor lengths there. On CUDA devices compilers take torch's layers apart into the operators of
    every step, so triton comes before all of them. In a graph for a file it is native's operator.
    """
    if writes_files():
        native = choose(spec, replace(context, device_type="cpu"), "native")
        return found if native.backend is None else native
    lacks = spec.masks or spec.lengths
    if found.name != "torch" or asked is not None or not (lacks or context.device_type == "cuda"):
        return found
    other = choose(spec, context, "triton")
    why = f"torch: {_NOT_IN_GRAPHS if lacks else _TAKEN_APART}; kernels of cellweave's own"
    return found if other.backend is None else replace(other, why=why)


def graph_obstacle(choice: Choice, spec: RunSpec, dtype: torch.dtype) -> str:
    """Why a graph that is traced cannot have a layer; "" where it can."""
    if choice.backend is None or choice.name not in IN_GRAPHS:
        return choice.why
    if choice.name != "torch":
        return ""
    if spec.masks or spec.lengths:
        return f"torch: {_NOT_IN_GRAPHS}"
    # Compilers put oneDNN's layer in the place of torch's LSTM without asking whether the processor has its dtype.
    if isinstance(spec.cell, LSTMSpec) and dtype == torch.bfloat16 and not _onednn_has_bfloat16():
        return f"torch: {_NO_BFLOAT16}"
    return ""


@functools.cache
def _onednn_has_bfloat16() -> bool:
    """Whether its layers run in bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


#: The backends whose layers graphs have, and what torch's own lack there.
IN_GRAPHS, _NOT_IN_GRAPHS = ("native", "triton", "torch"), "has no masks and lengths in graphs"
_NO_BFLOAT16 = "compilers would take oneDNN's LSTM, which has no bfloat16 on this processor"
_TAKEN_APART = "compilers take its layers on CUDA devices apart into single steps"
_NO_AUTOCAST = "autocast is on, under which its layers have other dtypes than single steps"
_NO_GRADIENT = "chosen only where no gradient is needed"
#: Backends whose layers keep to one dtype.
_NOT_CAST = ("torch", "triton")
#: Backends in the order in which they are tried on each kind of device, and what speaks for each. Source for the CPU:
#: benchmarks/results. On CUDA devices it is the order where nothing was measured: cuDNN first, where it
#: computes the same function.
_BY_SPEED = {
    "cpu": (("native", "the fastest that can run it"), ("torch", "the fastest that can run it")),
    "cuda": (
        ("torch", "cuDNN computes exactly this"),
        ("triton", "kernels of cellweave's own, for what cuDNN cannot run"),
    ),
}


def _by_speed(spec: RunSpec, context: RunContext) -> Sequence[tuple[str, str]]:
    """The order for a layer, with what speaks for each backend."""
    order = _BY_SPEED.get(context.device_type, _BY_SPEED["cpu"])
    first = measured(spec, context) if context.device_type == "cuda" else None
    return order if first is None else (first, *(pair for pair in order if pair[0] != first.backend))


def threads_for(spec: RunSpec, context: RunContext) -> int:
    """Threads of a native time loop: one for small steps, else as many as torch uses."""
    units = spec.cell.units
    width = spec.cell.output_size
    gates = 4 if isinstance(spec.cell, LSTMSpec) else 3 if isinstance(spec.cell, GRUSpec) else 1
    return 1 if 2 * context.B * width * units * gates < FLOPS_WORTH_A_THREAD else torch.get_num_threads()
