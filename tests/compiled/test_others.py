"""What the kernels of the GRU and the plain recurrent network become on sm_90."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops.gru import _triton as gru
from cellweave.ops.rnn import _triton as rnn
from cellweave.specs import GRUSpec, RNNSpec
from helpers.cross_compile import SHARED, compiled_pair, plain_call

BF16 = torch.bfloat16
EVERYTHING = {
    "masks": "h:rows output:step zone_h:step",
    "states": True,
    "lengths": True,
    "resets": True,
    "reverse": True,
}
AFTER = GRUSpec(512, reset_after=True, joined_kernel=False)
#: Module, spec, rows, dtype, options; matrix instructions of a warp forward and backward; meetings of a step.
VARIANTS: dict[str, tuple[Any, Any, int, torch.dtype, dict[str, Any], tuple[int, int], int]] = {
    "rnn": (rnn, RNNSpec(1024), 16, BF16, {}, (8, 8), 1),
    "rnn-wrapped": (rnn, RNNSpec(512), 32, torch.float16, EVERYTHING, (4, 4), 1),
    "gru": (gru, GRUSpec(768), 16, BF16, {}, (18, 18), 2),
    "gru-wrapped": (gru, GRUSpec(512), 32, BF16, EVERYTHING, (12, 12), 2),
    "gru-after": (gru, AFTER, 16, BF16, {}, (12, 12), 1),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name: str) -> None:
    module, spec, rows, dtype, options, products, meetings = VARIANTS[name]
    loop, tensors = module.OP.loop_of(plain_call(spec, 4, rows, dtype, **options))
    for (kernel, schedule), expected in zip(compiled_pair(loop, tensors), products, strict=True):
        assert kernel.shared <= schedule.shared <= SHARED
        assert kernel.spilled == 0
        assert not kernel.bounds_lose_nan()
        assert kernel.count(r"HMMA\S*") == expected
        assert kernel.count(r"(ATOM|ATOMG|RED|REDG)\.\S*") == meetings
        assert kernel.weights_stay()


@pytest.mark.parametrize(
    "module, spec", [(gru, GRUSpec(64, reset_after=True, joined_kernel=False)), (rnn, RNNSpec(64))]
)
def test_float32_as_such_has_room(module: Any, spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products that are not rounded to TF32 take their operands from shared memory."""
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "ieee")
    loop, tensors = module.OP.loop_of(plain_call(spec, 4, 32, torch.float32))
    for kernel, schedule in compiled_pair(loop, tensors):
        assert kernel.shared <= schedule.shared <= SHARED
        assert kernel.spilled == 0
        assert kernel.count(r"HMMA\S*") == 0
