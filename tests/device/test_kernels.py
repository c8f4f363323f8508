"""Whole layers on a device: our kernels and cuDNN's against the float64 oracle, in every dtype."""

from __future__ import annotations

import pytest
import torch

from cellweave.ops.common import BoundMask, LayerCall
from cellweave.ops.common._masks import apply_mask
from cellweave.ops.common._triton_graphs import CHUNK
from cellweave.specs import MaskSpec, RNNSpec, RunSpec
from helpers.gate_mask_cases import gate_call
from helpers.layer_cases import VARIANTS, LayerCase, LayerData, backend_of, context_of, make_call, make_data, on_device
from helpers.layer_checks import from_backend, from_oracle
from helpers.step_form import take_steps
from helpers.tolerances import assert_close, assert_same_bits, worst_error

KERNELS = [variant for variant in VARIANTS if not variant.spec(4).layer_norm]
SIZES = [(4, 3, 5), (3, 18, 11)]
CUDNN = ("rnn", "rnn-relu", "gru-after", "lstm", "lstm-split", "proj")
#: A step of each dtype's mantissa, and how much of it a short sequence may add to twice plain torch's error.
STEPS = {"float32": 2.0**-20, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def _check(case: LayerCase, backend: str, device: str, floor: float) -> None:
    data: LayerData = make_data(case)
    run = case.run()
    assert backend_of(run, backend).refuses(run, context_of(case, device_type=device)) is None
    expected = from_oracle(data)
    plain, got = (from_backend(case, data, name, device) for name in ("reference", backend))
    for kind, mine, base, wanted in zip(("", "d "), got, plain, expected, strict=True):
        for name in wanted:
            error = worst_error(base[name].double().cpu(), wanted[name])
            assert_close(kind + name, mine[name].double(), wanted[name], 2.0 * error + floor)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", KERNELS, ids=lambda variant: variant.name)
def test_everything_in_float32(variant: object, size: tuple[int, int, int], device: str) -> None:
    case = LayerCase(variant, *size, "twice", "ragged", "given", True, True, dtype="float32")  # type: ignore[arg-type]
    _check(case, "triton", device, STEPS["float32"])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("variant", KERNELS, ids=lambda variant: variant.name)
def test_everything_in_float32_step_by_step(
    variant: object, size: tuple[int, int, int], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_steps(monkeypatch)
    case = LayerCase(variant, *size, "zones", "ragged", "given", True, True, True, dtype="float32")  # type: ignore[arg-type]
    _check(case, "triton", device, STEPS["float32"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "lstm", "all"])
def test_half_precision_step_by_step(name: str, dtype: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cpu" and dtype == "bfloat16":
        pytest.skip("Triton's interpreter computes wrongly in bfloat16")
    take_steps(monkeypatch)
    variant = next(v for v in VARIANTS if v.name == name)
    _check(LayerCase(variant, 3, 3, 11, "none", "ragged", "given", dtype=dtype), "triton", device, STEPS[dtype])


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "lstm", "all"])
def test_steps_in_graphs(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three graphs and some steps: the bits of steps that are launched one by one, at the second call too."""
    if device == "cpu":
        pytest.skip("graphs need a CUDA device")
    take_steps(monkeypatch)
    variant = next(v for v in VARIANTS if v.name == name)
    case = LayerCase(variant, 3 * CHUNK + 5, 3, 40, "zones", "ragged", "given", True, dtype="float32")
    call = on_device(make_call(case, make_data(case)), device)
    first: list[torch.Tensor] = []
    for setting in ("0", "1", "1"):
        monkeypatch.setenv("CELLWEAVE_STEP_GRAPHS", setting)
        out, state, _ = backend_of(call.spec, "triton").run(call)
        got = [out, *state, *torch.autograd.grad(out.sum(), [call.x, *call.state, *call.weights.values()])]
        for number, (a, b) in enumerate(zip(got, first or got, strict=True)):
            assert_same_bits(f"result {number}, graphs {setting}", a, b)
        first = first or got


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_what_does_not_fit_the_device(name: str, dtype: str, device: str) -> None:
    """1500 units at 64 rows, whose kernels for the whole sequence do not fit a Hopper device."""
    variant = next(v for v in VARIANTS if v.name == name)
    case = LayerCase(variant, 3, 64, 1500, dtype=dtype)  # the oracle draws no masks in bfloat16
    if device == "cpu":
        from_oracle(make_data(case))
        pytest.skip("too large for Triton's interpreter")
    record = backend_of(case.run(), "triton")
    assert record.remarks is not None
    assert "one kernel per step" in str(record.remarks(case.run(), context_of(case, device_type=device)))
    _check(case, "triton", device, STEPS[dtype])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("variant", KERNELS, ids=lambda variant: variant.name)
def test_half_precision(variant: object, dtype: str, device: str) -> None:
    if device == "cpu" and dtype == "bfloat16":
        pytest.skip("Triton's interpreter computes wrongly in bfloat16")
    case = LayerCase(variant, 3, 3, 11, "none", "ragged", "given", dtype=dtype)  # type: ignore[arg-type]
    _check(case, "triton", device, STEPS[dtype])


def test_tf32(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
    _check(LayerCase(VARIANTS[0], 3, 3, 40, dtype="float32"), "triton", device, 2.0**-9)


@pytest.mark.parametrize("name", CUDNN)
def test_cudnn(name: str, device: str) -> None:
    if device == "cpu":
        pytest.skip("cuDNN needs a CUDA device")
    variant = next(v for v in VARIANTS if v.name == name)
    for lengths in ("full", "ragged"):
        case = LayerCase(variant, 5, 4, 6, "input", lengths, residual=True, dtype="float32")
        _check(case, "torch", device, STEPS["float32"])


#: Variant, sizes, dtype, calls: every option often; then long sequences of as many programs as a chip has room for,
#: which meet some hundred times.
REPEATED = [
    ("all", (4, 18, 130), "float32", 50), ("rnn", (300, 16, 1024), "float16", 10),
    ("gru", (300, 16, 1024), "bfloat16", 10), ("lstm", (300, 16, 1024), "bfloat16", 10),
]  # fmt: skip


@pytest.mark.parametrize("name, size, dtype, calls", REPEATED, ids=str)
def test_the_same_bits_many_times(name: str, size: tuple[int, int, int], dtype: str, calls: int, device: str) -> None:
    variant = next(v for v in VARIANTS if v.name == name)
    if device == "cpu":
        size, dtype, calls = (4, 18, 11), "float32", 2
    masks = "none" if dtype == "bfloat16" else "rows"
    case = LayerCase(variant, *size, masks, "ragged", "given", dtype=dtype)
    call = on_device(make_call(case, make_data(case)), device)
    first: list[torch.Tensor] = []
    for _ in range(calls):
        out, state, _ = backend_of(call.spec, "triton").run(call)
        got = [out, *state, *torch.autograd.grad(out.sum(), [call.x, *call.weights.values()])]
        for number, (a, b) in enumerate(zip(got, first or got, strict=True)):
            assert_same_bits(f"result {number}", a, b)
        first = first or got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("per_step", [True, False])
def test_both_kinds_of_devices_draw_the_same_masks(per_step: bool, dtype: torch.dtype, device: str) -> None:
    if device == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter computes wrongly in bfloat16")
    T, B, H = 3, 2, 11
    spec = MaskSpec("output", per_step, True)
    mask = BoundMask(spec, 0.6, True, 2**63 + 11, 5, 2**64 - 1, 7 if per_step else 0)
    run = RunSpec(RNNSpec(H, "linear", joined_kernel=False), (spec,))
    shapes = {"kernel": (1, H), "recurrent_kernel": (H, H), "bias": (H,)}
    weights = {name: torch.full(shape, float(name == "bias"), dtype=dtype) for name, shape in shapes.items()}
    x, state = (torch.zeros(shape, dtype=dtype) for shape in ((T, B, 1), (B, H)))
    call = on_device(LayerCall(run, x, (state,), weights, (mask,)), device)
    out = backend_of(run, "triton").run(call).outputs
    assert_same_bits("kept", out.cpu(), apply_mask(torch.ones(T, B, H, dtype=dtype), mask))


@pytest.mark.parametrize("name", ["rnn", "gru", "gru-after", "lstm", "coupled-all"])
def test_masks_of_each_gate(name: str, device: str) -> None:
    found = []
    for backend, place in (("triton", device), ("reference", "cpu")):
        call = on_device(gate_call(name, "steps"), place)
        out, state, _ = backend_of(call.spec, backend).run(call)
        sources = [call.x, *call.state, *call.weights.values()]
        found.append([out, *state, *torch.autograd.grad(out.sin().sum(), sources)])
    for number, (mine, wanted) in enumerate(zip(*found, strict=True)):
        assert_close(f"result {number}", mine.cpu(), wanted, 2e-5)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 16, 8), (2, 17, 9)], ids=str)
def test_the_smallest_sizes(size: tuple[int, int, int], device: str) -> None:
    _check(LayerCase(VARIANTS[0], *size, dtype="float32"), "triton", device, STEPS["float32"])
