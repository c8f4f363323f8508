"""Layouts of a cuDNN layer's weights: canonical lists, the opaque kernel, a TF1 checkpoint's tensors.

Canonical lists hold, per place, a matrix `[H, I]` for each gate and then one `[H, H]` for each, and biases `[H]` in the
same order. Every function here works on detached tensors and copies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from cellweave._errors import ShapeError
from cellweave.specs import CudnnSpec, CudnnTensorSpec

#: Canonical matrices and biases.
Canonical = tuple[list[torch.Tensor], list[torch.Tensor]]


def to_opaque(canonical: Canonical) -> torch.Tensor:
    """One vector: all matrices, row by row, then all biases."""
    return torch.cat([tensor.reshape(-1) for part in canonical for tensor in part])


def from_opaque(spec: CudnnSpec, depth: int, opaque: torch.Tensor) -> Canonical:
    """The canonical lists in a vector that has `spec.opaque_size(depth)` elements."""
    shapes: list[Sequence[int]] = [*spec.weight_shapes(depth), *spec.bias_shapes()]
    pieces = opaque.split_with_sizes([math.prod(shape) for shape in shapes])
    found = [piece.reshape(tuple(shape)) for piece, shape in zip(pieces, shapes, strict=True)]
    count = len(found) // 2
    return found[:count], found[count:]


def to_checkpoint(spec: CudnnSpec, depth: int, canonical: Canonical) -> dict[str, torch.Tensor]:
    """The tensors that TF1 saves, by name and in TF1's order."""
    return {tensor.name: _joined(spec, tensor, canonical) for tensor in spec.checkpoint_tensors(depth)}


def _joined(spec: CudnnSpec, tensor: CudnnTensorSpec, canonical: Canonical) -> torch.Tensor:
    weights, biases = canonical
    columns = []
    for gate in tensor.gates:
        numbers = [spec.index(tensor.place, side, gate) for side in tensor.sides]
        if tensor.is_bias:
            columns.append(sum((biases[number] for number in numbers[1:]), biases[numbers[0]]))
        else:
            columns.append(torch.cat([weights[number].t() for number in numbers]))
    return torch.cat(columns, dim=-1)


def from_checkpoint(spec: CudnnSpec, depth: int, tensors: Mapping[str, torch.Tensor], where: str) -> Canonical:
    """The canonical lists out of the tensors that TF1 saves; a bias that was saved as a sum is split into halves.

    Raises:
        ShapeError: a tensor has another shape than the layer's.
    """
    weights: list[torch.Tensor] = [torch.empty(0)] * len(spec.weight_shapes(depth))
    biases = list(weights)
    for tensor in spec.checkpoint_tensors(depth):
        value = tensors[tensor.name]
        if tuple(value.shape) != tensor.shape:
            raise ShapeError(f"{where}: expected {tensor.name} {list(tensor.shape)}, got {list(value.shape)}.")
        rows = [spec.width(tensor.place, depth) if side == "W" else spec.units for side in tensor.sides]
        for gate, columns in zip(tensor.gates, value.chunk(len(tensor.gates), dim=-1), strict=True):
            halves = [columns / len(rows)] * len(rows)
            parts = halves if tensor.is_bias else [part.t() for part in columns.split_with_sizes(rows)]
            for side, part in zip(tensor.sides, parts, strict=True):
                (biases if tensor.is_bias else weights)[spec.index(tensor.place, side, gate)] = part
    return weights, biases
