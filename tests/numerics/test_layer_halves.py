"""Layers in half precision on the native core, beside the reference in float32 on the numbers that they are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch

from cellweave.ops.common import LayerCall, LayerResult
from cellweave.ops.common._library import core, native_library
from cellweave.ops.common._native_halves import in_dtype, in_float32
from helpers.layer_cases import VARIANTS, LayerCase, backend_of, layer_cases, make_call, make_data, needs_backend
from helpers.tolerances import assert_close, assert_same_bits

HALVES = (torch.bfloat16, torch.float16)
BY_NAME = {variant.name: variant for variant in VARIANTS}
#: The first three of each variant that have steps and are small.
CASES = [
    case
    for _, group in itertools.groupby(
        (case for case in layer_cases() if case.dtype == "float32" and 1 < case.T < 20), lambda case: case.variant.name
    )
    for case in itertools.islice(group, 3)
]


@pytest.fixture(autouse=True)
def native_core() -> None:
    needs_backend("native", LayerCase(VARIANTS[0], 1, 1, 1))


def half_call(case: LayerCase, dtype: torch.dtype, *, threads: int = 1) -> LayerCall:
    """The case's call with every tensor rounded to a dtype."""
    call = make_call(case, make_data(case), threads=threads)

    def half(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(dtype).requires_grad_()

    return dataclasses.replace(
        call, x=half(call.x), state=tuple(map(half, call.state)),
        weights={name: half(weight) for name, weight in call.weights.items()},
        masks=tuple(m if m.noise is None else dataclasses.replace(m, noise=m.noise.to(dtype)) for m in call.masks),
        reset_state=None if call.reset_state is None else tuple(map(half, call.reset_state)),
    )  # fmt: skip


def run(call: LayerCall, backend: str = "native") -> LayerResult:
    return backend_of(call.spec, backend).run(call)


def values_and_gradients(call: LayerCall, result: LayerResult) -> list[torch.Tensor]:
    values = [result.outputs, *result.state, *result.states]
    loss = sum((v.float() * torch.arange(v.numel()).reshape(v.shape).sin()).sum() for v in values)
    sources = [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]
    grads = torch.autograd.grad(loss, sources, allow_unused=True)
    return [*values, *[torch.zeros_like(s) if g is None else g for s, g in zip(sources, grads, strict=True)]]


def all_close(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], tolerance: float) -> None:
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.dtype == b.dtype
        assert_close(f"tensor {number}", a, b, tolerance)


def all_equal(got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_same_bits(f"tensor {number}", a, b)


def tolerance(dtype: torch.dtype) -> float:
    """Both round once at the end, perhaps to either side; tiles round what is multiplied as well."""
    return TILED if dtype == torch.bfloat16 and core().has_bfloat16 else 2 * torch.finfo(dtype).eps


#: Of results and gradients where products are made of bfloat16, whose rounding is 1/256.
TILED = 3e-2


@pytest.mark.parametrize("dtype", HALVES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_against_the_reference_in_float32(case: LayerCase, dtype: torch.dtype) -> None:
    call = half_call(case, dtype)
    expected = in_dtype(run(in_float32(call), "reference"), dtype)
    got = run(call)
    all_close(values_and_gradients(call, got), values_and_gradients(call, expected), tolerance(dtype))


@pytest.mark.parametrize("dtype", HALVES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("masks", ["output", "steps", "noise", "twice"])
def test_masks_are_those_of_the_dtype(masks: str, dtype: torch.dtype) -> None:
    """Single steps in that dtype drop the same outputs; float32's masks would drop others."""
    case = LayerCase(BY_NAME["lstm"], 5, 4, 65, masks, dtype="float32")
    call = half_call(case, dtype)
    dropped, expected = run(call).outputs == 0, run(call, "reference").outputs == 0
    assert torch.equal(dropped, expected) and 0.1 < expected.float().mean() < 0.7


@pytest.mark.parametrize("dtype", HALVES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("name", ["lstm", "gru", "gru-after", "rnn", "all"])
def test_the_same_bits_for_any_number_of_threads_and_without_gradients(name: str, dtype: torch.dtype) -> None:
    case = LayerCase(BY_NAME[name], 4, 33, 40, "steps", "ragged", "given", dtype="float32")
    results = []
    for threads, grad in itertools.product((1, 2, 3), (True, False, False)):
        with torch.set_grad_enabled(grad):
            results.append(run(half_call(case, dtype, threads=threads)))
    for other in results[1:]:
        all_equal([other.outputs, *other.state], [results[0].outputs, *results[0].state])


def test_weights_that_change_are_read_again() -> None:
    call = half_call(LayerCase(BY_NAME["gru"], 3, 2, 9, dtype="float32"), torch.bfloat16)
    with torch.no_grad():
        before = run(call).outputs
        assert torch.equal(run(call).outputs, before)
        next(iter(call.weights.values())).data.add_(0.5)
        after = run(call).outputs
        assert not torch.equal(after, before)
        fresh = dataclasses.replace(call, weights={name: w.clone() for name, w in call.weights.items()})
        assert torch.equal(run(fresh).outputs, after)


def test_packed_weights_of_one_kind_of_product_do_not_serve_another() -> None:
    case = LayerCase(BY_NAME["gru"], 3, 4, 40, dtype="float32")
    call = make_call(case, make_data(case))
    with torch.no_grad():
        plain = run(call).outputs
        with torch.autocast("cpu", torch.bfloat16):
            rounded = run(call).outputs
        assert_same_bits("again", run(call).outputs, plain)
    assert_close("under autocast", rounded, plain, TILED)
    assert torch.equal(rounded, plain) is not core().has_bfloat16


def test_steps_give_the_bits_of_a_whole_call() -> None:
    call = half_call(LayerCase(BY_NAME["lstm-split"], 6, 2, 40, dtype="float32"), torch.bfloat16)
    backend = backend_of(call.spec, "native")
    assert backend.step is not None
    with torch.no_grad():
        whole = run(call)
        step = backend.step(dataclasses.replace(call, x=call.x[:1]))
        outputs = torch.stack([step(x) for x in call.x.unbind()])
        all_equal([outputs, *step.state], [whole.outputs, *whole.state])
        step.restart(torch.tensor([True, False]), None)
        assert [[bool(row.any()) for row in leaf] for leaf in step.state] == [[False, True]] * 2
        step.restart(torch.tensor([True, False]), tuple(call.state))
        assert torch.equal(step.state[0][0], call.state[0][0])


def test_second_derivatives() -> None:
    """By the reference in float32, with the masks of the dtype."""
    call = half_call(LayerCase(BY_NAME["gru"], 3, 2, 5, "rows", dtype="float32"), torch.bfloat16)
    found = []
    for result in (run(call), in_dtype(run(in_float32(call), "reference"), torch.bfloat16)):
        (d_x,) = torch.autograd.grad(result.outputs.float().square().sum(), call.x, create_graph=True)
        found.append(torch.autograd.grad(d_x.float().square().sum(), list(call.weights.values())))
    all_close(found[0], found[1], TILED)
    assert all(bool(grad.any()) for grad in found[0])


@pytest.fixture
def without_rounding() -> Iterator[None]:
    """An instruction set that makes no products of bfloat16."""
    library = core()
    before = library.isa
    if library.has_bfloat16:
        library.use_isa("portable")
    yield
    library.use_isa(before)


@pytest.mark.parametrize("name", ["lstm", "gru", "gru-after", "rnn"])
@pytest.mark.usefixtures("without_rounding")
def test_elsewhere_only_the_ends_are_rounded(name: str) -> None:
    case = LayerCase(BY_NAME[name], 4, 17, 33, dtype="float32")
    call = half_call(case, torch.bfloat16)
    single = dataclasses.replace(in_float32(call), bfloat16=False)
    got, expected = run(call), in_dtype(run(single), torch.bfloat16)
    all_equal([got.outputs, *got.state], [expected.outputs, *expected.state])


def _with_bfloat16() -> list[str]:
    """The plain loops make its products on every machine, the best instruction set on some."""
    library = native_library()
    return sorted({"plain", library.isa} if library is not None and library.has_bfloat16 else {"plain"})


@pytest.fixture(params=_with_bfloat16())
def rounding(request: pytest.FixtureRequest) -> Iterator[None]:
    library = core()
    before = library.isa
    library.use_isa(request.param)
    yield
    library.use_isa(before)


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.id)
def test_rounded_products_against_the_reference(case: LayerCase) -> None:
    """Gradients too, whose products after the loop are of bfloat16 then."""
    call = half_call(case, torch.bfloat16)
    expected = in_dtype(run(in_float32(call), "reference"), torch.bfloat16)
    all_close(values_and_gradients(call, run(call)), values_and_gradients(call, expected), TILED)


@pytest.mark.usefixtures("rounding")
def test_products_round_what_they_multiply() -> None:
    """A number that bfloat16 does not hold counts as its neighbour."""
    single = in_float32(half_call(LayerCase(BY_NAME["rnn-relu"], 1, 2, 8, dtype="float32"), torch.bfloat16))
    value, neighbour = 1.0 + 2.0**-12, 1.0
    with torch.no_grad():
        weights = {name: torch.full_like(weight, 0.25) for name, weight in single.weights.items()}
        x, state = torch.full_like(single.x, value), tuple(torch.full_like(leaf, value) for leaf in single.state)
        given = dataclasses.replace(single, x=x, state=state, weights=weights)
        rounded, exact = run(given).outputs, run(dataclasses.replace(given, bfloat16=False)).outputs
    columns = x.shape[2] + state[0].shape[1]
    assert torch.equal(rounded, torch.full_like(rounded, 0.25 * neighbour * columns + 0.25))
    assert_close("exact", exact, torch.full_like(exact, 0.25 * value * columns + 0.25), 1e-7)
