"""Loading and saving cuDNN layers, through the tensors that TF1's saveable stores in place of the opaque kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from cellweave.checkpoint import Inventory, Stored
from cellweave.scopes import Layer, nothing_is_open, variable_scope
from cellweave.transfer._arrays import as_tensor, stored_dtype
from cellweave.transfer._match import Candidate
from cellweave.transfer._needs import CellNeed, cudnn_spec
from cellweave.transfer._reading import Array


def set_cudnn(need: CellNeed, candidate: Candidate, values: Mapping[str, Array]) -> None:
    """Set a layer's weights from the tensors of its saveable; a layer without weights is built.

    Args:
        need: The layer.
        candidate: Where its tensors were found.
        values: Arrays by path of the parameter, as `need.joined` calls it.
    """
    layer: Any = need.root
    prefix = re.sub(r"(?:^|/)rnn$", "", candidate.prefix)
    _remember_home(layer, prefix)
    tensors = {}
    for cell in need.layers:
        scope = ("rnn/" if cell.directory.startswith("multi_rnn_cell") else "") + cell.scope
        for weight in cell.weights:
            dtype = stored_dtype(candidate.readings[cell.path, weight.attribute].sources[0].dtype)
            tensors[f"{scope}/{weight.suffix}"] = as_tensor(values[need.joined(cell, weight)], dtype)
    layer.load_tf_canonical(tensors, scope="")


def _remember_home(layer: Any, prefix: str) -> None:
    """Let an unbuilt layer remember the checkpoint's scope around it, so that it is saved there again."""
    if layer.built or not nothing_is_open():
        return
    if prefix:
        with variable_scope(prefix):
            layer.capture_scope()
    else:
        layer.capture_scope()


def opaque_of(need: CellNeed, inventory: Inventory, scope: str | None) -> Stored | None:
    """The opaque tensor of a layer whose canonical ones are not there: the only one that is as large as the layer's."""
    spec, found = cudnn_spec(need.root), []
    for name, stored in inventory.opaque.items():
        inside = scope is None or name == scope or name.startswith(scope + "/")
        if inside and len(stored.shape) == 1 and spec.depth_of_opaque(stored.shape[0]) is not None:
            found.append(stored)
    return found[0] if len(found) == 1 else None


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
