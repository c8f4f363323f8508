"""cellweave.nn beside torch.nn: the same weights, inputs and seeds give the same numbers."""

from __future__ import annotations

import inspect
import itertools
import random
import warnings
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import cellweave
from helpers.tolerances import assert_close
from helpers.torch_pairs import NAMES, assert_alike, leaves, random_state, twins

pytestmark = pytest.mark.filterwarnings(
    "ignore:LSTM with projections is not supported with oneDNN:UserWarning"  # torch's own words about its own module
)

CHOICES: dict[str, tuple[Any, ...]] = {
    "num_layers": (1, 3),
    "bias": (True, False),
    "batch_first": (False, True),
    "dropout": (0.0, 0.4),
    "bidirectional": (False, True),
    "proj_size": (0, 3),
    "nonlinearity": ("tanh", "relu"),
    "dtype": (torch.float32, torch.float64),
    "hx": ("none", "given"),
    "inputs": ("batched", "unbatched", "packed", "packed sorted", "packed even", "no rows"),
}
OWN = {"RNN": ("nonlinearity",), "LSTM": ("proj_size",), "GRU": ()}


def pairwise(name: str) -> list[dict[str, Any]]:
    """Cases in which every pair of values of two arguments occurs."""
    others = {key for names in OWN.values() for key in names} - set(OWN[name])
    table = {key: values for key, values in CHOICES.items() if key not in others}
    missing = {
        frozenset([(a, x), (b, y)])
        for a, b in itertools.combinations(table, 2)
        for x in table[a]
        for y in table[b]
        if (a, x, b, y) != ("num_layers", 1, "dropout", 0.4)  # torch.nn warns of it, and it does nothing
    }
    numbers, cases = random.Random(3), []
    while missing:
        tries = [{key: numbers.choice(values) for key, values in table.items()} for _ in range(200)]
        tries = [case for case in tries if case["num_layers"] > 1 or not case["dropout"]]
        best = max(tries, key=lambda case: len(_pairs(case) & missing))
        missing -= _pairs(best)
        cases.append(best)
    return cases


def _pairs(case: dict[str, Any]) -> set[frozenset[Any]]:
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}


def _id(case: Any) -> str:
    return case if isinstance(case, str) else "-".join(str(value) for value in case.values())


def make_inputs(kind: str, batch_first: bool, dtype: torch.dtype, rows: int = 4, steps: int = 6) -> tuple[Any, Any]:
    """Inputs of one kind, and the rows of their state."""
    x = torch.randn(rows, steps, 5, dtype=dtype)
    if kind == "batched":
        return (x if batch_first else x.transpose(0, 1)), rows
    if kind == "unbatched":
        return x[0], None
    if kind == "no rows":
        return (x[:0] if batch_first else x[:0].transpose(0, 1)), 0
    lengths = [6, 6, 6, 6] if kind == "packed even" else [6, 4, 4, 1] if kind == "packed sorted" else [4, 1, 6, 3]
    packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=kind == "packed sorted")
    return packed, rows


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in NAMES for case in pairwise(name)], ids=_id)
def test_same_numbers(name: str, case: dict[str, Any]) -> None:
    arguments = {key: value for key, value in case.items() if key not in ("hx", "inputs")}
    pair = twins(name, 5, 7, **arguments)
    torch.manual_seed(5)
    inputs, rows = make_inputs(case["inputs"], case["batch_first"], case["dtype"])
    hx = random_state(pair[0], rows, case["dtype"]) if case["hx"] == "given" else None
    assert_alike(pair, inputs, hx)
    for module in pair:
        module.eval()
    assert_alike(pair, inputs, hx)


@pytest.mark.parametrize("name", NAMES)
def test_same_start_and_same_names(name: str) -> None:
    theirs, ours = twins(name, 5, 7, num_layers=2, bidirectional=True)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    assert [key for key, _ in theirs.named_parameters()] == [key for key, _ in ours.named_parameters()]
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    shapes = [[[w.shape for w in row] for row in module.all_weights] for module in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert repr(ours) == repr(theirs)
    torch.manual_seed(3)
    theirs.reset_parameters()
    torch.manual_seed(3)
    ours.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_goes_either_way(name: str) -> None:
    theirs, ours = twins(name, 5, 7, num_layers=2)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.mul_(1.5)
    ours.load_state_dict(theirs.state_dict())
    assert_alike((theirs, ours), torch.randn(4, 2, 5))
    with torch.no_grad():
        for weight in ours.parameters():
            weight.mul_(0.5)
    theirs.load_state_dict(ours.state_dict())
    assert_alike((theirs, ours), torch.randn(4, 2, 5))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_stand_where_torch_has_them(name: str) -> None:
    extra = ("tanh",) if name == "RNN" else ()
    theirs, ours = twins(name, 5, 7, 2, *extra, False, True, 0.25, True)
    assert repr(ours) == repr(theirs)
    known = list(inspect.signature(getattr(cellweave.nn, name)).parameters)
    tail = ["proj_size", "device", "dtype"] if name == "LSTM" else ["device", "dtype"]
    assert known[-1 - len(tail) : -1] == tail


@pytest.mark.parametrize("name", NAMES)
def test_packed_sequences_of_other_makers(name: str) -> None:
    pair = twins(name, 5, 7, 2)
    rows = [torch.randn(length, 5) for length in (2, 5, 3)]
    packed = pack_sequence(rows, enforce_sorted=False)
    assert_alike(pair, packed, random_state(pair[0], 3))
    bare = PackedSequence(packed.data, packed.batch_sizes)  # no order: the rows are sorted
    assert_alike(pair, bare)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_of_torchs_recurrent_modules(name: str) -> None:
    _, ours = twins(name, 5, 7)
    assert isinstance(ours, torch.nn.RNNBase)
    before = [weight.data_ptr() for weight in ours.parameters()]
    ours.flatten_parameters()
    assert [weight.data_ptr() for weight in ours.parameters()] == before


def test_dropout_warning_is_torchs() -> None:
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        cellweave.nn.LSTM(3, 4, dropout=0.5)


def test_normal_use_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module = cellweave.nn.LSTM(3, 4, 2, proj_size=2, bidirectional=True, dropout=0.5)
        sum(leaf.sum() for leaf in leaves(module(torch.randn(3, 2, 3)))).backward()


@pytest.mark.parametrize("name", NAMES)
def test_meta_device_and_to(name: str) -> None:
    module = getattr(cellweave.nn, name)(5, 7, 2, bidirectional=True, device="meta")
    output, _ = module(torch.zeros(3, 2, 5, device="meta"))
    assert output.shape == (3, 2, 14)
    real = module.to_empty(device="cpu").double()
    real.reset_parameters()
    assert real(torch.zeros(3, 2, 5, dtype=torch.float64))[0].dtype == torch.float64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes_run_as_torch_runs_them(name: str, dtype: torch.dtype) -> None:
    theirs, ours = twins(name, 5, 7, dtype=dtype)
    x = torch.randn(3, 2, 5).to(dtype)
    step = torch.finfo(dtype).eps  # of the largest outputs, which are near 1
    assert_close("outputs", ours(x)[0], theirs(x)[0], 4 * step)
