"""What each cell is, as frozen data: variants, gate orders, weight shapes and starting values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cellweave._errors import ArgumentError
from cellweave._types import Activation, Size
from cellweave.specs._states import LSTMStateTuple

WeightKind = Literal["kernel", "recurrent_kernel", "bias", "peephole", "projection", "norm", "rhythm"]
#: What TF1 calls the parts that a layer normalization stands on, by gate; `c` is the cell itself.
NORM_NAMES = {"i": "input", "j": "transform", "f": "forget", "o": "output", "c": "state"}
#: The same for a GRU; `h` is the candidate's recurrent product where the reset comes after it.
GRU_NORM_NAMES = {"r": "reset", "u": "update", "c": "candidate", "h": "recurrent"}
#: What a layer normalization adds to a row's variance. Source: TF1 `tf.contrib.layers.layer_norm`.
NORM_EPSILON = 1e-12


@dataclass(frozen=True)
class WeightSpec:
    """One weight of a cell.

    Attributes:
        name: TF1's suffix, such as `gates/kernel`.
        shape: Sizes in elements.
        kind: What the weight does.
        fill: Starting value, or that of each of its equal parts (a tuple), whatever a scope's initializer is; None: the
            initializer decides.
        pieces: Slices along axis 0 in a TF1 checkpoint.
    """

    name: str
    shape: tuple[int, ...]
    kind: WeightKind
    fill: float | tuple[float, ...] | None = None
    pieces: int = 1


@dataclass(frozen=True)
class OneState:
    """Sizes of a cell whose state is one matrix as wide as its output."""

    units: int
    activation: Activation = "tanh"

    @property
    def state_size(self) -> Size:
        """Units."""
        return self.units

    @property
    def output_size(self) -> int:
        """Units."""
        return self.units


@dataclass(frozen=True)
class RNNSpec(OneState):
    """`h' = act(x W + h R + b)`: TF1 BasicRNNCell, Keras SimpleRNNCell.

    Attributes:
        transposed: The kernels lie as in torch.nn, a row for each unit: `kernel` `[H, I]`, `recurrent_kernel` `[H, H]`.
            Needs `joined_kernel=False`.
        layer_norm: The sum is normalized before its activation (Ba et al. 2016).
        norm_epsilon: Added to a row's variance.
    """

    joined_kernel: bool = True
    use_bias: bool = True
    transposed: bool = False
    layer_norm: bool = False
    norm_epsilon: float = NORM_EPSILON

    def __post_init__(self) -> None:
        """Check what goes together."""
        _check_layout("RNNSpec", self.joined_kernel, self.transposed)

    @property
    def gate_count(self) -> int:
        """One."""
        return 1

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        kernels = _kernels(self.joined_kernel, depth, self.units, self.units, self.transposed)
        found = kernels + _bias(self.use_bias, (self.units,), 0.0)
        return found + _norms(("norm",) if self.layer_norm else (), self.units)


@dataclass(frozen=True)
class GRUSpec(OneState):
    """The gated recurrent unit; `update` keeps the old state in both forms.

    Attributes:
        reset_after: False: the reset gate meets h before the candidate's product (TF1, Cho et al. 2014);
            True: after it, with a recurrent bias of its own (Keras, cuDNN).
        gate_order: Columns of Keras's kernels: `r` reset, `u` update, `c` candidate; TF1's layout has "ruc" only.
        joined_kernel: TF1's layout: `gates/*` and `candidate/*`, inputs above state rows (with `reset_after`, that of
            TF1's `CudnnCompatibleGRUCell`, whose candidate has two projections); else Keras's `kernel`,
            `recurrent_kernel`, `bias`.
        transposed: These lie as in torch.nn, a row for each unit: `kernel` `[3H, I]`, `recurrent_kernel` `[3H, H]`.
        layer_norm: The sums of both gates and of the candidate are normalized (Ba et al. 2016); with `reset_after` the
            candidate's two products each by itself.
        norm_epsilon: Added to a row's variance.
    """

    recurrent_activation: Activation = "sigmoid"
    reset_after: bool = False
    gate_order: str = "ruc"
    joined_kernel: bool = True
    use_bias: bool = True
    transposed: bool = False
    layer_norm: bool = False
    norm_epsilon: float = NORM_EPSILON

    def __post_init__(self) -> None:
        """Check what goes together."""
        _check_layout("GRUSpec", self.joined_kernel, self.transposed)
        _check_order("GRUSpec", "gate_order", self.gate_order, "ruc")
        if self.joined_kernel and self.gate_order != "ruc":
            raise ArgumentError(
                f"GRUSpec: expected gate_order 'ruc' with joined_kernel=True, got {self.gate_order!r}. "
                "Other orders have joined_kernel=False."
            )
        if self.joined_kernel and not self.use_bias:
            raise ArgumentError(
                "GRUSpec: expected use_bias=True with joined_kernel=True, got False. TF1's layout has both biases; one "
                "without has joined_kernel=False."
            )

    @property
    def gate_count(self) -> int:
        """Three: r, u and the candidate."""
        return 3

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        n = self.units
        if self.joined_kernel:
            gates = (
                WeightSpec("gates/kernel", (depth + n, 2 * n), "kernel"),
                WeightSpec("gates/bias", (2 * n,), "bias", 1.0),
            )
            found = gates + (_projections(depth, n) if self.reset_after else _candidate(depth, n))
        else:
            bias_shape = (2, 3 * n) if self.reset_after else (3 * n,)
            found = _kernels(False, depth, n, 3 * n, self.transposed) + _bias(self.use_bias, bias_shape, 0.0)
        return found + _norms(gru_norms(self), n)


@dataclass(frozen=True)
class LSTMSpec:
    """The long short-term memory with TF1's options.

    Attributes:
        gate_order: Columns of the kernel: `i` input, `j` candidate, `f` forget, `o` output.
        forget_bias: Added to the forget gate when run, never stored.
        peepholes: Diagonal weights from c to the gates (Gers et al. 2002); the output gate sees the new c.
        cell_clip, proj_clip: Bounds on c and on the projected h; None: no bound.
        projection: Width of the projected h (Sak et al. 2014); None: no projection.
        unit_forget_bias: Keras: the stored bias starts at one for the forget gate.
        peephole_order: In which order the peepholes are made; a coupled cell has none for `i`.
        clip_passes_gradient: The bound on c lets the whole gradient through (TF1's block cells), not only inside it.
        coupled: The input gate is one minus the forget gate (Greff et al. 2015); `gate_order` has no `i` then.
        layer_norm: Each gate and c are normalized (Ba et al. 2016).
        norm_gain, norm_shift: What gammas and betas start from.
        transposed: With `joined_kernel=False`: weights lie as in torch.nn, a row for each unit: `kernel` `[4H, I]`,
            `recurrent_kernel` `[4H, P]`, `projection/kernel` `[P, H]`.
        norm_epsilon: Added to a row's variance.
    """

    units: int
    activation: Activation = "tanh"
    recurrent_activation: Activation = "sigmoid"
    gate_order: str = "ijfo"
    forget_bias: float = 0.0
    peepholes: bool = False
    cell_clip: float | None = None
    projection: int | None = None
    proj_clip: float | None = None
    joined_kernel: bool = True
    use_bias: bool = True
    unit_forget_bias: bool = False
    unit_pieces: int = 1
    proj_pieces: int = 1
    peephole_order: str = "fio"
    clip_passes_gradient: bool = False
    coupled: bool = False
    layer_norm: bool = False
    norm_gain: float = 1.0
    norm_shift: float = 0.0
    transposed: bool = False
    norm_epsilon: float = NORM_EPSILON

    def __post_init__(self) -> None:
        """Check what goes together."""
        _check_layout("LSTMSpec", self.joined_kernel, self.transposed)
        _check_order("LSTMSpec", "gate_order", self.gate_order, "fjo" if self.coupled else "fijo")
        _check_order("LSTMSpec", "peephole_order", self.peephole_order, "fio")

    @property
    def output_size(self) -> int:
        """Width of h: the projection's, else units."""
        return self.units if self.projection is None else self.projection

    @property
    def state_size(self) -> Size:
        """Widths of c and h."""
        return LSTMStateTuple(self.units, self.output_size)

    @property
    def gate_count(self) -> int:
        """Four, or three when coupled."""
        return len(self.gate_order)

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""
        n, m, columns = self.units, self.output_size, len(self.gate_order) * self.units
        if self.joined_kernel:
            kernels: tuple[WeightSpec, ...] = (
                WeightSpec("kernel", (depth + m, columns), "kernel", pieces=self.unit_pieces),
            )
        else:
            kernels = _kernels(False, depth, m, columns, self.transposed)
        fill = tuple(float(self.unit_forget_bias and gate == "f") for gate in self.gate_order)
        found = kernels + _bias(self.use_bias, (columns,), fill)
        found += tuple(norm for gate in self.gate_order for norm in self._norm(gate))
        if self.peepholes:
            gates = [gate for gate in self.peephole_order if gate in self.gate_order]
            found += tuple(WeightSpec(f"w_{gate}_diag", (n,), "peephole") for gate in gates)
        found += self._norm("c")
        if self.projection is not None:
            shape = (m, n) if self.transposed else (n, m)
            found += (WeightSpec("projection/kernel", shape, "projection", pieces=self.proj_pieces),)
        return found

    def _norm(self, part: str) -> tuple[WeightSpec, ...]:
        names = (NORM_NAMES[part],) if self.layer_norm else ()
        return _norms(names, self.units, self.norm_gain, self.norm_shift)


CellSpec = RNNSpec | GRUSpec | LSTMSpec


def gru_norms(spec: GRUSpec) -> tuple[str, ...]:
    """Names of a GRU's layer normalizations, in the order r, u, c, h. No method: a trace cannot call one of a spec."""
    parts = ("ruch" if spec.reset_after else "ruc") if spec.layer_norm else ""
    return tuple([GRU_NORM_NAMES[part] for part in parts])


def _candidate(depth: int, n: int) -> tuple[WeightSpec, ...]:
    return (
        WeightSpec("candidate/kernel", (depth + n, n), "kernel"),
        WeightSpec("candidate/bias", (n,), "bias", 0.0),
    )


def _projections(depth: int, n: int) -> tuple[WeightSpec, ...]:
    """The candidate's weights where the reset comes after its product."""
    return (
        WeightSpec("candidate/input_projection/kernel", (depth, n), "kernel"),
        WeightSpec("candidate/hidden_projection/kernel", (n, n), "kernel"),
        WeightSpec("candidate/input_projection/bias", (n,), "bias", 0.0),
        WeightSpec("candidate/hidden_projection/bias", (n,), "bias", 0.0),
    )


def _kernels(joined: bool, depth: int, hidden: int, columns: int, transposed: bool) -> tuple[WeightSpec, ...]:
    if joined:
        return (WeightSpec("kernel", (depth + hidden, columns), "kernel"),)
    return (
        WeightSpec("kernel", (columns, depth) if transposed else (depth, columns), "kernel"),
        WeightSpec("recurrent_kernel", (columns, hidden) if transposed else (hidden, columns), "recurrent_kernel"),
    )


def _check_layout(name: str, joined: bool, transposed: bool) -> None:
    if joined and transposed:
        raise ArgumentError(
            f"{name}: expected joined_kernel=False with transposed=True, got True. torch.nn's layout has two kernels."
        )


def _check_order(name: str, what: str, order: str, gates: str) -> None:
    if sorted(order) != sorted(gates):
        raise ArgumentError(f"{name}: expected {what} with each of {', '.join(gates)} once, got {order!r}.")


def _norms(names: tuple[str, ...], units: int, gain: float = 1.0, shift: float = 0.0) -> tuple[WeightSpec, ...]:
    starts = {"gamma": gain, "beta": shift}
    return tuple(WeightSpec(f"{name}/{k}", (units,), "norm", v) for name in names for k, v in starts.items())


def _bias(present: bool, shape: tuple[int, ...], fill: float | tuple[float, ...]) -> tuple[WeightSpec, ...]:
    return (WeightSpec("bias", shape, "bias", fill),) if present else ()
