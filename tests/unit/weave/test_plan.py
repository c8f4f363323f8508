"""The plan as a table."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cellweave as cw
from cellweave.specs import LSTMSpec, MaskSpec, RunSpec
from cellweave.weave._plan import inside_of
from helpers.fake_backend import Fake, fakes

X = torch.zeros(2, 5, 3)
DROP = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "state_keep_prob": 0.5, "seed": 1}


def rows(cell: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
    with fakes(Fake("native")):
        plan = cw.explain(cell, X, **kwargs)
    return [(row.layer, row.cell, row.inside, row.backend) for row in plan.rows]


def test_every_layer_has_a_line() -> None:
    cell = cw.MultiRNNCell(
        [
            cw.DropoutWrapper(cw.GRUCell(3), **DROP, variational_recurrent=True, input_size=3, dtype="float32"),
            cw.ResidualWrapper(cw.DropoutWrapper(cw.LSTMCell(6, num_proj=3, activation="relu"), 0.5)),
            cw.DropoutWrapper(cw.ResidualWrapper(cw.BasicRNNCell(3)), output_keep_prob=0.5),
        ]
    )
    assert rows(cell) == [
        ("1", "GRUCell 3", "masks per run on inputs, h, outputs", "native"),
        ("2", "LSTMCell 6 to 3 relu", "masks per step on inputs, residual", "native"),
        ("3", "BasicRNNCell 3", "residual", "native"),
        ("", "dropout", "masks per step on outputs", "torch"),
    ]


def test_options_of_the_call() -> None:
    inside = [row[2] for row in rows(cw.GRUCell(3), sequence_length=[1, 2], resets=X[..., 0] > 0)]
    assert inside == ["lengths, resets"]


def test_zoneout_and_all_states() -> None:
    masks = [MaskSpec(place, per_step, True) for place, per_step in (("zone_h", True), ("h", False), ("zone_c", True))]
    run = RunSpec(LSTMSpec(3), (*masks, MaskSpec("zone_h", False, True)), lengths=True, all_states=True)
    words = "masks per run on h, zoneout per step on h, c, zoneout per run on h, lengths, all states"
    assert inside_of(run) == words


def test_masks_of_each_gates_own() -> None:
    masks = (MaskSpec("input", True, True), MaskSpec("h", False, True, per_gate=True), MaskSpec("h", False, True))
    assert inside_of(RunSpec(LSTMSpec(3), masks)) == "masks per step on inputs, masks per run on h of each gate, h"


def test_what_steps_says_why() -> None:
    cell = cw.MultiRNNCell([cw.GRUCell(3), cw.ResidualWrapper(cw.GRUCell(3), residual_fn=lambda x, y: y)])
    cell.build([2, 3])
    with fakes(Fake("native")):
        plan = cw.explain(cell, X, sequence_length=[1, 2])
    assert plan.backends == ("native", "reference")
    assert plan.rows[1].why == "ResidualWrapper has a residual_fn of its own" and plan.rows[1].inside == "lengths"


def test_sums_that_stand_alone() -> None:
    assert rows(cw.ResidualWrapper(cw.MultiRNNCell([cw.GRUCell(2), cw.GRUCell(3)])))[-1] == (
        "", "residual", "sum", "torch",
    )  # fmt: skip


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    with fakes(Fake("native", "asleep"), Fake("torch")), torch.no_grad():
        plan = cw.explain(cw.GRUCell(3), X)
    text = capsys.readouterr().out
    assert text == str(plan) + "\n"
    head, rule, line = text.splitlines()
    assert head.split() == ["layer", "cell", "acts", "inside", "backend", "threads", "why"]
    assert set(rule) == {"-", " "} and len({head.index("why"), line.index("native: asleep; ")}) == 1
    assert line.startswith("1      GRUCell 3  -            torch    1        native: asleep; ")


def test_a_note() -> None:
    assert str(cw.Plan((), "nothing runs")).splitlines()[-1] == "nothing runs"
