"""From a composition to stages: every mask and sum at its one place, and what nothing but steps can have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave import contrib, keras
from cellweave.specs import GRUSpec, RNNSpec
from cellweave.weave import Adding, LayerRun, Mapping, Masking, Stepping, plan_program
from helpers import nest

CPU = torch.device("cpu")
DROP = {"input_keep_prob": 0.5, "output_keep_prob": 0.5, "state_keep_prob": 0.5, "seed": 1}
VARIATIONAL = {**DROP, "variational_recurrent": True, "input_size": 3, "dtype": "float32"}


def program(cell: Any, depth: int = 3) -> Any:
    leaves = nest.flatten(cell.get_initial_state(batch_size=2, dtype="float32"))
    return plan_program(cell, depth, torch.float32, CPU, leaves)[0]


def picture(cell: Any, depth: int = 3) -> list[str]:
    """One line per stage: what it reads and writes, and what acts in it; `*` marks a mask of every step."""
    made = program(cell, depth)
    lines = []
    for stage in made.stages:
        if isinstance(stage, LayerRun):
            masks = [placed.spec.place + "*" * placed.spec.per_step for placed in stage.masks]
            name = made.names[stage.node]
            lines.append(f"{stage.source}>{stage.target} {name} {masks}{' residual' * stage.spec.residual}")
        elif isinstance(stage, Masking):
            places = [placed.spec.place + "*" * placed.spec.per_step for placed in stage.masks]
            lines.append(f"{stage.source}>{stage.target} mask {places}")
        elif isinstance(stage, Adding):
            lines.append(f"{stage.source}+{stage.other}>{stage.target}")
        elif isinstance(stage, Mapping):
            beside = "" if stage.other is None else f" beside {stage.other}"
            lines.append(f"{stage.source}>{stage.target} map {made.names[stage.node]}{beside}")
        else:
            assert isinstance(stage, Stepping)
            lines.append(f"{stage.source}>{stage.target} step {made.names[stage.node]} after {stage.events}")
    return lines


def gru(n: int = 3) -> Any:
    return cw.GRUCell(n)


def opaque(n: int = 3) -> Any:
    return cw.ResidualWrapper(gru(n), residual_fn=lambda x, y: y)


PICTURES = {
    "cell": (lambda: gru(), ["0>1 GRUCell []"]),
    "map of inputs, masks on both its sides": (
        lambda: cw.DropoutWrapper(contrib.InputProjectionWrapper(cw.DropoutWrapper(gru(), 0.5), 2), 0.5, 0.5),
        ["0>1 mask ['input*']", "1>2 map InputProjectionWrapper", "2>3 GRUCell ['input*', 'output*']"],
    ),
    "map of outputs, masks on both its sides": (
        lambda: cw.DropoutWrapper(
            contrib.HighwayWrapper(cw.DropoutWrapper(gru(), output_keep_prob=0.5)), 0.5, 0.5, 0.5
        ),
        [
            "0>1 mask ['input*']",
            "1>2 GRUCell ['output*', 'h*']",
            "2>3 map HighwayWrapper beside 1",
            "3>4 mask ['output*']",
        ],
    ),
    "map around steps": (
        lambda: cw.MultiRNNCell([gru(), contrib.OutputProjectionWrapper(opaque(), 4), gru()]),
        ["0>1 GRUCell []", "1>2 step OutputProjectionWrapper after 0", "2>3 GRUCell []"],
    ),
    "stack": (
        lambda: cw.MultiRNNCell([gru(), cw.LSTMCell(2), cw.BasicRNNCell(4)]),
        ["0>1 GRUCell []", "1>2 LSTMCell []", "2>3 BasicRNNCell []"],
    ),
    "dropout": (lambda: cw.DropoutWrapper(gru(), **DROP), ["0>1 GRUCell ['input*', 'h*', 'output*']"]),
    "variational": (lambda: cw.DropoutWrapper(gru(), **VARIATIONAL), ["0>1 GRUCell ['input', 'h', 'output']"]),
    "dropout around dropout": (
        lambda: cw.DropoutWrapper(cw.DropoutWrapper(gru(), **DROP), **VARIATIONAL),
        ["0>1 GRUCell ['input', 'input*', 'h*', 'output*', 'h', 'output']"],
    ),
    "an LSTM's c is left alone": (
        lambda: cw.DropoutWrapper(cw.LSTMCell(2), **DROP),
        ["0>1 LSTMCell ['input*', 'h*', 'output*']"],
    ),
    "TF2 drops h, then c": (
        lambda: cw.RNNCellDropoutWrapper(keras.LSTMCell(2), **DROP),
        ["0>1 LSTMCell ['input*', 'h*', 'c*', 'output*']"],
    ),
    "dropout around a stack": (
        lambda: cw.DropoutWrapper(cw.MultiRNNCell([gru(), cw.LSTMCell(2)]), **DROP),
        ["0>1 GRUCell ['input*', 'h*']", "1>2 LSTMCell ['h*', 'output*']"],
    ),
    "residual": (lambda: cw.ResidualWrapper(gru()), ["0>1 GRUCell [] residual"]),
    "residual around dropout": (
        lambda: cw.ResidualWrapper(cw.DropoutWrapper(gru(), **DROP)),
        ["0>1 GRUCell ['input*', 'h*', 'output*'] residual"],
    ),
    "dropout around residual": (
        lambda: cw.DropoutWrapper(cw.ResidualWrapper(gru()), **DROP),
        ["0>1 mask ['input*']", "1>2 GRUCell ['h*'] residual", "2>3 mask ['output*']"],
    ),
    "residual around residual": (
        lambda: cw.ResidualWrapper(cw.ResidualWrapper(gru())),
        ["0>1 GRUCell [] residual", "0+1>2"],
    ),
    "residual around a stack": (
        lambda: cw.ResidualWrapper(cw.MultiRNNCell([gru(2), gru(3)])),
        ["0>1 GRUCell []", "1>2 GRUCell []", "0+2>3"],
    ),
    "residual around a stack of one": (
        lambda: cw.ResidualWrapper(cw.MultiRNNCell([gru()])),
        ["0>1 GRUCell [] residual"],
    ),
    "a device that is the inputs' own": (lambda: cw.DeviceWrapper(gru(), "/cpu:0"), ["0>1 GRUCell []"]),
    "a step in a stack": (
        lambda: cw.MultiRNNCell([cw.DropoutWrapper(gru(), **DROP), opaque(), gru()]),
        ["0>1 GRUCell ['input*', 'h*', 'output*']", "1>2 step ResidualWrapper after 3", "2>3 GRUCell []"],
    ),
    "wrappers around a step step with it": (
        lambda: cw.MultiRNNCell([gru(), cw.DropoutWrapper(cw.DeviceWrapper(opaque(), "cpu"), **DROP)]),
        ["0>1 GRUCell []", "1>2 step DropoutWrapper after 0"],
    ),
    "dropped inputs of a step in a stack": (
        lambda: cw.DropoutWrapper(cw.MultiRNNCell([opaque(), gru()]), input_keep_prob=0.5),
        ["0>1 mask ['input*']", "1>2 step ResidualWrapper after 1", "2>3 GRUCell []"],
    ),
    "dropped outputs of a step in a stack": (
        lambda: cw.DropoutWrapper(cw.MultiRNNCell([gru(), opaque()]), output_keep_prob=0.5),
        ["0>1 GRUCell []", "1>2 step ResidualWrapper after 0", "2>3 mask ['output*']"],
    ),
    "a state that is one tensor": (
        lambda: cw.DropoutWrapper(cw.LSTMCell(2, state_is_tuple=False), **VARIATIONAL),
        ["0>1 LSTMCell ['input', 'c', 'h', 'output']"],
    ),
    "one mask over the states of a stack": (
        lambda: cw.DropoutWrapper(cw.MultiRNNCell([gru(2), gru(4)], state_is_tuple=False), **VARIATIONAL),
        ["0>1 GRUCell ['input', 'h']", "1>2 GRUCell ['h', 'output']"],
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_stages(name: str) -> None:
    make, lines = PICTURES[name]
    assert picture(make()) == lines
    assert program(make()).refusal == ""


def test_masks_that_do_not_act_are_no_sites() -> None:
    cell = cw.DropoutWrapper(gru(), 1.0, 0.5, 1.0)
    assert picture(cell) == ["0>1 GRUCell ['output*']"]
    assert picture(cell.eval()) == ["0>1 GRUCell []"]
    fed = cw.DropoutWrapper(gru(), torch.tensor(1.0)).eval()
    assert picture(fed) == ["0>1 GRUCell ['input*']"], "what is fed acts always"
    site = program(fed).sites[0]
    assert (site.kind, site.index, site.width, site.per_step, site.by_floor) == ("input", 0, 3, True, True)


def test_sites_are_numbered_as_a_step_draws_them() -> None:
    cell = cw.DropoutWrapper(cw.MultiRNNCell([cw.DropoutWrapper(cw.LSTMCell(2), **DROP), gru()]), **DROP)
    made = program(cell)
    drawn = [(site.occurrence, site.kind, site.index, site.width) for site in made.sites]
    inner = [(1, "input", 0, 3), (1, "state", 1, 2), (1, "output", 0, 2)]
    assert drawn == [(0, "input", 0, 3), *inner, (0, "state", 1, 2), (0, "state", 2, 3), (0, "output", 0, 3)]
    assert [made.modules[number]() for number in made.occurrences] == [cell, cell.cell.cells[0]]


def test_columns_of_a_mask_over_one_tensor() -> None:
    cell = cw.DropoutWrapper(cw.MultiRNNCell([gru(2), gru(4)], state_is_tuple=False), **VARIATIONAL)
    made = program(cell)
    columns = [[placed.columns for placed in run.masks if placed.spec.place == "h"] for run in made.runs]
    assert columns == [[(0, 2)], [(2, 6)]]
    assert [site.width for site in made.sites if site.kind == "state"] == [6]


class Mine(cw.RNNCell):
    """A cell of a user's own that says nothing of itself."""

    state_size = output_size = 3

    def call(self, inputs: Any, state: Any) -> Any:
        return state, inputs


class Described(Mine):
    """One that does."""

    def __init__(self, spec: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.told = RNNSpec(3) if spec is None else spec

    def spec(self) -> Any:
        return self.told

    def named_weights(self) -> Any:
        return {}


class Changed(cw.GRUCell):
    """A subclass that computes something else."""

    def call(self, inputs: Any, state: Any) -> Any:
        return state, state


def hooked() -> Any:
    cell = gru()
    cell.register_forward_hook(lambda *_: None)
    return cell


def with_odd_sizes() -> Any:
    return Described(GRUSpec(4))


REASONS = {
    "no spec": (lambda: Mine(), "Mine has no spec"),
    "a spec that is none": (lambda: Described("GRU"), "spec.. of Described gives str, which is no spec"),
    "another state": (with_odd_sizes, "state_size of Described is not that of its GRUSpec"),
    "another step": (lambda: Changed(3), "Changed has its own call, which spec.. of GRUCell does not know"),
    "a hook": (hooked, "a hook stands on GRUCell"),
    "a residual function": (opaque, "ResidualWrapper has a residual_fn of its own"),
    "sizes that do not add": (lambda: cw.ResidualWrapper(gru(4)), "inputs and outputs of ResidualWrapper"),
    "another device": (lambda: cw.DeviceWrapper(gru(), "meta"), "DeviceWrapper runs its cell on meta"),
    "keep nothing": (
        lambda: cw.DropoutWrapper(gru(), 0.0),
        "DropoutWrapper: a keep probability is 0",
    ),
    "feed nothing": (
        lambda: cw.DropoutWrapper(gru(), torch.tensor(0.0)),
        "DropoutWrapper: a fed keep probability is outside",
    ),
    "learn what to keep": (
        lambda: cw.DropoutWrapper(gru(), nn.Parameter(torch.tensor(0.5))),
        "DropoutWrapper: a fed keep probability takes a gradient",
    ),
    "one mask per step for c and h": (
        lambda: cw.DropoutWrapper(cw.LSTMCell(3, state_is_tuple=False), state_keep_prob=0.5),
        "DropoutWrapper draws one mask per step for several states in one tensor",
    ),
    "noise of another dtype": (
        lambda: cw.DropoutWrapper(gru(), **{**VARIATIONAL, "dtype": "float64"}),
        "the noise of DropoutWrapper has another dtype",
    ),
    "noise of another size": (
        lambda: cw.DropoutWrapper(gru(), **{**VARIATIONAL, "input_size": 4}),
        "the masks of DropoutWrapper have another size",
    ),
    "states around a step": (
        lambda: cw.DropoutWrapper(cw.MultiRNNCell([gru(), opaque()]), state_keep_prob=0.5),
        "DropoutWrapper drops states around a layer that runs step by step: ResidualWrapper has a residual_fn",
    ),
    "only steps": (lambda: cw.MultiRNNCell([opaque(), Mine()]), "ResidualWrapper has a residual_fn of its own"),
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons_for_running_all_of_it_step_by_step(name: str) -> None:
    make, reason = REASONS[name]
    cell = make()
    made = plan_program(cell, 3, torch.float32, CPU, [torch.zeros(2, size) for size in nest.flatten(cell.state_size)])
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(made[0].refusal)


def test_a_module_in_two_layers_of_which_one_steps() -> None:
    shared = gru()
    cell = cw.MultiRNNCell([shared, cw.ResidualWrapper(shared, residual_fn=lambda x, y: y)])
    assert program(cell).refusal.startswith("the same GRUCell stands in a layer that runs step by step and elsewhere")
    assert program(cw.MultiRNNCell([shared, shared])).refusal == "", "woven layers may share what they like"


def test_streams_of_the_process_beside_a_step() -> None:
    def drop(cell: Any) -> Any:
        return cw.RNNCellDropoutWrapper(cell, output_keep_prob=0.5, seed=1)

    beside = cw.MultiRNNCell([drop(gru()), opaque()])
    assert program(beside).refusal.startswith("masks of TF2's wrappers share streams, and a layer runs step by step")
    variational = cw.RNNCellDropoutWrapper(gru(), **VARIATIONAL)
    assert program(cw.MultiRNNCell([variational, opaque()])).refusal == "", "its noise was drawn long ago"


def test_pieces_of_a_joined_state() -> None:
    cell = cw.MultiRNNCell([cw.LSTMCell(2, num_proj=1, state_is_tuple=False), gru(4)], state_is_tuple=False)
    made = program(cell)
    assert [[(p.leaf, p.start, p.stop) for p in run.states] for run in made.runs] == [
        [(0, 0, 2), (0, 2, 3)],
        [(0, 3, 7)],
    ]
    assert made.leaf_widths == made.start_widths == [7]


def test_a_keras_lstm_keeps_h_first() -> None:
    assert [piece.leaf for piece in program(keras.LSTMCell(3)).runs[0].states] == [1, 0]
    assert [piece.leaf for piece in program(cw.LSTMCell(3)).runs[0].states] == [0, 1]


def test_a_program_keeps_no_cell_alive() -> None:
    cell = cw.DropoutWrapper(gru(), **DROP)
    made = program(cell)
    del cell
    assert all(module() is None for module in made.modules)
