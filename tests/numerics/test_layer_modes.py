"""The native backend under everything that autograd, users and threads do with it."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from cellweave._errors import OrderError
from cellweave.ops.common import LayerCall
from cellweave.ops.common import _native_form as form_module
from cellweave.ops.common._library import core
from cellweave.ops.common._native_call import POOL
from helpers.layer_cases import VARIANTS, LayerCase, backend_of, make_call, make_data, needs_backend
from helpers.tolerances import assert_close, assert_same_bits

BY_NAME = {variant.name: variant for variant in VARIANTS}
KINDS = ("rnn", "gru", "gru-after", "lstm", "all", "coupled-all", "norm-all", "rnn-norm", "gru-norm", "gru-norm-after")
EVERYTHING: dict[str, Any] = {"masks": "steps", "lengths": "ragged", "resets": "given", "dtype": "float32"}
#: The same with zoneout and the states of all steps; with these alone outputs are operands.
ZONED: dict[str, Any] = EVERYTHING | {"masks": "zones", "states": True}
ZONEOUT: dict[str, Any] = {"masks": "zoneout", "states": True, "dtype": "float32"}
Tensors = list[torch.Tensor]


@pytest.fixture(autouse=True)
def native_core() -> None:
    needs_backend("native", LayerCase(VARIANTS[0], 1, 1, 1))


def _call(name: str, T: int, B: int, H: int, *, threads: int = 1, **features: Any) -> LayerCall:
    case = LayerCase(BY_NAME[name], T, B, H, **features)
    return make_call(case, make_data(case), threads=threads)


def _run(call: LayerCall) -> Tensors:
    out, last, states = backend_of(call.spec, "native").run(call)
    return [out, *last, *states]


def _sources(call: LayerCall) -> Tensors:
    return [call.x, *call.state, *(call.reset_state or ()), *call.weights.values()]


def _weighted(values: Tensors) -> torch.Tensor:
    """A loss whose gradients differ from element to element."""
    return torch.stack([(v * torch.arange(v.numel()).reshape(v.shape).sin()).sum() for v in values]).sum()


def _same(what: str, got: Any, expected: Any) -> None:
    for number, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert_same_bits(f"{what} {number}", a, b)


@pytest.mark.parametrize(
    "features", [{"dtype": "float32"}, EVERYTHING, {"masks": "twice", "reverse": True}, ZONED, ZONEOUT]
)
@pytest.mark.parametrize("B, H", [(1, 65), (3, 33), (17, 40)])
@pytest.mark.parametrize("name", KINDS)
def test_bits_do_not_depend_on_the_number_of_threads(name: str, B: int, H: int, features: dict[str, Any]) -> None:
    expected = None
    for threads in (1, 2, 3):
        call = _call(name, 4, B, H, threads=threads, **features)
        values = _run(call)
        found = [*values, *torch.autograd.grad(_weighted(values), _sources(call))]
        expected = found if expected is None else expected
        _same(f"{threads} threads", found, expected)


@pytest.mark.parametrize(
    "features",
    [
        {},
        EVERYTHING,
        EVERYTHING | {"reverse": True},  # which cannot be cut
        {"masks": "steps", "resets": "given", "reverse": True, "residual": True},
        {"masks": "rows", "lengths": "ragged", "resets": "zeros", "reverse": True},
        ZONED,
        ZONEOUT,
        {"masks": "expected", "lengths": "ragged", "states": True, "reverse": True},
    ],
)
@pytest.mark.parametrize("name", KINDS)
def test_parts_of_the_sequence_give_the_same_bits(
    name: str, features: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = _call(name, 13, 3, 9, **features)
    with torch.no_grad():
        whole = _run(call)
        monkeypatch.setattr(form_module, "PART_BYTES", 3 * 3 * 9 * 4 * 8)  # about three steps
        _same("parts", _run(call), whole)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("features", [{}, EVERYTHING, ZONED, ZONEOUT])
@pytest.mark.parametrize("name", KINDS)
def test_without_gradients(name: str, features: dict[str, Any], mode: Any) -> None:
    call = _call(name, 7, 3, 9, **features)
    with mode():
        values = _run(call)
    assert not any(value.requires_grad for value in values)
    tolerance = 1e-6 if call.x.dtype == torch.float32 else 1e-14
    for number, (got, expected) in enumerate(zip(values, _run(call), strict=True)):
        assert_close(f"value {number}", got, expected, tolerance)


@pytest.mark.parametrize("name", KINDS)
def test_single_steps_with_expected_zoneout(name: str) -> None:
    call = _call(name, 5, 3, 9, masks="expected", dtype="float32")
    zones = tuple(mask for mask in call.masks if mask.expected)
    assert len(zones) == len(call.state)
    spec = dataclasses.replace(call.spec, masks=tuple(mask.spec for mask in zones))
    call = dataclasses.replace(call, spec=spec, masks=zones)
    make_step = backend_of(spec, "native").step
    assert make_step is not None
    with torch.no_grad():
        step = make_step(dataclasses.replace(call, x=call.x[:1]))
        outputs = [step(x.contiguous()) for x in call.x.unbind(0)]
        for number, (got, expected) in enumerate(zip([torch.stack(outputs), *step.state], _run(call), strict=True)):
            assert_close(f"value {number}", got, expected, 1e-6)


def test_nothing_requires_a_gradient() -> None:
    call = _call("lstm", 3, 2, 5)
    for source in _sources(call):
        source.requires_grad_(False)
    assert not any(value.requires_grad for value in _run(call))


@pytest.mark.parametrize("features", [{}, EVERYTHING, ZONED, ZONEOUT])
@pytest.mark.parametrize("name", KINDS)
def test_backward_twice(name: str, features: dict[str, Any]) -> None:
    call = _call(name, 4, 3, 5, **features)
    loss, sources = _weighted(_run(call)), _sources(call)
    first = torch.autograd.grad(loss, sources, retain_graph=True)
    _same("second", torch.autograd.grad(loss, sources, retain_graph=True), first)
    _same("last", torch.autograd.grad(loss, sources), first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, sources)


@pytest.mark.parametrize("name", ["rnn", "gru", "lstm", "all", "norm-all"])
def test_backward_again_after_a_failure(name: str) -> None:
    """A hook that raises leaves the graph, whose gates are overwritten; one that is kept is as good as before."""
    call = _call(name, 4, 3, 5, dtype="float32")
    values, sources = _run(call), _sources(call)
    node = values[0].grad_fn
    assert node is not None
    expected = torch.autograd.grad(_weighted(values), sources, retain_graph=True)

    def raises(*_: Any) -> None:
        raise ValueError("of a hook")

    hook = node.register_hook(raises)
    with pytest.raises(ValueError, match="of a hook"):
        torch.autograd.grad(_weighted(values), sources, retain_graph=True)
    hook.remove()
    _same("of a kept graph", torch.autograd.grad(_weighted(values), sources, retain_graph=True), expected)
    hook = node.register_hook(raises)
    with pytest.raises(ValueError, match="of a hook"):
        torch.autograd.grad(_weighted(values), sources)
    hook.remove()
    with pytest.raises(OrderError, match=r"one backward pass.*got another.*retain_graph"):
        torch.autograd.grad(_weighted(values), sources)


def test_backward_while_another_thread_frees_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers of the pool are freed by Python: a thread that comes then must not read a list half taken apart."""
    give_back, found = POOL._give_back, list[RuntimeError]()

    def late() -> None:
        with pytest.raises(RuntimeError) as caught:
            torch.autograd.grad(outputs, call.x, upstream)
        found.append(caught.value)

    def slowly(block: torch.Tensor) -> None:
        if not found:
            thread = threading.Thread(target=late)
            thread.start()
            thread.join(60)
        give_back(block)

    monkeypatch.setattr(POOL, "_give_back", slowly)
    call = _call("lstm", 40, 32, 64)
    outputs = _run(call)[0]
    upstream = torch.ones_like(outputs)
    torch.autograd.grad(outputs, call.x, upstream)
    assert [type(error) for error in found] == [OrderError]


@pytest.mark.parametrize(
    "features", [{"residual": True}, EVERYTHING | {"dtype": "float64"}, ZONED | {"dtype": "float64"}]
)
@pytest.mark.parametrize("name", KINDS)
def test_first_gradients_of_a_differentiable_graph(name: str, features: dict[str, Any]) -> None:
    """With `create_graph` the gradients are the same, and the graph is still good for the core's own."""
    call = _call(name, 4, 3, 5, **features)
    loss, sources = _weighted(_run(call)), _sources(call)
    differentiable = torch.autograd.grad(loss, sources, create_graph=True)
    for number, (a, b) in enumerate(zip(differentiable, torch.autograd.grad(loss, sources), strict=True)):
        assert a.requires_grad
        assert_close(f"source {number}", a, b, 1e-13)


@pytest.mark.parametrize("features", [{"residual": True}, EVERYTHING, ZONED, ZONEOUT | {"residual": True}])
@pytest.mark.parametrize("name", [*KINDS, "gru-split", "lstm-unbiased"])
def test_each_gradient_alone(name: str, features: dict[str, Any]) -> None:
    """What nobody asks for is left out, and the rest stays as it is."""
    call = _call(name, 3, 3, 6, **features)
    expected = torch.autograd.grad(_weighted(_run(call)), _sources(call))
    for number, wanted in enumerate(expected):
        call = _call(name, 3, 3, 6, **features)
        for other, source in enumerate(_sources(call)):
            source.requires_grad_(other == number)
        (got,) = torch.autograd.grad(_weighted(_run(call)), [_sources(call)[number]])
        assert_same_bits(f"source {number}", got, wanted)


@pytest.mark.parametrize("features", [EVERYTHING, ZONED, ZONEOUT])
@pytest.mark.parametrize("name", KINDS)
def test_each_result_alone(name: str, features: dict[str, Any]) -> None:
    """A result that no loss uses has no gradient, which counts as zeros."""
    call = _call(name, 4, 3, 6, **(features | {"dtype": "float64"}))
    values, sources = _run(call), _sources(call)
    parts = [torch.autograd.grad(_weighted([v]), sources, retain_graph=True, allow_unused=True) for v in values]
    together = torch.autograd.grad(sum(_weighted([v]) for v in values), sources)
    for number, whole in enumerate(together):
        summed = sum(part[number] for part in parts if part[number] is not None)
        assert_close(f"source {number}", summed, whole, 1e-13)


def test_gradients_in_any_memory() -> None:
    call = _call("lstm", 4, 3, 6)
    values, sources = _run(call), _sources(call)
    up = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = torch.autograd.grad(values[0], sources, up.permute(2, 1, 0).contiguous(), retain_graph=True)
    _same("permuted", torch.autograd.grad(values[0], sources, up.permute(2, 1, 0), retain_graph=True), expected)
    one = torch.ones((), dtype=torch.float64)
    expected = torch.autograd.grad(values[0], sources, torch.ones(4, 3, 6, dtype=torch.float64), retain_graph=True)
    _same("expanded", torch.autograd.grad(values[0], sources, one.expand(4, 3, 6)), expected)


@pytest.mark.parametrize("name, features, floats", [
    ("rnn", {}, 2), ("gru", {}, 4), ("gru-after", {}, 5), ("lstm", {}, 6),
    ("coupled", {}, 5), ("rnn-norm", {}, 2.1), ("gru-norm-after", {}, 5.3), ("norm", {}, 6.4),
    ("rnn", EVERYTHING, 2), ("gru", EVERYTHING, 4), ("gru-after", EVERYTHING, 5), ("lstm", EVERYTHING, 6),
    ("rnn", ZONEOUT, 2), ("gru", ZONEOUT, 4), ("gru-after", ZONED, 5), ("lstm", ZONEOUT, 6), ("lstm", ZONED, 6),
])  # fmt: skip
def test_saved_memory(name: str, features: dict[str, Any], floats: float) -> None:
    """Gates, c and the recurrent operand; masks are made again, and outputs that recur count once.

    A normalized gate adds one number for each row of a step, normalized c two.
    """
    T, B, H = 5, 3, 16
    call = _call(name, T, B, H, **features)
    given = {tensor.untyped_storage().data_ptr() for tensor in [*_sources(call), *_constants(call)]}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        values = _run(call)
    assert values[0].requires_grad
    assert sum(saved.values()) <= floats * T * B * H * call.x.dtype.itemsize


def _constants(call: LayerCall) -> Tensors:
    return [t for t in (call.lengths, call.resets, *[m.noise for m in call.masks]) if t is not None]


@pytest.mark.parametrize("name", [*KINDS, "gru-split"])
@pytest.mark.parametrize("padding", [float("nan"), float("inf"), 1e30])
def test_padding_is_never_used(name: str, padding: float) -> None:
    found = []
    for value in (0.0, padding):
        call = _call(name, 5, 3, 6, lengths="ragged", resets="given", masks="zones", states=True)
        outside = torch.arange(5)[:, None] >= call.lengths
        with torch.no_grad():
            call.x[outside] = value
        values = _run(call)
        up = [torch.ones_like(v) for v in values]
        up[0] = torch.where(outside[:, :, None], value, up[0])  # nor what comes back for it
        grads = torch.autograd.grad(values, _sources(call), up)
        with torch.no_grad():
            found.append([*values, *grads, *_run(call)])
    _same("padding", found[1], found[0])


def _across_words(tensor: torch.Tensor) -> torch.Tensor:
    memory = bytearray(1) + bytearray(tensor.detach().numpy().tobytes())
    return torch.frombuffer(memory, dtype=tensor.dtype, offset=1).view(tensor.shape)


@pytest.mark.parametrize("name", ["rnn", "gru", "all"])
def test_tensors_in_the_midst_of_words(name: str) -> None:
    call = _call(name, 4, 3, 6, lengths="ragged", resets="given", dtype="float32")
    moved = dataclasses.replace(
        call, x=_across_words(call.x).requires_grad_(), lengths=_across_words(call.lengths),
        state=tuple(_across_words(leaf) for leaf in call.state),
        weights={key: _across_words(weight).requires_grad_() for key, weight in call.weights.items()},
    )  # fmt: skip
    found = []
    for one in (call, moved):
        values = _run(one)
        found.append([*values, *torch.autograd.grad(_weighted(values), [one.x, *one.weights.values()])])
    _same("moved", found[1], found[0])


@pytest.mark.parametrize("name", KINDS)
def test_inputs_stay_as_they_are(name: str) -> None:
    call = _call(name, 4, 3, 6, **ZONED)
    tensors = _sources(call) + _constants(call)
    before = [tensor.detach().clone() for tensor in tensors]
    values = _run(call)
    kept = [value.detach().clone() for value in values]
    up = [torch.randn_like(value) for value in values]
    torch.autograd.grad(values, _sources(call), [u.clone() for u in up])
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(values, kept, strict=True))


def test_a_changed_input_is_noticed() -> None:
    call = _call("gru", 3, 2, 4)
    values = _run(call)
    with torch.no_grad():
        call.weights["gates/kernel"].mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(_weighted(values), _sources(call))


@pytest.mark.parametrize("name", KINDS)
def test_batches_of_gradients(name: str) -> None:
    call = _call(name, 3, 2, 4)
    values, sources = _run(call), _sources(call)
    up = torch.randn(5, *values[0].shape, dtype=torch.float64)
    batched = torch.autograd.grad(values[0], sources, up, is_grads_batched=True, retain_graph=True)
    for k in range(5):
        for a, b in zip(batched, torch.autograd.grad(values[0], sources, up[k], retain_graph=True), strict=True):
            assert_close(f"batch {k}", a[k], b, 1e-13)


def test_recomputed_and_offloaded_tensors() -> None:
    call = _call("lstm", 4, 3, 5, **EVERYTHING)
    sources = _sources(call)
    expected = torch.autograd.grad(_weighted(_run(call)), sources)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return _weighted(_run(dataclasses.replace(call, x=x)))

    _same("checkpoint", torch.autograd.grad(checkpoint(layer, call.x, use_reentrant=False), sources), expected)
    with torch.autograd.graph.save_on_cpu():
        loss = layer(call.x)
    _same("offloaded", torch.autograd.grad(loss, sources), expected)


@pytest.mark.parametrize("name", KINDS)
def test_autocast_runs_in_the_dtype_of_the_weights(name: str) -> None:
    call = _call(name, 4, 3, 5, **EVERYTHING)
    expected = [*(values := _run(call)), *torch.autograd.grad(_weighted(values), _sources(call))]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = _run(call)
        grads = torch.autograd.grad(_weighted(values), _sources(call))
    if core().has_bfloat16:  # whose products autocast takes
        pairs = list(zip([*values, *grads], expected, strict=True))
        assert any(not torch.equal(got, wanted) for got, wanted in pairs)
        assert all((got - wanted).abs().max() <= 3e-2 * wanted.abs().max().clamp(min=1) for got, wanted in pairs)
    else:
        _same("under autocast", [*values, *grads], expected)
    with torch.autocast("cpu", dtype=torch.float16):
        values = _run(call)
        grads = torch.autograd.grad(_weighted(values), _sources(call))
    _same("under autocast to float16", [*values, *grads], expected)
    half = dataclasses.replace(call, x=call.x.detach().to(torch.bfloat16).requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = _run(half)
    assert {value.dtype for value in values} == {torch.float32}
    (d_x,) = torch.autograd.grad(_weighted(values), [half.x])
    assert d_x.dtype == torch.bfloat16 and d_x.abs().max() > 0


def test_a_default_device_changes_nothing() -> None:
    call = _call("all", 4, 3, 5, **EVERYTHING)
    expected = [*(values := _run(call)), *torch.autograd.grad(_weighted(values), _sources(call))]
    with torch.device("meta"):
        values = _run(call)
    loss = _weighted(values)
    _same("results", [*values, *torch.autograd.grad(loss, _sources(call))], expected)


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_batch(name: str) -> None:
    call = _call(name, 4, 1, 5)
    call = dataclasses.replace(call, x=call.x[:, :0], state=tuple(leaf[:0] for leaf in call.state))
    values = _run(call)
    assert [list(value.shape) for value in values[:1]] == [[4, 0, call.spec.cell.output_size]]
    for d, weight in zip(
        torch.autograd.grad(values[0].sum(), list(call.weights.values())), call.weights.values(), strict=True
    ):
        assert d.shape == weight.shape and not d.any()


def test_calls_of_several_threads_at_once() -> None:
    calls = [_call(name, 9, 3, 20, **EVERYTHING) for name in KINDS]

    def results(call: LayerCall) -> Tensors:
        values = _run(call)
        return [*values, *torch.autograd.grad(_weighted(values), _sources(call))]

    expected, found = [results(call) for call in calls], [list[Tensors]() for _ in calls]

    def work(number: int) -> None:
        found[number].extend(results(calls[number]) for _ in range(5))

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number, tries in enumerate(found):
        assert len(tries) == 5
        for got in tries:
            _same(KINDS[number], got, expected[number])
