"""Optimizer state between torch and TF1's slots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cellweave._errors import ArgumentError, CheckpointError
from cellweave.checkpoint import Inventory, Stored
from cellweave.transfer._arrays import as_tensor, stored_dtype
from cellweave.transfer._reading import Array, Reading, stored_tensor

#: A parameter, its TF1 name, and the order of TF1's axes in it.
Entry = tuple[torch.Tensor, str, tuple[int, ...] | None]


@dataclass(frozen=True)
class _Kind:
    """How one of torch's optimizers keeps what TF1's keeps.

    Attributes:
        slot: TF1's name of the optimizer, which its slots end in; the second one ends in `_1`.
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
#: Below this, a power of a beta in float32 tells no step any more.
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass
class SlotLoad:
    """States that are ready to be put into an optimizer, and the keys that they came from."""

    states: list[tuple[torch.Tensor, dict[str, Any]]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Put the states in place."""
        for parameter, state in self.states:
            optimizer.state[parameter] = state


def kind_of(where: str, optimizer: torch.optim.Optimizer) -> _Kind:
    """What is known of an optimizer. Raises ArgumentError for one without a counterpart in TF1."""
    kind = _KINDS.get(type(optimizer))
    if kind is None:
        known = ", ".join(cls.__name__ for cls in _KINDS)
        raise ArgumentError(f"{where}: expected an optimizer among {known}, got {type(optimizer).__name__}.")
    return kind


def read_slots(
    where: str,
    optimizer: torch.optim.Optimizer,
    targets: Mapping[str, torch.Tensor],
    readings: Mapping[str, Reading],
    arrays: Mapping[str, Array],
    inventory: Inventory,
) -> SlotLoad:
    """Read the slots of all loaded parameters that the optimizer has.

    Raises:
        ArgumentError: it has none of them, or is of another kind. CheckpointError: a parameter's slots are not there.
    """
    kind = kind_of(where, optimizer)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    mine = {path: target for path, target in targets.items() if id(target) in groups}
    if not mine:
        raise ArgumentError(
            f"{where}: expected an optimizer of the module's parameters, got one that has none of them. "
            "Load once to build the module, make the optimizer, then load with optimizer=."
        )
    found = SlotLoad()
    for path, parameter in mine.items():
        group = groups[id(parameter)]
        keys = _wanted_keys(kind, group)
        slots = _slots_of(where, path, kind.slot, len(keys), readings[path])
        state: dict[str, Any] = {}
        for key, stored in zip(keys, slots, strict=True):
            value = as_tensor(readings[path].arranged(stored.read(arrays)), stored_dtype(stored.dtype))
            if key == "momentum_buffer" and kind.slot == "RMSProp":
                value = value / group["lr"]  # TF1's momentum holds the learning rate, torch's does not
            state[key] = value.to(parameter.device)
            found.keys.update(stored.keys)
        if kind.counts:
            state["step"] = torch.tensor(float(_steps(kind, group, arrays, inventory, found.keys)))
        found.states.append((parameter, state))
    return found


def _wanted_keys(kind: _Kind, group: Mapping[str, Any]) -> tuple[str, ...]:
    without = kind.slot in ("RMSProp", "Momentum") and not group.get("momentum")
    return tuple(key for key in kind.keys if not (without and key == "momentum_buffer"))


def _slots_of(where: str, path: str, slot: str, count: int, reading: Reading) -> list[Stored]:
    have = reading.sources[0].slots
    tails = [slot, f"{slot}_1"][:count]
    if not all(tail in have for tail in tails):  # an optimizer with a name of its own
        own = sorted(have)
        tails = own if len(own) == count and all(tail.startswith(own[0]) for tail in own) else tails
    missing = [tail for tail in tails if tail not in have]
    if missing:
        raise CheckpointError(
            f"{where}: expected slots {', '.join(tails)} of {reading.sources[0].name} for {path}, "
            f"got {', '.join(have) or 'none'}."
        )
    return [have[tail] for tail in tails]


def _steps(
    kind: _Kind, group: Mapping[str, Any], arrays: Mapping[str, Array], inventory: Inventory, used: set[str]
) -> int:
    """How many steps were made: from the powers of the betas, which start at the first power, or a step counter."""
    if kind.slot == "Adam":
        for number, beta in zip((1, 2), group["betas"], strict=True):
            key = next((k.stored for k in inventory.others if k.name.endswith(f"beta{number}_power")), None)
            power = 0.0 if key is None else float(arrays[key])
            if key is not None and _SMALLEST < power < 1 and 0 < beta < 1:
                used.add(key)
                return max(round(math.log(power) / math.log(beta)) - 1, 0)
    counters = [k.stored for k in inventory.others if k.role == "counter" and k.name.endswith("global_step")]
    return int(arrays[counters[0]]) if counters else 0


def slots_of_optimizer(
    where: str,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Entry],
) -> Iterator[tuple[str, Any]]:
    """Name and value of everything that TF1's optimizer would store.

    Args:
        where: How errors call the caller.
        optimizer: torch's.
        parameters: By path: the parameter, its TF1 name, the order of TF1's axes in it.
    Raises:
        ArgumentError: an optimizer without a counterpart.
    """
    kind = kind_of(where, optimizer)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    step = 0
    for parameter, name, axes in parameters.values():
        group, state = groups.get(id(parameter)), optimizer.state.get(parameter, {})
        if group is None or not state:
            continue
        step = max(step, int(state.get("step", 0)))
        for number, key in enumerate(_wanted_keys(kind, group)):
            value = state[key]
            if key == "momentum_buffer" and kind.slot == "RMSProp":
                value = value * group["lr"]
            tail = kind.slot + (f"_{number}" if number else "")
            yield f"{name}/{tail}", stored_tensor(value, axes)
    if kind.slot == "Adam":
        betas = optimizer.param_groups[0]["betas"]
        for number, beta in zip((1, 2), betas, strict=True):
            yield f"beta{number}_power", np.asarray(float(beta) ** (step + 1), np.float32)
