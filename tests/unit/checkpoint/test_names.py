"""Names of all releases, and what keys stand for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cellweave import CheckpointError
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
    assert sorted(found.variables["lm/w"].slots) == ["Adam", "Adam_1", "mine"]
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
    "shapes, facts",
    [
        ({"LSTMCell/W_0": (3, 8), "LSTMCell/W_2": (2, 8)}, r"expected slices 0 to 2, got only \[0, 2\]"),
        ({"LSTMCell/W_0": (3, 8), "LSTMCell/W_1": (2, 9)}, "differ along one axis"),
    ],
)
def test_slices_that_do_not_fit(shapes: dict[str, tuple[int, ...]], facts: str) -> None:
    with pytest.raises(CheckpointError, match=facts):
        take_inventory(table(**shapes))
