"""What the Triton backends of all recurrences share: what they refuse, what they launch, and with which arguments."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from cellweave._types import dtype_name
from cellweave.ops.common._calls import LayerCall
from cellweave.ops.common._gate_masks import GateMasks, each_gate_has_an_h, foldable
from cellweave.ops.common._masks import BoundMask
from cellweave.ops.common._normalize import added_to_variance
from cellweave.ops.common._records import RunContext
from cellweave.ops.common._sequence import read_in_order, reading_order, without_padding
from cellweave.ops.common._triton_graphs import CHUNK, steps_in_graphs
from cellweave.ops.common._triton_masks import MOST_MASKS, MaskTable
from cellweave.ops.common._triton_schedule import HOPPER, LONGEST_ROW, Chip, Schedule
from cellweave.specs import CellSpec, RunSpec

#: Activations that the kernels know, by the number under which `_triton_device.activated` has them.
ACTIVATIONS = {
    "linear": 0, "identity": 0, "tanh": 1, "sigmoid": 2, "relu": 3, "relu6": 4, "hard_sigmoid": 5, "softsign": 6,
    "softplus": 7, "elu": 8, "exponential": 9, "leaky_relu": 10, "selu": 11,
}  # fmt: skip
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
#: What Triton supports: with less, products in bfloat16 take more shared memory than is planned for.
_LEAST_CAPABILITY = (8, 0)
#: Bytes of shared memory that are left to the compiler.
_RESERVED = 3 << 10
#: Looks at a counter after which an interpreted program gives up waiting: a wrong kernel fails, and does not hang.
_INTERPRETED_SPINS = 20_000


@functools.cache
def missing_reason() -> str | None:
    """Why Triton is not at hand; None where it is."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        importlib.import_module("triton")
    except (ImportError, OSError, RuntimeError) as error:
        return f"Triton cannot be imported: {error}"
    return None


def interpreting() -> bool:
    """Triton interprets kernels on the CPU (`TRITON_INTERPRET=1`), as its tests do."""
    if missing_reason() is not None:
        return False
    return bool(importlib.import_module("triton").knobs.runtime.interpret)


def chip(device: torch.device | None = None) -> Chip:
    """A CUDA device, the current one if none is given; where there is none, the one that kernels are compiled for."""
    if not torch.cuda.is_available():
        return HOPPER
    index = device.index if device is not None and device.type == "cuda" else None
    return _chip(torch.cuda.current_device() if index is None else index)


@functools.cache
def _chip(device: int) -> Chip:
    found: Any = torch.cuda.get_device_properties(device)
    return Chip(found.multi_processor_count, found.shared_memory_per_block_optin - _RESERVED)


def triton_refuses(spec: RunSpec, context: RunContext) -> str | None:
    """What the kernels of every recurrence lack."""
    if context.device_type != "cuda" and not (context.device_type == "cpu" and interpreting()):
        return f"needs a CUDA tensor, got one on {context.device_type}"
    lacking = missing_reason() or (_device_refuses() if context.device_type == "cuda" else None)
    if lacking is not None:
        return lacking
    if context.dtype not in _DTYPES:
        return f"computes in float32, float16 and bfloat16, not in {dtype_name(context.dtype)}"
    if context.dtype == torch.bfloat16 and context.device_type == "cpu":
        return "Triton's interpreter computes wrongly in bfloat16"
    if context.transforms:
        return "knows no torch.func transforms and no forward-mode gradients"
    if not context.plain:
        return "needs ordinary dense tensors"
    if spec.cell.layer_norm and spec.cell.units > LONGEST_ROW:
        return f"its kernels normalize at most {LONGEST_ROW} units, got {spec.cell.units}"
    if len(spec.masks) > MOST_MASKS:
        return f"has room for {MOST_MASKS} masks"
    if spec.residual and spec.cell.output_size != context.I:
        return f"the residual sum needs inputs as wide as the outputs, {spec.cell.output_size}, got {context.I}"
    return _activation_refused(spec.cell)


def _device_refuses() -> str | None:
    """Why Triton cannot launch on the current CUDA device; None where it can, or where there is no device to ask."""
    if interpreting():
        return "Triton interprets kernels (TRITON_INTERPRET=1), on tensors of the CPU"
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_capability()
    if found < _LEAST_CAPABILITY:
        least, has = (".".join(map(str, capability)) for capability in (_LEAST_CAPABILITY, found))
        return f"Triton needs a device of compute capability {least}, got {has}"
    return driver_fault()


@functools.cache
def driver_fault() -> str | None:
    """Why Triton cannot launch anything; it makes what launches with the machine's C compiler. None where it can."""
    try:
        importlib.import_module("triton.runtime").driver.active.get_current_target()
    except (AssertionError, ImportError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        return f"Triton cannot launch kernels: {str(error).strip() or type(error).__name__}"
    return None


def _activation_refused(cell: CellSpec) -> str | None:
    for field in ("activation", "recurrent_activation"):
        kind = getattr(cell, field, "tanh")
        if not isinstance(kind, str):
            return f"{field} is a function of the caller's"
        if kind not in ACTIVATIONS:
            return f"has no activation {kind}"
    return None


def only_by_steps(spec: RunSpec) -> str | None:
    """Why kernels of whole sequences cannot run a layer of any size; None where they can."""
    if spec.cell.layer_norm:
        return "normalized rows are whole in one program"
    if each_gate_has_an_h(spec):
        return "each gate multiplies an h of its own"
    return None


def steps_remark(schedules: tuple[Schedule | None, Schedule | None], spec: RunSpec, context: RunContext) -> str | None:
    """Which way is run step by step, and why; None where one kernel runs the whole sequence both ways."""
    why = None if foldable(spec) and not spec.cell.layer_norm else only_by_steps(spec)
    form = "one kernel per step"
    if steps_in_graphs(context.T):
        form += f", {CHUNK} steps to a CUDA graph"
    if why is not None:
        return f"{form}: {why}"
    cell: Any = spec.cell
    forward, backward = (schedule is None for schedule in schedules)
    backward = backward and context.needs_grad
    if not forward and not backward:
        return None
    ways = "" if forward and (backward or not context.needs_grad) else "forward, " if forward else "backward, "
    found = chip()
    return (
        f"{ways}{form}: {cell.units} units at {context.B} rows do not fit: all programs of one for the "
        f"whole sequence must be at once on {found.processors} multiprocessors, each with its weights in "
        f"{found.shared >> 10} KiB of shared memory"
    )


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are made: as torch is told to for its own recurrent layers."""
    setting = torch.backends.cudnn.rnn.fp32_precision  # type: ignore[attr-defined]  # "none": nobody asked for TF32
    return "tf32" if dtype == torch.float32 and setting == "tf32" else "ieee"


def used_inputs(call: LayerCall) -> torch.Tensor:
    """Inputs as they are multiplied, `[T, B, I]`: zero past a row's end, times the masks on them.

    Where each gate has masks of its own, `[G, T, B, I]`.
    """
    masked = _InputMasks(call)
    x = masked.for_all(without_padding(call.x, call.lengths))
    return x if masked.of_gates is None else torch.stack([masked.for_gate(x, gate) for gate in range(masked.gates)])


def inputs_gradient(call: LayerCall, d: torch.Tensor) -> torch.Tensor:
    """The gradient of a call's inputs from that of `used_inputs`: what is done to them is a product with numbers."""
    masked = _InputMasks(call)
    if masked.of_gates is not None:
        d = torch.stack([masked.for_gate(part, gate) for gate, part in enumerate(d.unbind(0))]).sum(0)
    return without_padding(masked.for_all(d), call.lengths)


class _InputMasks:
    """The masks on a call's inputs.

    Attributes:
        gates: G. of_gates: Those of each gate's own; None where there are none.
    """

    def __init__(self, call: LayerCall) -> None:
        steps, rows, width = call.x.shape
        masks = [mask for mask in call.masks if mask.spec.place == "input"]
        self.gates = call.spec.cell.gate_count
        self._order = reading_order(call.lengths, steps, call.x.device) if masks and call.spec.reverse else None
        own = [(m, m.draws(steps, rows, width * self.gates, call.x)) for m in masks if m.spec.per_gate]
        self.of_gates = GateMasks(own, self.gates) if own else None
        self._for_all = [(mask, mask.draws(steps, rows, width, call.x)) for mask in masks if not mask.spec.per_gate]

    def for_all(self, x: torch.Tensor) -> torch.Tensor:
        """Values `[T, B, I]` times the masks that all gates share."""
        if not self._for_all:
            return x
        x = read_in_order(x, self._order)
        for mask, noise in self._for_all:
            x = mask.apply(x, noise)
        return read_in_order(x, self._order)

    def for_gate(self, x: torch.Tensor, gate: int) -> torch.Tensor:
        """Values `[T, B, I]` times a gate's own masks."""
        masks = cast(GateMasks, self.of_gates)
        return read_in_order(masks.on("input", read_in_order(x, self._order), gate), self._order)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The constants of a call that act inside the loop."""

    lengths: torch.Tensor | None
    resets: torch.Tensor | None
    given: bool
    reverse: bool

    def arguments(self) -> dict[str, Any]:
        """What a kernel takes."""
        return {
            "lengths": self.lengths, "resets": self.resets, "LENGTHS": self.lengths is not None,
            "RESETS": self.resets is not None, "GIVEN_RESETS": self.resets is not None and self.given,
            "REVERSE": self.reverse,
        }  # fmt: skip


def surroundings(call: LayerCall) -> Surroundings:
    """Of a call."""
    lengths = None if call.lengths is None else call.lengths.to(torch.int32).contiguous()
    resets = None if call.resets is None else call.resets.to(torch.uint8).contiguous()
    return Surroundings(lengths, resets, call.reset_state is not None, call.spec.reverse)


def inner_masks(call: LayerCall) -> tuple[BoundMask, ...]:
    """Those that act inside the loop."""
    return tuple(mask for mask in call.masks if mask.spec.place != "input")


def run_of_products(
    call: LayerCall,
    cell: CellSpec,
    products: torch.Tensor,
    state: tuple[torch.Tensor, ...],
    weights: dict[str, torch.Tensor],
    fresh: tuple[torch.Tensor, ...] | None,
) -> LayerCall:
    """A call whose inputs are input products already: without masks on inputs, and without a residual sum."""
    masks = inner_masks(call)
    run = replace(call.spec, cell=cell, residual=False, masks=tuple(mask.spec for mask in masks))
    return LayerCall(run, products, state, weights, masks, call.lengths, call.resets, fresh)


def as_columns(weights: Mapping[str, torch.Tensor], cell: Any) -> Mapping[str, torch.Tensor]:
    """Weights with a column for each unit, whichever way they lie."""
    if not cell.transposed:
        return weights
    return {name: weight.t() if weight.dim() == 2 and name != "bias" else weight for name, weight in weights.items()}


def stacked_norms(weights: Mapping[str, torch.Tensor], names: Sequence[str | None], units: int) -> torch.Tensor:
    """Gammas and betas in turn, `[2 * parts, units]`; zeros for a part that a cell has not."""
    like = next(weight for name, weight in weights.items() if name.endswith("/gamma"))
    none = like.new_zeros(units)
    return torch.stack(
        [none if name is None else weights[f"{name}/{kind}"] for name in names for kind in ("gamma", "beta")]
    )


def norm_weights(norms: torch.Tensor | None, names: Sequence[str | None]) -> dict[str, torch.Tensor]:
    """What `stacked_norms` took."""
    if norms is None:
        return {}
    kinds = [None if name is None else f"{name}/{kind}" for name in names for kind in ("gamma", "beta")]
    return {name: row for name, row in zip(kinds, norms.unbind(0), strict=True) if name is not None}


def step_arguments(spec: RunSpec, norms: torch.Tensor | None, dtype: torch.dtype) -> dict[str, Any]:
    """What the kernels of single steps take beside what all take: of normalizations, and of gates with an own h."""
    cell = spec.cell
    return {
        "NORM": cell.layer_norm, "norms": norms, "epsilon": added_to_variance(cell.norm_epsilon, dtype),
        "BY_GATE": each_gate_has_an_h(spec), "GATES": cell.gate_count,
    }  # fmt: skip


def same(products: torch.Tensor) -> torch.Tensor:
    """The weight that gives back what it multiplies."""
    return torch.eye(products.shape[-1], dtype=products.dtype, device=products.device)


def call_arguments(call: LayerCall, around: Surroundings, masks: MaskTable) -> dict[str, Any]:
    """What the kernels of all recurrences take, of a whole sequence and of single steps."""
    cell: Any = call.spec.cell
    T, B = call.x.shape[:2]
    return {
        **around.arguments(), **masks.arguments(), "T": T, "B": B, "H": cell.units,
        "ACTIVATION": ACTIVATIONS[cell.activation], "ZONE_H": masks.has("zone_h"), "STATES": call.spec.all_states,
    }  # fmt: skip


def loop_arguments(schedule: Schedule, x_gates: torch.Tensor) -> dict[str, Any]:
    """What the kernels of whole sequences take beside that."""
    return {
        "ROWS": schedule.rows, "U": schedule.units, "PROGRAMS": schedule.programs, "SPLIT": schedule.split,
        "counters": torch.zeros((schedule.groups, 2), dtype=torch.int32, device=x_gates.device),
        "PRECISION": precision(x_gates.dtype), "SPINS": 0 if x_gates.is_cuda else _INTERPRETED_SPINS,
    }  # fmt: skip
