"""The same mistakes raise the same types of exceptions as in torch.nn; those about additions say what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import cellweave
from helpers.torch_pairs import NAMES, twins

BAD_MAKES: dict[str, dict[str, Any]] = {
    "bias": {"bias": 1},
    "batch_first": {"batch_first": 1},
    "dropout type": {"dropout": "a"},
    "dropout bool": {"dropout": True},
    "dropout range": {"dropout": 1.5},
    "layers": {"num_layers": 0},
    "proj": {"proj_size": -1},
    "wide proj": {"proj_size": 9},
    "nonlinearity": {"nonlinearity": "gelu"},
    "unknown": {"colour": 1},
}


def error_of(function: Any) -> type[BaseException] | None:
    """The type of what a call raises, in torch's own tree."""
    try:
        function()
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        kinds = (ValueError, TypeError, RuntimeError, AttributeError)
        return next(kind for kind in kinds if isinstance(error, kind))
    return None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", BAD_MAKES.values(), ids=BAD_MAKES)
def test_bad_arguments(name: str, make: dict[str, Any]) -> None:
    expected = error_of(lambda: getattr(torch.nn, name)(5, 7, **make))
    assert expected is not None
    assert error_of(lambda: getattr(cellweave.nn, name)(5, 7, **make)) is expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sizes", [(0, 7), (5, 0), (2.5, 7), (5, "7"), (5, -1)])
def test_bad_sizes(name: str, sizes: tuple[Any, Any]) -> None:
    expected = error_of(lambda: getattr(torch.nn, name)(*sizes))
    assert expected is not None
    assert error_of(lambda: getattr(cellweave.nn, name)(*sizes)) is expected


def _calls(name: str) -> dict[str, tuple[Any, ...]]:
    def state(*shape: int, dtype: torch.dtype = torch.float32) -> Any:
        h = torch.zeros(*shape, dtype=dtype)
        return (h, h) if name == "LSTM" else h

    x = torch.zeros(3, 2, 5)
    packed = pack_sequence([torch.zeros(3, 5), torch.zeros(2, 5)])
    return {
        "no steps": (x[:0],),
        "four axes": (x[None],),
        "one axis": (x[0, 0],),
        "width": (x[:, :, :4],),
        "dtype": (x.double(),),
        "whole numbers": (x.long(),),
        "no tensor": ([1.0],),
        "state layers": (x, state(3, 2, 7)),
        "state rows": (x, state(2, 1, 7)),
        "state width": (x, state(2, 2, 6)),
        "state axes": (x, state(2, 7)),
        "state dtype": (x, state(2, 2, 7, dtype=torch.float64)),
        "unbatched state axes": (x[:, 0], state(2, 2, 7)),
        "state structure": (x, torch.zeros(2, 2, 7) if name == "LSTM" else (torch.zeros(2, 2, 7),) * 2),
        "state of three": (x, (torch.zeros(2, 2, 7),) * 3),
        "stacked state": (x, torch.zeros(2, 2, 2, 7)),
        "packed state rows": (packed, state(2, 1, 7)),
        "packed width": (pack_sequence([torch.zeros(3, 4)]),),
        "packed dtype": (pack_sequence([torch.zeros(3, 5, dtype=torch.float64)]),),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mistake", _calls("GRU"))
def test_bad_calls(name: str, mistake: str) -> None:
    theirs, ours = twins(name, 5, 7, 2)
    judge = name
    if name == "LSTM" and mistake.startswith("packed"):  # torch.nn.LSTM does not look at packed inputs
        theirs, judge = torch.nn.GRU(5, 7, 2), "GRU"
    expected = error_of(lambda: theirs(*_calls(judge)[mistake]))
    assert expected is not None
    assert error_of(lambda: ours(*_calls(name)[mistake])) is expected


@pytest.mark.parametrize(
    ("additions", "error", "match"),
    [
        ({"input_dropout": 1.0}, ValueError, r"input_dropout.*\[0, 1\), got 1.0"),
        ({"state_dropout": "a"}, TypeError, "state_dropout as a number, got str"),
        ({"weight_dropout": True}, TypeError, "weight_dropout as a number, got bool"),
        ({"variational": 1}, TypeError, "variational as a bool, got int"),
        ({"variational": False, "mask_per_row": False}, ValueError, "mask_per_row=True"),
        ({"zoneout": "a"}, TypeError, "zoneout as a number, or two"),
        ({"zoneout": (0.1, 1.5)}, ValueError, r"\[0, 1\], got"),
        ({"reset_after": False}, TypeError, "got reset_after"),
        ({"residual": True}, ValueError, "residual.*5.*7"),
    ],
)
def test_bad_additions(additions: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        cellweave.nn.LSTM(5, 7, **additions)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        ({"lengths": [1, 2, 3]}, cellweave.ShapeError, r"lengths \[2\].*\[3\]"),
        ({"lengths": [1, 4]}, cellweave.ArgumentError, r"0\.\.3.*\[1, 4\]"),
        ({"lengths": [-1, 3]}, cellweave.ArgumentError, r"0\.\.3.*\[-1, 3\]"),
        ({"lengths": torch.tensor([1, 4], dtype=torch.uint16)}, cellweave.ArgumentError, r"0\.\.3.*\[1, 4\]"),
        ({"lengths": np.array([1, 2**64 - 1], np.uint64)}, cellweave.ArgumentError, r"0\.\.3"),
        ({"lengths": [1.5, 2.0]}, cellweave.ArgumentTypeError, "whole numbers, got float32"),
        ({"lengths": [1, 2], "padding_side": "top"}, cellweave.ArgumentError, "'top'"),
        ({"resets": torch.zeros(2, 3, dtype=torch.bool)}, cellweave.ShapeError, r"3 steps of 2 rows, got \[2, 3\]"),
        ({"resets": [[True, False]]}, cellweave.ShapeError, r"3 steps of 2 rows, got \[1, 2\]"),
        ({"resets": torch.zeros(3, 2)}, cellweave.ArgumentTypeError, "booleans, got float32"),
        ({"reset_state": torch.zeros(2, 2, 7)}, cellweave.ArgumentError, "resets beside reset_state"),
        (
            {"resets": torch.zeros(3, 2, dtype=torch.bool), "reset_state": torch.zeros(2, 2, 6)},
            cellweave.MisfitError,
            r"\[2, 2, 7\].*\[2, 2, 6\]",
        ),
    ],
)
def test_bad_options_of_a_call(call: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        cellweave.nn.GRU(5, 7, 2)(torch.zeros(3, 2, 5), **call)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_that_have_become_others(name: str) -> None:
    """The core reads memory by its sizes: weights of other shapes never get there."""
    module = getattr(cellweave.nn, name)(5, 7)
    x = torch.zeros(3, 2, 5)
    module(x)
    short = {key: value[:2] for key, value in module.named_parameters()}
    with pytest.raises(cellweave.MisfitError, match=rf"{name}: expected the kernel of its layer l0 .*got \[2, 5\]"):
        torch.func.functional_call(module, short, (x,))
    module.weight_hh_l0 = torch.nn.Parameter(torch.zeros(7, 8))
    with pytest.raises(cellweave.MisfitError, match="recurrent_kernel"):
        module(x)


@pytest.mark.parametrize("name", NAMES)
def test_structures_of_states_beside_packed_inputs(name: str) -> None:
    theirs, ours = twins(name, 5, 7)
    packed = pack_sequence([torch.zeros(3, 5), torch.zeros(1, 5)])
    h = torch.zeros(1, 2, 7)
    hx = torch.stack([h, h]) if name == "LSTM" else (h, h)
    expected = error_of(lambda: theirs(packed, hx))
    assert expected is not None
    assert error_of(lambda: ours(packed, hx)) is expected


@pytest.mark.parametrize("state", ["three", "one tensor", "one in a tuple"])
def test_states_of_a_step(state: str) -> None:
    h = torch.zeros(2, 7)
    hx = {"three": (h, h, h), "one tensor": torch.zeros(2, 2, 7), "one in a tuple": (h,)}[state]
    expected = error_of(lambda: torch.nn.LSTMCell(5, 7)(torch.zeros(2, 5), hx))
    assert expected is not None
    assert error_of(lambda: cellweave.nn.LSTMCell(5, 7)(torch.zeros(2, 5), hx)) is expected


def test_layer_norm_is_for_good() -> None:
    """Its parameters are made with the module."""
    for made in (False, True):
        module = cellweave.nn.GRU(3, 4, layer_norm=made)
        module.layer_norm = made
        with pytest.raises(cellweave.ArgumentError, match=rf"layer_norm to stay {made}"):
            module.layer_norm = not made


def test_packed_inputs_have_lengths_of_their_own() -> None:
    packed = pack_sequence([torch.zeros(3, 5), torch.zeros(2, 5)])
    with pytest.raises(cellweave.ArgumentError, match="no lengths because packed"):
        cellweave.nn.GRU(5, 7)(packed, lengths=[3, 2])


def test_a_backend_that_cannot_run_it_says_why() -> None:
    module = cellweave.nn.GRU(5, 7, reset_after=False)
    with (
        cellweave.use_backend("torch"),
        pytest.raises(cellweave.BackendError, match="GRU.*candidate resets before the product"),
    ):
        module(torch.zeros(3, 2, 5))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (([1.0],), cellweave.MemberError, "inputs as a tensor, got list"),
        ((np.zeros((3, 2, 5)),), cellweave.MemberError, "inputs as a tensor, got ndarray"),
        ((torch.zeros(3, 2, 5, device="meta"),), cellweave.MisfitError, "inputs on cpu.*got meta"),
        ((torch.zeros(3, 2, 5), (torch.zeros(2, 2, 7),) * 2), cellweave.MemberError, "one tensor, got tuple"),
        ((torch.zeros(3, 2, 5), torch.zeros(2, 2, 7).double()), cellweave.MisfitError, "of float32.*got float64"),
        ((torch.zeros(3, 2, 5), torch.zeros(2, 2, 7, device="meta")), cellweave.MisfitError, "on cpu.*got meta"),
    ],
)
@pytest.mark.parametrize("kind", [cellweave.nn.GRU, cellweave.nn.GRUCell])
def test_what_torch_says_of_its_own_insides_is_said_of_the_call(
    kind: Any, call: tuple[Any, ...], error: type[Exception], match: str
) -> None:
    module = kind(5, 7) if kind is cellweave.nn.GRUCell else kind(5, 7, 2)
    if kind is cellweave.nn.GRUCell:
        call = tuple(value[0] if isinstance(value, torch.Tensor) else value for value in call)
    with pytest.raises(error, match=f"^{kind.__name__}: expected .*{match}"):
        module(*call)


def test_inputs_of_another_dtype_than_a_cells_weights() -> None:
    with pytest.raises(cellweave.MisfitError, match="^GRUCell: expected inputs of float32.*got float64"):
        cellweave.nn.GRUCell(5, 7)(torch.zeros(2, 5).double())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("batch_first", [False, True])
def test_nested_tensors_are_refused_in_words(layout: torch.layout, batch_first: bool) -> None:
    """Where torch's own words speak of axes or of its insides."""
    x = torch.nested.nested_tensor([torch.zeros(3, 5), torch.zeros(2, 5)], layout=layout)
    cell = cellweave.GRUCell(7)
    cell(torch.zeros(1, 5), torch.zeros(1, 7))
    calls: dict[str, Any] = {
        "GRU": lambda: cellweave.nn.GRU(5, 7, batch_first=batch_first)(x),
        "GRUCell": lambda: cellweave.nn.GRUCell(5, 7)(x),
        "dynamic_rnn": lambda: cellweave.dynamic_rnn(cell, x, dtype="float32", time_major=not batch_first),
    }
    for name, call in calls.items():
        with pytest.raises(cellweave.ShapeError, match=f"{name}: expected inputs.*got a nested tensor"):
            call()
