"""Cells of cellweave.nn called step by step in training: the layer's numbers, and when masks change."""

from __future__ import annotations

import copy
import itertools
import pickle
import random
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import cellweave
from helpers.tolerances import assert_close, assert_same_bits
from helpers.torch_pairs import leaves

NAMES = ("RNN", "LSTM", "GRU")
T, B, H = 5, 3, 6
TOLERANCE = 1e-12

#: Each with the values that it may have; the first is off.
TABLE: dict[str, tuple[Any, ...]] = {
    "input_dropout": (0.0, 0.3),
    "state_dropout": (0.0, 0.3),
    "output_dropout": (0.0, 0.3),
    "masks": ("rows", "shared", "steps"),
    "mask_per_gate": (False, True),
    "weight_dropout": (0.0, 0.4),
    "zoneout": (0.0, 0.4, (0.3, 0.0)),
    "layer_norm": (False, True),
    "residual": (False, True),
    "reset_after": (True, False),
    "mode": ("train", "eval"),
    "backend": (None, "reference"),
}
MASKS: dict[str, dict[str, bool]] = {"rows": {}, "shared": {"mask_per_row": False}, "steps": {"variational": False}}
#: Everything at once.
ALL: dict[str, Any] = {
    "input_dropout": 0.3, "state_dropout": 0.3, "output_dropout": 0.3, "weight_dropout": 0.4, "zoneout": 0.3,
    "residual": True,
}  # fmt: skip
Case = dict[str, Any]


def cases(name: str) -> list[Case]:
    """Each addition by itself, every place with every kind of mask, then cases in which every pair of values occurs."""
    table = {key: values for key, values in TABLE.items() if key != "reset_after" or name == "GRU"}
    off = {key: values[0] for key, values in table.items()}
    found = [{**off, key: value} for key, values in table.items() for value in values[1:]]
    places = ("input_dropout", "state_dropout", "output_dropout")
    kinds = itertools.product(places, TABLE["masks"], (False, True))
    found += [{**off, place: 0.3, "masks": masks, "mask_per_gate": own} for place, masks, own in kinds]
    missing = {
        frozenset([(a, x), (b, y)]) for a, b in itertools.combinations(table, 2) for x in table[a] for y in table[b]
    }
    numbers = random.Random(1)
    while missing:
        tries = [{key: numbers.choice(values) for key, values in table.items()} for _ in range(100)]
        best = max(tries, key=lambda case: len(missing & _pairs(case)))
        missing -= _pairs(best)
        found.append(best)
    return found


def _pairs(case: Case) -> set[frozenset[Any]]:
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}


def _id(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(str(part) for part in value.values())


def pair_of(name: str, **arguments: Any) -> tuple[Any, Any]:
    """A cell and the layer with its weights, in float64."""
    torch.manual_seed(0)
    cell = getattr(cellweave.nn, f"{name}Cell")(H, H, dtype=torch.float64, **arguments)
    layer = getattr(cellweave.nn, name)(H, H, dtype=torch.float64, **arguments)
    for weight in cell.parameters():
        torch.nn.init.uniform_(weight, -0.9, 0.9)
    layer.load_state_dict({f"{key}_l0": value for key, value in cell.state_dict().items()})
    return cell, layer


def start(name: str, rows: int = B) -> tuple[torch.Tensor, ...]:
    """A random state."""
    return tuple(torch.randn(rows, H, dtype=torch.float64) for _ in range(2 if name == "LSTM" else 1))


def unroll(cell: Any, x: torch.Tensor, state: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Outputs and states after every step, `[T, B, H]` each."""
    hx: Any = state if len(state) == 2 else state[0]
    outputs, states = [], []
    for step in x:
        output, hx = cell(step, hx, return_output=True)
        outputs.append(output)
        states.append(leaves(hx))
    return [torch.stack(outputs), *(torch.stack(leaf) for leaf in zip(*states, strict=True))]


def whole(layer: Any, x: torch.Tensor, state: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The same of a layer in one call."""
    first = tuple(leaf[None] for leaf in state)
    outputs, _, states = layer(x, first if len(first) == 2 else first[0], return_all_states=True)
    return [outputs, *(leaf[0] for leaf in leaves(states))]


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in NAMES for case in cases(name)], ids=_id)
def test_a_loop_is_the_layer(name: str, case: Case) -> None:
    arguments = {key: value for key, value in case.items() if key not in ("masks", "mode", "backend")}
    cell, layer = pair_of(name, **arguments, **MASKS[case["masks"]])
    for module in (cell, layer):
        module.train(case["mode"] == "train")
    x = torch.randn(T, B, H, dtype=torch.float64, requires_grad=True)
    state = tuple(leaf.requires_grad_() for leaf in start(name))
    with cellweave.use_backend(case["backend"]):
        torch.manual_seed(1)
        got = unroll(cell, x, state)
        after = torch.get_rng_state()
        torch.manual_seed(1)
        wanted = whole(layer, x, state)
        assert torch.equal(after, torch.get_rng_state())
    upstream = [torch.randn_like(value) for value in wanted]
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert_close(f"result {number}", a, b, TOLERANCE)
    sources = [[x, *state, *module.parameters()] for module in (cell, layer)]
    grads = [
        torch.autograd.grad(values, of, upstream, allow_unused=True, materialize_grads=True)
        for values, of in zip((got, wanted), sources, strict=True)
    ]
    for number, (a, b) in enumerate(zip(*grads, strict=True)):
        assert_close(f"gradient {number}", a, b, TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_each_sequence_draws_anew(name: str) -> None:
    cell, layer = pair_of(name, **ALL)
    x, state = torch.randn(T, B, H, dtype=torch.float64), start(name)
    torch.manual_seed(5)
    got = []
    for _ in range(2):
        cell.reset_masks()
        got.append(unroll(cell, x, state))
    torch.manual_seed(5)
    wanted = [whole(layer, x, state) for _ in range(2)]
    assert not torch.equal(got[0][0], got[1][0])
    for a, b in zip(leaves(got), leaves(wanted), strict=True):
        assert_close("value", a, b, TOLERANCE)


def stays(cell: Any, x: torch.Tensor) -> bool:
    """A second call has the masks of the first."""
    return torch.equal(cell(x), cell(x))


def test_masks_stay_until_they_are_reset() -> None:
    cell, _ = pair_of("GRU", input_dropout=0.5, state_dropout=0.5, weight_dropout=0.5)
    cell.float().double()  # weights that float32 holds too
    x = torch.randn(B, H, dtype=torch.float64)
    first = cell(x)
    for what, change in {
        "another call": lambda: None,
        "a seed": lambda: torch.manual_seed(9),
        "the mode it has": lambda: cell.train(),
        "the rate it has": lambda: setattr(cell, "input_dropout", 0.5),
        "an evaluation": cell.eval,
        "a reset": cell.reset_masks,
        "another rate, and back": lambda: [setattr(cell, "state_dropout", rate) for rate in (0.6, 0.5)],
        "other masks, and back": lambda: [setattr(cell, "mask_per_row", own) for own in (False, True)],
        "another batch": lambda: cell(x[:2]),
        "another dtype": lambda: cell.float()(x.float()),
    }.items():
        change()
        cell.double().train()
        again = cell(x)
        same = what in ("another call", "a seed", "the mode it has", "the rate it has")
        assert torch.equal(again, first) == same, what
        assert stays(cell, x), what
        first = again
    cell.eval()
    before = torch.get_rng_state()
    assert stays(cell, x)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("rows", [True, False])
def test_a_mask_of_every_step_differs_from_call_to_call(rows: bool) -> None:
    cell, _ = pair_of("RNN", input_dropout=0.5, variational=False)
    x = torch.randn(B, H, dtype=torch.float64)
    before = cell.draws
    assert not stays(cell, x if rows else x[0])
    assert before is None and cell.draws is not None


@pytest.mark.parametrize("name", NAMES)
def test_one_row_without_a_batch(name: str) -> None:
    cell, layer = pair_of(name, **ALL)
    x, state = torch.randn(T, H, dtype=torch.float64), tuple(leaf[0] for leaf in start(name))
    torch.manual_seed(5)
    got = unroll(cell, x, state)
    torch.manual_seed(5)
    wanted = whole(layer, x[:, None], tuple(leaf[None] for leaf in state))
    for a, b in zip(got, wanted, strict=True):
        assert_close("value", a, b[:, 0], TOLERANCE)


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_with_their_sequence(again: Any) -> None:
    cell, _ = pair_of("LSTM", **ALL)
    x, state = torch.randn(T, B, H, dtype=torch.float64), start("LSTM")
    unroll(cell, x[:2], state)
    names = list(cell.state_dict())
    other = again(cell)
    found = [unroll(module, x, state) for module in (cell, other)]
    for a, b in zip(*found, strict=True):
        assert_same_bits("copy", a, b)
    other.reset_masks()
    assert cell.draws is not None
    assert names == ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]


def test_the_output_is_asked_for_where_it_is_not_the_state() -> None:
    for arguments in ({"output_dropout": 0.3}, {"residual": True}):
        cell, _ = pair_of("LSTM", **arguments)
        x = torch.randn(B, H, dtype=torch.float64)
        with pytest.raises(cellweave.ArgumentError, match=r"LSTMCell: expected return_output=True"):
            cell(x)
        output, (h, c) = cell(x, return_output=True)
        assert output.shape == h.shape == c.shape and not torch.equal(output, h)
    cell, _ = pair_of("GRU", state_dropout=0.5)
    output, h = cell(x, return_output=True)
    kept = h != 0
    assert bool(kept.any()) and not bool(kept.all())
    assert_close("kept", h[kept], 2 * output[kept], TOLERANCE)


@pytest.mark.parametrize(
    ("arguments", "error", "facts"),
    [
        ({"input_dropout": 1.0}, ValueError, r"input_dropout.*\[0, 1\), got 1"),
        ({"weight_dropout": "much"}, TypeError, r"weight_dropout as a number, got str"),
        ({"variational": False, "mask_per_row": False}, ValueError, r"mask_per_row=True"),
        ({"residual": True}, ValueError, r"residual=False.*5 and 7"),
        ({"proj_size": 3}, TypeError, r"torch.nn's arguments or input_dropout, .*layer_norm.*, got proj_size"),
        ({"dropout": 0.3}, TypeError, r", got dropout"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_arguments_that_make_no_sense(name: str, arguments: Any, error: Any, facts: str) -> None:
    with pytest.raises(error, match=f"{name}Cell: expected .*{facts}"):
        getattr(cellweave.nn, f"{name}Cell")(5, 7, **arguments)


def test_torch_has_no_such_cell() -> None:
    cell, _ = pair_of("GRU", state_dropout=0.5, mask_per_gate=True)
    assert repr(cell) == "GRUCell(6, 6, state_dropout=0.5, mask_per_gate=True)"
    with pytest.raises(cellweave.ArgumentError, match="the model has state_dropout=0.5"):
        cellweave.convert_back(cell)
    cell(torch.randn(B, H, dtype=torch.float64))
    cell.state_dropout = 0.0
    cell(torch.randn(B, H, dtype=torch.float64))
    cellweave.convert_back(cell)
    assert type(cell) is torch.nn.GRUCell and "draws" not in vars(cell)
    cellweave.convert(cell)
    cell.input_dropout = 0.3
    assert stays(cell, torch.randn(B, H, dtype=torch.float64))


@pytest.mark.parametrize("arguments", [{"state_dropout": 0.5, "weight_dropout": 0.3}, {"zoneout": 0.5}], ids=str)
def test_checkpointed_parts_repeat_their_masks(arguments: Any) -> None:
    cell, _ = pair_of("RNN", **arguments)
    x, (h,) = torch.randn(T, B, H, dtype=torch.float64), start("RNN")

    def part(x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return unroll(cell, x, (h,))[1][-1]

    def gradients(through: Any) -> Any:
        torch.manual_seed(1)
        total = torch.zeros((), dtype=torch.float64)
        for _ in range(2):
            cell.reset_masks()
            last = through(x[2:], through(x[:2], h))
            total = total + last.pow(2).sum()
        return torch.autograd.grad(total, list(cell.parameters()))

    found = gradients(lambda x, h: checkpoint(part, x, h, use_reentrant=False, context_fn=cellweave.repeated_masks))
    for a, b in zip(found, gradients(part), strict=True):
        assert_close("gradient", a, b, TOLERANCE)
    with pytest.raises(cellweave.ModeError, match="repeated_masks"):
        gradients(lambda x, h: checkpoint(part, x, h, use_reentrant=False))


@pytest.mark.parametrize("contexts", [{}, {"context_fn": cellweave.repeated_masks}], ids=["plain", "repeated_masks"])
def test_compiled_steps_are_refused_in_checkpointed_parts(contexts: Any) -> None:
    cell, _ = pair_of("RNN", zoneout=0.5)
    x, (h,) = torch.randn(B, H, dtype=torch.float64), start("RNN")
    step = torch.compile(cell, backend="aot_eager", fullgraph=True)
    step(x, h).sum().backward()  # by itself it is fine
    with pytest.raises(cellweave.ModeError, match="expected a compiled cell outside of what torch.utils.checkpoint"):
        checkpoint(step, x, h, use_reentrant=False, **contexts).sum().backward()


def test_transforms_of_torch_func() -> None:
    cell, _ = pair_of("LSTM", **ALL)
    x, state = torch.randn(T, B, H, dtype=torch.float64), start("LSTM")
    parameters = dict(cell.named_parameters())

    class Loop(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return unroll(cell, x, state)[0].pow(2).sum()

    model = Loop()

    def loss(parameters: Any, x: torch.Tensor) -> torch.Tensor:
        cell.reset_masks()
        named = {f"cell.{key}": value for key, value in parameters.items()}
        return torch.func.functional_call(model, named, (x,))  # type: ignore[no-any-return]

    torch.manual_seed(1)
    found = torch.func.grad(loss)(parameters, x)
    after = unroll(copy.deepcopy(cell), x, state)  # what was drawn inside is not bound to the transform
    torch.manual_seed(1)
    wanted = torch.autograd.grad(loss(parameters, x), list(parameters.values()))
    for a, b in zip(found.values(), wanted, strict=True):
        assert_close("gradient", a, b, TOLERANCE)
    for a, b in zip(after, unroll(cell, x, state), strict=True):
        assert_same_bits("afterwards", a, b)
    xs = torch.stack([x, x])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(loss, (None, 0))(parameters, xs)
    losses = torch.func.vmap(loss, (None, 0), randomness="same")(parameters, xs)
    assert torch.equal(losses[0], losses[1])
    with pytest.raises(cellweave.ModeError, match="same"):
        torch.func.vmap(loss, (None, 0), randomness="different")(parameters, xs)


def test_ensembles_share_their_masks() -> None:
    """Weights of their own for each sample of vmap, one mask for all."""
    cell = cellweave.nn.LSTMCell(4, H, weight_dropout=0.4)
    x = torch.randn(B, 4)
    both = {name: torch.stack([value.detach(), value.detach()]) for name, value in cell.named_parameters()}
    torch.manual_seed(1)
    found = torch.func.vmap(lambda p: torch.func.functional_call(cell, p, (x,))[0], randomness="same")(both)
    cell.reset_masks()
    torch.manual_seed(1)
    expected = cell(x)[0]
    for h in found:
        assert_close("h", h, expected, 1e-6)


def test_a_sequence_begun_in_inference_mode_goes_on_in_training() -> None:
    cell = cellweave.nn.GRUCell(4, H, weight_dropout=0.4, state_dropout=0.2)
    x = torch.randn(B, 4)
    with torch.inference_mode():
        cell(x)
    cell(x).square().sum().backward()
    assert cell.weight_hh.grad is not None
    assert bool((cell.weight_hh.grad == 0).any())
