"""Cells whose weights follow from a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from cellweave import _nest
from cellweave._checks import check_matrix, check_same_device, check_same_dtype, check_weight_dtype
from cellweave._errors import ArgumentTypeError, ScopeError, ShapeError, StructureError
from cellweave._shape import TensorShape
from cellweave._types import Nest, ShapeLike, Size, shape_dims
from cellweave.cells._rnn_cell import RNNCell, StepLayer
from cellweave.initializers import Constant
from cellweave.specs import CellSpec, SteppedSpec, WeightSpec


class StepData(Protocol):
    """What a spec has to say for a cell to be made from it."""

    @property
    def units(self) -> int:
        """Units."""

    @property
    def state_size(self) -> Size:
        """Sizes of the state."""

    @property
    def output_size(self) -> int:
        """Size of the output."""

    def weights(self, depth: int) -> tuple[WeightSpec, ...]:
        """The weights for inputs `[B, depth]`, in creation order."""


class SpecWeights(StepLayer):
    """What a spec gives a cell: sizes, weights and checks of its inputs."""

    _call_makes_variables = False
    _spec: Any
    #: TF1's names of weights where they are not those of the spec.
    _tf_names: Mapping[str, str] = {}

    def __init__(self, spec: StepData, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._spec = spec
        depth = spec.units + 1  # a depth that is not the units', which some cells treat otherwise
        one, two = spec.weights(depth), spec.weights(depth + 1)
        self._weight_names = tuple((weight.name, self._attribute_of(weight.name)) for weight in one)
        wide = next(k for k in range(len(one)) if one[k].shape != two[k].shape)
        #: A weight whose rows are the inputs' and so many more.
        self._input_weight, self._other_rows = self._weight_names[wide][1], one[wide].shape[0] - depth
        activation = getattr(spec, "activation", None)
        if isinstance(activation, nn.Module):
            self.activation_module = activation  # so that its parameters are the cell's too
        check_weight_dtype(type(self).__name__, self._dtype)

    def _tf_name(self, name: str) -> str:
        """TF1's name of a weight that the spec calls by this one."""
        return self._tf_names.get(name, name)

    def _attribute_of(self, name: str) -> str:
        return self._tf_name(name).replace("/", "_")

    @property
    def state_size(self) -> Size:
        """Sizes of the state."""
        return self._spec.state_size

    @property
    def output_size(self) -> Size:
        """Size of the output."""
        return self._spec.output_size

    def spec(self) -> CellSpec | SteppedSpec:
        """What a step computes, as data: what lets whole sequences run on a fast backend.

        A subclass that computes something else has to give its own, or it runs step by step.
        """
        return self._spec  # type: ignore[no-any-return]

    def named_weights(self) -> dict[str, torch.Tensor]:
        """The weights by the names that its spec gives them, such as `gates/kernel`. Raises when they do not exist.

        Where a scope's `custom_getter` gives something else than the variable, they are that.
        """
        made, found = self._parameters, {}
        for name, attribute in self._weight_names:
            weight = made.get(attribute)
            found[name] = self.weight_in_use(attribute) if weight is None or attribute in self._getters else weight
        return found

    def _initializer_of(self, weight: WeightSpec) -> Any:
        """The caller's initializer for a weight, None for the default."""
        return None

    def _build_from(self, inputs: Any) -> None:
        if not self._take_dtype(inputs):
            raise ArgumentTypeError(f"{self.where}: expected inputs [B, D] as a tensor, got {type(inputs).__name__}.")
        super()._build_from(inputs)

    def build(self, input_shape: ShapeLike) -> None:
        """Make the weights.

        Args:
            input_shape: `[B, I]`; B may be None.
        Raises:
            ShapeError: not two axes, or I unknown. ArgumentError: the dtype is not floating or complex.
        """
        if self._built:
            return
        if input_shape is None:
            raise ArgumentTypeError(f"{self.where}: expected inputs [B, D] as a tensor, got None for their shape.")
        if _nest.is_nested(input_shape) and any(_is_shape(part) for part in _nest.children(input_shape)):
            raise StructureError(f"{self.where}: expected one input [B, D], got {_nest.describe(input_shape)}.")
        dims = shape_dims(input_shape)
        if len(dims) != 2 or dims[1] is None:
            raise ShapeError(f"{self.where}: expected inputs [B, D] with a known depth D, got {list(dims)}.")
        check_weight_dtype(self.where, self._dtype)
        with self._undone_on_error():
            self._make_weights(dims[1])
            self._built = True

    def _make_weights(self, depth: int) -> None:
        for weight in self._spec.weights(depth):
            self._add(weight)

    def _add(self, weight: WeightSpec) -> None:
        initializer = self._initializer_of(weight)
        if initializer is None and weight.fill is not None:
            initializer = _filled(weight)
        self.add_weight(
            self._tf_name(weight.name),
            weight.shape,
            initializer=initializer,
            partitioner=weight.pieces,
            ignore_scope_initializer=weight.fill is not None,
        )

    def _weight_attributes(self) -> tuple[str, ...]:
        return tuple(attribute for _, attribute in self._weight_names)

    def _depth(self) -> int:
        """Columns of the inputs that the cell was built for."""
        return getattr(self, self._input_weight).shape[0] - self._other_rows  # type: ignore[no-any-return]

    def _checked(self, inputs: Any, **states: tuple[Any, int]) -> None:
        """Check inputs `[B, D]` and named states `[B, size]`, and their dtypes."""
        check_matrix(self.where, "inputs", inputs, None)
        check_weight_dtype(self.where, inputs.dtype)
        if not self._built:
            raise ScopeError(
                f"{self.where}: expected a built cell, got one without weights. Call the cell itself first."
            )
        weight = getattr(self, self._input_weight)
        check_same_dtype(self.where, weight.dtype, inputs=inputs)
        check_same_device(self.where, weight.device, inputs=inputs)
        depth = self._depth()
        if inputs.shape[1] != depth:
            raise ShapeError(
                f"{self.where}: expected inputs [B, {depth}] because the cell was built with input size {depth}, "
                f"got {list(inputs.shape)}. Build a new cell for {inputs.shape[1]} inputs."
            )
        for what, (state, size) in states.items():
            check_matrix(self.where, what, state, size, inputs.shape[0])
            check_weight_dtype(self.where, state.dtype)
            check_same_dtype(self.where, inputs.dtype, **{what: state})
            check_same_device(self.where, inputs.device, **{what: state})


class SpecCell(SpecWeights, RNNCell):
    """Base of TF1's cells that are known by a spec."""

    _call_forgets_names = False  # TF1's `LayerRNNCell`, which leaves the enclosing scope alone


class SteppedCell(SpecCell):
    """Base of cells whose weights follow from a spec, and which run step by step."""

    #: Why no backend has it.
    _stepped_because = "no backend knows its recurrence"

    def spec(self) -> SteppedSpec:
        """Why it runs step by step."""
        return SteppedSpec(self._stepped_because)


def _is_shape(part: Any) -> bool:
    """Whether it is a shape of several, not a size."""
    return _nest.is_nested(part) or isinstance(part, TensorShape)


def _filled(weight: WeightSpec) -> Constant:
    if not isinstance(weight.fill, tuple):
        return Constant(weight.fill)
    part = weight.shape[0] // len(weight.fill)
    return Constant([value for value in weight.fill for _ in range(part)])


def pair_of(state: Nest, where: str) -> tuple[Any, Any]:
    """The two elements of an LSTM's state. Raises when it is not a sequence of two."""
    if not _nest.is_sequence(state):
        raise ArgumentTypeError(f"{where}: expected state as a pair of tensors, got {type(state).__name__}.")
    if len(state) != 2:
        raise ShapeError(f"{where}: expected state as a pair of tensors, got {len(state)} elements.")
    return state[0], state[1]
