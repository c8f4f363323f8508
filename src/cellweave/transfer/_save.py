"""Saving modules as a checkpoint that TensorFlow reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from torch import nn

from cellweave._errors import ArgumentError, ScopeError
from cellweave.checkpoint import even_slices, write_checkpoint
from cellweave.scopes import Layer, variable_names
from cellweave.transfer._cudnn import cudnn_tensors, opaque_name, opaque_of_slots, opaque_path
from cellweave.transfer._needs import CellNeed, is_cudnn, need_of, outermost_layers
from cellweave.transfer._optimizer import SlotTarget, slots_of_optimizer
from cellweave.transfer._parts import as_model
from cellweave.transfer._plain import plain_needs
from cellweave.transfer._reading import stored_tensor
from cellweave.transfer._report import LoadReport

_WHERE = "save_tf1"

#: A tensor, its TF1 name, and the order of TF1's axes in it.
Entry = tuple[torch.Tensor, str, tuple[int, ...] | None]


def save_tf1(
    module: Any,
    path: str | PathLike[str],
    *,
    names: LoadReport | Mapping[str, str] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    step: int | None = None,
    overwrite: bool = False,
) -> dict[str, str]:
    """Save a module as a TF1 checkpoint: a V2 bundle that `tf.train.Saver` restores.

    Cells have the names that TF1 would give them (see `variable_names`); other layers are named by their path in the
    module, `dense/kernel` for the weight of an `nn.Linear` called `dense`. A cuDNN layer is saved as TF1's saveable
    has it, and as the opaque kernel, which TF1's graph asks for too and which alone has slots.

    Args:
        module: As for `load_tf1`; built.
        path: The bundle's prefix, such as `out/model.ckpt`.
        names: The report of `load_tf1`, which gives every variable the name that it came with, and the slots the scope
            that they came with; or parameter path to name.
        optimizer: Also save its state in TF1's slots (`<name>/Adam`, ...): Adam, AdamW, SGD with momentum, RMSprop,
            Adagrad. Trained parameters that it has not updated yet have zeros there.
        step: Also save `global_step`; in the scope that it has in the checkpoint of `names`, if that is a report.
        overwrite: Whether an earlier checkpoint of this name may be replaced.
    Returns:
        Parameter path to the name that it was saved under.
    Raises:
        ScopeError: a layer is not built, or two variables have one name. ArgumentError: a name for a parameter that the
            module does not have; an optimizer without a counterpart in TF1, or of another module.
    Numerics: values are written bit for bit; the axes of `nn.Linear` and convolutions are put in TF1's order.
    """
    model = as_model(_WHERE, module)
    cudnn = [need_of(path, root) for path, root in outermost_layers(model) if is_cudnn(root)]
    entries = _entries(model, cudnn, names.names if isinstance(names, LoadReport) else dict(names or {}))
    tensors: dict[str, Any] = {}
    for path_in_model, (tensor, name, axes) in entries.items():
        if name in tensors:
            others = [other for other, entry in entries.items() if entry[1] == name and other != path_in_model]
            raise ScopeError(
                f"{_WHERE}: expected one parameter per name, got {path_in_model} and {others[0]} for {name}. "
                "Give one another name in names=."
            )
        tensors[name] = stored_tensor(tensor, axes)
    if optimizer is not None:
        scope = names.optimizer_scope if isinstance(names, LoadReport) else ""
        tensors |= dict(slots_of_optimizer(_WHERE, optimizer, _targets(entries, cudnn), scope))
    if step is not None:
        tensors[_step_name(names)] = np.asarray(step, np.int64)
    pieces = _pieces(model, {id(tensor): name for tensor, name, _ in entries.values()})
    slices = {
        name: even_slices(tensors[name].shape, [count, *[1] * (tensors[name].dim() - 1)])
        for name, count in pieces.items()
    }
    write_checkpoint(fspath(path), tensors, slices=slices, overwrite=overwrite)
    return {parameter: name for parameter, (_, name, _) in entries.items()}


def _step_name(names: LoadReport | Mapping[str, str] | None) -> str:
    rows = names.left if isinstance(names, LoadReport) else ()
    counters = [row.key for row in rows if row.role == "counter" and row.key.rpartition("/")[2] == "global_step"]
    return counters[0] if len(counters) == 1 else "global_step"


def _targets(entries: Mapping[str, Entry], cudnn: list[CellNeed]) -> Iterator[SlotTarget]:
    """The variables that have slots."""
    for tensor, name, axes in entries.values():
        yield SlotTarget(name, (tensor,), partial(_only, axes))
    for need in cudnn:
        name = entries[opaque_path(need)][1]
        yield SlotTarget(name, tuple(need.root.parameters(recurse=False)), partial(opaque_of_slots, need.root))


def _only(axes: tuple[int, ...] | None, slots: Sequence[torch.Tensor]) -> torch.Tensor:
    return stored_tensor(slots[0], axes)


def _entries(model: nn.Module, cudnn: list[CellNeed], names: dict[str, str]) -> dict[str, Entry]:
    within = {id(parameter) for need in cudnn for parameter in need.root.parameters()}
    inside = {id(parameter): name for name, parameter in variable_names(model).items()}
    unused = set(names)
    found: dict[str, Entry] = {}
    for path, parameter in model.named_parameters():
        if id(parameter) in inside and id(parameter) not in within:
            found[path] = (parameter, names.get(path, inside[id(parameter)]), None)
    for need in plain_needs(model):
        found[need.path] = (need.value, names.get(need.path, need.default_name), need.axes)
    for layer in cudnn:
        tensors = cudnn_tensors(layer)
        saved = {path: names.get(path, name) for path, (name, _) in tensors.items()}
        found |= {path: (tensor, saved[path], None) for path, (_, tensor) in tensors.items()}
        root: Any = layer.root
        path = opaque_path(layer)
        name = names.get(path) or opaque_name(layer, next(iter(saved.values())))
        found[path] = (root.opaque_kernel(), name, None)
    unused -= set(found)
    if unused:
        raise ArgumentError(f"{_WHERE}: expected names of the module's parameters, got {sorted(unused)}.")
    return found


def _pieces(model: nn.Module, names: Mapping[int, str]) -> dict[str, int]:
    """How many slices each variable is stored in, where that is more than one."""
    found = {}
    for module in model.modules():
        if not isinstance(module, Layer):
            continue
        for record in module.variable_records():
            name = names.get(id(getattr(module, record.attribute)))
            if name is not None and record.pieces > 1:
                found[name] = record.pieces
    return found
