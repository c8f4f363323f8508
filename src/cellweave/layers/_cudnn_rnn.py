"""What TF1's cuDNN layers share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cellweave import _nest
from cellweave._checks import check_positive_int, check_same_dtype
from cellweave._errors import ArgumentError, ArgumentTypeError, OrderError, ScopeError, ShapeError
from cellweave._types import DTypeLike, Nest, ShapeLike, as_dtype, dtype_name, shape_dims
from cellweave.initializers import Constant, GlorotUniform, deserialize, serialize
from cellweave.layers._autocast import autocast_dtype, cast
from cellweave.layers._cudnn_conversions import CudnnConversions
from cellweave.layers._cudnn_direction import CudnnDirection
from cellweave.layers._cudnn_runs import Result, States, plan_of_layers, refusing_gradients, run_layers
from cellweave.layers._cudnn_saveable import CudnnSaveable
from cellweave.layers._cudnn_torch import parameter_names
from cellweave.layers._sequence import as_lengths
from cellweave.scopes import Layer, get_variable_scope
from cellweave.scopes._initializers import as_tensor_of
from cellweave.specs import CudnnMode, CudnnSpec, GRUSpec, LSTMStateTuple
from cellweave.weave import Plan
from cellweave.wrappers import DropoutWrapper

DIRECTIONS = ("unidirectional", "bidirectional")
INPUT_MODES = ("linear_input", "skip_input", "auto_select")
_DTYPES = (torch.float16, torch.float32, torch.float64)
#: Masks of place p start from the op seed `(seed << 16) + p`, so that no two places draw alike.
_PLACE_BITS = 16


class NoTupleError(ArgumentError, ArgumentTypeError):
    """An `initial_state` that is no tuple: a ValueError in TF1's early releases, a TypeError in its later ones."""


class GateParts:
    """Starting value of matrices or biases that lie below each other: each by a call of its own, as TF1 drew them."""

    def __init__(self, initializer: Any, parts: int, where: str) -> None:
        self._initializer, self._parts, self._where = initializer, parts, where

    def __call__(self, shape: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor of `shape` and `dtype`."""
        part = (shape[0] // self._parts, *shape[1:])
        return torch.cat([as_tensor_of(self._initializer, part, dtype, self._where) for _ in range(self._parts)])


class CudnnRNN(CudnnConversions, Layer):
    """Base of the cuDNN layers; not for users."""

    _call_makes_variables = False
    _rnn_mode: CudnnMode

    def __init__(
        self,
        num_layers: int,
        num_units: int,
        input_mode: str = "linear_input",
        direction: str = "unidirectional",
        dropout: Any = 0.0,
        seed: int | None = None,
        dtype: DTypeLike = "float32",
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        where = type(self).__name__
        for what, value, allowed in (("direction", direction, DIRECTIONS), ("input_mode", input_mode, INPUT_MODES)):
            if value not in allowed:
                raise ArgumentError(f"{where}: expected {what} out of {', '.join(allowed)}, got {value!r}.")
        resolved = as_dtype(dtype, where)
        if resolved not in _DTYPES:
            names = ", ".join(dtype_name(known) for known in _DTYPES)
            raise ArgumentError(f"{where}: expected a dtype out of {names}, got {dtype_name(resolved)}.")
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0.0 <= dropout <= 1.0:
            raise ArgumentError(f"{where}: expected dropout as a number in [0, 1], got {dropout!r}.")
        if seed is not None and (isinstance(seed, bool) or not hasattr(seed, "__index__")):
            raise ArgumentTypeError(f"{where}: expected seed as an int or None, got {seed!r}.")
        super().__init__(name=name, dtype=resolved, **kwargs)
        layers, units = (
            check_positive_int(f"{where} {what}", value)
            for what, value in (("num_layers", num_layers), ("num_units", num_units))
        )
        self._spec = CudnnSpec(self._rnn_mode, layers, units, 1 + DIRECTIONS.index(direction))
        self._input_mode, self._dropout = input_mode, float(dropout)
        self._seed = None if seed is None else int(seed.__index__())
        self._kernel_initializer = deserialize(kernel_initializer, where)
        self._bias_initializer = deserialize(bias_initializer, where)
        self._home, self._home_reuses = "", False
        self._saveable: CudnnSaveable | None = None
        self.directions = nn.ModuleList([self._direction_of(place) for place in range(self._spec.places)])

    def _direction_of(self, place: int) -> nn.Module:
        """The cell of a place, in a dropout wrapper where a layer above it reads what is left."""
        cell = CudnnDirection(self, self._spec.cell, place)
        below_another = place < self._spec.places - self._spec.directions
        if not below_another or not 0.0 < self._dropout < 1.0:
            return cell
        seed = None if self._seed is None else (self._seed << _PLACE_BITS) + place
        return DropoutWrapper(cell, output_keep_prob=1.0 - self._dropout, seed=seed, name=f"dropout_{place}")

    # Properties of TF1's layers

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return self._spec.layers

    @property
    def num_units(self) -> int:
        """Units of each direction of each layer."""
        return self._spec.units

    @property
    def rnn_mode(self) -> str:
        """`lstm`, `gru`, `rnn_tanh` or `rnn_relu`."""
        return self._spec.mode

    @property
    def input_mode(self) -> str:
        """`linear_input`, `skip_input` or `auto_select`, as given."""
        return self._input_mode

    @property
    def direction(self) -> str:
        """`unidirectional` or `bidirectional`."""
        return DIRECTIONS[self._spec.directions - 1]

    @property
    def num_dirs(self) -> int:
        """1, or 2 where the layer is bidirectional."""
        return self._spec.directions

    @property
    def input_size(self) -> int:
        """Columns of the inputs. Raises ScopeError before the layer is built."""
        if not self._built:
            raise ScopeError(f"{self.where}.input_size: expected a built layer, got one that knows no input size.")
        weight = self._weight("weight_ih_l0")
        return self.num_units if weight is None else weight.shape[1]

    @property
    def skips_input(self) -> bool:
        """Whether the lowest layer adds its inputs to every gate. Raises ScopeError before the layer is built."""
        return self.input_size > 0 and self._weight("weight_ih_l0") is None

    @property
    def canonical_weight_shapes(self) -> list[tuple[int, int]]:
        """Shapes of `canonical_weights`, whatever the input mode. Raises OrderError before the layer is built."""
        if not self._built:
            raise OrderError(
                f"{self.where}.canonical_weight_shapes: expected a built layer, got one that knows no input size. "
                "Call it or build it first."
            )
        return self._spec.weight_shapes(self.input_size)

    @property
    def canonical_bias_shapes(self) -> list[list[int]]:
        """Shapes of `canonical_biases`."""
        return self._spec.bias_shapes()

    @property
    def saveable(self) -> CudnnSaveable | None:
        """What TF1 saves of it; None before it is built, and where it was built inside a scope that reuses variables:
        its name, `names`, `tensors()` and `restore(tensors)`.
        """
        return self._saveable if self._built else None

    def create_saveable(self) -> CudnnSaveable:
        """Make the saveable of a layer that has none. Building a layer makes it.

        Raises:
            OrderError: it has one. ScopeError: the layer is not built.
        """
        if self.saveable is not None:
            raise OrderError(f"{self.where}.create_saveable: expected a layer without a saveable, got one that has it.")
        if not self._built:
            raise ScopeError(f"{self.where}.create_saveable: expected a built layer, got one without weights.")
        self._saveable = self._new_saveable()
        return self._saveable

    _create_saveable = create_saveable  # TF1's name

    def _new_saveable(self) -> CudnnSaveable:
        return CudnnSaveable(self, f"{self.scope_name}/opaque_kernel_saveable")

    def state_shape(self, batch_size: int) -> tuple[list[int], ...]:
        """Shapes of the states for a number of rows: of h and c for an LSTM, else of h."""
        shape = [self._spec.places, batch_size, self.num_units]
        return (shape, list(shape)) if self.rnn_mode == "lstm" else (shape,)

    # Building

    def capture_scope(self, scope: Any = None) -> Any:
        """Fix where the layer's variables go, and remember which scope was open around it."""
        if self._scope is None:
            around = get_variable_scope()
            self._home, self._home_reuses = around.name, around.reuse is True
        return super().capture_scope(scope)

    def build(self, input_shape: ShapeLike) -> None:
        """Make the weights; on a built layer nothing.

        Args:
            input_shape: `[T, B, I]`; T and B may be None.
        Raises:
            ShapeError: not three axes, I unknown, or inputs to be skipped that are not as wide as the layer.
        """
        if self._built:
            return
        if _nest.is_nested(input_shape) and any(_nest.is_nested(part) for part in input_shape):
            raise ArgumentTypeError(f"{self.where}: expected one input [T, B, I], got {_nest.describe(input_shape)}.")
        dims = shape_dims(input_shape)
        depth = dims[-1] if len(dims) == 3 else None
        if not depth:
            raise ShapeError(f"{self.where}: expected inputs [T, B, I] with a known size I, got {list(dims)}.")
        skips = self._skips(depth)
        with self._undone_on_error():
            self.capture_scope()
            for place in range(self._spec.places):
                self._make_weights(place, None if skips and place < self.num_dirs else self._spec.width(place, depth))
            self._built = True
            self._saveable = None if self._home_reuses else self._new_saveable()

    def _skips(self, depth: int) -> bool:
        if self._input_mode == "skip_input" and depth != self.num_units:
            raise ShapeError(
                f"{self.where}: expected inputs [T, B, {self.num_units}] because skip_input adds them to every gate, "
                f"got I = {depth}. Use linear_input."
            )
        return self._input_mode != "linear_input" and depth == self.num_units

    def _make_weights(self, place: int, width: int | None) -> None:
        count = len(self._spec.gates)
        kernel = GlorotUniform(self._seed) if self._kernel_initializer is None else self._kernel_initializer
        bias = Constant(0.0) if self._bias_initializer is None else self._bias_initializer
        shapes: list[tuple[int | None, ...]] = [(width,), (self.num_units,), (), ()]
        for name, shape in zip(parameter_names(self._spec, place), shapes, strict=True):
            if None not in shape:
                initializer = GateParts(kernel if shape else bias, count, f"{self.where} {name}")
                self.add_weight(name, (count * self.num_units, *shape), initializer=initializer)

    def _weight_attributes(self) -> tuple[str, ...]:
        return tuple(name for name in self._all_names() if self._input_mode == "linear_input" or not _is_lowest_w(name))

    def _accepts_weight(self, attribute: str) -> bool:
        optional = self._input_mode == "auto_select" and _is_lowest_w(attribute)
        return super()._accepts_weight(attribute) or (optional and attribute in self._all_names())

    def _all_names(self) -> list[str]:
        return [name for place in range(self._spec.places) for name in parameter_names(self._spec, place)]

    def _weight(self, name: str) -> Any:
        """A parameter, or what a parametrization makes of others; None where there is none."""
        return getattr(self, name, None)

    # What the weave asks

    def parameters_of(self, place: int) -> tuple[Any, ...]:
        """W (None where the inputs are skipped), R and the two biases of a place: `[gates * H, ...]`."""
        return tuple([self._weight(name) for name in parameter_names(self._spec, place)])

    def weights_of(self, place: int) -> dict[str, torch.Tensor]:
        """The weights of a place by the names that its cell's spec gives them."""
        w, r, b_w, b_r = self.parameters_of(place)
        if w is None:
            w = torch.eye(self.num_units, dtype=r.dtype, device=r.device).repeat(len(self._spec.gates), 1)
        bias = torch.stack([b_w, b_r]) if isinstance(self._spec.cell, GRUSpec) else b_w + b_r
        return {"kernel": w.t(), "recurrent_kernel": r.t(), "bias": bias}

    def cell_at(self, place: int, dropping: bool) -> Any:
        """The cell of a place, with its dropout if that acts."""
        module = self.directions[place]
        return module.cell if not dropping and isinstance(module, DropoutWrapper) else module

    @property
    def drops_all(self) -> bool:
        """Whether nothing of a layer's outputs is left for the next one."""
        return self._dropout == 1.0

    # Calling

    def call(
        self,
        inputs: torch.Tensor,
        initial_state: Nest = None,
        sequence_lengths: Any = None,
        time_major: bool = True,
        training: bool = True,
    ) -> Result:
        """Run all layers over a sequence.

        Args:
            inputs: `[T, B, I]`, or `[B, T, I]` without `time_major`.
            initial_state: `(h, c)` for an LSTM, else `(h,)`: each `[L * D, B, H]`, or `[B, L * D, H]` without
                `time_major`; index `layer * D + direction`, forwards first. Default: zeros.
            sequence_lengths: Steps per row, `[B]`, each in 0..T. Default: every row has T steps. A bool here is
                `training`, which stood in this place in TF1's early releases.
            time_major: Layout of inputs, outputs and states.
            training: Dropout acts between the layers, if the module is in training mode, too. False: no dropout, and
                no gradients.
        Returns:
            outputs, laid out as the inputs, `[T, B, D * H]`: forwards columns first, zero after a row's length; and the
            states after each row's last step, as `initial_state`.
        Raises:
            ValueError and TypeError at once: `initial_state` is no tuple. ShapeError, DTypeError: inputs, states or
            lengths that do not fit. ArgumentError: a length outside 0..T; in `backward`: a gradient through
            `training=False`.
        """
        if isinstance(sequence_lengths, bool):
            sequence_lengths, training = None, sequence_lengths
        x, states, lengths = self._checked(inputs, initial_state, sequence_lengths, time_major)
        dropping = bool(training) and self.training
        if training or not torch.is_grad_enabled():
            result = run_layers(self, x, states, lengths, dropping)
        else:
            with torch.no_grad():
                result = run_layers(self, x, states, lengths, dropping)
            result = refusing_gradients(self.where, result, [x, *states, *self.parameters()])
        if time_major:
            return result
        return result[0].transpose(0, 1), tuple([state.transpose(0, 1) for state in result[1]])

    def _checked(
        self, inputs: Any, initial_state: Any, sequence_lengths: Any, time_major: bool
    ) -> tuple[torch.Tensor, States, torch.Tensor | None]:
        """Inputs, states and lengths, time major."""
        if not self._built:
            raise ScopeError(f"{self.where}: expected a built layer, got one without weights. Call the layer itself.")
        if not isinstance(inputs, torch.Tensor):
            raise ArgumentTypeError(f"{self.where}: expected inputs as a tensor, got {type(inputs).__name__}.")
        axes = "[T, B" if time_major else "[B, T"
        if inputs.dim() != 3 or inputs.shape[2] != self.input_size:
            raise ShapeError(f"{self.where}: expected inputs {axes}, {self.input_size}], got {list(inputs.shape)}.")
        weight = self._weight("weight_hh_l0")
        if weight is not None:
            check_same_dtype(self.where, weight.dtype, inputs=inputs)
        dtype = autocast_dtype(self, inputs)
        if dtype is not None:
            inputs, initial_state = inputs.to(dtype), cast(initial_state, dtype)
        x = inputs if time_major else inputs.transpose(0, 1)
        states = self._states(x, initial_state, time_major)
        return x, states, as_lengths(sequence_lengths, x.shape[1], self.where)

    def _states(self, x: torch.Tensor, initial_state: Any, time_major: bool) -> States:
        shapes = self.state_shape(x.shape[1])
        if initial_state is None:
            return tuple([x.new_zeros(shape) for shape in shapes])
        wanted = "(h, c)" if len(shapes) == 2 else "(h,)"
        if not isinstance(initial_state, tuple):
            got = type(initial_state).__name__
            raise NoTupleError(f"{self.where}: expected initial_state as a tuple {wanted}, got {got}.")
        if isinstance(initial_state, LSTMStateTuple):
            raise ArgumentError(
                f"{self.where}: expected initial_state as a plain tuple {wanted}, got LSTMStateTuple, which has c "
                "first. Pass (state.h, state.c)."
            )
        if len(initial_state) != len(shapes):
            raise ShapeError(
                f"{self.where}: expected initial_state {wanted}, got a tuple of {len(initial_state)} elements."
            )
        found = []
        for name, shape, state in zip(("h", "c"), shapes, initial_state, strict=False):
            if not isinstance(state, torch.Tensor):
                raise ArgumentTypeError(f"{self.where}: expected {name} as a tensor, got {type(state).__name__}.")
            laid = shape if time_major else [shape[1], shape[0], shape[2]]
            if list(state.shape) != laid:
                raise ShapeError(f"{self.where}: expected {name} {laid}, got {list(state.shape)}.")
            check_same_dtype(self.where, x.dtype, **{name: state})
            found.append(state if time_major else state.transpose(0, 1))
        return tuple(found)

    def plan(self, inputs: torch.Tensor, initial_state: Nest, sequence_lengths: Any, time_major: bool) -> Plan:
        """How a call would run, as `explain` shows it. Nothing is run."""
        x = inputs if time_major else inputs.transpose(0, 1)
        states = self._states(x, initial_state, time_major)
        lengths = as_lengths(sequence_lengths, x.shape[1], "explain")
        return plan_of_layers(self, x, states, lengths, self.training)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments as plain data."""
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "num_units": self.num_units,
            "input_mode": self._input_mode,
            "direction": self.direction,
            "dropout": self._dropout,
            "seed": self._seed,
            "kernel_initializer": serialize(self._kernel_initializer),
            "bias_initializer": serialize(self._bias_initializer),
        }


def _is_lowest_w(name: str) -> bool:
    return name in ("weight_ih_l0", "weight_ih_l0_reverse")
