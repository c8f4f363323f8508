"""Names of all releases, and what keys stand for."""

from __future__ import annotations

import random
import timeit
from types import SimpleNamespace

import pytest

from cellweave.checkpoint import lookup_name, modern_name, take_inventory


def table(**shapes: tuple[int, ...]) -> dict[str, SimpleNamespace]:
    return {
        name: SimpleNamespace(shape=shape, dtype="int64" if name.endswith("step") else "float32")
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    "old, new, era, piece",
    [
        ("MultiRNNCell/Cell0/LSTMCell/B", "multi_rnn_cell/cell_0/lstm_cell/bias", "TF 0.x", None),
        ("RNN/GRUCell/Gates/Linear/Bias", "rnn/gru_cell/gates/bias", "TF 0.x", None),
        ("RNN/GRUCell/Candidate/Linear/Matrix", "rnn/gru_cell/candidate/kernel", "TF 0.x", None),
        ("RNN/BasicRNNCell/Linear/Matrix", "rnn/basic_rnn_cell/kernel", "TF 0.x", None),
        ("RNN/LSTMCell/W_1", "rnn/lstm_cell/kernel", "TF 0.x", 1),
        ("RNN/LSTMCell/B", "rnn/lstm_cell/bias", "TF 0.x", None),
        ("RNN/LSTMCell/W_F_diag", "rnn/lstm_cell/w_f_diag", "TF 0.x", None),
        ("RNN/LSTMCell/W_P_0", "rnn/lstm_cell/projection/kernel", "TF 0.x", 0),
        ("BiRNN_FW/LSTMCell/B", "bidirectional_rnn/fw/lstm_cell/bias", "TF 0.x", None),
        ("BiRNN/BW/GRUCell/Gates/Linear/Matrix", "bidirectional_rnn/bw/gru_cell/gates/kernel", "TF 0.x", None),
        ("LSTM/basic_lstm_cell/weights", "LSTM/basic_lstm_cell/kernel", "TF 1.0-1.1", None),
        ("a/gru_cell/gates/biases", "a/gru_cell/gates/bias", "TF 1.0-1.1", None),
        ("a/lstm_cell/projection/weights", "a/lstm_cell/projection/kernel", "TF 1.0-1.1", None),
        ("rnn/lstm_cell/kernel", "rnn/lstm_cell/kernel", "TF 1.2+", None),
        ("RNN/lstm_cell/kernel", "RNN/lstm_cell/kernel", "TF 1.2+", None),
        ("x/lstm_cell/kernel/part_2", "x/lstm_cell/kernel", "TF 1.2+", 2),
        ("fc/weights", "fc/kernel", "", None),
        ("softmax_w", "softmax_w", "", None),
        ("rnn/TinyCell/w", "rnn/TinyCell/w", "", None),
    ],
)  # fmt: skip
def test_names_of_every_release(old: str, new: str, era: str, piece: int | None) -> None:
    found = modern_name(old)
    assert (found.name, found.era, found.piece) == (new, era, piece)


def test_doubled_scopes_and_suffixes_of_graphs_compare_equal() -> None:
    assert lookup_name("rnn/rnn/multi_rnn_cell/cell_0/cell_0/lstm_cell/kernel:0") == lookup_name(
        "RNN/MultiRNNCell/Cell0/LSTMCell/W_0"
    )


def test_roles_of_keys() -> None:
    found = take_inventory(
        table(
            **{
                "lm/w": (2, 3),
                "lm/w/Adam": (2, 3),
                "train/lm/w/Adam_1": (2, 3),
                "lm/w/ExponentialMovingAverage": (2, 3),
                "lm/b": (3,),
                "lm/b/mine": (3,),
                "lm/w/mine": (2, 3),
                "beta1_power": (),
                "global_step": (),
                "cudnn_lstm/opaque_kernel": (9,),
                "gone/Adam": (4,),
            }
        )
    )
    assert list(found.variables) == ["lm/w", "lm/b"]
    assert sorted(found.variables["lm/w"].slots) == ["Adam", "mine", "train/Adam_1"]
    assert found.variables["lm/w"].average is not None
    assert {key.stored: key.role for key in found.others} == {
        "beta1_power": "bookkeeping",
        "global_step": "counter",
        "cudnn_lstm/opaque_kernel": "opaque",
        "gone/Adam": "slot",
    }


def test_slices_of_their_own_are_joined() -> None:
    found = take_inventory(table(**{"LSTMCell/W_1": (2, 8), "LSTMCell/W_0": (3, 8), "LSTMCell/W_0/Adam": (3, 8)}))
    kernel = found.variables["lstm_cell/kernel"]
    assert kernel.shape == (5, 8)
    assert kernel.value is not None
    assert kernel.value.keys == ("LSTMCell/W_0", "LSTMCell/W_1")


@pytest.mark.parametrize(
    "shapes",
    [
        {"LSTMCell/W_0": (3, 8), "LSTMCell/W_2": (2, 8)},
        {"LSTMCell/W_0": (3, 8), "LSTMCell/W_1": (2, 9)},
        {"pos/part_1": (4, 3), "pos/part_2": (4, 3)},
        {"pos/part_0": (4, 3), "pos/part_1": (5, 7)},
        {"pos": (9, 3), "pos/part_0": (4, 3), "pos/part_1": (5, 3)},
        {"my_lstm_cell/W_1": (4, 3)},
        {"w/part_0": (), "w/part_1": ()},
    ],
    ids="-".join,
)
def test_what_is_called_slices_and_does_not_fit_together_is_apart(shapes: dict[str, tuple[int, ...]]) -> None:
    found = take_inventory(table(**shapes))
    assert {v.lookup: v.shape for v in found.variables.values()} == shapes


def test_slots_of_some_slices_only_are_no_slots_of_the_whole() -> None:
    found = take_inventory(table(**{"w/part_0": (2, 3), "w/part_1": (2, 3), "w/part_1/Adam": (2, 3)}))
    assert found.variables["w"].shape == (4, 3)
    assert not found.variables["w"].slots
    assert [(key.stored, key.role) for key in found.others] == [("w/part_1/Adam", "slot")]


@pytest.mark.parametrize(
    "names",
    [
        ["enc/enc/kernel", "enc/kernel"],
        ["enc/kernel", "enc/enc/kernel", "enc/enc/enc/kernel"],
        ["RNN/w", "rnn/w"],
        ["x/weights", "x/kernel"],
        ["w", "w:0"],
        ["RNN/GRUCell/Gates/Linear/Bias", "rnn/gru_cell/gates/bias", "rnn/rnn/gru_cell/gates/bias"],
    ],
    ids="-".join,
)
def test_variables_that_would_share_a_name_keep_their_own(names: list[str]) -> None:
    found = take_inventory(table(**dict.fromkeys(names, (4, 3))))
    for name in names:
        variable = found.named(name)
        assert variable is not None
        assert variable.value is not None
        assert (variable.lookup, variable.value.keys) == (name, (name,))


def test_a_doubled_scope_that_is_another_one_stays_whole() -> None:
    names = ["enc/enc/kernel", "enc/enc/bias", "enc/kernel", "dec/dec/bias"]
    found = take_inventory(table(**dict.fromkeys(names, (4, 3))))
    assert list(found.variables) == ["enc/enc/kernel", "enc/enc/bias", "enc/kernel", "dec/bias"]
    assert [found.place(name) for name in ("enc/enc", "enc", "dec/dec", "dec")] == ["enc/enc", "enc", "dec", "dec"]


def test_several_averages_and_optimizers_of_one_variable_are_kept_apart() -> None:
    names = ["w", "w/ExponentialMovingAverage", "w/ExponentialMovingAverage_1", "a/w/Adam", "b/w/Adam", "b/w/Adam_1"]
    found = take_inventory(table(**dict.fromkeys(names, (4, 3))))
    variable = found.variables["w"]
    assert list(variable.averages) == ["ExponentialMovingAverage", "ExponentialMovingAverage_1"]
    assert {part: stored.keys[0] for part, stored in variable.slots.items()} == {
        "a/Adam": "a/w/Adam",
        "b/Adam": "b/w/Adam",
        "b/Adam_1": "b/w/Adam_1",
    }
    assert found.slot_counts() == {"a/Adam": 1, "b/Adam": 1, "b/Adam_1": 1}


def test_many_variables_are_sorted_in_time_that_grows_with_their_number() -> None:
    """Ten times as many take ten times as long, not a hundred times."""
    tables = [table(**{f"layer_{n}/weights": (2, 3) for n in range(count)}) for count in (500, 5000)]
    few, many = (min(timeit.repeat(lambda one=one: take_inventory(one), number=1, repeat=3)) for one in tables)
    assert many < 40 * few


SCOPES = (
    "rnn", "rnn", "RNN", "enc", "enc", "MultiRNNCell", "Cell0", "LSTMCell", "lstm_cell", "GRUCell", "Gates", "BiRNN_FW",
)  # fmt: skip
TAILS = (
    "kernel", "weights", "W", "W_0", "W_1", "W_P_0", "B", "b", "bias", "w_ru", "w", "w:0", "part_0", "kernel/part_0",
    "kernel/part_1", "W_0/part_0", "Linear/Matrix", "Linear/Bias",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_every_key_is_in_one_place_and_every_name_finds_its_own(seed: int) -> None:
    draw = random.Random(seed)
    names: dict[str, None] = {}
    for _ in range(draw.randint(1, 25)):
        name = "/".join([*draw.choices(SCOPES, k=draw.randint(0, 4)), draw.choice(TAILS)])
        more = [f"train/{name}/Adam", f"{name}/ExponentialMovingAverage", f"{name}_1", f"{name}/Adam_1"]
        names |= dict.fromkeys([name, *(other for other in more if draw.random() < 0.2)])
    shapes = draw.choices([(4, 3), (4, 3), (5, 3), (3,), ()], k=len(names))
    found = take_inventory(table(**dict(zip(names, shapes, strict=True))))
    keys = [key for variable in found.variables.values() for key in variable.stored_keys()]
    assert sorted([*keys, *(key.stored for key in found.others)]) == sorted(names)
    assert len({variable.saved_as for variable in found.variables.values()}) == len(found.variables)
    for lookup, variable in found.variables.items():
        assert found.named(variable.spelled) is variable
        assert found.named(lookup) is variable
