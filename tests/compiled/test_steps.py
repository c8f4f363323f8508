"""What the kernels of single steps become on sm_90: elementwise, in registers, and waiting for nobody."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from cellweave.ops.common import _triton_steps
from cellweave.ops.common._triton_backend import ACTIVATIONS
from cellweave.ops.common._triton_launch import Launch
from cellweave.ops.gru import _triton as gru
from cellweave.ops.lstm import _triton as lstm
from cellweave.ops.rnn import _triton as rnn
from cellweave.specs import GRUSpec, LSTMSpec, RNNSpec
from helpers.cross_compile import compile_launch, compiled_steps, plain_call
from helpers.step_form import take_steps

BF16 = torch.bfloat16
EVERYTHING = {"states": True, "lengths": True, "resets": True, "reverse": True}
H_MASKS, ALL_MASKS = "h:rows output:step zone_h:step", "h:rows c:step output:rows zone_h:step zone_c:step"
FULL = LSTMSpec(256, peepholes=True, cell_clip=1.0, projection=128, proj_clip=1.0, forget_bias=1.0)
NORM = LSTMSpec(1024, peepholes=True, cell_clip=1.0, layer_norm=True)
ENDS = {"first_state", "first_gradient"}
OF_GATES = {"gate_operands", "gate_gradients", "operands_of_gate"}
#: Variants that keep no gates, and what computes these again.
AGAIN = {"lstm-full": "lstm_gates_again", "gru-wrapped": "gru_gates_again", "rnn-wrapped": "rnn_gates_again"}
#: Module, spec, rows, dtype, options, and the kernels of a step beside those of its ends.
VARIANTS: dict[str, tuple[Any, Any, int, torch.dtype, dict[str, Any], set[str]]] = {
    "lstm": (lstm, LSTMSpec(256), 64, BF16, {}, {"lstm_fwd_step", "lstm_bwd_step"}),
    "lstm-full": (
        lstm, FULL, 64, BF16, {**EVERYTHING, "masks": ALL_MASKS},
        {"lstm_fwd_step", "lstm_fwd_output", "lstm_bwd_output", "lstm_bwd_step"},
    ),
    "rnn-wrapped": (rnn, RNNSpec(300), 64, torch.float16, {**EVERYTHING, "masks": H_MASKS},
                    {"rnn_fwd_step", "rnn_bwd_step"}),
    "gru-wrapped": (gru, GRUSpec(256), 64, BF16, {**EVERYTHING, "masks": H_MASKS},
                    {"gru_fwd_reset", "gru_fwd_step", "gru_bwd_step", "gru_bwd_reset"}),
    "gru-after": (gru, GRUSpec(256, reset_after=True, joined_kernel=False), 64, BF16, {},
                  {"gru_fwd_step", "gru_bwd_step"}),
    "lstm-norm": (lstm, NORM, 64, BF16, {"masks": "h:rows"}, {"lstm_fwd_step", "lstm_bwd_step"}),
    "lstm-gates": (lstm, FULL, 64, BF16, {**EVERYTHING, "masks": "h:gates input:gates"},
                   {"lstm_fwd_step", "lstm_fwd_output", "lstm_bwd_output", "lstm_bwd_step"} | OF_GATES),
    "gru-norm": (gru, GRUSpec(512, layer_norm=True), 64, BF16, {},
                 {"gru_fwd_reset", "gru_fwd_step", "gru_bwd_step", "gru_bwd_reset"}),
}  # fmt: skip


#: Variants whose kernels count from a number in memory, as they do in graphs.
CLOCKED = ("lstm-full", "gru-wrapped", "rnn-wrapped", "lstm-gates")


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_steps(monkeypatch)
    if name in CLOCKED:
        monkeypatch.setattr(_triton_steps, "clock_for", lambda like, steps: torch.zeros((), dtype=torch.int32))
    module, spec, rows, dtype, options, expected = VARIANTS[name]
    gates = name not in AGAIN
    kernels = compiled_steps(*module.OP.loop_of(plain_call(spec, 2, rows, dtype, **options)), gates=gates)
    assert {kernel for kernel, _ in kernels} == expected | ENDS | ({AGAIN[name]} if not gates else set())
    for _, kernel in kernels:
        assert kernel.spilled == 0
        assert not re.search(r"^\s*(@\S+ )?(mma|wgmma|atom|red)\.", kernel.ptx, re.MULTILINE)
        assert kernel.registers <= 128  # four programs of 128 threads on a multiprocessor at least
        assert not kernel.bounds_lose_nan()
        assert not kernel.narrow_offsets()  # a step of many rows has more than 2^31 elements


#: What kernels overwrite: by which parameters they read it, and by which they store.
OVERWRITTEN = {
    "lstm_fwd_step": [("h", "h"), ("c", "c")], "lstm_gates_again": [("gates", "gates")],
    "lstm_bwd_step": [("past_h", "past_h"), ("d_c", "d_c"), ("gates", "d_gates")],
    "gru_fwd_step": [("h", "h")], "gru_bwd_step": [("past_h", "past_h")], "gru_bwd_reset": [("past_h", "past_h")],
    "rnn_fwd_step": [("h", "h")], "rnn_gates_again": [("gates", "gates")],
    "rnn_bwd_step": [("past_h", "past_h"), ("gates", "d_gates")],
}  # fmt: skip


@pytest.mark.parametrize("units", [20, 64])
@pytest.mark.parametrize("kind, module, spec", [("lstm", lstm, LSTMSpec), ("gru", gru, GRUSpec), ("rnn", rnn, RNNSpec)])
def test_warps_that_share_a_small_tile_read_it_before_one_overwrites_it(
    kind: str, module: Any, spec: Any, units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them loads all of it, and what one has stored meanwhile would reach the gates through shared memory."""
    take_steps(monkeypatch)
    kernels = compiled_steps(*module.OP.loop_of(plain_call(spec(units), 2, 1, BF16, lengths=True)), gates=False)
    checked = [(name, kernel, pair) for name, kernel in kernels for pair in OVERWRITTEN.get(name, [])]
    assert {name for name, *_ in checked} == {name for name in OVERWRITTEN if name.startswith(kind)}
    for name, kernel, (read, overwritten) in checked:
        assert kernel.reads_before_it_overwrites(read, overwritten), f"{name}: {overwritten}"


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_let_nan_through(activation: str) -> None:
    """What diverged must not look sound."""
    gates, kind = torch.zeros(4, 16), ACTIVATIONS[activation]
    arguments = {"gates": gates, "B": 4, "H": 16, "ROWS": 4, "U": 16, "ACTIVATION": kind}
    launch = Launch("cellweave.ops.rnn._triton_step_kernels", "rnn_gates_again", 1, arguments, {"num_warps": 4})
    assert not compile_launch(launch).bounds_lose_nan()
