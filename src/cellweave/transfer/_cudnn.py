"""Loading and saving cuDNN layers, through the tensors that TF1's saveable stores in place of the opaque kernel."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cellweave._errors import CheckpointError
from cellweave.checkpoint import Inventory, Stored, StoredVariable, VariableInfo
from cellweave.scopes import Layer, nothing_is_open, variable_scope
from cellweave.transfer._arrays import Array, as_tensor, stored_dtype
from cellweave.transfer._match import Candidate, join, within
from cellweave.transfer._needs import CellNeed, cudnn_spec

#: TF1's name of a layer's one variable, below the layer's scope.
OPAQUE = "opaque_kernel"


def set_cudnn(need: CellNeed, candidate: Candidate, values: Mapping[str, Array]) -> None:
    """Set a layer's weights from the tensors of its saveable; a layer without weights is built.

    Args:
        need: The layer.
        candidate: Where its tensors were found.
        values: Arrays by path of the parameter, as `need.joined` calls it.
    """
    layer: Any = need.root
    _remember_home(layer, _around(candidate.prefix))
    tensors = {}
    for cell in need.layers:
        scope = ("rnn/" if cell.directory.startswith("multi_rnn_cell") else "") + cell.scope
        for weight in cell.weights:
            dtype = stored_dtype(candidate.readings[cell.path, weight.attribute].sources[0].dtype)
            tensors[f"{scope}/{weight.suffix}"] = as_tensor(values[need.joined(cell, weight)], dtype)
    layer.load_tf_canonical(tensors, scope="")


def _around(prefix: str) -> str:
    """The scope around a layer whose saveable wrote below a prefix."""
    return re.sub(r"(?:^|/)rnn$", "", prefix)


def _remember_home(layer: Any, prefix: str) -> None:
    """Let an unbuilt layer remember the checkpoint's scope around it, so that it is saved there again."""
    if not layer.built and nothing_is_open():
        with variable_scope(prefix) if prefix else nullcontext():
            layer.capture_scope()


def opaque_of(need: CellNeed, inventory: Inventory, scope: str | None) -> Stored | None:
    """The opaque tensor of a layer whose canonical ones are not there: the only one that is as large as the layer's."""
    spec, found = cudnn_spec(need.root), []
    for name, stored in inventory.opaque.items():
        if within(name, scope) and len(stored.shape) == 1 and spec.depth_of_opaque(stored.shape[0]) is not None:
            found.append(stored)
    return found[0] if len(found) == 1 else None


def opaque_path(need: CellNeed) -> str:
    """Path in the model under which a layer's opaque kernel is called."""
    return f"{need.path}.{OPAQUE}" if need.path else OPAQUE


def opaque_beside(need: CellNeed, prefix: str, inventory: Inventory) -> str | None:
    """Name of the opaque kernel of a layer whose saveable wrote below a scope; None where no single one is there."""
    around, base = _around(prefix), cudnn_base(need.root)
    scopes = {name: name.rpartition("/")[0] for name in inventory.opaque}
    own = [name for name, scope in scopes.items() if scope == around != ""]
    near = [name for name, scope in scopes.items() if scope and scope.rpartition("/")[0] == around]
    named = [name for name in near if re.fullmatch(rf"{re.escape(base)}(?:_\d+)?", scopes[name].rpartition("/")[2])]
    found = next((names for names in (own, near, named) if len(names) == 1), [None])
    return found[0]


def opaque_name(need: CellNeed, saved_as: str) -> str:
    """TF1's name of a layer's opaque kernel: in the layer's scope, which lies where its saveable writes.

    Args:
        need: The layer.
        saved_as: Name of the first tensor of its saveable, as it is saved.
    """
    base, cell = cudnn_base(need.root), need.layers[0]
    driver = "rnn" if cell.directory.startswith("multi_rnn_cell") else ""
    end = join(driver, cell.scope, cell.weights[0].suffix)
    if saved_as != end and not saved_as.endswith("/" + end):
        return join(need.root.scope_name, OPAQUE)
    around = saved_as.removesuffix(end).rstrip("/")
    inside = around.rpartition("/")[2] == base  # a layer that its first call built in TF1
    return join(around, "" if inside else base, OPAQUE)


def cudnn_base(layer: Layer) -> str:
    """Last part of a layer's scope."""
    return layer.scope_name.rpartition("/")[2]


def cudnn_parameters(need: CellNeed) -> dict[str, nn.Parameter]:
    """A layer's own parameters by their path in the model."""
    before = f"{need.path}." if need.path else ""
    return {before + name: value for name, value in need.root.named_parameters(recurse=False)}


@dataclass(frozen=True)
class OpaqueSlots:
    """Slots of one parameter of a layer, which TF1 keeps as slots of the opaque kernel.

    Attributes:
        layer: The layer.
        attribute: The parameter's name in it.
        variable: The opaque kernel.
    """

    layer: Layer
    attribute: str
    variable: StoredVariable

    def slot(self, array: Array) -> Array:
        """The parameter's part of a slot.

        Raises:
            CheckpointError: it has another size than the layer's opaque kernel.
        """
        twin: Any = copy.deepcopy(self.layer)
        size = twin.opaque_kernel().numel()
        if array.shape != (size,):
            raise CheckpointError(
                f"load_tf1: expected slots [{size}] of {self.variable.name}, got {list(array.shape)}."
            )
        twin.load_opaque_kernel(array)
        part: Array = getattr(twin, self.attribute).detach().cpu().numpy()
        return part


def opaque_slots(
    need: CellNeed, opaque: str | None, inventory: Inventory, table: Mapping[str, VariableInfo]
) -> dict[str, OpaqueSlots]:
    """Where the slots of a built layer's parameters are stored, by path of the parameter.

    Args:
        need: The layer.
        opaque: Name of its opaque kernel, None where the checkpoint has none.
        inventory: The checkpoint's variables.
        table: What is known of each of its keys.
    """
    name = opaque or join(need.root.scope_name, OPAQUE)
    slots = {
        key.part: Stored((key.stored,), 0, table[key.stored].shape, table[key.stored].dtype)
        for key in inventory.others
        if key.role == "slot" and key.name == name
    }
    variable = StoredVariable(name, name, inventory.opaque.get(name), slots=slots, spelled=name)
    return {path: OpaqueSlots(need.root, path.rpartition(".")[2], variable) for path in cudnn_parameters(need)}


def opaque_of_slots(layer: Layer, slots: Sequence[torch.Tensor]) -> torch.Tensor:
    """The slot of the opaque kernel that holds those of a layer's own parameters.

    Args:
        layer: The layer.
        slots: In the order of the parameters.
    """
    twin: Any = copy.deepcopy(layer)
    found = []
    with torch.no_grad():
        for values in (slots, [torch.zeros_like(slot) for slot in slots]):
            for parameter, value in zip(twin.parameters(recurse=False), values, strict=True):
                parameter.copy_(value)
            found.append(twin.opaque_kernel())
    slot: torch.Tensor = found[0] - found[1]  # a W that is skipped is the identity, whose slots are zeros
    return slot


def cudnn_tensors(need: CellNeed) -> dict[str, tuple[str, torch.Tensor]]:
    """What TF1 would save of a layer: by path of the parameter the name and the value.

    Raises:
        ScopeError: the layer is not built.
    """
    layer: Any = need.root
    tensors: dict[str, torch.Tensor] = layer.tf_canonical_tensors()
    found = {}
    for cell in need.layers:
        for weight in cell.weights:
            end = f"{cell.scope}/{weight.suffix}"
            name = next(name for name in tensors if name == end or name.endswith("/" + end))
            found[need.joined(cell, weight)] = (name, tensors[name])
    return found


def dtype_of(layer: Layer) -> torch.dtype:
    """The dtype that a layer's weights have or will have."""
    return getattr(torch, str(layer.dtype))  # type: ignore[no-any-return]
