"""Slots of TF1's optimizers: which are meant, what they are in torch, and how many steps were made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cellweave as cw
from cellweave.checkpoint import open_checkpoint, write_checkpoint

Make = Callable[[Any], torch.optim.Optimizer]
ADAM = ("w/Adam", "w/Adam_1")


def power(beta: float, steps: int) -> np.float32:
    """The power that TF1 stores after some steps: multiplied in float32, from the first power on."""
    return np.multiply.accumulate(np.full(steps + 1, beta, np.float32))[-1]


def load(folder: Path, slots: dict[str, Any] | tuple[str, ...], make: Make) -> tuple[dict[str, Any], cw.LoadReport]:
    """State of one weight whose slots are filled with 1, 2, ... in the given order."""
    names = dict.fromkeys(slots) if isinstance(slots, tuple) else slots
    values = {
        name: np.full((4, 3), index, np.float32) if value is None else value
        for index, (name, value) in enumerate({"w": None, **names}.items())
    }
    write_checkpoint(folder / "m", values)
    model = nn.ParameterDict({"w": nn.Parameter(torch.zeros(4, 3))})
    optimizer = make(model.parameters())
    report = cw.load_tf1(model, folder / "m", optimizer=optimizer)
    saved = cw.save_tf1(model, folder / "next", names=report, optimizer=optimizer)
    assert saved == {"w": "w"}
    return optimizer.state[model["w"]], report


def first(state: dict[str, Any], lr: float = 1.0) -> dict[str, float]:
    return {key: float(value.reshape(-1)[0]) * (lr if key == "momentum_buffer" else 1) for key, value in state.items()}


def adam(**options: Any) -> Make:
    return lambda parameters: torch.optim.Adam(parameters, **options)


def rmsprop(**options: Any) -> Make:
    return lambda parameters: torch.optim.RMSprop(parameters, 0.5, **options)


def test_a_centered_rmsprop(tmp_path: Path) -> None:
    """TF1 keeps the mean of the gradients between the mean of the squares and the momentum."""
    slots = ("w/RMSProp", "w/RMSProp_1", "w/RMSProp_2")
    state, _ = load(tmp_path, slots, rmsprop(momentum=0.9, centered=True))
    assert first(state, 0.5) == {"square_avg": 1, "grad_avg": 2, "momentum_buffer": 3, "step": 0}
    with open_checkpoint(tmp_path / "next") as checkpoint:
        assert {name: float(checkpoint[name][0, 0]) for name in slots} == dict(zip(slots, (1, 2, 3), strict=True))


@pytest.mark.parametrize("centered, stored", [(False, 3), (True, 2)])
def test_rmsprop_is_centered_or_not(centered: bool, stored: int, tmp_path: Path) -> None:
    slots = ("w/RMSProp", "w/RMSProp_1", "w/RMSProp_2")[:stored]
    with pytest.raises(cw.CheckpointError, match=rf"Use RMSprop\(centered={not centered}\)"):
        load(tmp_path, slots, rmsprop(momentum=0.9, centered=centered))


def test_rmsprop_without_a_momentum_is_saved_with_one_of_zeros(tmp_path: Path) -> None:
    state, _ = load(tmp_path, ("w/RMSProp", "w/RMSProp_1"), rmsprop())
    assert first(state) == {"square_avg": 1, "step": 0}
    with open_checkpoint(tmp_path / "next") as checkpoint:
        assert not checkpoint["w/RMSProp_1"].any()


def test_amsgrad_has_no_counterpart(tmp_path: Path) -> None:
    with pytest.raises(cw.ArgumentError, match=r"expected Adam\(amsgrad=False\), got amsgrad=True"):
        load(tmp_path, ADAM, adam(amsgrad=True))


def test_what_cannot_be_saved_is_refused_before_the_first_step(tmp_path: Path) -> None:
    model, other = (nn.ParameterDict({"w": nn.Parameter(torch.zeros(4, 3))}) for _ in range(2))
    refused = {
        "expected an optimizer among .*, got Rprop": torch.optim.Rprop(model.parameters()),
        r"expected Adam\(amsgrad=False\)": adam(amsgrad=True)(model.parameters()),
        "got one that has none of them": adam()(other.parameters()),
    }
    for reason, optimizer in refused.items():
        with pytest.raises(cw.ArgumentError, match=f"save_tf1: .*{reason}"):
            cw.save_tf1(model, tmp_path / "m", names={"w": "w"}, optimizer=optimizer)
    assert not list(tmp_path.iterdir())


def test_slots_are_there_before_the_first_step(tmp_path: Path) -> None:
    """As in a TF1 graph, whose Saver restores nothing where one of them is missing; what is not trained has none."""
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(4, 3)) for name in ("w", "frozen")})
    model["frozen"].requires_grad_(False)
    optimizer = adam()(model.parameters())
    cw.save_tf1(model, tmp_path / "m", names={"w": "w", "frozen": "frozen"}, optimizer=optimizer)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert sorted(checkpoint) == ["beta1_power", "beta2_power", "frozen", "w", "w/Adam", "w/Adam_1"]
        assert not checkpoint["w/Adam"].any() and not checkpoint["w/Adam_1"].any()
        assert checkpoint["beta1_power"] == np.float32(0.9)
    fresh = adam()([model["w"]])
    cw.load_tf1(model, tmp_path / "m", optimizer=fresh)
    assert first(fresh.state[model["w"]]) == {"exp_avg": 0, "exp_avg_sq": 0, "step": 0}


@pytest.mark.parametrize("steps", [0, 7, 800, 5000, 80_000])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99), (0.0, 0.999)])
def test_steps_are_told_by_the_powers(betas: tuple[float, float], steps: int, tmp_path: Path) -> None:
    powers = {f"beta{number}_power": power(beta, steps) for number, beta in enumerate(betas, 1)}
    slots = {**dict.fromkeys(ADAM), **powers, "global_step": np.int64(steps)}
    state, _ = load(tmp_path, slots, adam(betas=betas))
    assert int(state["step"]) == steps
    with open_checkpoint(tmp_path / "next") as checkpoint:
        for key, value in powers.items():
            assert float(checkpoint[key]) == pytest.approx(float(value), rel=2e-5, abs=1e-37)


def test_steps_beyond_all_powers_are_many_without_a_counter(tmp_path: Path) -> None:
    slots = {**dict.fromkeys(ADAM), "beta1_power": np.float32(0), "beta2_power": np.float32(0)}
    state, _ = load(tmp_path, slots, adam())
    assert int(state["step"]) > 80_000


@pytest.mark.parametrize(
    "stored, betas, steps",
    [
        ((0.9, 0.999), (0.5, 0.999), 7),
        ((0.9, 0.999), (0.9, 0.99), 7),
        ((0.9, 0.999), (0.9, 0.99), 2000),
        ((0.0, 0.999), (0.9, 0.999), 7),
        ((0.9, 0.999), (0.0, 0.999), 7),
    ],
)
def test_powers_of_other_betas_are_refused(
    stored: tuple[float, float], betas: tuple[float, float], steps: int, tmp_path: Path
) -> None:
    slots = {**dict.fromkeys(ADAM), "beta1_power": power(stored[0], steps), "beta2_power": power(stored[1], steps)}
    with pytest.raises(cw.CheckpointError, match="Give torch's optimizer the betas of TF1's"):
        load(tmp_path, slots, adam(betas=betas))


def test_an_optimizer_without_slots(tmp_path: Path) -> None:
    state, report = load(tmp_path, ADAM, lambda parameters: torch.optim.SGD(parameters, 0.1))
    assert state == {}
    assert [row.role for row in report.left] == ["slot", "slot"]


def test_slots_and_powers_in_a_scope_of_the_optimizer(tmp_path: Path) -> None:
    slots = {
        **dict.fromkeys(("b/w/Adam", "b/w/Adam_1")),
        "b/beta1_power": power(0.9, 5),
        "b/beta2_power": power(0.999, 5),
        "a/beta1_power": power(0.9, 9),
        "a/beta2_power": power(0.999, 9),
    }
    state, report = load(tmp_path, slots, adam())
    assert first(state) == {"exp_avg": 1, "exp_avg_sq": 2, "step": 5}
    assert report.optimizer_scope == "b"
    with open_checkpoint(tmp_path / "next") as checkpoint:
        assert list(checkpoint) == ["b/beta1_power", "b/beta2_power", "b/w/Adam", "b/w/Adam_1", "w"]


@pytest.mark.parametrize(
    "slots, facts",
    [
        (("a/w/Adam", "a/w/Adam_1", "b/w/Adam", "b/w/Adam_1"), r"one optimizer, got some in a \(of w\), some in b"),
        (("w/Adam", "w/Adam_1", "w/Adam_2", "w/Adam_3"), "expected slots Adam, Adam_1 of w for w, got Adam, .* Adam_3"),
    ],
    ids=["scopes", "numbers"],
)
def test_slots_of_two_optimizers_are_not_chosen_between(slots: tuple[str, ...], facts: str, tmp_path: Path) -> None:
    with pytest.raises(cw.CheckpointError, match=facts):
        load(tmp_path, slots, adam())


def test_powers_of_two_optimizers_are_not_chosen_between(tmp_path: Path) -> None:
    powers = {"beta1_power": power(0.9, 5), "beta1_power_1": power(0.9, 9)}
    powers |= {"beta2_power": power(0.999, 5), "beta2_power_1": power(0.999, 9)}
    with pytest.raises(cw.CheckpointError, match="nothing tells which is meant"):
        load(tmp_path, {**dict.fromkeys(ADAM), **powers}, adam())


def test_the_step_is_saved_where_it_was(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", {"w": np.zeros(3, np.float32), "train/global_step": np.int64(5)})
    model = nn.ParameterDict({"w": nn.Parameter(torch.zeros(3))})
    report = cw.load_tf1(model, tmp_path / "m")
    cw.save_tf1(model, tmp_path / "next", names=report, step=6)
    with open_checkpoint(tmp_path / "next") as checkpoint:
        assert int(checkpoint["train/global_step"]) == 6


@pytest.mark.parametrize(
    "slots, make",
    [
        (("w/Adadelta", "w/Adadelta_1"), adam()),
        (("w/Ftrl", "w/Ftrl_1"), rmsprop(momentum=0.9)),
        (("w/Adagrad",), lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9)),
    ],
)
def test_slots_of_another_optimizer_are_not_taken_for_its_own(
    slots: tuple[str, ...], make: Make, tmp_path: Path
) -> None:
    with pytest.raises(cw.CheckpointError, match=rf"expected slots .* of w for w, got {slots[0][2:]}"):
        load(tmp_path, slots, make)


def test_an_optimizer_with_a_name_of_its_own(tmp_path: Path) -> None:
    names = ("a/mine", "a/mine_1", "b/mine", "b/mine_1")
    write_checkpoint(tmp_path / "m", {name: np.full(3, 1.0, np.float32) for name in ("a", "b", *names)})
    model = nn.ParameterDict({name: nn.Parameter(torch.zeros(3)) for name in "ab"})
    optimizer = torch.optim.Adam(model.parameters())
    report = cw.load_tf1(model, tmp_path / "m", optimizer=optimizer)
    assert not report.left
