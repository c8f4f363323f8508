"""What a cuDNN layer's weights look like elsewhere, both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from cellweave._errors import ArgumentError, ScopeError, ShapeError
from cellweave._types import ShapeLike
from cellweave.layers._cudnn_layout import Canonical, from_checkpoint, from_opaque, to_checkpoint, to_opaque
from cellweave.layers._cudnn_torch import module_like, settings_of, weights_of_module
from cellweave.specs import CudnnSpec


class CudnnConversions:
    """Part of the cuDNN layers: canonical lists, the opaque kernel, TF1 checkpoint tensors, `torch.nn` modules.

    What these methods return are copies without gradients. What they load is checked first: when something does not
    fit, nothing is changed. A layer that is not built yet is built for the input size that the weights tell.
    """

    if TYPE_CHECKING:
        _spec: CudnnSpec
        _home: str
        built: bool
        training: bool

        @property
        def where(self) -> str: ...
        @property
        def input_size(self) -> int: ...
        @property
        def skips_input(self) -> bool: ...
        def build(self, input_shape: ShapeLike) -> None: ...
        def parameters_of(self, place: int) -> tuple[Any, ...]: ...
        def capture_scope(self, scope: Any = None) -> Any: ...
        def get_config(self) -> dict[str, Any]: ...

    # Canonical lists

    def canonical_weights(self) -> list[torch.Tensor]:
        """The matrices in cuDNN's order, of the shapes in `canonical_weight_shapes`: per layer and direction one
        `[H, I]` for each gate, then one `[H, H]` for each. The W of a layer that skips its inputs is the identity.

        Raises:
            ScopeError: the layer is not built.
        """
        return self._canonical()[0]

    def canonical_biases(self) -> list[torch.Tensor]:
        """The biases `[H]`, one for each matrix of `canonical_weights`. Raises ScopeError before the layer is built."""
        return self._canonical()[1]

    def load_canonical(self, weights: Sequence[Any], biases: Sequence[Any]) -> None:
        """Set all weights from canonical lists (tensors or arrays); a W that is skipped is ignored.

        Raises:
            ShapeError: lists of other lengths, or of other shapes.
        """
        where = f"{self.where}.load_canonical"
        found = [[_as_tensor(value) for value in values] for values in (weights, biases)]
        if not self.built:
            self._build_for(found[0][0].shape[-1] if found[0] and found[0][0].dim() == 2 else 0, where)
        wanted: list[list[Sequence[int]]] = [
            list(self._spec.weight_shapes(self.input_size)), list(self._spec.bias_shapes())
        ]  # fmt: skip
        for what, values, shapes in zip(("weights", "biases"), found, wanted, strict=True):
            if len(values) != len(shapes):
                raise ShapeError(f"{where}: expected {len(shapes)} {what}, got {len(values)}.")
            for number, (value, shape) in enumerate(zip(values, shapes, strict=True)):
                if list(value.shape) != list(shape):
                    raise ShapeError(f"{where}: expected {what}[{number}] {list(shape)}, got {list(value.shape)}.")
        self._set((found[0], found[1]))

    # The opaque kernel

    def opaque_kernel(self) -> torch.Tensor:
        """All weights in one vector: per layer and direction all W, then all R, in cuDNN's gate order; then all biases.

        Raises:
            ScopeError: the layer is not built.
        """
        return to_opaque(self._canonical())

    def load_opaque_kernel(self, opaque: Any) -> None:
        """Set all weights from such a vector.

        Raises:
            ShapeError: no vector, or another number of elements.
        """
        where, value = f"{self.where}.load_opaque_kernel", _as_tensor(opaque)
        if not self.built and value.dim() == 1:
            self._build_for(self._spec.depth_of_opaque(value.numel()) or 0, where)
        depth = self.input_size
        if list(value.shape) != [self._spec.opaque_size(depth)]:
            raise ShapeError(f"{where}: expected [{self._spec.opaque_size(depth)}], got {list(value.shape)}.")
        self._set(from_opaque(self._spec, depth, value))

    # TF1 checkpoints

    def tf_canonical_tensors(self, scope: str | None = None) -> dict[str, torch.Tensor]:
        """What TF1's saveable writes, by name without `:0`: kernels `[I + H, ...]` in TF1's gate order, and the sums of
        a gate's two biases (the GRU's candidate keeps them apart). `CudnnCompatibleLSTMCell`, `CudnnCompatibleGRUCell`
        and `BasicRNNCell` take them under these names.

        Args:
            scope: Scope before the names; default: the one that was open around the layer when it was built.
        Raises:
            ScopeError: the layer is not built.
        """
        canonical = self._canonical()
        found = to_checkpoint(self._spec, self.input_size, canonical)
        return {self._prefix(scope) + name: value for name, value in found.items()}

    def load_tf_canonical(self, tensors: Mapping[str, Any], scope: str | None = None) -> None:
        """Set all weights from such tensors (or arrays); a summed bias is split into two halves, as TF1 restores it.

        Raises:
            ArgumentError: a name is missing, or there are others. ShapeError: a tensor does not fit.
        """
        where, prefix = f"{self.where}.load_tf_canonical", self._prefix(scope)
        names = [prefix + tensor.name for tensor in self._spec.checkpoint_tensors(1)]
        for problem, found in (("missing", set(names) - set(tensors)), ("not its own", set(tensors) - set(names))):
            if found:
                raise ArgumentError(f"{where}: expected {len(names)} tensors, got {sorted(found)} {problem}.")
        values = {name.removeprefix(prefix): _as_tensor(tensors[name]) for name in names}
        if not self.built:
            first = next(iter(values.values()))
            self._build_for(self._spec.depth_of_checkpoint(tuple(first.shape)), where)
        self._set(from_checkpoint(self._spec, self.input_size, values, where))

    def _prefix(self, scope: str | None) -> str:
        if scope is None:
            self.capture_scope()
            scope = self._home
        return f"{scope}/" if scope else ""

    # torch.nn

    def to_torch(self) -> nn.RNNBase:
        """A `torch.nn.LSTM`, `GRU` or `RNN` with the same weights, mode and between-layer dropout: time major, states
        as here. Where inputs are skipped its W is the identity.

        Raises:
            ScopeError: the layer is not built.
        """
        canonical = self._canonical()
        config = self.get_config()
        module = module_like(self._spec, self.input_size, config["dropout"], canonical)
        return module.train(self.training)

    def load_torch(self, module: nn.RNNBase) -> None:
        """Set all weights from a torch module of the same kind and sizes; missing biases are zeros.

        Raises:
            ArgumentError: another kind of module or other sizes, or one with a projection.
        """
        where = f"{self.where}.load_torch"
        spec = settings_of(module, where)["spec"]
        if spec != self._spec:
            raise ArgumentError(f"{where}: expected a module of {self._spec}, got {spec}.")
        self.load_canonical(*weights_of_module(module, spec))

    @classmethod
    def from_torch(cls, module: nn.RNNBase, **kwargs: Any) -> Any:
        """A new layer with a torch module's weights, dtype, device, mode and dropout.

        `batch_first` is not taken over: a layer is told at each call, by `time_major`.

        Args:
            module: `torch.nn.LSTM`, `GRU` or `RNN` without projection.
            kwargs: More arguments of the constructor, such as `name`.
        Raises:
            ArgumentError: a module of another kind, or one with a projection.
        """
        where = f"{cls.__name__}.from_torch"
        settings = settings_of(module, where)
        spec: CudnnSpec = settings["spec"]
        if spec.mode != getattr(cls, "_rnn_mode", None):
            raise ArgumentError(f"{where}: expected a torch.nn module of this kind, got one that computes {spec.mode}.")
        layer: Any = cls(  # type: ignore[call-arg]  # the constructor of the layers
            spec.layers, spec.units, direction="bidirectional" if spec.directions == 2 else "unidirectional",
            dropout=settings["dropout"], dtype=settings["dtype"], **kwargs,
        )  # fmt: skip
        with torch.device(settings["device"]):
            layer.load_torch(module)
        return layer.train(module.training)

    # Inside

    def _canonical(self) -> Canonical:
        if not self.built:
            raise ScopeError(
                f"{self.where}: expected a built layer, got one without weights. Call it or build it first."
            )
        weights: list[torch.Tensor] = []
        biases: list[torch.Tensor] = []
        count = len(self._spec.gates)
        for place in range(self._spec.places):
            w, r, b_w, b_r = self.parameters_of(place)
            if w is None:
                w = torch.eye(self._spec.units, dtype=r.dtype, device=r.device).repeat(count, 1)
            weights += [part.clone() for matrix in (w, r) for part in matrix.detach().chunk(count)]
            biases += [part.clone() for bias in (b_w, b_r) for part in bias.detach().chunk(count)]
        return weights, biases

    def _set(self, canonical: Canonical) -> None:
        """Copy canonical lists of the right shapes into the parameters."""
        weights, biases = canonical
        count = len(self._spec.gates)
        with torch.no_grad():
            for place in range(self._spec.places):
                for number, parameter in enumerate(self.parameters_of(place)):
                    first = (2 * place + number % 2) * count
                    if parameter is not None:
                        parameter.copy_(torch.cat((weights, biases)[number // 2][first : first + count]))

    def _build_for(self, depth: int, where: str) -> None:
        if depth <= 0:
            raise ShapeError(f"{where}: expected weights that tell the size of the inputs, got others. Build it first.")
        self.build([None, None, depth])


def _as_tensor(value: Any) -> torch.Tensor:
    """A tensor of a tensor or array; torch would warn of arrays that cannot be written, such as mapped files."""
    return torch.as_tensor(value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value)
