"""What cellweave's modules have beside torch.nn's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict

from cellweave._errors import ArgumentError, ArgumentTypeError


class Arguments(TypedDict, total=False):
    """Keyword arguments that torch.nn's modules do not have; each module's docstring describes them."""

    input_dropout: float
    state_dropout: float
    output_dropout: float
    variational: bool
    mask_per_row: bool
    mask_per_gate: bool
    weight_dropout: float
    zoneout: float | tuple[float, float]
    layer_norm: bool
    residual: bool


class GRUArguments(Arguments, total=False):
    """Those of a GRU."""

    reset_after: bool


@dataclass(frozen=True)
class Additions:
    """Values of all of them, in the order in which they are shown.

    A module keeps them in one object: compiled code guards that object, and would take each number for a variable.
    """

    input_dropout: float = 0.0
    state_dropout: float = 0.0
    output_dropout: float = 0.0
    variational: bool = True
    mask_per_row: bool = True
    mask_per_gate: bool = False
    weight_dropout: float = 0.0
    zoneout: float | tuple[float, float] = 0.0
    layer_norm: bool = False
    residual: bool = False
    reset_after: bool = True

    def changed(self, where: str, given: Mapping[str, Any]) -> Additions:
        """These with some others.

        Raises:
            ArgumentTypeError: a value of the wrong type. ArgumentError: a rate outside [0, 1), or values that exclude
                each other.
        """
        values = {name: _checked(where, name, value) for name, value in given.items()}
        found = replace(self, **values)
        if not found.variational and not found.mask_per_row:
            raise ArgumentError(
                f"{where}: expected mask_per_row=True because a mask that is drawn at every step has a row for each "
                "row of the batch, got False. Leave variational=True to share one mask."
            )
        return found

    def zoneout_pair(self) -> tuple[float, float]:
        """The rates of h and of c."""
        return self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout, self.zoneout)

    def differing(self) -> list[str]:
        """Those that differ from their defaults, such as `residual=True`."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return [f"{name}={value}" for name, value in found.items()]


def _checked(where: str, name: str, value: Any) -> Any:
    if isinstance(getattr(Additions, name), bool):
        if not isinstance(value, bool):
            raise ArgumentTypeError(f"{where}: expected {name} as a bool, got {type(value).__name__}.")
        return value
    if name == "zoneout":
        return _zoneout(where, value)
    return _rate(f"{where}: expected {name}", value)


def _zoneout(where: str, value: Any) -> float | tuple[float, float]:
    """A rate of 1 keeps the old state for good, which makes sense."""
    rates = value if isinstance(value, tuple | list) else (value,)
    if len(rates) not in (1, 2) or any(isinstance(r, bool) or not isinstance(r, int | float) for r in rates):
        raise ArgumentTypeError(f"{where}: expected zoneout as a number, or two for h and c, got {value!r}.")
    if not all(0 <= rate <= 1 for rate in rates):
        raise ArgumentError(f"{where}: expected zoneout as a probability of keeping old values in [0, 1], got {value}.")
    return (float(rates[0]), float(rates[1])) if len(rates) == 2 else float(rates[0])


def _rate(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ArgumentTypeError(f"{what} as a number, got {type(value).__name__}.")
    if not 0 <= value < 1:
        raise ArgumentError(f"{what} as a probability of dropping in [0, 1), got {value}.")
    return float(value)


def check_names(where: str, given: Mapping[str, Any], known: type[Any]) -> None:
    """Raise unless a module knows all of these.

    Raises:
        ArgumentTypeError: an unknown name.
    """
    for name in given:
        if name not in known.__annotations__:
            names = ", ".join(known.__annotations__)
            raise ArgumentTypeError(f"{where}: expected torch.nn's arguments or {names}, got {name}.")


class Addition:
    """One of them as an attribute of a module."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember which."""
        self._name = name

    def __get__(self, module: Any, owner: type) -> Any:
        """The value, or the default."""
        return getattr(Additions if module is None else module.additions, self._name)

    def __set__(self, module: Any, value: Any) -> None:
        """Another value, checked."""
        where = type(module).__name__
        if self._name == "layer_norm" and value != module.additions.layer_norm:
            raise ArgumentError(
                f"{where}: expected layer_norm to stay {module.additions.layer_norm} because its parameters are made "
                f"with the module, got {value!r}. Make a new module."
            )
        module.additions = module.additions.changed(where, {self._name: value})
