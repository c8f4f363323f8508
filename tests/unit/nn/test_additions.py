"""What cellweave.nn has beside torch.nn, alone and together, against a loop over rows and steps."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

import cellweave
from helpers.tolerances import assert_close, assert_same_bits
from helpers.torch_loop import loop
from helpers.torch_pairs import NAMES, leaves, random_state

T, B, I, H = 6, 4, 6, 6
TOLERANCE = 1e-12  # largest difference measured: 3e-14, in gradients of weights

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
    "states": (False, True),
    "residual": (False, True),
    "reset_after": (True, False),
    "shape": ("one", "stack", "both", "both stack", "proj"),
    "bias": (True, False),
    "lengths": (False, True),
    "resets": ("never", "zeros", "given"),
    "layout": ("time", "batch", "left"),
    "mode": ("train", "eval"),
}
SHAPES: dict[str, dict[str, Any]] = {
    "one": {},
    "stack": {"num_layers": 3, "dropout": 0.3},
    "both": {"bidirectional": True},
    "both stack": {"bidirectional": True, "num_layers": 2},
    "proj": {"num_layers": 2, "proj_size": 3},
}
MASKS: dict[str, dict[str, bool]] = {"rows": {}, "shared": {"mask_per_row": False}, "steps": {"variational": False}}
CALLS = ("states", "lengths", "resets", "layout", "mode", "masks", "shape")


def usual(name: str) -> dict[str, tuple[Any, ...]]:
    """The table without what a module does not have."""
    table = dict(TABLE)
    if name != "GRU":
        del table["reset_after"]
    if name != "LSTM":
        table["shape"] = TABLE["shape"][:-1]
    return table


def cases(name: str) -> list[dict[str, Any]]:
    """Each addition by itself, then cases in which every pair of values occurs."""
    table = usual(name)
    off = {key: values[0] for key, values in table.items()}
    alone = [{**off, key: value} for key, values in table.items() for value in values[1:] if key != "mode"]
    missing = {
        frozenset([(a, x), (b, y)]) for a, b in itertools.combinations(table, 2) for x in table[a] for y in table[b]
    }
    numbers, found = random.Random(1), []
    while missing:
        tries = [{key: numbers.choice(values) for key, values in table.items()} for _ in range(150)]
        best = max(tries, key=lambda case: len(missing & _pairs(case)))
        missing -= _pairs(best)
        found.append(best)
    return [*alone, *found]


def _pairs(case: dict[str, Any]) -> set[frozenset[Any]]:
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}


def _id(value: Any) -> str:
    return value if isinstance(value, str) else "-".join(str(part) for part in value.values())


def make(name: str, case: dict[str, Any]) -> Any:
    """The module of a case, in float64."""
    torch.manual_seed(0)
    arguments = {key: value for key, value in case.items() if key not in CALLS}
    shape = SHAPES[case["shape"]]
    if case["residual"] and "num_layers" not in shape and "bidirectional" in shape:
        shape = {**shape, "num_layers": 2}  # else no inputs are as wide as the outputs
    module = getattr(cellweave.nn, name)(
        I, H, batch_first=case["layout"] == "batch", dtype=torch.float64, **shape, **MASKS[case["masks"]], **arguments
    )
    with torch.no_grad():
        for key, weight in module.named_parameters():
            if key.startswith("norm_"):
                weight.add_(0.3 * torch.randn_like(weight))
    return module.train(case["mode"] == "train")


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in NAMES for case in cases(name)], ids=_id)
def test_as_the_loop_has_it(name: str, case: dict[str, Any]) -> None:
    module = make(name, case)
    x = torch.randn(T, B, I, dtype=torch.float64)
    state, fresh = (random_state(module, B, torch.float64) for _ in range(2))
    lengths = torch.tensor([6, 2, 0, 4]) if case["lengths"] else None
    resets = torch.rand(T, B) < 0.4 if case["resets"] != "never" else None
    given = case["resets"] == "given"
    sources = [x, *leaves(state), *(leaves(fresh) if given else [])]
    for source in sources:
        source.requires_grad_()
    sources += list(module.parameters())

    call: dict[str, Any] = {"lengths": lengths, "resets": resets}
    if given:
        call["reset_state"] = fresh
    inputs = x
    if case["layout"] == "batch":
        inputs = x.transpose(0, 1)
        call["resets"] = None if resets is None else resets.t()
    if case["layout"] == "left" and lengths is not None:
        call["padding_side"] = "left"
        inputs = to_right(x, lengths)
        call["resets"] = None if resets is None else to_right(resets, lengths)
    torch.manual_seed(1)
    call["return_all_states"] = case["states"]
    outputs, last, *every = module(inputs, state, **call)
    if case["layout"] == "batch":
        outputs = outputs.transpose(0, 1)
        every = [leaf.transpose(1, 2) for leaf in leaves(every)]
    if "padding_side" in call:
        outputs = to_left(outputs, call["lengths"])
        pairs = zip(leaves(every), leaves(state), strict=False)
        every = [from_right(leaf, first, call["lengths"], 2 if module.bidirectional else 1) for leaf, first in pairs]
    got = [outputs, *leaves(last), *leaves(every)]

    torch.manual_seed(1)
    wanted_outputs, wanted_last, wanted_states = loop(
        module, x, leaves(state), lengths=None if lengths is None else lengths.tolist(), resets=resets,
        fresh=leaves(fresh) if given else None,
    )  # fmt: skip
    wanted = [wanted_outputs, *wanted_last, *(wanted_states if case["states"] else [])]
    upstream = [torch.randn_like(value) for value in wanted]
    grads = [
        torch.autograd.grad(values, sources, upstream, allow_unused=True, materialize_grads=True)
        for values in (got, wanted)
    ]
    for number, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert_close(f"result {number}", a, b, TOLERANCE)
    for number, (a, b) in enumerate(zip(*grads, strict=True)):
        assert_close(f"gradient {number}", a, b, TOLERANCE)
    plan = module.plan(inputs, state, **call)
    assert set(plan.backends) == {"native"}, str(plan)


def to_right(value: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each row's first steps at the end."""
    return torch.stack([value[:, b].roll(T - int(n), 0) for b, n in enumerate(lengths)], dim=1)


def to_left(value: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The way back."""
    return torch.stack([value[:, b].roll(int(n) - T, 0) for b, n in enumerate(lengths)], dim=1)


def from_right(states: torch.Tensor, first: torch.Tensor, lengths: torch.Tensor, directions: int) -> torch.Tensor:
    """States `[L * D, T, B, size]` of rows that stand at the end, as those of rows that stand at the start.

    Where a row has ended its last state stays: of a row that reads forwards that at its last step.
    """
    rows = []
    for b, n in enumerate(lengths.tolist()):
        before = T - n
        start = first[:, None, b].expand(-1, before, -1)
        assert_same_bits("before a row's start", states[:, :before, b], start)
        steps = states[:, before:, b]
        ends = [0 if k % directions else n - 1 for k in range(len(states))]
        last = torch.stack([steps[k, end] if n else first[k, b] for k, end in enumerate(ends)])
        rows.append(torch.cat([steps, last[:, None].expand(-1, before, -1)], dim=1))
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("name", NAMES)
def test_padding_reaches_nothing(name: str) -> None:
    module = getattr(cellweave.nn, name)(I, H, 2, bidirectional=True)
    x, lengths = torch.randn(T, B, I), torch.tensor([6, 2, 0, 4])
    dirty = x.clone()
    for b, end in enumerate(lengths):
        dirty[end:, b] = torch.nan
    clean, found = module(x, lengths=lengths), module(dirty, lengths=lengths)
    for a, b in zip(leaves(found), leaves(clean), strict=True):
        assert_same_bits("with NaN in the padding", a, b)
    assert_same_bits("a list", module(x, lengths=[6, 2, 0, 4])[0], clean[0])


@pytest.mark.parametrize("name", NAMES)
def test_pieces_between_resets_are_sequences_of_their_own(name: str) -> None:
    module = getattr(cellweave.nn, name)(I, H, 2, bidirectional=True).double()
    pieces = [torch.randn(n, 1, I, dtype=torch.float64) for n in (2, 3, 1)]
    resets = torch.zeros(6, 1, dtype=torch.bool)
    resets[[0, 2, 5]] = True
    layers = []
    for number in range(2):  # layer by layer: the upper one of a stack reads both directions of the lower
        layer = getattr(cellweave.nn, name)(I if number == 0 else 2 * H, H, bidirectional=True).double()
        layer.load_state_dict({key.replace(f"_l{number}", "_l0"): value for key, value in module.state_dict().items()
                               if f"_l{number}" in key})  # fmt: skip
        layers.append(layer)
    wanted = pieces
    for layer in layers:
        wanted = [layer(piece)[0] for piece in wanted]
    assert_close("outputs", module(torch.cat(pieces), resets=resets)[0], torch.cat(wanted), TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_resets_of_one_sequence_and_of_packed_ones(name: str) -> None:
    module = getattr(cellweave.nn, name)(I, H)
    x, resets = torch.randn(T, B, I), torch.rand(T, B) < 0.4
    one = module(x[:, 1], resets=resets[:, 1])
    assert_close("unbatched", one[0], module(x, resets=resets)[0][:, 1], 1e-6)
    lengths = torch.tensor([2, 6, 1, 4])
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    outputs, last, states = module(packed, resets=resets, return_all_states=True)
    wanted, wanted_last, wanted_states = module(x, lengths=lengths, resets=resets, return_all_states=True)
    for a, b in zip(leaves(states), leaves(wanted_states), strict=True):
        assert_close("all states", a, b, 1e-6)
    assert outputs.sorted_indices is not None
    assert_close("packed", torch.nn.utils.rnn.pad_packed_sequence(outputs)[0], wanted, 1e-6)
    for a, b in zip(leaves(last), leaves(wanted_last), strict=True):
        assert_close("state", a, b, 1e-6)


def test_seeds_repeat_and_differ() -> None:
    module = cellweave.nn.LSTM(I, H, 2, input_dropout=0.5, state_dropout=0.5, weight_dropout=0.5)
    x = torch.randn(T, B, I)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(module(x)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(module(x)[0], module(x)[0])
    module.eval()
    before = torch.get_rng_state()
    assert torch.equal(module(x)[0], module(x)[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_rates_can_be_changed() -> None:
    module = cellweave.nn.GRU(I, H, state_dropout=0.5)
    assert "state_dropout=0.5" in repr(module)
    module.state_dropout = 0.0
    assert repr(module) == "GRU(6, 6)"
    x = torch.randn(T, B, I)
    assert torch.equal(module(x)[0], module(x)[0])
    with pytest.raises(ValueError, match=r"GRU: expected state_dropout.*\[0, 1\), got 2"):
        module.state_dropout = 2


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_says_what_runs(name: str) -> None:
    module = getattr(cellweave.nn, name)(I, H, 2, bidirectional=True, state_dropout=0.1, residual=True)
    plan = cellweave.explain(module, torch.randn(T, B, I), show=False)
    assert [row.cell for row in plan.rows] == [f"{name} {H}"] * 4
    assert plan.rows[1].inside == "masks per run on h, reverse"
    assert "layer 2" in plan.note
    with cellweave.use_backend("reference"):
        plan = cellweave.explain(module, torch.randn(T, B, I), [6, 2, 0, 4], show=False)
    assert set(plan.backends) == {"reference"}
    assert "lengths" in plan.rows[0].inside


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own, at the first jvp
@pytest.mark.parametrize("name", NAMES)
def test_transforms_of_torch_func_run_step_by_step(name: str) -> None:
    module = getattr(cellweave.nn, name)(3, 4, 2).double()
    x = torch.randn(5, 3, dtype=torch.float64)

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, parameters, (x,))[0].pow(2).sum()

    parameters = dict(module.named_parameters())
    xs = torch.stack([x, 2 * x])
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, xs)
    for row in range(2):
        wanted = torch.autograd.grad(loss(parameters, xs[row]), list(parameters.values()))
        for a, b in zip(each.values(), wanted, strict=True):
            assert_close("per-sample gradient", a[row], b, TOLERANCE)
    _, slope = torch.func.jvp(lambda x: loss(parameters, x), (x,), (torch.ones_like(x),))
    wanted = torch.autograd.grad(loss(parameters, x.requires_grad_()), x)[0].sum()
    assert_close("jvp", slope, wanted, TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_norms_start_from_one_and_zero(name: str) -> None:
    torch.manual_seed(3)
    plain = getattr(cellweave.nn, name)(I, H, 2, bidirectional=True)
    torch.manual_seed(3)
    module = getattr(cellweave.nn, name)(I, H, 2, bidirectional=True, layer_norm=True)
    for key, weight in plain.named_parameters():
        assert torch.equal(getattr(module, key), weight), key
    for again in (False, True):
        if again:
            module.reset_parameters()
        norms = {key: weight for key, weight in module.named_parameters() if key.startswith("norm_")}
        assert len(norms) == 4 * {"RNN": 2, "LSTM": 4, "GRU": 4}[name]
        assert all(bool((weight == key.startswith("norm_weight")).all()) for key, weight in norms.items())


@pytest.mark.parametrize("name", NAMES)
def test_double_backward(name: str) -> None:
    module = getattr(cellweave.nn, name)(2, 3, bidirectional=True).double()
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: module(x)[0], (x,))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.uint16, torch.int64])
def test_lengths_of_any_whole_numbers(dtype: torch.dtype) -> None:
    """T may be more than they can count to."""
    gru, x = cellweave.nn.GRU(2, 3), torch.randn(300, 2, 2)
    outputs, last = gru(x, lengths=torch.tensor([100, 3], dtype=dtype))
    expected, final = gru(x, lengths=[100, 3])
    assert torch.equal(outputs, expected) and torch.equal(last, final)


def test_packed_inputs_under_another_default_device() -> None:
    gru = cellweave.nn.GRU(3, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(torch.randn(5, 3, 3), [5, 2, 1])
    expected = gru(packed)[0].data
    with torch.device("meta"):
        assert torch.equal(gru(packed)[0].data, expected)


@pytest.mark.parametrize("backend", ["reference", None])
@pytest.mark.parametrize("name", NAMES)
def test_every_state_is_apart_from_the_outputs(name: str, backend: str | None) -> None:
    module = getattr(cellweave.nn, name)(3, 4)
    with torch.no_grad(), cellweave.use_backend(backend):
        outputs, last, states = module(torch.randn(5, 2, 3), return_all_states=True)
    kept = [leaf.clone() for leaf in (*leaves(last), *leaves(states))]
    outputs.zero_()
    for got, wanted in zip((*leaves(last), *leaves(states)), kept, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
