"""Optimizer state between torch and TF1's slots."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from cellweave._errors import ArgumentError, CheckpointError
from cellweave.checkpoint import Inventory, Stored
from cellweave.transfer._arrays import Array, as_tensor, stored_dtype
from cellweave.transfer._match import join
from cellweave.transfer._reading import SlotReading


@dataclass(frozen=True)
class _Kind:
    """How one of torch's optimizers keeps what TF1's keeps.

    Attributes:
        slot: TF1's name of the optimizer, which its slots end in; further ones end in `_1`, `_2`.
        keys: Keys of torch's state for the slots, in TF1's order.
        counts: Whether torch counts steps per parameter.
    """

    slot: str
    keys: tuple[str, ...]
    counts: bool = True


_KINDS: dict[type[torch.optim.Optimizer], _Kind] = {
    torch.optim.Adam: _Kind("Adam", ("exp_avg", "exp_avg_sq")),
    torch.optim.AdamW: _Kind("Adam", ("exp_avg", "exp_avg_sq")),
    torch.optim.SGD: _Kind("Momentum", ("momentum_buffer",), counts=False),
    torch.optim.RMSprop: _Kind("RMSProp", ("square_avg", "momentum_buffer")),
    torch.optim.Adagrad: _Kind("Adagrad", ("sum",)),
}
_CENTERED = _Kind("RMSProp", ("square_avg", "grad_avg", "momentum_buffer"))
#: Slots of optimizers that keep other things than those above.
_OTHERS = re.compile(
    r"(?:Adam|Momentum|RMSProp|Adagrad|AdaMax|Adadelta|AdagradDA|ProximalAdagrad|Ftrl|AddSign|PowerSign|GGT)(?:_\d+)?"
)
#: Below this, a power of a beta in float32 tells no step any more.
_SMALLEST = float(np.finfo(np.float32).tiny)
#: How far the number of steps that a power tells may be from a whole one. TF1 multiplies in float32; until a power of
#: 0.999 is too small, that adds up to 0.009 steps.
_STEP_ERROR = 0.02


@dataclass(frozen=True)
class SlotTarget:
    """A variable of a checkpoint, and the parameters that it holds.

    Attributes:
        name: Its name.
        parameters: One parameter, or all of a cuDNN layer.
        stored: The slots of these parameters as the variable's slot.
    """

    name: str
    parameters: tuple[torch.Tensor, ...]
    stored: Callable[[Sequence[torch.Tensor]], torch.Tensor]


@dataclass
class SlotLoad:
    """States that are ready to be put into an optimizer, the scope of TF1's, and the keys that they came from."""

    scope: str
    states: list[tuple[torch.Tensor, dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the states in place."""
        for parameter, state in self.states:
            optimizer.state[parameter] = state


def _kind_of(where: str, optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> _Kind:
    """How the parameters of a group are kept. Raises ArgumentError for what has no counterpart in TF1."""
    kind = _KINDS.get(type(optimizer))
    if kind is None:
        known = ", ".join(cls.__name__ for cls in _KINDS)
        raise ArgumentError(f"{where}: expected an optimizer among {known}, got {type(optimizer).__name__}.")
    if group.get("amsgrad"):
        raise ArgumentError(
            f"{where}: expected {type(optimizer).__name__}(amsgrad=False), got amsgrad=True, whose largest squares "
            "TF1's Adam does not keep."
        )
    if kind.slot == "Momentum" and not group.get("momentum"):
        return replace(kind, keys=())  # TF1's GradientDescentOptimizer has no slots
    return _CENTERED if group.get("centered") else kind


def read_slots(
    where: str,
    optimizer: torch.optim.Optimizer,
    targets: Mapping[str, torch.Tensor],
    readings: Mapping[str, SlotReading],
    arrays: Mapping[str, Array],
    inventory: Inventory,
) -> SlotLoad:
    """Read the slots of all loaded parameters that the optimizer has.

    Raises:
        ArgumentError: it has none of them, or is of another kind. CheckpointError: a parameter's slots are not there,
            or are several optimizers'; the powers of Adam's betas are not torch's betas'.
    """
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    mine = {path: target for path, target in targets.items() if id(target) in groups}
    if not mine:
        raise ArgumentError(
            f"{where}: expected an optimizer of the module's parameters, got one that has none of them. "
            "Load once to build the module, make the optimizer, then load with optimizer=."
        )
    kinds = {path: _kind_of(where, optimizer, groups[id(parameter)]) for path, parameter in mine.items()}
    found = SlotLoad(_scope_of(where, {path: (kind, readings[path]) for path, kind in kinds.items()}))
    steps: dict[tuple[float, ...], int] = {}
    for path, parameter in mine.items():
        group, kind = groups[id(parameter)], kinds[path]
        slots = _slots_of(where, path, kind, found.scope, readings[path])
        state: dict[str, Any] = {}
        for key, stored in zip(kind.keys, slots, strict=True):
            found.keys.update(stored.keys)
            if key == "momentum_buffer" and not group.get("momentum"):
                continue  # TF1's has one nevertheless, which counts for nothing
            value = as_tensor(readings[path].slot(stored.read(arrays)), stored_dtype(stored.dtype))
            if key == "momentum_buffer" and kind.slot == "RMSProp":
                value = value / group["lr"]  # TF1's momentum holds the learning rate, torch's does not
            state[key] = value.to(parameter.device)
        if kind.counts:
            betas = tuple(group.get("betas", ()))
            if betas not in steps:
                steps[betas] = _steps(where, betas, arrays, inventory, found)
            state["step"] = torch.tensor(float(steps[betas]))
        found.states.append((parameter, state))
    return found


def _own(kind: _Kind, parts: Iterable[str]) -> list[str]:
    """Those of a variable's slots that are an optimizer's of this kind."""
    return [part for part in parts if re.fullmatch(rf"{kind.slot}(_\d+)?", part.rpartition("/")[2])]


def _scope_of(where: str, wanted: Mapping[str, tuple[_Kind, SlotReading]]) -> str:
    """The scope in which the optimizer of all these parameters made its slots."""
    scopes: dict[str, str] = {}
    for path, (kind, reading) in wanted.items():
        have = reading.variable.slots
        mine = [part.rpartition("/")[0] for part in _own(kind, have)]
        others = [part.rpartition("/")[0] for part in have]
        scopes |= dict.fromkeys(mine or (others if len(set(others)) == 1 else ()), path)
    if len(scopes) > 1:
        shown = ", ".join(f"some in {scope or 'no scope'} (of {path})" for scope, path in scopes.items())
        raise CheckpointError(
            f"{where}: expected slots of one optimizer, got {shown}. Make an optimizer for the parameters of each."
        )
    return next(iter(scopes), "")


def _slots_of(where: str, path: str, kind: _Kind, scope: str, reading: SlotReading) -> list[Stored]:
    stored = reading.variable.slots
    have = {part.rpartition("/")[2]: slot for part, slot in stored.items() if part.rpartition("/")[0] == scope}
    tails = [f"{kind.slot}_{number}" if number else kind.slot for number in range(len(kind.keys))]
    if not tails:
        return []
    mine = _own(kind, have)
    if not mine:  # an optimizer with a name of its own, which is not another optimizer's
        mine = sorted(tail for tail in have if not _OTHERS.fullmatch(tail))
        tails = mine if len(mine) == len(tails) and all(tail.startswith(mine[0]) for tail in mine) else tails
    if sorted(mine) != sorted(tails):
        centered = kind.slot == "RMSProp" and {len(mine), len(tails)} == {2, 3}
        advice = f" Use RMSprop(centered={len(mine) == 3}), as TF1's was." if centered else ""
        raise CheckpointError(
            f"{where}: expected slots {', '.join(tails)} of {reading.variable.name} for {path}, "
            f"got {', '.join(stored) or 'none'}.{advice}"
        )
    return [have[tail] for tail in tails]


def _steps(
    where: str, betas: tuple[float, ...], arrays: Mapping[str, Array], inventory: Inventory, found: SlotLoad
) -> int:
    """How many steps were made: from the powers of Adam's betas, else a step counter."""
    counters = [k.stored for k in inventory.others if k.role == "counter" and k.name.endswith("global_step")]
    counted = int(arrays[counters[0]]) if counters else 0
    least, told, possible = 0, [], None
    for number, beta in enumerate(betas, 1):
        powers = {key: arrays[key] for key in _powers(inventory, f"beta{number}_power", found.scope)}
        found.keys.update(powers)
        told += [f"{key} {float(power):.6g}" for key, power in powers.items()]
        if any(abs(float(power)) < _SMALLEST for power in powers.values()):
            least = max(least, _last_step(beta))
        elif powers:
            steps = {step for power in powers.values() if (step := _step_of(power, beta)) is not None}
            possible = steps if possible is None else possible & steps
    if possible is None:
        return max(counted, least)
    if len(possible) != 1 or max(possible) < least:
        raise CheckpointError(
            f"{where}: expected powers of torch's betas {betas} after one number of steps, got {', '.join(told)}"
            f"{f' at global_step {counted}' if counters else ''}. Give torch's optimizer the betas of TF1's; of "
            "several optimizers with the same betas nothing tells which is meant."
        )
    return possible.pop()


def _powers(inventory: Inventory, name: str, scope: str) -> list[str]:
    """Keys of the powers of a beta: those in the optimizer's scope, else all."""
    found = [k for k in inventory.others if re.fullmatch(rf"{name}(_\d+)?", k.name.rpartition("/")[2])]
    return [k.stored for k in found if k.name.rpartition("/")[0] == scope] or [k.stored for k in found]


def _step_of(power: Array, beta: float) -> int | None:
    """The step after which the power of a beta has this value, None when it never has. It begins as the first power."""
    base, value = float(np.asarray(beta, power.dtype)), float(power)
    if not (0 < base < 1 and 0 < value < 1):
        return None
    step = math.log(value) / math.log(base) - 1
    return round(step) if step > -_STEP_ERROR and abs(step - round(step)) < _STEP_ERROR else None


def _last_step(beta: float) -> int:
    """The last step after which the power of a beta is a number yet."""
    return int(math.log(_SMALLEST) / math.log(beta)) if 0 < beta < 1 else 0


def slots_of_optimizer(
    where: str, optimizer: torch.optim.Optimizer, targets: Iterable[SlotTarget], scope: str
) -> Iterator[tuple[str, Any]]:
    """Name and value of everything that TF1's optimizer would store.

    Args:
        where: How errors call the caller.
        optimizer: torch's.
        targets: What is saved.
        scope: Scope of TF1's optimizer.
    Raises:
        ArgumentError: an optimizer without a counterpart, or one that has none of the parameters.
    """
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for own in optimizer.param_groups:
        _kind_of(where, optimizer, own)
    targets = list(targets)
    if not any(id(part) in groups for target in targets for part in target.parameters):
        raise ArgumentError(
            f"{where}: expected an optimizer of the module's parameters, got one that has none of them."
        )
    step = 0
    for target in targets:
        states = [optimizer.state.get(part, {}) if id(part) in groups else {} for part in target.parameters]
        parts = [(part, state, groups.get(id(part), {})) for part, state in zip(target.parameters, states, strict=True)]
        group = next((group for part, state, group in parts if state or (group and part.requires_grad)), None)
        if group is None:
            continue
        kind = _kind_of(where, optimizer, group)
        step = max(step, *(int(state.get("step", 0)) for state in states))
        for number, key in enumerate(kind.keys):
            # Zeros: TF1's slots are there before the first step, RMSProp's momentum also where it has none; of a layer
            # some weights may not be trained.
            values = [torch.zeros_like(part) if state.get(key) is None else state[key] for part, state, _ in parts]
            if key == "momentum_buffer" and kind.slot == "RMSProp":
                values = [value * own.get("lr", 0.0) for value, (_, _, own) in zip(values, parts, strict=True)]
            tail = kind.slot + (f"_{number}" if number else "")
            yield join(scope, target.name, tail), target.stored(values)
    for number, beta in enumerate(optimizer.param_groups[0].get("betas", ()), 1):
        yield join(scope, f"beta{number}_power"), np.asarray(float(np.float32(beta)) ** (step + 1), np.float32)
