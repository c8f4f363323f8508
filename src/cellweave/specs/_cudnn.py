"""cuDNN's recurrent layers as data: gate orders, canonical shapes, and what a TF1 checkpoint holds of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cellweave.specs._cells import CellSpec, GRUSpec, LSTMSpec, RNNSpec

CudnnMode = Literal["lstm", "gru", "rnn_tanh", "rnn_relu"]
#: Which of a gate's two matrices or biases: that of the inputs (`W`), that of the state (`R`), or both.
Sides = Literal["W", "R", "WR"]

#: Gates in cuDNN's order, by the letters of the cells' specs: an LSTM's `j` and a GRU's `c` are candidates.
_GATES: dict[str, str] = {"lstm": "ifjo", "gru": "ruc", "rnn_tanh": "h", "rnn_relu": "h"}
#: The cell whose checkpoint names TF1 saves a layer under.
_CELLS: dict[str, str] = {
    "lstm": "cudnn_compatible_lstm_cell",
    "gru": "cudnn_compatible_gru_cell",
    "rnn_tanh": "basic_rnn_cell",
    "rnn_relu": "basic_rnn_cell",
}
#: Per cell of a checkpoint: (suffix, gates of its columns in order, sides). Kernels have input rows above state rows.
_KERNELS: dict[str, tuple[tuple[str, str, Sides], ...]] = {
    "lstm": (("kernel", "ijfo", "WR"),),
    "gru": (
        ("gates/kernel", "ru", "WR"),
        ("candidate/input_projection/kernel", "c", "W"),
        ("candidate/hidden_projection/kernel", "c", "R"),
    ),
    "rnn_tanh": (("kernel", "h", "WR"),),
    "rnn_relu": (("kernel", "h", "WR"),),
}


@dataclass(frozen=True)
class CudnnTensorSpec:
    """A tensor that a TF1 checkpoint holds of a cuDNN layer.

    Attributes:
        name: Below the scope that is open around the layer.
        shape: Sizes in elements.
        place: `layer * directions + direction`.
        gates: The gates of its columns, in order.
        sides: "WR": a kernel's input rows above its state rows, a bias's sum of both; "W", "R": one of them alone.
        is_bias: Whether it is a bias.
    """

    name: str
    shape: tuple[int, ...]
    place: int
    gates: str
    sides: Sides
    is_bias: bool


@dataclass(frozen=True)
class CudnnSpec:
    """A stack of layers as cuDNN has it. A place is one direction of one layer: `layer * directions + direction`.

    Attributes:
        mode: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        layers, units: Their numbers.
        directions: 1, or 2: forwards, then backwards.
    """

    mode: CudnnMode
    layers: int
    units: int
    directions: int = 1

    @property
    def gates(self) -> str:
        """Gates in cuDNN's order."""
        return _GATES[self.mode]

    @property
    def places(self) -> int:
        """Layers times directions."""
        return self.layers * self.directions

    @property
    def cell(self) -> CellSpec:
        """The recurrence of every place."""
        if self.mode == "lstm":
            return LSTMSpec(self.units, gate_order=self.gates, joined_kernel=False)
        if self.mode == "gru":
            return GRUSpec(self.units, reset_after=True, gate_order=self.gates, joined_kernel=False)
        return RNNSpec(self.units, self.mode.removeprefix("rnn_"), joined_kernel=False)

    def width(self, place: int, depth: int) -> int:
        """Columns of a place's inputs, for inputs of `depth` columns at the lowest layer."""
        return depth if place < self.directions else self.directions * self.units

    def weight_shapes(self, depth: int) -> list[tuple[int, int]]:
        """Shapes of the canonical matrices: per place one W for each gate, then one R for each gate."""
        found: list[tuple[int, int]] = []
        for place in range(self.places):
            found += [(self.units, self.width(place, depth))] * len(self.gates)
            found += [(self.units, self.units)] * len(self.gates)
        return found

    def bias_shapes(self) -> list[list[int]]:
        """Shapes of the canonical biases: one for each canonical matrix, in the same order."""
        return [[self.units] for _ in range(2 * len(self.gates) * self.places)]

    def index(self, place: int, side: str, gate: str) -> int:
        """Where a matrix, or its bias, stands in the canonical lists; `side` is "W" or "R"."""
        return (2 * place + "WR".index(side)) * len(self.gates) + self.gates.index(gate)

    def opaque_size(self, depth: int) -> int:
        """Elements of the opaque kernel: all canonical matrices, then all canonical biases."""
        return sum(rows * columns for rows, columns in self.weight_shapes(depth)) + sum(
            size for (size,) in self.bias_shapes()
        )

    def depth_of_opaque(self, size: int) -> int | None:
        """The depth whose opaque kernel has so many elements; None where no depth has."""
        per_column = self.directions * len(self.gates) * self.units
        depth, rest = divmod(size - self.opaque_size(0), per_column)
        return depth if rest == 0 and depth > 0 else None

    def cell_path(self, place: int) -> str:
        """Scope of a place's cell in a TF1 checkpoint, below the scope around the layer."""
        layer, direction = divmod(place, self.directions)
        if self.directions == 1:
            return f"rnn/multi_rnn_cell/cell_{layer}/{_CELLS[self.mode]}"
        side = ("fw", "bw")[direction]
        return f"stack_bidirectional_rnn/cell_{layer}/bidirectional_rnn/{side}/{_CELLS[self.mode]}"

    def checkpoint_tensors(self, depth: int) -> tuple[CudnnTensorSpec, ...]:
        """What TF1's saveable writes: all kernels, layer by layer and forwards first, then all biases."""
        kernels, biases = [], []
        for place in range(self.places):
            rows = {"W": self.width(place, depth), "R": self.units}
            for suffix, gates, sides in _KERNELS[self.mode]:
                name, columns = f"{self.cell_path(place)}/{suffix}", len(gates) * self.units
                shape = (sum(rows[side] for side in sides), columns)
                kernels.append(CudnnTensorSpec(name, shape, place, gates, sides, is_bias=False))
                name = name.removesuffix("kernel") + "bias"
                biases.append(CudnnTensorSpec(name, (columns,), place, gates, sides, is_bias=True))
        return (*kernels, *biases)

    def depth_of_checkpoint(self, shape: tuple[int, ...]) -> int:
        """The depth of a layer whose first checkpoint tensor has this shape; not above zero where it fits none."""
        return shape[0] - self.units if len(shape) == 2 else 0
