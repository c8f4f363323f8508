"""Loading a TF1 checkpoint into modules."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from cellweave._errors import CheckpointError
from cellweave._types import dtype_name
from cellweave.checkpoint import Inventory, VariableInfo, open_checkpoint, take_inventory
from cellweave.scopes import Layer, nothing_is_open
from cellweave.transfer._arrays import Array, as_tensor, stored_dtype
from cellweave.transfer._cudnn import (
    cudnn_parameters,
    dtype_of,
    opaque_beside,
    opaque_path,
    opaque_slots,
    set_cudnn,
)
from cellweave.transfer._match import join
from cellweave.transfer._needs import CellNeed
from cellweave.transfer._optimizer import read_slots
from cellweave.transfer._parts import as_model
from cellweave.transfer._plan import CellPlan, LoadPlan, Names, plan_load
from cellweave.transfer._reading import Reading, SlotReading
from cellweave.transfer._report import LeftRow, LoadedRow, LoadReport
from cellweave.transfer._tables import variable_table

_WHERE = "load_tf1"


def load_tf1(
    module: Any,
    path: str | PathLike[str],
    *,
    scope: str | None = None,
    map: Mapping[str, str | None] | None = None,  # noqa: A002  # the word that callers expect
    averaged: bool = False,
    strict: bool = True,
    optimizer: torch.optim.Optimizer | None = None,
) -> LoadReport:
    """Load the variables of a TF1 checkpoint into a module. TensorFlow is not needed.

    Cells are found by the names that TF1 gave them, in the spelling of any release, below any scope; a cell without
    weights is built from the stored shapes. Everything is checked before anything is changed.

    Args:
        module: A cell, a wrapper, a layer, or any module that contains such; a pair `(cell_fw, cell_bw)`; or a dict of
            modules by name.
        path: The checkpoint: a prefix, a file of it, a folder, a SavedModel or a frozen graph; see `open_checkpoint`.
        scope: Look below this TF1 scope only. Default: everywhere.
        map: Path of a submodule or parameter to the scope or variable that it is read from; None leaves it as it is.
            Needed where names do not tell, such as `{"softmax.weight": "rnnlm/softmax_w"}`.
        averaged: Read moving averages (`.../ExponentialMovingAverage`) where they are stored.
        strict: Raise when something is missing; else it is reported and left as it is.
        optimizer: Takes over the slots of TF1's optimizer (Adam, Momentum, RMSProp, Adagrad), too.
    Returns:
        A report of what was loaded, left and missing.
    Raises:
        CheckpointError: the file is damaged; something is missing, does not fit, or fits in several places; the powers
            of Adam's betas are not those of the optimizer's betas.
        ScopeError: a layer does not tell its weights before its first call. ArgumentError: an unknown key in `map`;
            an optimizer without a counterpart in TF1.
    Numerics: values are copied bit for bit; nothing is cast. `nn.Linear` and convolutions get their axes reordered.
    """
    model = as_model(_WHERE, module)
    with open_checkpoint(fspath(path)) as checkpoint:
        table = variable_table(checkpoint)
        inventory = take_inventory(table)
        shown = fspath(path)
        plan = plan_load(model, inventory, Names(f"{_WHERE}: {shown}", inventory, scope, map))
        if strict and plan.missing:
            raise CheckpointError(_missing_text(shown, plan))
        return _Loading(model, shown, plan, inventory, table, checkpoint, averaged).run(optimizer)


def _missing_text(path: str, plan: LoadPlan) -> str:
    rows = "".join(f"\n  {' '.join(filter(None, (row.parameter, row.shape)))}: {row.reason};" for row in plan.missing)
    found = len(plan.plain) + sum(len(cell.candidate.readings) for cell in plan.cells)
    return (
        f"{_WHERE}: {path}: expected a variable for every parameter, got none for {len(plan.missing)} part(s) "
        f"({found} parameters were found):{rows[:-1]}. `cellweave inspect` shows what the checkpoint holds."
    )


class _Loading:
    """One load: read everything, then build, then copy."""

    def __init__(
        self,
        model: nn.Module,
        path: str,
        plan: LoadPlan,
        inventory: Inventory,
        table: Mapping[str, VariableInfo],
        arrays: Mapping[str, Array],
        averaged: bool,
    ) -> None:
        self.model, self.path, self.plan, self.inventory, self.table = model, path, plan, inventory, table
        self.arrays, self.averaged = arrays, averaged
        self.rows: list[LoadedRow] = []
        self.readings: dict[str, Reading] = {}
        self.names: dict[str, str] = {}
        self.values: dict[str, Array] = {}

    def run(self, optimizer: torch.optim.Optimizer | None) -> LoadReport:
        for cell in self.plan.cells:
            self._read_cell(cell)
        for need, reading in self.plan.plain:
            self._read(need.path, reading, need.value.dtype)
        for cell in self.plan.cells:
            _check_again(cell, self.inventory, self.arrays, self.path)
        for cell in self.plan.cells:
            if not cell.need.exact and not cell.need.built:
                _build(cell)
        cudnn = {path for cell in self.plan.cells if cell.need.exact for path in _paths(cell)}
        targets = {path: _parameter(self.model, path) for path in self.values if path not in cudnn}
        slots = None
        if optimizer is not None:
            where = f"{_WHERE}: {self.path}"
            trained, readings = self._trained(targets)
            slots = read_slots(where, optimizer, trained, readings, self.arrays, self.inventory)
        for cell in self.plan.cells:
            if cell.need.exact:
                self._set_cudnn(cell)
        with torch.no_grad():
            for path, target in targets.items():
                target.copy_(as_tensor(self.values[path], target.dtype))
        used = {key for row in self.rows for key in row.keys}
        if slots is not None and optimizer is not None:
            slots.apply(optimizer)
            used |= slots.keys
        scope = "" if slots is None else slots.scope
        return LoadReport(self.path, tuple(self.rows), self._left(used), tuple(self.plan.missing), self.names, scope)

    def _trained(self, targets: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, SlotReading]]:
        """Every parameter that an optimizer may have, and where its slots are."""
        trained, readings = dict(targets), dict[str, SlotReading](self.readings)
        for cell in self.plan.cells:
            if cell.need.exact and cell.need.root.built:
                trained |= cudnn_parameters(cell.need)
                readings |= opaque_slots(cell.need, self._opaque_name(cell), self.inventory, self.table)
        return trained, readings

    def _set_cudnn(self, cell: CellPlan) -> None:
        path, root = opaque_path(cell.need), cast(Any, cell.need.root)
        if cell.opaque is not None:
            root.load_opaque_kernel(as_tensor(self.values[path], dtype_of(root)))
        else:
            set_cudnn(cell.need, cell.candidate, self.values)
        opaque = self._opaque_name(cell)
        if opaque is not None:
            self.names[path] = opaque

    def _opaque_name(self, cell: CellPlan) -> str | None:
        """Name of the opaque kernel of a cuDNN layer that is built, None where no single one is there."""
        if cell.opaque is not None:
            return cell.opaque.keys[0]
        return opaque_beside(cell.need, cell.candidate.prefix, self.inventory)

    def _read_cell(self, cell: CellPlan) -> None:
        need, candidate = cell.need, cell.candidate
        if cell.opaque is not None:
            path = opaque_path(need)
            self.values[path] = cell.opaque.read(self.arrays)
            self.rows.append(LoadedRow(path, cell.opaque.keys, cell.opaque.shape, cell.opaque.dtype, "cuDNN's layout"))
            return
        for layer in need.layers:
            for weight in layer.weights:
                reading = candidate.readings[layer.path, weight.attribute]
                dtype = dtype_of(need.root) if need.exact else None
                if need.built:
                    dtype = getattr(need.root.get_submodule(layer.path), weight.attribute).dtype
                self._read(need.joined(layer, weight), reading, dtype)

    def _read(self, path: str, reading: Reading, dtype: torch.dtype | None) -> None:
        stored = reading.stored(self.averaged)
        have = stored_dtype(stored[0].dtype)
        if dtype is not None and have != dtype:
            raise CheckpointError(
                f"{_WHERE}: {self.path}: {path}: expected {dtype_name(dtype)} as the module has it, "
                f"got {stored[0].dtype} in {stored[0].shown}. Nothing is cast: give the module the dtype first."
            )
        keys = tuple(key for part in stored for key in part.keys)
        notes = ["summed"] if len(stored) > 1 else []
        notes += ["slices joined"] if len(stored[0].keys) > 1 else []
        notes += ["transposed"] if reading.axes else []
        notes += ["cuDNN's layout"] if reading.layout else []
        notes += ["moving average"] if stored[0] is reading.sources[0].average else []
        self.values[path] = reading.read(self.arrays, self.averaged)
        self.readings[path] = reading
        self.names[path] = reading.sources[0].saved_as
        self.rows.append(LoadedRow(path, keys, reading.shape, stored[0].dtype, ", ".join(notes)))

    def _left(self, used: set[str]) -> tuple[LeftRow, ...]:
        roles = _roles(self.inventory)
        return tuple(
            LeftRow(key, tuple(found.shape), roles[key]) for key, found in self.table.items() if key not in used
        )


def _roles(inventory: Inventory) -> dict[str, str]:
    """What every key of the checkpoint is."""
    roles: dict[str, str] = {key.stored: key.role for key in inventory.others}
    for variable in inventory.variables.values():
        roles |= dict.fromkeys(variable.stored_keys(), "slot")
        roles |= {key: "average" for stored in variable.averages.values() for key in stored.keys}
        roles |= dict.fromkeys(variable.value.keys if variable.value is not None else (), "variable")
    return roles


def _parameter(model: nn.Module, path: str) -> torch.Tensor:
    owner, _, name = path.rpartition(".")
    return getattr(model.get_submodule(owner), name)  # type: ignore[no-any-return]


def _paths(cell: CellPlan) -> list[str]:
    """Paths of a cuDNN layer's stored tensors, which are no parameters of the layer."""
    found = [cell.need.joined(layer, weight) for layer in cell.need.layers for weight in layer.weights]
    return [*found, opaque_path(cell.need)]


def _build(cell: CellPlan) -> None:
    """Make the weights of an unbuilt layer, in the scope that the checkpoint has them in."""
    need, candidate = cell.need, cell.candidate
    dtypes = {stored_dtype(reading.sources[0].dtype) for reading in candidate.readings.values()}
    for _, layer in need.root.named_modules():
        if isinstance(layer, Layer) and len(dtypes) == 1:
            layer.default_dtype(next(iter(dtypes)))
    if nothing_is_open():
        _capture_scopes(need, cell)
    need.root.build([*[None] * (need.rank - 1), candidate.depth or 1])


def _capture_scopes(need: CellNeed, cell: CellPlan) -> None:
    for layer in need.layers:
        made = need.root.get_submodule(layer.path)
        names = {
            cell.candidate.readings[layer.path, weight.attribute].sources[0].name.removesuffix("/" + weight.suffix)
            for weight in layer.weights
        }
        if isinstance(made, Layer) and len(names) == 1:
            made.capture_scope(names.pop())


def _check_again(cell: CellPlan, inventory: Inventory, arrays: Mapping[str, Array], path: str) -> None:
    """Raise when a cell that the module uses twice is stored twice with different values, as TF 0.x made it."""
    for layer in cell.need.layers:
        for directory in layer.again:
            for weight in layer.weights:
                mine = cell.candidate.readings[layer.path, weight.attribute]
                base = cell.candidate.scopes.get(layer.path, layer.base).rpartition("/")[2]
                other = inventory.variables.get(join(cell.candidate.prefix, directory, base, weight.suffix))
                if other is None or other.value is None:
                    continue
                same = other.shape == mine.shape and np.array_equal(
                    other.value.read(arrays), mine.read(arrays, False), equal_nan=True
                )
                if not same:
                    raise CheckpointError(
                        f"{_WHERE}: {path}: expected one set of weights because the module uses one cell in several "
                        f"places, got another one in {other.value.shown}. Make a cell for each place."
                    )
