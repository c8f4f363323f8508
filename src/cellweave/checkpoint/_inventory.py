"""The variables of a checkpoint: keys of one variable brought together, under the names that later TF1 gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cellweave._errors import CheckpointError
from cellweave.checkpoint._eras import collapsed, modern_name
from cellweave.checkpoint._keys import Described, Key, read_keys

Array = np.ndarray[Any, Any]


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
        average: Its exponential moving average, or None.
        slots: Slots of optimizers, by what their keys end in (`Adam`, `Adam_1`).
    """

    name: str
    lookup: str
    value: Stored | None
    era: str = ""
    average: Stored | None = None
    slots: Mapping[str, Stored] = field(default_factory=dict)

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

    def stored_keys(self) -> Iterator[str]:
        """Every key that belongs to it."""
        for stored in (self.value, self.average, *self.slots.values()):
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
        return self.variables.get(lookup_name(name))

    def slot_counts(self) -> dict[str, int]:
        """How many variables have each kind of slot."""
        counts: dict[str, int] = {}
        for variable in self.variables.values():
            for tail in variable.slots:
                counts[tail] = counts.get(tail, 0) + 1
        return counts


def lookup_name(name: str) -> str:
    """The form in which names are compared: modern spelling, no `:0`, doubled scopes once."""
    return collapsed(modern_name(name.removesuffix(":0")).name)


def take_inventory(table: Mapping[str, Described]) -> Inventory:
    """Sort the keys of a checkpoint.

    Args:
        table: Key to something with `shape` and `dtype`, as `Checkpoint.variables` is.
    Raises:
        CheckpointError: slices that do not fit together.
    """
    keys = read_keys(table)
    owned: dict[str, list[Key]] = {}
    for key in keys:
        if key.role in ("variable", "slot", "average"):
            owned.setdefault(key.name, []).append(key)
    own_value = {key.name for key in keys if key.role == "variable"}
    drafts: dict[str, _Draft] = {}
    others = [key for key in keys if key.role not in ("variable", "slot", "average")]
    # Plain spellings first: where an old one of the same variable lies beside it, the newer one is the variable.
    for name in sorted(owned, key=lambda name: (modern_name(name).name != name, list(owned).index(name))):
        members = owned[name]
        if name not in own_value and not any(key.role == "average" for key in members):
            others += members
            continue
        _place(name, members, drafts)
    order = {key.stored: index for index, key in enumerate(keys)}
    made = [draft.made(table) for draft in drafts.values()]
    made.sort(key=lambda variable: order[next(variable.stored_keys())])
    opaque = {key.name: _joined(key.name, {None: key.stored}, table) for key in others if key.role == "opaque"}
    return Inventory({variable.lookup: variable for variable in made}, tuple(others), opaque)


@dataclass
class _Draft:
    """A variable while its keys are being gathered; piece number to key, for each thing stored of it."""

    name: str
    lookup: str
    era: str
    parts: dict[str, dict[int | None, str]] = field(default_factory=dict)

    def made(self, table: Mapping[str, Described]) -> StoredVariable:
        found = {what: _joined(self.name, pieces, table) for what, pieces in self.parts.items()}
        value, average = found.pop("", None), found.pop("average", None)
        return StoredVariable(self.name, self.lookup, value, self.era, average, found)


def _place(name: str, members: Iterable[Key], drafts: dict[str, _Draft]) -> None:
    modern = modern_name(name)
    lookup = collapsed(modern.name)
    draft = drafts.get(lookup)
    if draft is None or any(modern.piece in draft.parts.get(_part_of(key), {}) for key in members):
        if draft is not None:  # the same variable in two spellings: keep this one apart under its own
            modern, lookup = modern_name(name), name
        draft = drafts.setdefault(lookup, _Draft(modern.name if lookup != name else name, lookup, modern.era))
    for key in members:
        draft.parts.setdefault(_part_of(key), {})[modern.piece] = key.stored


def _part_of(key: Key) -> str:
    """What of its variable a key stores: "" for the value."""
    return {"variable": "", "average": "average"}.get(key.role, key.tail)


def _joined(name: str, pieces: Mapping[int | None, str], table: Mapping[str, Described]) -> Stored:
    if None in pieces:
        key = pieces[None]
        return Stored((key,), 0, tuple(table[key].shape), str(table[key].dtype))
    numbers = sorted(number for number in pieces if number is not None)
    keys = tuple(pieces[number] for number in numbers)
    shapes = [tuple(table[key].shape) for key in keys]
    if numbers != list(range(len(numbers))):
        raise CheckpointError(f"{name}: expected slices 0 to {numbers[-1]}, got only {numbers} ({', '.join(keys)}).")
    axis = next((axis for axis in range(len(shapes[0])) if len({shape[axis : axis + 1] for shape in shapes}) > 1), 0)
    others = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(others) > 1 or not shapes[0] or len({len(shape) for shape in shapes}) > 1:
        raise CheckpointError(f"{name}: expected slices that differ along one axis, got shapes {shapes}.")
    whole = (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])
    return Stored(keys, axis, whole, str(table[keys[0]].dtype))
