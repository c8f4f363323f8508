"""Whether a cell's step in a graph computes what its class computes: both are evaluated for the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from cellweave.checkpoint import Node
from cellweave.transfer._graph_activations import ACTIVATIONS, LEAKY_SLOPE
from cellweave.transfer._graph_reader import ADDING, GraphReader, hands_on, joined_parts, node_of, parts_of, tensor_name
from cellweave.transfer._recognise import FoundCell

Array = npt.NDArray[np.float64]

#: Values whose difference is one of rounding: constants of a graph have float32's digits, or float16's.
_NEAR = 2e-3
#: Operations that are followed from one output, at most; a step has some thirty.
_MOST_NODES = 200
#: Operations that choose among values and move them.
_MOVING = (
    "Select", "SelectV2", "Reshape", "Gather", "GatherV2", "GatherNd", "Slice", "StridedSlice", "Concat", "ConcatV2",
    "Pack", "Unpack", "Split", "Transpose", "ExpandDims", "Squeeze", "Tile", "Pad",
)  # fmt: skip
#: Operations that give a loop's variable, or a branch what is outside of it.
_LOOPING = ("Merge", "Switch", "RefSwitch")
#: As many outputs of those that move are followed.
_MOST_PARTS = 8


def _of_torch(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Array], Array]:
    return lambda x: function(torch.tensor(x)).numpy()


#: By the names that `activated` gives.
_TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu, "relu6": F.relu6, "elu": F.elu, "selu": F.selu,
    "softplus": F.softplus, "softsign": F.softsign, "exponential": torch.exp, "softmax": partial(torch.softmax, dim=-1),
    "linear": torch.clone, "swish": F.silu, "leaky_relu": partial(F.leaky_relu, negative_slope=LEAKY_SLOPE),
}  # fmt: skip
_FUNCTIONS = {name: _of_torch(function) for name, function in _TORCH.items()}
_sigmoid = _FUNCTIONS["sigmoid"]
_ONE: dict[str, Callable[[Array], Array]] = {
    **{op: _FUNCTIONS[name] for op, name in ACTIVATIONS.items()},
    "LeakyRelu": _FUNCTIONS["leaky_relu"], "Neg": np.negative, "Square": np.square,
}  # fmt: skip
_TWO: dict[str, Callable[[Array, Array], Array]] = {
    **dict.fromkeys(ADDING, np.add), "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
    "Maximum": np.maximum, "Minimum": np.minimum,
}  # fmt: skip


class _Values:
    """Values of the tensors that an output is made of.

    What comes from nothing that is given gets numbers of its own: a state, however it was made.
    """

    def __init__(self, reader: GraphReader, units: int, given: Mapping[str, Array]) -> None:
        self.reader, self.units = reader, units
        self._rng = np.random.default_rng(5)
        self._given = given
        self._known: dict[str, Array] = dict(given)
        self._from_given, self._constant = set(given), set[str]()
        self._left = _MOST_NODES

    def draw(self, *shape: int) -> Array:
        """New numbers, in which clips and kinks of activations show."""
        return self._rng.normal(scale=2.0, size=shape)

    @property
    def whole(self) -> bool:
        """Whether all was followed."""
        return self._left >= 0

    def states(self) -> Iterator[Array]:
        """Every value so far that may be a cell's state."""
        return (value for value in list(self._known.values()) if value.shape[-1:] == (self.units,))

    def of(self, tensor: str) -> Array:
        """The value of a tensor."""
        name = tensor_name(tensor)
        if name not in self._known:
            node = self.reader.graph[name.split(":")[0]]
            try:
                value = self._computed(node, name)
            except ValueError:  # of sizes that do not fit: something has numbers of its own that is wider
                value = None
            self._known[name] = self._kept(node, name, value)
        return self._known[name]

    def _kept(self, node: Node, name: str, value: Array | None) -> Array:
        sources = [tensor_name(made) for made in node.inputs if not made.startswith("^")]
        if value is not None and (node.op in _LOOPING or self._from_given.intersection(sources)):
            self._from_given.add(name)
            return value
        if value is not None and self._constant.issuperset(sources):
            self._constant.add(name)
            return value
        return self.draw(1, self.units)

    def _computed(self, node: Node, name: str) -> Array | None:
        self._left -= 1
        inputs = [made for made in node.inputs if not made.startswith("^")]
        if self._left < 0 or any(made.split(":")[0] not in self.reader.graph for made in inputs):
            return None
        if node.op in _LOOPING:  # a loop's variable, or what a branch is given
            made = self.reader.maker(name)
            return None if made is None else self._given.get(made.name)
        if hands_on(node) and inputs:
            return self.of(inputs[0])
        if node.op == "Const":
            constant = node.attrs.get("value")
            fits = isinstance(constant, np.ndarray) and constant.ndim < 2 and constant.dtype.kind == "f"
            return np.asarray(constant, np.float64) if fits else None
        if node.op in _ONE and inputs:
            return _ONE[node.op](self.of(inputs[0]))
        if node.op in _TWO:
            return _TWO[node.op](self.of(inputs[0]), self.of(inputs[1]))
        if node.op == "ClipByValue":
            return np.clip(*(self.of(made) for made in inputs[:3]))
        if node.op == "Split":
            return self._split(node, inputs[1], name)
        parts = parts_of(node)
        return np.concatenate([self.of(part) for part in parts], -1) if parts else None

    def _split(self, node: Node, tensor: str, name: str) -> Array | None:
        whole, parts, place = self.of(tensor), node.attrs.get("num_split"), int(name.partition(":")[2] or 0)
        if not isinstance(parts, int) or place >= parts:
            return None
        return np.split(whole, parts, -1)[place]


def lstm_step(
    reader: GraphReader, cell: FoundCell, summed: Node, output: Node, options: Mapping[str, str]
) -> bool | None:
    """Whether what an LSTM gives, before its projection, is what its class computes from gates and a state.

    Args:
        reader: The graph.
        cell: The cell.
        summed: The operation that gives the gates.
        output: The one that gives the output.
        options: The constructor arguments that were read.
    Returns:
        None where the graph does not tell.
    """
    activation = _FUNCTIONS.get(options.get("activation", "").strip("'"))
    bias = 0.0 if cell.kind.cls == "CudnnCompatibleLSTMCell" else options.get("forget_bias")
    if activation is None or bias is None:
        return None
    units = cell.kind.units
    draws = np.random.default_rng(3)
    z = draws.normal(scale=2.0, size=(1, 4 * units))
    peepholes = {gate: np.zeros(units) for gate in "fio"}
    given = {summed.name: z}
    for gate in peepholes:
        if (variable := cell.variables.get(f"w_{gate}_diag")) is not None:
            peepholes[gate] = given[node_of(reader, variable)] = draws.normal(size=units)
    values = _Values(reader, units, given)
    found = values.of(output.name)
    if not values.whole:
        return None
    i, j, f, o = np.split(z, 4, -1)
    clip = options.get("cell_clip", "None")
    bound = np.inf if clip == "None" else float(clip)
    for c in values.states():
        kept = _sigmoid(f + float(bias) + peepholes["f"] * c) * c
        new = np.clip(kept + _sigmoid(i + peepholes["i"] * c) * activation(j), -bound, bound)
        if _alike(_sigmoid(o + peepholes["o"] * new) * activation(new), found):
            return True
    return False


def gru_step(
    reader: GraphReader, cell: FoundCell, summed: Node, output: Node, options: Mapping[str, str]
) -> bool | None:
    """The same for a GRU, whose candidate is the sum that is given."""
    activation = _FUNCTIONS.get(options.get("activation", "").strip("'"))
    gates = reader.user(node_of(reader, cell.variables["gates/kernel"]), "MatMul")
    product = reader.maker(summed.inputs[0])
    parts = () if product is None or product.op != "MatMul" else joined_parts(reader, product)
    if activation is None or gates is None or len(parts) < 2:
        return None
    first = reader.user(gates.name, *ADDING) or gates
    units = cell.kind.units
    draws = np.random.default_rng(3)
    z, candidate = draws.normal(scale=2.0, size=(1, 2 * units)), draws.normal(scale=2.0, size=(1, units))
    values = _Values(reader, units, {first.name: z, summed.name: candidate})
    found, reset = values.of(output.name), values.of(parts[-1])
    if not values.whole:
        return None
    r, u = np.split(_sigmoid(z), 2, -1)
    return any(_alike(u * h + (1 - u) * activation(candidate), found) and _alike(r * h, reset) for h in values.states())


def _alike(one: Array, other: Array) -> bool:
    return one.shape == other.shape and bool(np.all(np.abs(one - other) <= _NEAR * (1 + np.abs(one))))


def is_changed(reader: GraphReader, product: Node, output: Node, memory: Node | None = None) -> bool:
    """Whether a cell's state becomes another on its way to the next step, as zoneout and resets make it.

    Args:
        reader: The graph.
        product: The product of the cell with inputs and state.
        output: The operation that gives the output.
        memory: The one that gives an LSTM's c.
    """
    way = _way_back(reader, output, product)
    if way is None:
        return reader.comes_back(product)
    return way == "NextIteration" and memory is not None and _way_back(reader, memory, product) is None


def _way_back(reader: GraphReader, node: Node, product: Node) -> str | None:
    """The operation by which a tensor is the next step's state, past those that choose and move values."""
    seen: set[str] = set()
    open_names = [node.name]
    while open_names:
        for user, place in reader.uses(open_names.pop()):
            if user.op == "NextIteration" or reader.is_joined_for(user, place, product):
                return user.op
            if user.op in _MOVING and user.name not in seen:
                seen.add(user.name)
                open_names += [f"{user.name}:{index}" for index in range(_MOST_PARTS)]
    return None
