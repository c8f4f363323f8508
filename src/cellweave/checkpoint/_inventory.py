"""The variables of a checkpoint: keys of one variable brought together, under the names that later TF1 gives them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from cellweave._errors import CheckpointError
from cellweave.checkpoint._eras import ERAS, ModernName, altered_scopes, collapsed, modern_name
from cellweave.checkpoint._keys import OBJECT_VALUE, Described, Key, read_keys

Array = np.ndarray[Any, Any]
_T = TypeVar("_T")
#: How the names of slices that are variables of their own end: `kernel/part_0`, `W_0`.
_PIECE_NUMBER = re.compile(r"(?:/part)?_\d+$")


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in the file: one key, or several that are slices of it.

    Attributes:
        keys: Keys in the file, in the order of the slices.
        axis: Along which slices are joined.
        shape: Sizes of the whole, in elements.
        dtype: Name of its dtype.
    """

    keys: tuple[str, ...]
    axis: int
    shape: tuple[int, ...]
    dtype: str

    def read(self, arrays: Mapping[str, Array]) -> Array:
        """Its values; slices are joined into a new array."""
        if len(self.keys) == 1:
            return arrays[self.keys[0]]
        return np.concatenate([arrays[key] for key in self.keys], axis=self.axis)

    @property
    def shown(self) -> str:
        """Its keys for people: `a/W_0 (+2 slices)`."""
        more = len(self.keys) - 1
        return self.keys[0] + (f" (+{more} slice{'s' if more > 1 else ''})" if more else "")


@dataclass(frozen=True)
class StoredVariable:
    """One variable of a model.

    Attributes:
        name: Its name in the spelling of TF 1.2 and later.
        lookup: The same with doubled scopes written once; names are compared in this form.
        value: What is stored of it; None when the file has only its average.
        era: The spelling that the file uses, "" where nothing tells.
        averages: Its exponential moving averages, by what their keys add to the name (`ExponentialMovingAverage`).
        slots: Slots of optimizers, likewise (`Adam`, `Adam_1`); below their optimizer's scope, if any (`train/Adam`).
        spelled: Its name as the file has it, without `:0`; of several slices what they share.
    """

    name: str
    lookup: str
    value: Stored | None
    era: str = ""
    averages: Mapping[str, Stored] = field(default_factory=dict)
    slots: Mapping[str, Stored] = field(default_factory=dict)
    spelled: str = ""

    @property
    def saved_as(self) -> str:
        """Its name where TF 1.2 and later have it: the file's own, unless a release has renamed it."""
        numbered = self.any_value.keys[0].removeprefix(self.spelled)
        own_pieces = len(self.any_value.keys) > 1 and not numbered.startswith("/part_")
        return self.name if self.era in ERAS[:2] or own_pieces else self.spelled

    @property
    def average(self) -> Stored | None:
        """Its moving average; the first of several, None when there is none."""
        return next(iter(self.averages.values()), None)

    @property
    def any_value(self) -> Stored:
        """What tells its shape: the value, else the average."""
        found = self.value or self.average
        if found is None:  # not for users: an inventory holds none without both
            raise CheckpointError(f"{self.name}: expected a stored value, got slots only.")
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in elements."""
        return self.any_value.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self.any_value.dtype

    @property
    def of_object(self) -> bool:
        """Whether TensorFlow 2 saved it as an object's."""
        return self.any_value.keys[0].endswith(OBJECT_VALUE)

    def stored_keys(self) -> Iterator[str]:
        """Every key that belongs to it."""
        for stored in (self.value, *self.averages.values(), *self.slots.values()):
            if stored is not None:
                yield from stored.keys


@dataclass(frozen=True)
class Inventory:
    """Everything in a checkpoint, sorted by what it is for.

    Attributes:
        variables: Variables of the model by `lookup`.
        others: Keys that are no variable's: bookkeeping, counters, cuDNN's opaque tensors and slots whose variable is
            not there.
        opaque: cuDNN's opaque tensors by name.
    """

    variables: Mapping[str, StoredVariable]
    others: tuple[Key, ...]
    opaque: Mapping[str, Stored] = field(default_factory=dict)

    def named(self, name: str) -> StoredVariable | None:
        """The variable of this name, in any era's spelling, with or without `:0`; None when there is none."""
        return self.variables.get(self.place(name))

    def place(self, name: str) -> str:
        """The form in which a scope or variable is looked up: of this very name, else of one that compares equal.

        Args:
            name: Its name in any era's spelling, with or without `:0`.
        """
        for exact in (name.strip("/"), name.strip("/").removesuffix(":0")):
            if exact in self._spelled:
                return self._spelled[exact]
            if exact in self._scopes:
                return exact
        return lookup_name(exact)

    @cached_property
    def _spelled(self) -> dict[str, str]:
        """Lookup forms by name: those of modern names, of lookup forms themselves, and, strongest, of stored names."""
        modern = {variable.name: lookup for lookup, variable in self.variables.items()}
        stored = {variable.spelled: lookup for lookup, variable in self.variables.items()}
        return modern | {lookup: lookup for lookup in self.variables} | stored

    @cached_property
    def _scopes(self) -> set[str]:
        """Every scope of a variable, in lookup form."""
        return {lookup[:end] for lookup in self.variables for end, letter in enumerate(lookup) if letter == "/"}

    def slot_counts(self) -> dict[str, int]:
        """How many variables have each kind of slot; where optimizers have different scopes, these tell them apart."""
        parts = [part for variable in self.variables.values() for part in variable.slots]
        one_scope = len({part.rpartition("/")[0] for part in parts}) <= 1
        return dict(Counter(part.rpartition("/")[2] if one_scope else part for part in parts))


def lookup_name(name: str) -> str:
    """The form in which names are compared: modern spelling, no `:0`, doubled scopes once."""
    return collapsed(modern_name(name.removesuffix(":0")).name)


def take_inventory(table: Mapping[str, Described]) -> Inventory:
    """Sort the keys of a checkpoint. Slices that do not fit together are variables of their own.

    Args:
        table: Key to something with `shape` and `dtype`, as `Checkpoint.variables` is.
    """
    keys = read_keys(table)
    others = [key for key in keys if key.role not in ("variable", "slot", "average")]
    owned: dict[str, list[Key]] = {}
    for key in keys:
        if key.role in ("variable", "slot", "average"):
            owned.setdefault(key.name, []).append(key)
    for name, members in list(owned.items()):
        if all(key.role == "slot" for key in members):
            others += members
            del owned[name]
    drafts = _drafts(owned, table)
    made = [draft.made(lookup, owned, table, others) for draft, lookup in zip(drafts, _lookups(drafts), strict=True)]
    order = {key.stored: index for index, key in enumerate(keys)}
    made.sort(key=lambda variable: order[next(variable.stored_keys())])
    opaque = {key.name: _joined([key.stored], table) for key in others if key.role == "opaque"}
    return Inventory({variable.lookup: variable for variable in made}, tuple(others), opaque)


@dataclass(frozen=True)
class _Draft:
    """A variable before it has its lookup form: what its keys call it, its later name, and its pieces' names."""

    spelled: str
    modern: ModernName
    pieces: tuple[str, ...]

    def made(
        self, lookup: str, owned: Mapping[str, list[Key]], table: Mapping[str, Described], others: list[Key]
    ) -> StoredVariable:
        """The variable; slots that only some of its pieces have go to the others."""
        parts: dict[tuple[str, str], list[Key]] = {}
        for piece in self.pieces:
            for key in owned[piece]:
                parts.setdefault((key.role, key.part), []).append(key)
        value: Stored | None = None
        averages: dict[str, Stored] = {}
        slots: dict[str, Stored] = {}
        for (role, part), members in parts.items():
            stored = [key.stored for key in members]
            if len(stored) != len(self.pieces) or (len(stored) > 1 and _axis(stored, table) is None):
                others += members
            elif role == "variable":
                value = _joined(stored, table)
            else:
                (averages if role == "average" else slots)[part] = _joined(stored, table)
        apart = lookup == self.spelled != self.modern.name
        name = self.spelled if apart else self.modern.name
        return StoredVariable(name, lookup, value, "" if apart else self.modern.era, averages, slots, self.spelled)


def _drafts(owned: Mapping[str, list[Key]], table: Mapping[str, Described]) -> list[_Draft]:
    """Names brought together: one for each variable, or for all slices of one."""
    found: list[_Draft] = []
    slices: dict[str, list[tuple[int, str]]] = {}
    for name in owned:
        modern = modern_name(name)
        if modern.piece is None:
            found.append(_Draft(name, modern, (name,)))
        else:
            slices.setdefault(_PIECE_NUMBER.sub("", name), []).append((modern.piece, name))
    for whole, numbered in slices.items():
        numbers, names = zip(*sorted(numbered), strict=True)
        if whole not in owned and _fit(numbers, [_telling(owned[name]) for name in names], table):
            spelled = names[0] if len(names) == 1 else whole
            found.append(_Draft(spelled, modern_name(names[0]), names))
        else:
            found += [_Draft(name, ModernName(name), (name,)) for name in names]
    return found


def _telling(members: Sequence[Key]) -> Key:
    """The key that tells a variable's shape: its value's, else an average's."""
    by_role = {key.role: key for key in reversed(members)}
    return by_role.get("variable") or by_role["average"]


def _fit(numbers: Iterable[int], keys: Sequence[Key], table: Mapping[str, Described]) -> bool:
    """Whether these are all slices of one variable."""
    complete = list(numbers) == list(range(len(keys))) and len({key.part for key in keys}) == 1
    return complete and (len(keys) == 1 or _axis([key.stored for key in keys], table) is not None)


def _lookups(drafts: Sequence[_Draft]) -> list[str]:
    """The form in which each variable is looked up. Those that would share one keep the scopes that tell them apart."""
    names = [draft.modern.name for draft in drafts]
    forms = [collapsed(name) for name in names]
    kept = {scope for name in _sharing(names, forms) for scope in altered_scopes(name)}
    if kept:
        forms = [collapsed(name, kept) for name in names]
    own = [draft.spelled for draft in drafts]
    while moving := [index for index in _sharing(range(len(forms)), forms) if forms[index] != own[index]]:
        for index in moving:
            forms[index] = own[index]
    return forms


def _sharing(items: Iterable[_T], forms: Sequence[str]) -> list[_T]:
    """The items whose form another one has, too."""
    counts = Counter(forms)
    return [item for item, form in zip(items, forms, strict=True) if counts[form] > 1]


def _axis(keys: Sequence[str], table: Mapping[str, Described]) -> int | None:
    """The axis along which slices are joined; None when they are no slices of one tensor."""
    shapes = [tuple(table[key].shape) for key in keys]
    rank = len(shapes[0])
    if rank == 0 or len({len(shape) for shape in shapes}) > 1 or len({str(table[key].dtype) for key in keys}) > 1:
        return None
    differing = [axis for axis in range(rank) if len({shape[axis] for shape in shapes}) > 1]
    return None if len(differing) > 1 else differing[0] if differing else 0


def _joined(keys: Sequence[str], table: Mapping[str, Described]) -> Stored:
    shapes = [tuple(table[key].shape) for key in keys]
    axis = _axis(keys, table) if len(keys) > 1 else None
    whole = shapes[0]
    if axis is not None:
        whole = (*whole[:axis], sum(shape[axis] for shape in shapes), *whole[axis + 1 :])
    return Stored(tuple(keys), axis or 0, whole, str(table[keys[0]].dtype))
