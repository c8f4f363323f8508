"""A sequence in pieces and in single steps: the bits of one call."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch.nn.utils import parametrizations

import cellweave
from cellweave.nn._base import RecurrentModule
from cellweave.ops.common._library import missing_reason
from helpers.tolerances import assert_same_bits
from helpers.torch_pairs import NAMES, leaves, random_state

T, I, H = 23, 6, 9


def make(name: str, **arguments: Any) -> Any:
    """A module in evaluation mode."""
    torch.manual_seed(0)
    return getattr(cellweave.nn, name)(I, H, 2, **arguments).eval()


@pytest.mark.parametrize("rows", [1, 3, 5, 17])
@pytest.mark.parametrize("name", NAMES)
def test_pieces_and_steps_have_the_bits_of_one_call(name: str, rows: int) -> None:
    module = make(name)
    x, start = torch.randn(T, rows, I), random_state(module, rows)
    with torch.no_grad():
        outputs, last = module(x, start)
    for cuts in ([T], [1] * T, [3, 1, 10, 2, 7], [22, 1]):
        stream = cellweave.nn.Stream(module, start)
        assert_same_bits(f"pieces of {cuts}", torch.cat([stream(piece) for piece in x.split(cuts)]), outputs)
        for a, b in zip(leaves(stream.state), leaves(last), strict=True):
            assert_same_bits("state after pieces", a, b)
    stream = cellweave.nn.Stream(module, start)
    assert_same_bits("steps", torch.stack([stream.step(step) for step in x]), outputs)
    for a, b in zip(leaves(stream.state), leaves(last), strict=True):
        assert_same_bits("state after steps", a, b)
    stream = cellweave.nn.Stream(module, start)
    mixed = [stream(x[:5]), *[stream.step(step)[None] for step in x[5:9]], stream(x[9:12]), stream.step(x[12])[None]]
    assert_same_bits("mixed", torch.cat([*mixed, stream(x[13:])]), outputs)
    assert_same_bits("with gradients", module(x, start)[0], outputs)


@pytest.mark.parametrize("arguments", [{"residual": True}, {"zoneout": 0.3}, {"batch_first": True}])
def test_additions(arguments: dict[str, Any]) -> None:
    module = make("LSTM", **arguments)
    x = torch.randn(4, T, I) if module.batch_first else torch.randn(T, 4, I)
    time = 1 if module.batch_first else 0
    with torch.no_grad():
        outputs = module(x)[0]
    stream = cellweave.nn.Stream(module, batch_size=4)
    assert_same_bits("pieces", torch.cat([stream(piece) for piece in x.split(5, time)], time), outputs)
    stream.reset(batch_size=4)
    assert_same_bits("steps", torch.stack([stream.step(step) for step in x.unbind(time)], time), outputs)


@pytest.mark.parametrize("name", NAMES)
def test_state_can_be_saved(name: str) -> None:
    module, x = make(name), torch.randn(T, 2, I)
    stream = cellweave.nn.Stream(module, batch_size=2)
    stream(x[:7])
    stream.step(x[7])
    file = io.BytesIO()
    torch.save(stream.state_dict(), file)
    file.seek(0)
    other = cellweave.nn.Stream(module)
    other.load_state_dict(torch.load(file))
    assert_same_bits("goes on", other(x[8:]), stream(x[8:]))
    with pytest.raises(cellweave.ArgumentError, match="state of h"):
        other.load_state_dict({"c": torch.zeros(2, 2, H)})
    with pytest.raises(cellweave.MisfitError, match=r"\[2, 2, 3\]"):
        other.load_state_dict({name: torch.zeros(2, 2, 3) for name in stream.state_dict()})


@pytest.mark.parametrize("way", ["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", NAMES)
def test_copies_go_on_by_themselves(name: str, way: str) -> None:
    ways = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda s: pickle.loads(pickle.dumps(s))}
    module, x = make(name), torch.randn(T, 3, I)
    with torch.no_grad():
        outputs = module(x)[0]
    stream = cellweave.nn.Stream(module, batch_size=3)
    for step in range(3):
        twin = ways[way](stream)
        assert_same_bits("the copy", torch.stack([twin.step(frame) for frame in x[step:]]), outputs[step:])
        assert_same_bits("the other", stream.step(x[step]), outputs[step])


@pytest.mark.skipif(missing_reason() is not None, reason=f"the native core is missing: {missing_reason()}")
def test_use_backend_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x, called = make("GRU"), torch.randn(4, 2, I), []
    stream, forward = cellweave.nn.Stream(module, batch_size=2), RecurrentModule.forward
    stream.step(x[0])
    monkeypatch.setattr(RecurrentModule, "forward", lambda *args: called.append(0) or forward(*args))
    stream.step(x[1])
    assert not called
    with cellweave.use_backend("reference"):
        stream.step(x[2])
    assert called == [0]
    stream.step(x[3])
    assert called == [0]


def test_changed_weights_are_seen() -> None:
    for module in (make("GRU"), make("LSTM")):
        if isinstance(module, cellweave.nn.LSTM):
            parametrizations.weight_norm(module, "weight_hh_l0")
        x = torch.randn(3, 2, I)
        stream = cellweave.nn.Stream(module, batch_size=2)
        stream.step(x[0])
        state = stream.state
        with torch.no_grad():
            next(iter(module.parameters())).mul_(2)
            wanted, _ = module(x[1:2], state)
        assert_same_bits("after a change", stream.step(x[1]), wanted[0])


class Doubled(cellweave.nn.GRU):
    """A subclass as people write them."""

    def forward(self, input: Any, hx: Any = None, **more: Any) -> Any:  # noqa: A002  # as in torch.nn
        return super().forward(input * 2, hx, **more)


@pytest.mark.parametrize("when", ["class", "before", "later"])
def test_steps_call_a_forward_of_the_modules_own(when: str) -> None:
    module: Any = (Doubled if when == "class" else cellweave.nn.GRU)(I, H).eval()
    x, stream = torch.randn(3, 2, I), cellweave.nn.Stream(module, batch_size=2)
    own = module.forward
    if when == "later":
        stream.step(x[0])
        stream.reset(batch_size=2)
        stream.step(x[0])
    if when != "class":
        module.forward = lambda inputs, hx=None: own(inputs * 2, hx)
    state = stream.state
    with torch.no_grad():
        wanted, _ = module(x[1:], state)
    assert_same_bits("two steps", torch.stack([stream.step(x[1]), stream.step(x[2])]), wanted)


@pytest.mark.parametrize("change", ["residual", "zoneout", "hook", "inference"])
def test_other_changes_are_seen(change: str) -> None:
    with torch.inference_mode(change == "inference"):
        module = make("LSTM")
    x, heard = torch.randn(3, 2, I), []
    stream = cellweave.nn.Stream(module, batch_size=2)
    stream.step(x[0])
    stream.step(x[1])
    state = stream.state
    if change == "hook":
        module.register_forward_hook(lambda *_: heard.append(1))
    elif change == "inference":
        with torch.inference_mode():
            module.weight_hh_l0.mul_(2)
    else:
        setattr(module, change, {"residual": True, "zoneout": 0.5}[change])
    with torch.no_grad():
        wanted, _ = module(x[2:3], state)
    assert_same_bits("after a change", stream.step(x[2]), wanted[0])
    assert len(heard) == (2 if change == "hook" else 0)


@pytest.mark.parametrize("fresh", [False, True], ids=["zeros", "a-state"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_that_start_anew(name: str, fresh: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and steps with resets, beside one call with all of them; prepared steps stay prepared."""
    module = make(name)
    x, start, resets = torch.randn(T, 3, I), random_state(module, 3), torch.rand(T, 3) < 0.3
    anew = {"reset_state": random_state(module, 3)} if fresh else {}
    with torch.no_grad():
        outputs, last = module(x, start, resets=resets, **anew)
    prepared = []
    prepare = cellweave.nn.Stream._prepare
    monkeypatch.setattr(cellweave.nn.Stream, "_prepare", lambda *a: prepared.append(prepare(*a)))
    stream = cellweave.nn.Stream(module, start)
    steps = [stream.step(frame, resets=flags, **anew) for frame, flags in zip(x, resets, strict=True)]
    assert_same_bits("steps", torch.stack(steps), outputs)
    assert len(prepared) == (1 if missing_reason() is None else T)
    stream = cellweave.nn.Stream(module, start)
    first = stream(x[:5], resets=resets[:5], **anew)
    then = stream.step(x[5], resets=resets[5].tolist(), **anew)
    mixed = [first, then[None], stream(x[6:], resets=resets[6:], **anew)]
    assert_same_bits("mixed", torch.cat(mixed), outputs)
    for a, b in zip(leaves(stream.state), leaves(last), strict=True):
        assert_same_bits("state", a, b)


@pytest.mark.parametrize("started", [False, True], ids=["at-first", "later"])
def test_wrong_resets_leave_the_state(started: bool) -> None:
    stream = cellweave.nn.Stream(make("LSTM"), batch_size=3)
    if started:
        stream.step(torch.randn(3, I))
    before, x, flags = stream.state, torch.randn(3, I), torch.ones(3, dtype=torch.bool)
    narrow = (torch.zeros(2, 3, 8), torch.zeros(2, 3, 8))
    doubled = tuple(leaf.double() for leaf in before)
    wrong: list[tuple[type[Exception], str, torch.Tensor, dict[str, Any]]] = [
        (cellweave.ShapeError, r"resets \[B\] = \[3\] of a step, got \[2\]", x, {"resets": flags[:2]}),
        (cellweave.ArgumentTypeError, "resets as booleans, got float32", x, {"resets": flags.float()}),
        (cellweave.ArgumentError, "resets beside reset_state", x, {"reset_state": before}),
        (cellweave.MisfitError, r"\[layers, 3, size\]", x, {"resets": flags, "reset_state": narrow}),
        (cellweave.MisfitError, "float64", x, {"resets": flags, "reset_state": doubled}),
        (cellweave.MisfitError, "inputs", x[:, :2], {"resets": flags}),
        (cellweave.ArgumentError, "inputs|float64", x.double(), {"resets": flags}),
    ]
    for error, words, inputs, given in wrong:
        with pytest.raises(error, match=words):
            stream.step(inputs, **given)
        for a, b in zip(leaves(stream.state), leaves(before), strict=True):
            assert_same_bits("state", a, b)


def test_a_state_that_does_not_fit_leaves_the_old_one() -> None:
    stream = cellweave.nn.Stream(make("GRU"), batch_size=3)
    stream.step(torch.randn(3, I))
    before = stream.state
    with pytest.raises(cellweave.MisfitError, match=r"\[layers, B, size\]"):
        stream.reset(torch.zeros(3, H))
    assert_same_bits("state", stream.state, before)


def test_refusals() -> None:
    with pytest.raises(cellweave.ArgumentTypeError, match="got LSTM"):
        cellweave.nn.Stream(torch.nn.LSTM(I, H))
    with pytest.raises(cellweave.ArgumentError, match="one direction, got two"):
        cellweave.nn.Stream(make("GRU", bidirectional=True))
    with pytest.raises(cellweave.MisfitError, match=r"sizes \[9\]"):
        cellweave.nn.Stream(make("GRU"), torch.zeros(2, 1, 4))
    stream = cellweave.nn.Stream(make("GRU", state_dropout=0.5).train())
    with pytest.raises(cellweave.ArgumentError, match=r"nothing random.*eval"):
        stream.step(torch.zeros(1, I))
    stream = cellweave.nn.Stream(make("GRU"))
    with pytest.raises(cellweave.MisfitError, match=r"\[1, 6\] of a step, got \[2, 6\]"):
        stream.step(torch.zeros(2, I))
    stream.step(torch.zeros(1, I))
    with pytest.raises(cellweave.ArgumentError, match="on cpu.*got meta"):
        stream.step(torch.zeros(1, I, device="meta"))


def test_what_does_not_fit_is_said_of_the_stream() -> None:
    stream = cellweave.nn.Stream(make("GRU"), batch_size=2)
    with pytest.raises(cellweave.MisfitError, match=r"^Stream: expected inputs of 2 rows.*got \[4, 3, 6\]"):
        stream(torch.zeros(4, 3, I))
    with pytest.raises(cellweave.ShapeError, match=r"^Stream: expected inputs \[B, I\] of a step, got \[4, 2, 6\]"):
        stream.step(torch.zeros(4, 2, I))
    with pytest.raises(cellweave.ArgumentError, match="^Stream: expected a state of h, got none"):
        stream.load_state_dict({})
    with pytest.raises(cellweave.ArgumentError, match="^Stream batch_size: expected a positive int, got 0"):
        stream.reset(batch_size=0)
    first = cellweave.nn.Stream(make("GRU", batch_first=True), batch_size=2)
    assert first(torch.zeros(2, 4, I)).shape == (2, 4, H)
    with pytest.raises(cellweave.MisfitError, match="^Stream: expected inputs of 2 rows"):
        first(torch.zeros(4, 2, I))


def test_compiled_code_leaves_it_as_it_is() -> None:
    """It keeps a state: nothing of it is traced, which would say so in warnings."""
    torch._dynamo.reset()
    module = make("GRU")
    x, resets = torch.randn(T, 3, I), torch.rand(T, 3) < 0.3
    resets[:9] = False
    stream = cellweave.nn.Stream(module, batch_size=3)
    feed = torch.compile(lambda piece, **more: stream(piece, **more) * 2, backend="aot_eager")
    step = torch.compile(lambda row, flags: stream.step(row, resets=flags) * 2, backend="aot_eager")
    found = [feed(x[:9])]
    found += [step(row, flags)[None] for row, flags in zip(x[9:15], resets[9:15], strict=True)]
    found += [feed(x[15:], resets=resets[15:])]
    with torch.no_grad():
        assert_same_bits("outputs", torch.cat(found), module(x, resets=resets)[0] * 2)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="cellweave: a Stream keeps its state"):
        torch.compile(stream.step, backend="aot_eager", fullgraph=True)(x[0])
