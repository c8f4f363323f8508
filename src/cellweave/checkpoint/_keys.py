"""What the keys of a checkpoint stand for, told from their names, shapes and dtypes alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

Role = Literal["variable", "slot", "average", "bookkeeping", "counter", "opaque"]


class Described(Protocol):
    """Shape and dtype of a stored tensor."""

    @property
    def shape(self) -> Any:
        """Sizes in elements."""

    @property
    def dtype(self) -> Any:
        """Dtype, or its name."""


@dataclass(frozen=True)
class Key:
    """One key of a checkpoint.

    Attributes:
        stored: The key as the file spells it.
        name: Name of the variable that it is, or belongs to, without `:0`.
        role: `variable`; `slot` of an optimizer; `average`, an exponential moving average; `bookkeeping` of an
            optimizer or an average; `counter`, an integer scalar such as `global_step`; `opaque`, cuDNN's own layout.
        tail: What follows the variable's name in a slot or average, such as `Adam_1`.
        scope: What stands before the variable's name in a slot or average: its optimizer's scope, such as `train`.
    """

    stored: str
    name: str
    role: Role
    tail: str = ""
    scope: str = ""

    @property
    def part(self) -> str:
        """Which slot or average of its variable it is, the scope included: `train/Adam_1`; "" for the value."""
        return f"{self.scope}/{self.tail}" if self.scope else self.tail


#: Default names of TF1's optimizers, which name their slots; `_1` and so on follow for further slots.
_OPTIMIZERS = (
    "Adam|AdamW|AdaMax|LazyAdam|NAdam|Nadam|Momentum|MomentumW|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl|ProximalAdagrad|"
    "GGT|AddSign|PowerSign|LARSOptimizer|RegAdagrad|AdamWOptimizer"
)
_SLOT = re.compile(rf"(?:{_OPTIMIZERS})(?:_\d+)?")
_AVERAGE = re.compile(r"ExponentialMovingAverage(?:_\d+)?")
#: Powers of Adam's betas, and what zero-debiased averages count.
_BOOKKEEPING = re.compile(r"(?:beta[12]_power(?:_\d+)?|biased|local_step)")
#: What Keras's optimizers save of themselves, in the scope of their slots.
_HYPER = re.compile(r"iter|iterations|learning_rate|lr|decay|beta_[12]|rho|momentum")
_OPAQUE = re.compile(r"(?:\w+_)?opaque_(?:kernel|params)(?:_saveable)?")
#: TF2 saves objects by their attributes: a variable, an optimizer's slot of one, and the table of the objects.
OBJECT_VALUE, _OBJECT_TABLE = "/.ATTRIBUTES/VARIABLE_VALUE", "_CHECKPOINTABLE_OBJECT_GRAPH"
_OBJECT_SLOT = re.compile(r"(.+)/\.OPTIMIZER_SLOT/(.+)/(\w+)")
#: What later Keras's optimizers save by number: the slots of all variables among it, whose owners nothing tells.
_OBJECT_NUMBERED = re.compile(r"(?:.*/)?\w*optimizer/_variables/\d+")
#: A slot name of one's own is believed when it hangs below that many variables.
_SYSTEMATIC = 2


def read_keys(table: Mapping[str, Described]) -> list[Key]:
    """Say of each key what it stands for, in the order of the table.

    A slot may stand below a scope of its optimizer (`train/model/w/Adam`), and an optimizer may have a name of its own.
    """
    plain = {stored: stored.removesuffix(":0").removesuffix(OBJECT_VALUE) for stored in table}
    plain |= {stored: stored for stored, name in plain.items() if name in table}  # `w:0` beside `w` is another one
    own_tails = _own_slot_tails(table, plain)
    names = set(plain.values())
    keys = [_key(stored, table[stored], plain[stored], names, own_tails) for stored in table]
    scopes = {key.scope for key in keys if key.role == "slot" and key.scope}
    return [
        replace(key, role="bookkeeping")
        if key.role == "variable"
        and not len(tuple(table[key.stored].shape))
        and (parts := key.name.rpartition("/"))[0] in scopes
        and _HYPER.fullmatch(parts[2])
        else key
        for key in keys
    ]


def _key(stored: str, found: Described, name: str, names: Set[str], own_tails: Set[str]) -> Key:
    base, _, last = name.rpartition("/")
    scalar = len(tuple(found.shape)) == 0
    if stored.endswith(OBJECT_VALUE) and (slot := _OBJECT_SLOT.fullmatch(name)):
        return Key(stored, slot[1], "slot", slot[3], slot[2])
    of_optimizer = _OBJECT_NUMBERED.fullmatch(name) or (scalar and base.endswith("optimizer"))
    if stored == _OBJECT_TABLE or (stored.endswith(OBJECT_VALUE) and of_optimizer):
        return Key(stored, name, "bookkeeping")
    if _BOOKKEEPING.fullmatch(last) and (not last.startswith(("biased", "local")) or base in names):
        return Key(stored, name, "bookkeeping")
    if base and _AVERAGE.fullmatch(last):
        return _owned(stored, base, names, "average", last)
    if base and (_SLOT.fullmatch(last) or (last in own_tails and any(end in names for end in _ends(base)))):
        return _owned(stored, base, names, "slot", last)
    if _OPAQUE.fullmatch(last):
        return Key(stored, name, "opaque")
    if scalar and re.search(r"int\d+", str(found.dtype)):
        return Key(stored, name, "counter")
    return Key(stored, name, "variable")


def _owned(stored: str, base: str, names: Set[str], role: Role, tail: str) -> Key:
    """A key of the variable that the longest end of its path names; of the whole path where none does."""
    for end in _ends(base):
        if end in names:
            return Key(stored, end, role, tail, base.removesuffix(end).removesuffix("/"))
    return Key(stored, base, role, tail)


def _ends(path: str) -> Iterator[str]:
    """A path, and what is left of it without each of its outer scopes."""
    yield path
    while "/" in path:
        path = path.partition("/")[2]
        yield path


def _own_slot_tails(table: Mapping[str, Described], plain: Mapping[str, str]) -> set[str]:
    """Last parts of keys that hang systematically below variables of the same shape: slots of a renamed optimizer."""
    shapes = {plain[stored]: tuple(found.shape) for stored, found in table.items()}
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        base, _, last = name.rpartition("/")
        if base and len(shape) > 0 and any(shapes.get(end) == shape for end in _ends(base)):
            counts[last] = counts.get(last, 0) + 1
    return {tail for tail, count in counts.items() if count >= _SYSTEMATIC}
