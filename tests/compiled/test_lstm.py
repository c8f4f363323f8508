"""What the LSTM's kernels become on sm_90: what they need of the chip, and that weights stay on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cellweave.ops.lstm._triton import OP
from cellweave.specs import LSTMSpec
from helpers.cross_compile import SHARED, compiled_pair, plain_call

BF16, FP32 = torch.bfloat16, torch.float32
EVERYTHING = {
    "masks": "h:rows c:step output:rows zone_h:step zone_c:step",
    "states": True,
    "lengths": True,
    "resets": True,
    "reverse": True,
}
FULL = LSTMSpec(512, peepholes=True, cell_clip=1.0, projection=256, proj_clip=1.0, forget_bias=1.0)
#: Spec, rows, dtype, options; matrix instructions of a warp forward and backward; meetings of a step.
VARIANTS: dict[str, tuple[LSTMSpec, int, torch.dtype, dict[str, Any], tuple[int, int], int]] = {
    "anchor": (LSTMSpec(768), 16, BF16, {}, (24, 24), 1),
    "large": (LSTMSpec(1024), 16, BF16, {}, (32, 32), 1),
    "half": (LSTMSpec(256), 64, torch.float16, {}, (8, 8), 1),
    "tf32": (LSTMSpec(512), 16, FP32, {}, (32, 32), 1),
    "wrapped": (LSTMSpec(512, forget_bias=1.0), 32, BF16, EVERYTHING, (16, 16), 1),
    "full": (FULL, 16, BF16, EVERYTHING, (12, 18), 2),
    "many-rows": (LSTMSpec(256), 128, BF16, {}, (16, 16), 1),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name: str) -> None:
    spec, rows, dtype, options, products, meetings = VARIANTS[name]
    loop, tensors = OP.loop_of(plain_call(spec, 4, rows, dtype, **options))
    for (kernel, schedule), expected in zip(compiled_pair(loop, tensors), products, strict=True):
        assert kernel.shared <= schedule.shared <= SHARED
        assert kernel.spilled == 0
        assert not kernel.bounds_lose_nan()
        assert kernel.count(r"HMMA\S*") == expected
        assert kernel.count(r"(ATOM|ATOMG|RED|REDG)\.\S*") == meetings
        assert kernel.weights_stay()
