"""What a module needs from a checkpoint: its weights by the names that TF1 would give them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from cellweave._errors import ArgumentError, ScopeError, ShapeError
from cellweave.checkpoint import lookup_name
from cellweave.scopes import Layer, VariableStore
from cellweave.specs import CudnnSpec

#: Numbers of axes that a layer's inputs may have: a step's `[B, I]`, a sequence's `[T, B, I]`, images.
_RANKS = (2, 3, 4, 5)
#: Input depths that an unbuilt cell is tried with, to learn which sizes of its weights depend on them.
_TRIAL_DEPTHS = (1021, 2039)


@dataclass(frozen=True)
class Weight:
    """One weight of a cell.

    Attributes:
        attribute: Name of the parameter in its layer.
        suffix: TF1's name below the layer's scope, such as `gates/kernel`.
        shape: Sizes; for a cell without weights those at input depth 0.
        slope: How much each size grows per input; zeros for a cell that has its weights.
    """

    attribute: str
    suffix: str
    shape: tuple[int, ...]
    slope: tuple[int, ...]

    def depth_of(self, shape: tuple[int, ...]) -> int | None:
        """The input depth at which the weight has this shape; 0 where any will do; None: it never has."""
        if len(shape) != len(self.shape):
            return None
        depth = 0
        for size, base, slope in zip(shape, self.shape, self.slope, strict=True):
            if slope == 0:
                if size != base:
                    return None
                continue
            quotient, rest = divmod(size - base, slope)
            if rest or quotient <= 0 or depth not in (0, quotient):
                return None
            depth = quotient
        return depth

    @property
    def shown(self) -> str:
        """Its shape for people; `D` is the input depth."""
        sizes = [
            str(base) if not slope else f"{'' if slope == 1 else slope}D{f'+{base}' if base else ''}"
            for base, slope in zip(self.shape, self.slope, strict=True)
        ]
        return "[" + ", ".join(sizes) + "]"


@dataclass(frozen=True)
class LayerNeed:
    """The weights of one layer.

    Attributes:
        path: Its path in the root's modules, "" for the root itself.
        directory: Scope around its own, relative to the root's surroundings: `multi_rnn_cell/cell_0`.
        base: Last part of its scope: `lstm_cell`.
        weights: Its weights.
        again: Further directories where the same layer stands, since one cell may be used in several places.
    """

    path: str
    directory: str
    base: str
    weights: tuple[Weight, ...]
    again: tuple[str, ...] = ()

    @property
    def scope(self) -> str:
        """Directory and base."""
        return f"{self.directory}/{self.base}" if self.directory else self.base


@dataclass(frozen=True)
class CellNeed:
    """An outermost layer of a model, and all weights in it.

    Attributes:
        path: Its path in the model, "" for the model itself.
        root: The layer.
        outer: Scope around it where it is built, else "".
        built: Whether its weights exist.
        layers: Layers with weights, in module order.
        stacks: Scope of each stack of cells in it, and how many cells that has.
        exact: Whether only cells of the very same names mean the same, as for a cuDNN layer.
        rank: How many axes its inputs have.
    """

    path: str
    root: Layer
    outer: str
    built: bool
    layers: tuple[LayerNeed, ...]
    stacks: dict[str, int] = field(default_factory=dict)
    exact: bool = False
    rank: int = 2

    def joined(self, layer: LayerNeed, weight: Weight) -> str:
        """Path of a weight's parameter in the model."""
        return ".".join(part for part in (self.path, layer.path, weight.attribute) if part)


def outermost_layers(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Path and layer of every layer that lies in no other layer; a shared one once."""
    seen: set[int] = set()

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, Layer]]:
        if id(module) in seen:
            return
        seen.add(id(module))
        if isinstance(module, Layer):
            yield path, module
            return
        for name, child in module.named_children():
            yield from walk(f"{path}.{name}" if path else name, child)

    yield from walk("", model)


def need_of(path: str, root: Layer) -> CellNeed:
    """What one outermost layer needs.

    Raises:
        ScopeError: it has no weights yet and does not tell them before its first call.
    """
    if is_cudnn(root):
        return cudnn_need(path, root)
    missing = [layer for _, layer in _layers_in(root) if layer.makes_variables and not layer.built]
    if not missing:
        return _described(path, root, root, built=True, bases=None)
    rank = _rank_of(root)
    first, second = (_trial(root, depth, rank) for depth in _TRIAL_DEPTHS)
    at_first, at_second = _shapes(first), _shapes(second)
    bases = {}
    for key, shape in at_first.items():
        span = _TRIAL_DEPTHS[1] - _TRIAL_DEPTHS[0]
        slope = tuple((b - a) // span for a, b in zip(shape, at_second[key], strict=True))
        bases[key] = (tuple(a - s * _TRIAL_DEPTHS[0] for a, s in zip(shape, slope, strict=True)), slope)
    return replace(_described(path, root, first, built=False, bases=bases), rank=rank)


def _layers_in(root: nn.Module) -> list[tuple[str, Layer]]:
    return [(path, module) for path, module in root.named_modules() if isinstance(module, Layer)]


def _shapes(root: nn.Module) -> dict[tuple[str, str], tuple[int, ...]]:
    return {
        (path, record.attribute): tuple(getattr(layer, record.attribute).shape)
        for path, layer in _layers_in(root)
        for record in layer.variable_records()
    }


def _rank_of(root: Layer) -> int:
    """How many axes the inputs have that a layer can be built for."""
    errors = []
    for rank in _RANKS:
        try:
            _trial(root, _TRIAL_DEPTHS[0], rank)
        except (ShapeError, ArgumentError, NotImplementedError) as error:
            errors.append(error)
        else:
            return rank
    raise ScopeError(
        f"load_tf1: {root.where}: expected a layer that is built, or can be without a call, got: {errors[0]} "
        "Call it once, then load."
    ) from errors[0]


def _trial(root: Layer, depth: int, rank: int) -> Layer:
    """A copy built for inputs of some depth, without memory for its weights."""
    with VariableStore(), torch.device("meta"):
        trial = copy.deepcopy(root)
        trial.build([*[None] * (rank - 1), depth])
    for _, layer in _layers_in(trial):
        if layer.makes_variables and not layer.variable_records() and layer._call_makes_variables:
            raise ScopeError(
                f"load_tf1: {root.where}: expected cells whose weights are known before the first call, "
                f"got {layer.where}, which makes them in its call. Call it once, then load."
            )
    return trial


def _described(
    path: str,
    root: Layer,
    shown: Layer,
    *,
    built: bool,
    bases: dict[tuple[str, str], tuple[tuple[int, ...], tuple[int, ...]]] | None,
) -> CellNeed:
    layers = _layers_in(shown)
    scopes = {name: layer.scope_name for name, layer in layers if layer.scope_branch() is not None or _scoped(layer)}
    outermost = next((scopes[name] for name, _ in layers if name in scopes), "")
    outer = outermost.rpartition("/")[0]
    stacks = {}
    for name, layer in layers:
        cells = getattr(layer, "cells", None)
        if isinstance(cells, nn.ModuleList) and name in scopes:
            stacks[_relative(scopes[name], outer)] = len(cells)
    found = []
    for name, layer in layers:
        records = layer.variable_records()
        if not records:
            continue
        scope = scopes[name]
        directory, _, base = _relative(scope, outer).rpartition("/")
        weights = []
        for record in records:
            shape = tuple(getattr(layer, record.attribute).shape)
            size, slope = (shape, (0,) * len(shape)) if bases is None else bases[name, record.attribute]
            suffix = lookup_name(f"{base}/{record.full_name.removeprefix(scope + '/')}").removeprefix(base + "/")
            weights.append(Weight(record.attribute, suffix, size, slope))
        found.append(LayerNeed(name, directory, base, tuple(weights), _again(shown, scopes, outer, name, directory)))
    return CellNeed(path, root, outer if built else "", built, tuple(found), stacks)


def _scoped(layer: Layer) -> bool:
    """Whether the layer has a scope of its own."""
    try:
        return bool(layer.scope_name)
    except ScopeError:
        return False


def _relative(scope: str, outer: str) -> str:
    return lookup_name(scope.removeprefix(outer + "/") if outer else scope)


def _again(root: nn.Module, scopes: dict[str, str], outer: str, name: str, directory: str) -> tuple[str, ...]:
    """Other directories of a layer that stands in a stack more than once."""
    found = []
    for stack_path, stack in root.named_modules():
        cells = getattr(stack, "cells", None)
        if not isinstance(cells, nn.ModuleList) or stack_path not in scopes:
            continue
        prefix = f"{stack_path}.cells." if stack_path else "cells."
        if not name.startswith(prefix):
            continue
        index = int(name.removeprefix(prefix).split(".")[0])
        scope = _relative(scopes[stack_path], outer)
        for other, cell in enumerate(cells):
            if other > index and cell is cells[index]:
                rest = directory.removeprefix(f"{scope}/cell_{index}")
                found.append(f"{scope}/cell_{other}{rest}")
    return tuple(found)


def is_cudnn(layer: object) -> bool:
    """Whether a layer is one of cuDNN's, which TF1 saves under the names of cells that stand for it."""
    return isinstance(layer, Layer) and isinstance(getattr(layer, "_spec", None), CudnnSpec)


def cudnn_spec(layer: Layer) -> CudnnSpec:
    """What a cuDNN layer is."""
    return layer._spec  # type: ignore[no-any-return]


def cudnn_need(path: str, root: Layer) -> CellNeed:
    """What a cuDNN layer needs: the tensors of its saveable, each cell of them as a layer."""
    spec = cudnn_spec(root)
    first, second = spec.checkpoint_tensors(1), spec.checkpoint_tensors(2)
    cells: dict[str, list[Weight]] = {}
    for one, two in zip(first, second, strict=True):
        scope = spec.cell_path(one.place)
        slope = tuple(b - a for a, b in zip(one.shape, two.shape, strict=True))
        base = tuple(a - s for a, s in zip(one.shape, slope, strict=True))
        suffix = one.name.removeprefix(scope + "/")
        cells.setdefault(scope, []).append(Weight(suffix.replace("/", "_"), suffix, base, slope))
    layers = []
    for scope, weights in cells.items():
        directory, _, base_name = scope.removeprefix("rnn/").rpartition("/")
        place = directory.partition("/")[2].replace("bidirectional_rnn/", "").replace("/", ".")
        layers.append(LayerNeed(place, directory, base_name, tuple(weights)))
    stack = layers[0].directory.partition("/")[0]
    return CellNeed(path, root, "", False, tuple(layers), {stack: spec.layers}, exact=True)
