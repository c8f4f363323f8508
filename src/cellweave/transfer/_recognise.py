"""The cells and layers of a checkpoint, put together again: stacks, pairs of directions, cuDNN layers, dense layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from cellweave.checkpoint import Inventory, StoredVariable
from cellweave.transfer._kinds import CELL_SUFFIXES, FOREIGN_CELLS, Kind, cell_kind, driver_of, guessed_kind
from cellweave.transfer._match import join, tree_of

_STACK = re.compile(r"multi_rnn_cell(?:_\d+)?")
#: How Keras names the layers of a bidirectional one.
_FORWARD = re.compile(r"forward_(\w+)")
_NUMBERED = re.compile(r"cell_(\d+)")


@dataclass(frozen=True)
class FoundCell:
    """One cell.

    Attributes:
        scope: Its scope, in lookup form.
        kind: What it is.
        variables: Its variables by suffix.
        more: What else is stored in its scope, by suffix.
    """

    scope: str
    kind: Kind
    variables: dict[str, StoredVariable]
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundStack:
    """A MultiRNNCell: cells lowest first."""

    scope: str
    cells: tuple[Found, ...]


@dataclass(frozen=True)
class FoundPair:
    """The cells of a bidirectional unroll; the same object when one serves both directions."""

    scope: str
    fw: Found
    bw: Found | None


@dataclass(frozen=True)
class FoundLayers:
    """Pairs on top of each other: a stack of bidirectional unrolls."""

    scope: str
    pairs: tuple[FoundPair, ...]


@dataclass(frozen=True)
class FoundCudnn:
    """A cuDNN layer, told by its opaque tensor or by the names of its saveable; `inside` is what stands for it."""

    scope: str
    cls: str
    layers: int
    units: int
    depth: int
    both: bool
    inside: FoundStack | FoundLayers


Found = FoundCell | FoundStack | FoundPair | FoundLayers | FoundCudnn


@dataclass(frozen=True)
class FoundLayer:
    """A layer that is not recurrent.

    Attributes:
        scope: What its variables' names share.
        kind: `Linear`, `Embedding`, `LayerNorm`, `Conv1d` or `Conv2d`.
        sizes: Constructor arguments, as Python text.
        parameters: torch's parameter name to variable.
        as_torch: Whether the weight's axes are in torch's order already.
    """

    scope: str
    kind: str
    sizes: tuple[str, ...]
    parameters: dict[str, StoredVariable]
    as_torch: bool = False


@dataclass
class Recognised:
    """What was told of a checkpoint.

    Attributes:
        recurrent: Cells and what they form.
        layers: Layers that are not recurrent.
        others: Variables that belong to none.
    """

    recurrent: list[Found]
    layers: list[FoundLayer]
    others: list[StoredVariable]


def cells_in(found: Found) -> Iterator[FoundCell]:
    """Every cell in it, lowest and forwards first."""
    if isinstance(found, FoundCell):
        yield found
    elif isinstance(found, FoundStack):
        for cell in found.cells:
            yield from cells_in(cell)
    elif isinstance(found, FoundPair):
        yield from cells_in(found.fw)
        if found.bw is not None:
            yield from cells_in(found.bw)
    elif isinstance(found, FoundLayers):
        for pair in found.pairs:
            yield from cells_in(pair)
    else:
        yield from cells_in(found.inside)


def recognise(inventory: Inventory, gates: Callable[[StoredVariable], int | None] = lambda _: None) -> Recognised:
    """Tell the cells and layers of a checkpoint.

    Args:
        inventory: Its variables.
        gates: How many gates a graph shows of the cell with this kernel; see `guessed_kind`.
    """
    cells, rest = _cells(inventory, gates)
    opaque = [key.name for key in inventory.others if key.role == "opaque"]
    recurrent = [_as_cudnn(found, opaque) for found in _Tree(cells).items("")]
    return Recognised(recurrent, *_layers(rest))


def _cells(
    inventory: Inventory, gates: Callable[[StoredVariable], int | None]
) -> tuple[dict[str, FoundCell], list[StoredVariable]]:
    groups: dict[str, dict[str, StoredVariable]] = {}
    for lookup, variable in inventory.variables.items():
        for suffix in CELL_SUFFIXES:
            if lookup.endswith("/" + suffix):
                groups.setdefault(lookup.removesuffix("/" + suffix), {})[suffix] = variable
    found: dict[str, FoundCell] = {}
    taken: set[str] = set()

    def kind_of(scope: str, members: Mapping[str, StoredVariable], guess: bool) -> Kind | None:
        shapes = {suffix: v.shape for suffix, v in members.items()}
        if not guess:
            return cell_kind(scope, shapes, objects=any(v.of_object for v in members.values()))
        shown = gates(members["kernel"]) if "kernel" in members else None
        driver = driver_of(scope)
        full = shown is None and driver is not None and any(other.startswith(driver + "/") for other in sure)
        return None if full else guessed_kind(scope, shapes, shown)

    # Scopes with more in them first, so that `gru_cell` comes before `gru_cell/gates`.
    ordered = sorted(groups, key=lambda scope: (-len(groups[scope]), scope))
    sure: list[str] = []
    for guess in (False, True):
        for scope in ordered:
            members = {suffix: v for suffix, v in groups[scope].items() if v.lookup not in taken}
            kind = None if scope in found else kind_of(scope, members, guess)
            if kind is not None:
                own = {suffix: v for suffix, v in members.items() if suffix in kind.suffixes}
                taken.update(v.lookup for v in own.values())
                found[scope] = FoundCell(scope, kind, own)
        sure = sure or list(found)
    rest = [v for v in inventory.variables.values() if v.lookup not in taken]
    order = {lookup: index for index, lookup in enumerate(inventory.variables)}
    first = {scope: min(order[v.lookup] for v in cell.variables.values()) for scope, cell in found.items()}
    more = _beside(found, rest)
    return {s: replace(found[s], more=tuple(more.get(s, ()))) for s in sorted(found, key=first.__getitem__)}, rest


def _beside(cells: Mapping[str, FoundCell], rest: list[StoredVariable]) -> dict[str, list[str]]:
    """What is stored in the scopes of cells that is no cell's, by scope."""
    more: dict[str, list[str]] = {}
    for variable in rest:
        parts = variable.lookup.split("/")
        for depth in range(len(parts) - 1, 0, -1):
            scope = "/".join(parts[:depth])
            if scope in cells:
                more.setdefault(scope, []).append("/".join(parts[depth:]))
                break
    return more


class _Tree:
    """Scopes of cells as a tree."""

    def __init__(self, cells: dict[str, FoundCell]) -> None:
        self.cells = cells
        self.children = tree_of(cells)

    def items(self, path: str) -> Iterator[Found]:
        """What lies at a scope and below it."""
        if path in self.cells:
            yield self.cells[path]
        whole = self._stack(path) or self._layers(path) or self._pair(path)
        if whole is not None:
            yield whole
            return
        for name in self.children.get(path, {}):
            yield from self.items(join(path, name))

    def _numbered(self, path: str) -> list[str]:
        """Paths of `cell_0`, `cell_1`, ... without a gap; empty when there is none, or something else beside."""
        names = self.children.get(path, {})
        numbers = sorted(int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name)))
        if not numbers or len(numbers) != len(names) or numbers != list(range(len(numbers))):
            return []
        return [join(path, f"cell_{number}") for number in numbers]

    def _only(self, path: str) -> Found | None:
        found = list(self.items(path))
        return found[0] if len(found) == 1 else None

    def _stack(self, path: str) -> Found | None:
        if not _STACK.fullmatch(path.rpartition("/")[2]):
            return None
        cells = [self._only(place) for place in self._numbered(path)]
        whole = tuple(cell for cell in cells if cell is not None)
        return FoundStack(path, whole) if cells and len(whole) == len(cells) and _feed_each_other(whole) else None

    def _layers(self, path: str) -> Found | None:
        pairs = [self._only(place) for place in self._numbered(path)]
        whole = tuple(pair for pair in pairs if isinstance(pair, FoundPair))
        return FoundLayers(path, whole) if pairs and len(whole) == len(pairs) else None

    def _pair(self, path: str) -> Found | None:
        names = set(self.children.get(path, {}))
        sides = next(
            ((f"forward_{m[1]}", f"backward_{m[1]}") for n in names if (m := _FORWARD.fullmatch(n))), ("fw", "bw")
        )
        if not names <= set(sides) or sides[0] not in names:
            return None
        fw, bw = (self._only(join(path, side)) if side in names else None for side in sides)
        if fw is None or (bw is None and (sides[1] in names or sides[1] != "bw")):
            return None
        return FoundPair(path, fw, bw)


def _feed_each_other(cells: tuple[Found, ...]) -> bool:
    """Whether each cell takes what the one below gives: not beneath wrappers that add inputs, such as attention."""
    inner = [cell.kind for cell in cells if isinstance(cell, FoundCell)]
    return len(inner) < len(cells) or all(above.depth == below.outputs for below, above in pairwise(inner))


_CUDNN = {
    "CudnnCompatibleLSTMCell": "CudnnLSTM",
    "CudnnCompatibleGRUCell": "CudnnGRU",
    "BasicRNNCell": "CudnnRNNTanh",
}


def _as_cudnn(found: Found, opaque: list[str]) -> Found:
    """A cuDNN layer in place of the cells that stand for it, where its opaque tensor lies beside them."""
    if not isinstance(found, FoundStack | FoundLayers):
        return found
    cells = list(cells_in(found))
    classes = {cell.kind.cls for cell in cells}
    units = {cell.kind.units for cell in cells}
    cls = _CUDNN.get(next(iter(classes))) if len(classes) == 1 else None
    both = isinstance(found, FoundLayers)
    if cls is None or len(units) != 1:
        return found
    outer = _around_cudnn(found.scope, both)
    # Its saveable writes below the scope around the layer; a layer that its first call built, below its own.
    scopes = [name.rpartition("/")[0] for name in opaque]
    named = [scope.rpartition("/")[2] for scope in scopes if scope and outer in (scope, scope.rpartition("/")[0])]
    if outer is None or not named:
        return found
    if cls == "CudnnRNNTanh" and any(name.startswith("cudnn_rnn_relu") for name in named):
        cls = "CudnnRNNRelu"
    size = len(found.pairs) if isinstance(found, FoundLayers) else len(found.cells)
    return FoundCudnn(outer, cls, size, units.pop(), cells[0].kind.depth, both, found)


def _around_cudnn(scope: str, both: bool) -> str | None:
    """The scope around a cuDNN layer whose saveable wrote this; None when it writes elsewhere."""
    tail = "stack_bidirectional_rnn" if both else "multi_rnn_cell"
    head, _, last = scope.rpartition("/")
    if last != tail:
        return None
    return head if both else re.sub(r"(?:^|/)rnn$", "", head)


#: Ends of the names of a dense layer's two variables where they share no scope.
_PAIRS = (("_w", "_b"), ("_W", "_b"), ("_weights", "_biases"), ("_kernel", "_bias"), ("_weight", "_bias"),
          ("_w", "_bias"), ("_W", "_B"), ("/kernel", "/bias"), ("/W", "/b"), ("/w", "/b"), ("/weight", "/bias"),
          ("/Matrix", "/Bias"), ("/Matrix", "/bias"))  # fmt: skip
#: The same for names that begin so: `W_out` and `b_out`, `w1` and `b1`.
_BEGINNINGS = (("W", "b"), ("w", "b"), ("weights", "biases"), ("weights", "bias"), ("weight", "bias"))
#: Cells that cannot be told whole from what is stored: their variables are no layers'.
_OTHER_CELLS = re.compile(
    rf"(?:^|/)(?:(?:conv(?:_\dd)?|phased|layer_norm)_lstm_cell|intersection_rnn_cell|{FOREIGN_CELLS})(?:_\d+)?/"
)
_UNNAMED = re.compile(r"(.*?)Variable(?:_(\d+))?")


def _layers(rest: list[StoredVariable]) -> tuple[list[FoundLayer], list[StoredVariable]]:
    recurrent = "/recurrent_kernel"  # what lies beside one that no cell has taken is a cell's
    others = {v.lookup.removesuffix(recurrent) for v in rest if v.lookup.endswith(recurrent)}
    left = {
        variable.lookup: variable
        for variable in rest
        if not _OTHER_CELLS.search(variable.lookup) and variable.lookup.rpartition("/")[0] not in others
    }
    within = [variable for variable in rest if variable.lookup not in left]
    order = list(left)
    found: list[FoundLayer] = []
    for lookup in order:
        layer = None if lookup not in left else _dense(lookup, left) or _norm(lookup, left) or _unnamed(lookup, left)
        if layer is not None:
            found.append(layer)
            for variable in layer.parameters.values():
                del left[variable.lookup]
    for lookup in order:
        table = left.get(lookup)
        if table is not None and len(table.shape) == 2 and re.search(r"embed|lookup", lookup, re.IGNORECASE):
            rows, columns = table.shape
            found.append(FoundLayer(lookup, "Embedding", (str(rows), str(columns)), {"weight": left.pop(lookup)}))
    place = {lookup: index for index, lookup in enumerate(order)}
    found.sort(key=lambda layer: min(place[v.lookup] for v in layer.parameters.values()))
    return found, [*left.values(), *within]


def _dense(lookup: str, left: dict[str, StoredVariable]) -> FoundLayer | None:
    for end, other in _PAIRS:
        for mine in (end, other):
            if not lookup.endswith(mine):
                continue
            stem = lookup[: -len(mine)]
            kernel, bias = left.get(stem + end), left.get(stem + other)
            if stem and kernel is not None and bias is not None:
                return _weighted(stem, kernel, bias)
    scope, _, last = lookup.rpartition("/")
    for begin, other in _BEGINNINGS:
        for mine in (begin, other):
            rest = last.removeprefix(mine)
            kernel, bias = left.get(join(scope, begin + rest)), left.get(join(scope, other + rest))
            if last.startswith(mine) and kernel is not None and bias is not None:
                word = rest.strip("_")
                return _weighted(join(scope, word if word.isalpha() else begin + rest), kernel, bias)
    alone = last == "kernel" and scope and len(left[lookup].shape) == 2
    return _weighted(scope, left[lookup], None) if alone else None


def _weighted(stem: str, kernel: StoredVariable, bias: StoredVariable | None) -> FoundLayer | None:
    shape, kinds = kernel.shape, {2: "Linear", 3: "Conv1d", 4: "Conv2d"}
    if len(shape) not in kinds:
        return None
    if bias is None:
        return FoundLayer(stem, kinds[len(shape)], (str(shape[-2]), str(shape[-1]), "bias=False"), {"weight": kernel})
    as_torch = len(shape) == 2 and bias.shape == shape[:1] != shape[1:]  # TF1's program transposes it
    if as_torch:
        shape = (shape[1], shape[0])
    if bias.shape != shape[-1:]:
        return None
    sizes = [str(shape[-2]), str(shape[-1])]
    if len(shape) > 2:
        window = shape[:-2]
        sizes.append(str(window[0]) if len(window) == 1 else str(window))
    return FoundLayer(stem, kinds[len(shape)], tuple(sizes), {"weight": kernel, "bias": bias}, as_torch)


def _norm(lookup: str, left: dict[str, StoredVariable]) -> FoundLayer | None:
    stem, _, last = lookup.rpartition("/")
    if last not in ("gamma", "beta") or join(stem, "moving_mean") in left:
        return None
    gamma, beta = left.get(join(stem, "gamma")), left.get(join(stem, "beta"))
    if not stem or gamma is None or beta is None or gamma.shape != beta.shape or len(gamma.shape) != 1:
        return None
    return FoundLayer(stem, "LayerNorm", (str(gamma.shape[0]),), {"weight": gamma, "bias": beta})


def _unnamed(lookup: str, left: dict[str, StoredVariable]) -> FoundLayer | None:
    """`Variable` and `Variable_1`: a matrix and a vector that were made one after the other and fit each other."""
    match = _UNNAMED.fullmatch(lookup)
    if match is None:
        return None
    following = f"{match[1]}Variable_{int(match[2] or 0) + 1}"
    kernel, bias = left[lookup], left.get(following)
    if bias is None or len(kernel.shape) != 2 or bias.shape != kernel.shape[-1:]:
        return None
    return _weighted(lookup, kernel, bias)
