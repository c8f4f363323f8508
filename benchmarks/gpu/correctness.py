"""Our kernels on the device against float64, in the dtype and sizes in which they are timed; few steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from gpu.clock import Clock
from gpu.layers import Layer, dtype_of, fresh_memory_is_nan, layer, random_inputs, set_precision
from gpu.plan import TRITON, WRAPPED, GpuCase, Plan

#: What a short sequence may add to twice the error of plain PyTorch: a step of each dtype's mantissa.
_FLOOR = {"float32": 2.0**-20, "tf32": 2.0**-9, "float16": 2.0**-10, "bfloat16": 2.0**-7}
#: Twice plain PyTorch's error. With masks, which a dtype's own random bits decide, there is no float64 to compare with:
#: plain PyTorch in the same dtype has its error too, so both together.
_TIMES, _TIMES_MASKED = 2.0, 4.0

Named = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Question:
    """Inputs, a first state and upstream gradients, in float64 as the dtype holds them."""

    x: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    upstream: torch.Tensor
    seed: int


def check(case: GpuCase, name: str, clock: Clock, plan: Plan, seed: int) -> dict[str, Any]:
    """Whether a kernel is right: `passes`, the worst tensor with its error and bound, whether its bits repeat."""
    set_precision(case.dtype)
    device, dtype = clock.device, dtype_of(case)
    question = _question(case, name, device, dtype, seed)
    first = _answer(layer(name, case, device, dtype), case, question, dtype)
    with fresh_memory_is_nan():
        runs = [_answer(layer(name, case, device, dtype), case, question, dtype) for _ in range(plan.repeats_equal - 1)]
    repeats = all(_same_bits(first, other) for other in runs)
    plain = _answer(layer(name, case, device, dtype, "reference"), case, question, dtype)
    if name == WRAPPED:
        truth, times = plain, _TIMES_MASKED
        exact = _answer(_exact(TRITON, case, device, dtype), case, question, torch.float64)
        plain = _answer(layer(TRITON, case, device, dtype, "reference"), case, question, dtype)
    else:
        truth, times = _answer(_exact(name, case, device, dtype), case, question, torch.float64), _TIMES
        exact = truth
    worst, passes = _worst(runs[-1], truth, plain, exact, times, _FLOOR[case.dtype])
    return {"passes": passes and repeats, "repeats": repeats, "worst": worst, "seed": seed}


def _exact(name: str, case: GpuCase, device: str, dtype: torch.dtype) -> Layer:
    """The layer step by step in float64, with the weights as the dtype holds them."""
    rounded = layer(name, case, device, dtype, "reference")
    exact = layer(name, case, device, torch.float64, "reference")
    with torch.no_grad():
        for weight, source in zip(exact.weights, rounded.weights, strict=True):
            weight.copy_(source)
    return exact


def _question(case: GpuCase, name: str, device: str, dtype: torch.dtype, seed: int) -> Question:
    sample = layer(name, case, device, dtype, "reference")
    x = random_inputs(case, device, dtype, seed)
    with torch.no_grad():
        outputs, last = sample.run(x)
    h, c = last if isinstance(last, tuple) else (last, last)
    generator = torch.Generator(device).manual_seed(seed + 1)

    def random_like(value: torch.Tensor) -> torch.Tensor:
        return torch.randn(value.shape, generator=generator, device=device).to(dtype).double()

    return Question(x.double(), random_like(h) / 2, random_like(c) / 2, random_like(outputs), seed)


def _answer(given: Layer, case: GpuCase, question: Question, dtype: torch.dtype) -> Named:
    """Outputs, last state and gradients of everything, by name."""
    x, h, c = (value.to(dtype).requires_grad_() for value in (question.x, question.h, question.c))
    is_lstm = case.kind == "lstm"
    torch.manual_seed(question.seed)  # of the masks
    outputs, last = given.run(x, (h, c) if is_lstm else h)
    state = list(last) if is_lstm else [last]
    sources = [x, h, *([c] if is_lstm else []), *given.weights]
    upstream = [question.upstream, question.h, question.c][: 1 + len(state)]
    grads = torch.autograd.grad([outputs, *state], sources, [d.to(dtype) for d in upstream])
    values = {"outputs": outputs, **dict(zip(("h", "c"), state, strict=False))}
    names = ["x", "h0", *(["c0"] if is_lstm else []), *(f"weight {n}" for n in range(len(given.weights)))]
    found = {name: value.detach() for name, value in values.items()}
    return found | {f"d {name}": grad for name, grad in zip(names, grads, strict=True)}


def _same_bits(one: Named, other: Named) -> bool:
    """NaN differs from everything, itself included."""
    return all(torch.equal(value, other[name]) for name, value in one.items())


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The size of the difference over that of what was expected; NaN for NaN."""
    difference = (got.double() - expected.double()).norm()
    return float(difference / expected.double().norm().clamp_min(1e-30))


def _worst(
    got: Named, truth: Named, plain: Named, exact: Named, times: float, floor: float
) -> tuple[dict[str, Any], bool]:
    """The tensor nearest to its bound or farthest beyond it, and whether all are within."""
    worst: dict[str, Any] = {"share": -1.0}
    for name, value in got.items():
        error, bound = relative(value, truth[name]), times * relative(plain[name], exact[name]) + floor
        share = error / bound
        if not share <= worst["share"]:  # NaN is the worst of all, and stays it
            worst = {"tensor": name, "error": error, "bound": bound, "share": share}
            if share != share:
                break
    return worst, bool(worst["share"] <= 1.0)
