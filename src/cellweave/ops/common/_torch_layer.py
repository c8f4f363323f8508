"""What surrounds one call of torch's own fused layers: masks, lengths, direction, residual."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from cellweave._types import dtype_name
from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._masks import apply_mask
from cellweave.ops.common._records import RunContext
from cellweave.ops.common._sequence import (
    read_in_order,
    reading_order,
    state_past_ends,
    within,
    without_padding,
)
from cellweave.specs import ZONES, LSTMSpec, RunSpec

State = tuple[torch.Tensor, ...]
#: Inputs `[T, B, I]`, or packed ones and their batch sizes, and the state `[1, B, size]` of each leaf, as torch orders
#: them; to outputs and state likewise.
Layer = Callable[[torch.Tensor, torch.Tensor | None, State], tuple[torch.Tensor, State]]

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def torch_refuses(spec: RunSpec, context: RunContext) -> str | None:
    """What torch's layers lack whatever the cell."""
    if any(mask.place in ("h", "c") for mask in spec.masks):
        return "masks on the state act inside the time loop"
    if any(mask.per_gate for mask in spec.masks):
        return "its gates have no masks of their own"
    if any(mask.place in ZONES for mask in spec.masks):
        return "zoneout acts inside the time loop"
    if spec.all_states and isinstance(spec.cell, LSTMSpec):
        return "its layer gives the last c alone"
    if spec.resets:
        return "resets act inside the time loop"
    if spec.residual and spec.cell.output_size != context.I:
        return f"the residual sum needs inputs as wide as the outputs, {spec.cell.output_size}, got {context.I}"
    if context.transforms:
        return "its layers know no torch.func transforms and no forward-mode gradients"
    if not context.plain:
        return "needs ordinary dense tensors"
    if context.dtype not in _DTYPES:
        return f"its layers know no {dtype_name(context.dtype)}"
    return None


def torch_sequence(layer: Layer, call: LayerCall) -> LayerResult:
    """Run a call by one call of torch's layer, differentiably.

    Args:
        layer: The fused layer with its weights.
        call: Without masks on the state and without resets; all states only where outputs are states.
    Returns:
        outputs `[T, B, O]`, the state after each row's last step, and those after all steps if the spec asks for them.
    """
    lengths, state = call.lengths, call.state
    x = without_padding(call.x, lengths)
    steps, rows = x.shape[:2]
    if steps == 0 or rows == 0:
        nothing = x.new_zeros(steps, rows, state[-1].shape[1])
        return LayerResult(nothing, state, (nothing,) if call.spec.all_states else ())
    order = reading_order(lengths, steps, x.device) if call.spec.reverse else None
    inputs = _masked("input", read_in_order(x, order), call)
    # torch keeps h before c, and cuDNN takes states without gaps only
    first = tuple(leaf.contiguous().unsqueeze(0) for leaf in reversed(state))
    if lengths is None:
        outputs, last = layer(inputs, None, first)
        state = tuple(leaf.squeeze(0) for leaf in reversed(last))
    else:
        outputs, state = _packed(layer, inputs, lengths, first, state)
    states: State = ()
    if call.spec.all_states:
        states = (read_in_order(state_past_ends(outputs, state[0], lengths), order),)
    outputs = _masked("output", outputs, call)
    outputs = read_in_order(outputs, order)
    return LayerResult(x + outputs if call.spec.residual else outputs, state, states)


def weights_for(device: torch.device, weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """The weights as torch's layer takes them on a device.

    cuDNN reads them from one piece of memory, in an order of its own: torch copies them there at every call, with a
    warning, unless they are parts of one already.
    """
    return in_one_buffer(weights) if device.type == "cuda" else weights


def in_one_buffer(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same values, one after another in one tensor: all matrices, then all biases."""
    order = sorted(range(len(weights)), key=lambda number: -weights[number].dim())
    buffer = torch.cat([weights[number].reshape(-1) for number in order])
    parts = buffer.split_with_sizes([weights[number].numel() for number in order])
    placed = dict(zip(order, parts, strict=True))
    return [placed[number].view(weight.shape) for number, weight in enumerate(weights)]


def _packed(
    layer: Layer, inputs: torch.Tensor, lengths: torch.Tensor, first: State, state: State
) -> tuple[torch.Tensor, State]:
    """Rows of length 0, which torch does not pack, run one step whose results nobody sees."""
    steps = inputs.shape[0]
    packed = pack_padded_sequence(inputs, lengths.cpu().clamp(min=1), enforce_sorted=False)
    by_length, back = packed.sorted_indices, packed.unsorted_indices
    data, last = layer(packed.data, packed.batch_sizes, tuple(leaf[:, by_length].contiguous() for leaf in first))
    outputs, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes, by_length, back), total_length=steps)
    new = [leaf[:, back].squeeze(0) for leaf in reversed(last)]
    zero = torch.zeros((), dtype=outputs.dtype, device=outputs.device)
    outputs = torch.where(within(lengths, steps)[:, :, None], outputs, zero)
    ran = (lengths > 0)[:, None]
    return outputs, tuple(torch.where(ran, a, b) for a, b in zip(new, state, strict=True))


def _masked(place: str, value: torch.Tensor, call: LayerCall) -> torch.Tensor:
    for mask in call.masks:
        if mask.spec.place == place:
            value = apply_mask(value, mask)
    return value
