"""Random compositions of cells and wrappers, as plain trees that build the same cell again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import cellweave as cw
from cellweave import keras
from helpers import nest

DTYPE = torch.float64

#: Same examples on every machine; the number of examples is each test's own.
PROFILE: dict[str, Any] = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}


def few(examples: int) -> Any:
    """Hypothesis settings for a property."""
    return settings(max_examples=examples, **PROFILE)


def spread(inputs: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """A residual function for any two widths."""
    return outputs + 0.5 * inputs.mean(dim=1, keepdim=True)


def every_leaf(state: Any) -> bool:
    """Visitor: drop everything."""
    return True


def no_lstm(state: Any) -> bool:
    """Visitor: leave whole LSTM states alone."""
    return not isinstance(state, cw.LSTMStateTuple)


def first_child(state: Any) -> Any:
    """Visitor: of every level only the first child."""
    if isinstance(state, tuple | list) and not isinstance(state, cw.LSTMStateTuple):
        return type(state)(k == 0 for k in range(len(state)))
    return True


@dataclass(frozen=True)
class Tree:
    """A cell to be: its kind, its options, the trees inside."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    inside: tuple[Tree, ...] = ()

    def walk(self) -> list[Tree]:
        """This node and all below it."""
        return [self, *(node for child in self.inside for node in child.walk())]

    def has(self, *kinds: str) -> bool:
        """Whether any node is of these kinds."""
        return any(node.kind in kinds for node in self.walk())

    @property
    def one_tensor(self) -> bool:
        """Whether its state is a single tensor."""
        if self.kind in LEAVES:
            return self.kind in ("rnn", "gru", "k_rnn", "k_gru") or self.options.get("state_is_tuple") is False
        if self.kind == "multi":
            return not self.options["state_is_tuple"]
        return self.inside[0].one_tensor

    @property
    def has_zero_state(self) -> bool:
        """Whether `zero_state` works: Keras-style cells and TF2's wrappers of them have none."""
        if self.kind in LEAVES:
            return not self.kind.startswith("k_")
        return self.inside[0].has_zero_state if self.kind.startswith("v2_") else True

    def inside_v1(self) -> Tree:
        """This tree, or as much of it as TF1's wrappers and stacks take: they ask for a `zero_state`."""
        return self.inside[0].inside_v1() if self.kind.startswith("v2_") and not self.has_zero_state else self

    def make(self, depth: int) -> Any:
        """The cell, for inputs of this depth."""
        if self.kind in LEAVES:
            return LEAVES[self.kind](**self.options, dtype="float64")
        if self.kind == "multi":
            cells = []
            for child in self.inside:
                cells.append(child.make(depth))
                depth = cells[-1].output_size
            if self.options["twice"] and depth == (cells[-2].output_size if len(cells) > 1 else None):
                cells.append(cells[-1])  # the same object again, where its depth allows
            return cw.MultiRNNCell(cells, self.options["state_is_tuple"])
        options = dict(self.options)
        if options.get("residual_fn") == "sum":
            inside = self.inside[0].make(depth)
            return WRAPPERS[self.kind](inside, None if inside.output_size == depth else spread)
        if self.kind in DROPOUTS:
            if options.get("variational_recurrent"):
                options |= {"input_size": depth, "dtype": "float64"}
            for name, value in options.items():
                if value == "fed":
                    options[name] = torch.tensor(0.6, dtype=DTYPE)
        return WRAPPERS[self.kind](self.inside[0].make(depth), **options)


LEAVES: dict[str, Any] = {
    "rnn": cw.BasicRNNCell,
    "gru": cw.GRUCell,
    "basic": cw.BasicLSTMCell,
    "lstm": cw.LSTMCell,
    "k_rnn": keras.SimpleRNNCell,
    "k_gru": keras.GRUCell,
    "k_lstm": keras.LSTMCell,
}
WRAPPERS: dict[str, Any] = {
    "dropout": cw.DropoutWrapper,
    "residual": cw.ResidualWrapper,
    "device": cw.DeviceWrapper,
    "v2_dropout": cw.RNNCellDropoutWrapper,
    "v2_residual": cw.RNNCellResidualWrapper,
    "v2_device": cw.RNNCellDeviceWrapper,
}
DROPOUTS = ("dropout", "v2_dropout")

_units = st.integers(1, 3)
_activation = st.sampled_from([None, "tanh", "softsign", "sigmoid"])


@st.composite
def _leaf(draw: Any, one_tensor: bool) -> Tree:
    kinds = ["rnn", "gru", "basic", "lstm", "k_rnn", "k_gru"] + ([] if one_tensor else ["k_lstm"])
    kind = draw(st.sampled_from(kinds))
    options: dict[str, Any] = {"units" if kind.startswith("k_") else "num_units": draw(_units)}
    options["activation"] = draw(_activation)
    if kind == "k_gru":
        options["reset_after"] = draw(st.booleans())
    if kind.startswith("k_"):
        options["use_bias"] = draw(st.booleans())
    if kind in ("basic", "lstm"):
        options["state_is_tuple"] = False if one_tensor else draw(st.booleans())
        options["forget_bias"] = draw(st.sampled_from([0.0, 1.0]))
    if kind == "lstm":
        options["use_peepholes"] = draw(st.booleans())
        options["num_proj"] = draw(st.none() | _units)
        options["cell_clip"] = draw(st.sampled_from([None, 0.7]))
        options["proj_clip"] = draw(st.sampled_from([None, 0.4]))
    return Tree(kind, options)


@st.composite
def _dropout(draw: Any, child: Tree, kind: str, without: tuple[str, ...]) -> Tree:
    keep = st.sampled_from([1.0, 0.5, 0.8, 0.3] + ([] if "fed" in without else ["fed"]))
    options: dict[str, Any] = {name: draw(keep) for name in ("input_keep_prob", "output_keep_prob", "state_keep_prob")}
    options["seed"] = draw(st.integers(-1, 3))
    modes = [False] * ("per_step" not in without) + [True] * ("variational" not in without)
    options["variational_recurrent"] = draw(st.sampled_from(modes))
    options["dropout_state_filter_visitor"] = draw(st.sampled_from([None, every_leaf, no_lstm, first_child]))
    if kind == "dropout":
        options["mask_per_row"] = draw(st.booleans())
    return Tree(kind, options, (child,))


#: What a node may be, as often as it stands here.
_KINDS = [
    *["dropout"] * 4, *["multi"] * 4, *["leaf"] * 2, "residual", "device",
    *["v2_dropout"] * 2, "v2_residual", "v2_device",
]  # fmt: skip


@st.composite
def trees(draw: Any, levels: int = 3, one_tensor: bool = False, without: tuple[str, ...] = ()) -> Tree:
    """Cells and wrappers in each other, at most `levels` deep.

    `without`: kinds of nodes to leave out; also "fed", "variational", "per_step" for forms of dropout.
    """
    kinds = [kind for kind in _KINDS if kind not in without]
    kind = draw(st.sampled_from(kinds)) if levels else "leaf"
    if kind == "leaf":
        return draw(_leaf(one_tensor))
    if kind == "multi":
        joined = one_tensor or draw(st.booleans())
        inside = draw(st.lists(trees(levels - 1, joined, without), min_size=1, max_size=3))
        options = {"state_is_tuple": not joined, "twice": draw(st.booleans())}
        return Tree(kind, options, tuple(child.inside_v1() for child in inside))
    child = draw(trees(levels - 1, one_tensor, without))
    child = child if kind.startswith("v2_") else child.inside_v1()
    if kind in DROPOUTS:
        return draw(_dropout(child, kind, without))
    if kind.endswith("device"):
        return Tree(kind, {"device": draw(st.sampled_from(["cpu", "/cpu:0"]))}, (child,))
    return Tree(kind, {"residual_fn": draw(st.sampled_from([spread, "sum", "sum"]))}, (child,))


@dataclass(frozen=True)
class Case:
    """A composition, and sizes of a sequence for it."""

    tree: Tree
    batch: int
    time: int
    depth: int
    lengths: list[int] | None

    def cell(self) -> Any:
        """A new cell; weights are the same every time, streams are at their start."""
        cw.set_random_seed(None)
        torch.manual_seed(7)
        cell = self.tree.make(self.depth)
        cell.build([self.batch, self.depth])
        return cell

    def inputs(self, steps: int | None = None) -> torch.Tensor:
        """`[B, T, D]`."""
        shape = (self.batch, self.time if steps is None else steps, self.depth)
        return torch.randn(shape, dtype=DTYPE, generator=torch.Generator().manual_seed(3))


@st.composite
def cases(draw: Any, *without: str, levels: int = 3, full_length: bool = False) -> Case:
    """Compositions with sizes and, unless every row is to be whole, lengths. `without`: see `trees`."""
    tree, batch, time = draw(trees(levels, without=without)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    lengths = None
    if not full_length and draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, time), min_size=batch, max_size=batch))
    return Case(tree, batch, time, draw(st.integers(1, 3)), lengths)


def start_again() -> None:
    """Streams that the whole process shares start anew."""
    cw.set_random_seed(None)


def results(out_and_state: Any) -> list[torch.Tensor]:
    """Leaves of outputs and states."""
    return nest.flatten(out_and_state)


def tables(cell: Any) -> list[torch.Tensor]:
    """Where every stream stands."""
    return [m.get_extra_state() for m in cell.modules() if isinstance(m, cw.DropoutWrapper | cw.RNNCellDropoutWrapper)]


def assert_same(got: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Bit for bit, NaN equal to NaN."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
