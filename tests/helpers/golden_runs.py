"""Running a golden case in a variable store and comparing everything it holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import cellweave as cw
from helpers import nest
from helpers.golden_cells import Placeholders, build_cell
from helpers.golden_drivers import DRIVERS, KNOWN, Outcome, Setting, check_keys
from helpers.golden_set import Arrays, Case
from helpers.tolerances import GOLDEN, assert_close


class Trial:
    """The cells of a case and its inputs, ready to run inside a store."""

    def __init__(self, case: Case, arrays: Arrays) -> None:
        self.case, self.dtype = case, getattr(torch, case["dtype"])
        self.driver, self.places = DRIVERS[case["driver"]]
        check_keys(case, KNOWN | frozenset(self.places.values()))
        self.placeholders = Placeholders(self.dtype)
        self.cells = {d: self._build(case[key]) for d, key in self.places.items()}
        self.x = torch.tensor(arrays["x"]).requires_grad_()
        self.init_keys = {d: arrays.numbered(self._stem("init", d)) for d in self.places}
        self.init = {
            d: [torch.tensor(arrays[key]).requires_grad_() for key in keys] for d, keys in self.init_keys.items()
        }
        self.lengths = torch.tensor(arrays["seq_len"]) if "seq_len" in arrays else None
        if self.lengths is not None and self.lengths.tolist() != case.get("seq_len", self.lengths.tolist()):
            raise AssertionError("seq_len of the manifest differs from the array")

    @staticmethod
    def _stem(word: str, direction: str) -> str:
        return f"{word}_{direction}" if direction else word

    def _build(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [build_cell(sub, self.case["dtype"], self.placeholders) for sub in tree]
        return build_cell(tree, self.case["dtype"], self.placeholders)

    @property
    def module(self) -> nn.Module:
        """All cells in one module, in the order in which they make variables: layer by layer, forwards first."""
        per_direction = [cell if isinstance(cell, list) else [cell] for cell in self.cells.values()]
        cells = [cell for layer in zip(*per_direction, strict=True) for cell in layer]
        return cells[0] if len(cells) == 1 else nn.ModuleList(cells)

    def run(self, number: int) -> Outcome:
        """Run number `number`, from 0."""
        self.placeholders.feed(number)
        return self.driver(Setting(self.case, self.cells, self.x, self.init, self.lengths, self.dtype))

    def leaves(self) -> dict[str, torch.Tensor]:
        """Inputs and initial state leaves by the key of their gradient."""
        found = {"g_x": self.x}
        for d, keys in self.init_keys.items():
            found |= {f"g_{key}": leaf for key, leaf in zip(keys, self.init[d], strict=True)}
        return found


def check_variables(case: Case, arrays: Arrays) -> None:
    """Names, shapes, dtypes and creation order of the variables that a natural first run makes."""
    wanted = [(v["name"], tuple(v["shape"]), v["dtype"]) for v in case["variables"]]
    cw.set_random_seed(case["graph_seed"])
    with cw.VariableStore() as store:
        trial = Trial(case, arrays)
        trial.run(0)
    created = [(name, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for name, v in store.variables.items()]
    assert created == wanted
    named = cw.variable_names(trial.module)
    assert list(named) == [name for name, _, _ in wanted]
    assert all(named[name] is store.variables[name] for name in named)
    for name, variable in store.variables.items():
        _check_first_value(name, variable.detach())


def _check_first_value(name: str, value: torch.Tensor) -> None:
    """Biases are zeros, a GRU's gates' bias ones, everything else Glorot uniform on its own shape."""
    if name.endswith(("bias", "/b_ru", "/b_c")):
        assert bool((value == float(name.endswith(("/gates/bias", "/b_ru")))).all()), f"{name} starts at {value}"
        return
    bound = 1.001 * (6.0 / (value.shape[0] + value.shape[-1])) ** 0.5  # float16 may round up
    assert float(value.abs().max()) <= bound, f"{name} starts beyond {bound}"
    assert value.numel() < 12 or float(value.abs().max()) > bound / 2, f"{name} starts within half of {bound}"


def check_values(case: Case, arrays: Arrays) -> None:
    """Outputs, states, loss and all gradients of every run, with the golden weights."""
    cw.set_random_seed(case["graph_seed"])
    tolerance = GOLDEN[case["dtype"]]
    with cw.VariableStore() as store, cw.variable_scope(cw.get_variable_scope(), reuse=cw.AUTO_REUSE):
        weights = {
            v["key"]: cw.get_variable(v["name"], initializer=torch.tensor(arrays[v["key"]])) for v in case["variables"]
        }
        trial = Trial(case, arrays)
        leaves = trial.leaves() | {f"g{key}": weight for key, weight in weights.items()}
        for number in range(case["runs"]):
            suffix = f"__run{number + 1}" if number else ""
            outcome = trial.run(number)
            _check_structure(case, outcome.structure)
            for key, value in outcome.tensors.items():
                assert value.dtype == trial.dtype, f"{key}{suffix}: expected {trial.dtype}, got {value.dtype}"
                assert_close(key + suffix, value, arrays[key + suffix], tolerance)
            loss = sum((v * torch.tensor(arrays[f"ct_{key}"])).sum() for key, v in outcome.tensors.items())
            assert_close("loss" + suffix, loss, arrays["loss" + suffix], tolerance)
            check_gradients(loss, leaves, arrays, suffix, tolerance)
    assert list(store.variables) == [v["name"] for v in case["variables"]], "the run made other variables"
    arrays.check_all_used()


def _check_structure(case: Case, got: Any) -> None:
    wanted = case["state_structure"]
    if isinstance(wanted, dict):
        assert got == {k: nest.normal_picture(v) for k, v in wanted.items()}
    else:
        assert got == nest.normal_picture(wanted)


def check_gradients(loss: Any, leaves: dict[str, torch.Tensor], arrays: Arrays, suffix: str, tolerance: float) -> None:
    """Gradients of the loss by leaf, against the golden's; a leaf that the loss does not reach has zeros."""
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    for (key, leaf), grad in zip(leaves.items(), grads, strict=True):
        found = torch.zeros_like(leaf) if grad is None else grad
        assert_close(key + suffix, found, arrays[key + suffix], tolerance)
