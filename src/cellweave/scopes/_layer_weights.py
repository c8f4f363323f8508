"""The variables of a layer: making, owning, listing, loading."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from cellweave._errors import DTypeError, ScopeError, ShapeError
from cellweave._types import DTypeLike, ShapeLike, dtype_name
from cellweave.scopes._context import VariableScope, frame
from cellweave.scopes._variables import VariableRecord, VariableRequest, by_getter, requested


class LayerWeights(nn.Module):
    """Part of `Layer`: its variables, as records of parameters of this module."""

    _trainable: bool
    _first_call_done: bool
    _dtype: torch.dtype | None
    _scope: VariableScope | None
    _outer_scope: VariableScope | None
    _records: dict[str, VariableRecord]
    #: Variables that layers inside made during its first call: how many it had of its own by then, whose, which.
    _inside: list[tuple[int, LayerWeights, str]]
    _adopted: set[str]
    #: Other attributes that a variable was assigned to, such as `self._kernel = self.add_weight("kernel", ...)`.
    _aliases: dict[str, str]
    #: By attribute: the custom getter that gave something else than the variable asked for, and the request.
    _getters: dict[str, tuple[Any, VariableRequest]]
    _built: bool

    #: Whether the layer has variables of its own once it is built; a TF1 wrapper has none.
    makes_variables = True
    #: Whether variables that layers inside make during its first call are among its `weights`, as of TF1's `RNNCell`.
    _lists_inside = False

    if TYPE_CHECKING:

        @property
        def where(self) -> str: ...

        def _entered(self, scope: Any = None) -> AbstractContextManager[VariableScope]: ...

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Parameter) and name not in self._parameters:
            for record in self._records.values():
                if self._parameters.get(record.attribute) is value:
                    self.__dict__.pop(name, None)
                    self._aliases[name] = record.attribute
                    return
        super().__setattr__(name, value)

    def variable_records(self) -> list[VariableRecord]:
        """What is known of each of its variables, in creation order."""
        return list(self._records.values())

    def variables_made(self) -> list[Any]:
        """Its own variables in creation order."""
        return [getattr(self, record.attribute) for record in self._records.values()]

    def add_weight(
        self,
        name: str,
        shape: ShapeLike,
        dtype: DTypeLike = None,
        initializer: Any = None,
        regularizer: Any = None,
        trainable: bool = True,
        constraint: Any = None,
        use_resource: Any = None,
        partitioner: Any = None,
        *,
        ignore_scope_initializer: bool = False,
    ) -> nn.Parameter:
        """Create the layer's variable `name`, or get it when it exists.

        Args:
            name: Suffix below the layer's scope; slashes make levels.
            shape: Sizes in elements.
            dtype: Default: the layer's, else float32.
            initializer: See `cellweave.initializers`; default: the scope's, else Glorot uniform.
            regularizer: Function from the variable to a scalar loss.
            trainable: Whether it takes gradients.
            constraint: Function from the variable to its constrained value; see `apply_constraints`.
            use_resource: Accepted for TF1 callers, without effect.
            partitioner: Number of slices along axis 0 in a TF1 checkpoint.
            ignore_scope_initializer: Do not fall back to the scope's initializer (TF1's biases).
        Raises:
            ScopeError, ShapeError: as `get_variable`.
        """
        if self._dtype is None and dtype is None:
            self._dtype = torch.float32
        with self._entered() as scope:
            full_name = f"{scope.name}/{name}" if scope.name else name
            existing = self.find_variable(full_name)
            if existing is not None and self._built:
                return existing
            return requested(
                VariableRequest(
                    name=full_name,
                    shape=shape,
                    dtype=self._dtype if dtype is None else dtype,
                    initializer=initializer,
                    regularizer=regularizer,
                    trainable=trainable,
                    partitioner=partitioner,
                    constraint=constraint,
                    ignore_scope_initializer=ignore_scope_initializer,
                )
            )

    add_variable = add_weight

    def find_variable(self, full_name: str) -> nn.Parameter | None:
        """The layer's own variable of this full name, or None."""
        record = self._records.get(full_name)
        return None if record is None else getattr(self, record.attribute)

    def own_variable(self, request: VariableRequest, variable: nn.Parameter, *, shared: bool) -> nn.Parameter:
        """Register a variable, new or shared from the store, as a parameter of this layer."""
        if request.name in self._records:
            return variable
        attribute = self._free_attribute(self._attribute_stem(request.name))
        if attribute in self._adopted:
            variable = self._take_adopted(attribute, request, variable, shared)
        if not self._trainable:
            variable.requires_grad_(False)
        pieces = request.partitioner if isinstance(request.partitioner, int) else 1
        trainable = request.trainable is not False
        # in a graph a variable's loss is that of the layer that made it
        regularizer = None if shared and frame.graph is not None else request.regularizer
        self._records[request.name] = VariableRecord(
            request.name, attribute, trainable, regularizer, request.constraint, pieces
        )
        self.register_parameter(attribute, variable)
        return variable

    def note_inside(self, layer: LayerWeights, full_name: str) -> None:
        """Remember a variable that another layer made while this one's first call was under way."""
        if self._lists_inside and not self._first_call_done:
            self._inside.append((len(self._records), layer, full_name))

    def note_getter(self, request: VariableRequest, getter: Any, given: Any) -> None:
        """Remember a custom getter that gave something else than the layer's own variable of that name."""
        if given is self.find_variable(request.name):
            return
        attribute = self._attribute_stem(request.name)
        renamed = next((r.attribute for r in self._records.values() if self._parameters[r.attribute] is given), None)
        if renamed is None:
            self._getters[attribute] = (getter, request)
        else:
            self._aliases[attribute] = renamed

    def weight_in_use(self, attribute: str) -> Any:
        """A weight as its custom getter, if it has one that matters, makes it of the variables as they are now."""
        noted = self._getters.get(attribute)
        if noted is None:
            return getattr(self, attribute)
        getter, request = noted
        return by_getter(request, getter, lambda changed: self.find_variable(changed.name))

    def _attribute_stem(self, full_name: str) -> str:
        scope = self._scope or self._outer_scope
        prefix = "" if scope is None or not scope.name else scope.name + "/"
        return full_name.removeprefix(prefix).replace("/", "_").replace(".", "_")

    def _free_attribute(self, stem: str) -> str:
        mine = {record.attribute for record in self._records.values()}
        members = {*self.__dict__, *self._parameters, *self._buffers, *self._modules}
        taken = mine | (members - self._adopted)
        name, index = stem, 1
        while name in taken or hasattr(type(self), name):
            name, index = f"{stem}_{index}", index + 1
        return name

    def _take_adopted(self, attribute: str, request: VariableRequest, made: nn.Parameter, shared: bool) -> nn.Parameter:
        loaded = self._parameters[attribute]
        if loaded is None or loaded.shape != made.shape:
            got = None if loaded is None else list(loaded.shape)
            raise ShapeError(
                f"{self.where}: expected {attribute} of shape {list(made.shape)}, got {got} from the loaded state_dict."
            )
        if loaded.dtype != made.dtype:
            raise DTypeError(
                f"{self.where}: expected {attribute} of dtype {dtype_name(made.dtype)}, "
                f"got {dtype_name(loaded.dtype)} from the loaded state_dict."
            )
        if shared:
            with torch.no_grad():
                made.copy_(loaded)
            return made
        loaded.requires_grad_(made.requires_grad)
        if frame.store is not None:
            frame.store.variables[request.name] = loaded
        return loaded

    def _check_adopted(self) -> None:
        used = {record.attribute for record in self._records.values()}
        unused = sorted(self._adopted - used)
        if unused:
            raise ScopeError(
                f"{self.where}: expected the loaded state_dict to hold this layer's weights, got {unused} besides."
            )
        self._adopted.clear()

    @property
    def trainable(self) -> bool:
        """Whether the weights take gradients; setting it changes `requires_grad` of the trainable ones."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for record in self._records.values():
            variable = getattr(self, record.attribute)
            if record.trainable and (variable.is_floating_point() or variable.is_complex()):
                variable.requires_grad_(self._trainable)

    def _own(self, trainable: bool) -> list[Any]:
        if self._inside:
            return self._own_and_inside(trainable)
        return [getattr(self, record.attribute) for record in self._records.values() if record.trainable is trainable]

    def _own_and_inside(self, trainable: bool) -> list[Any]:
        """Those of layers inside too, each once, in creation order."""
        made = [(place, 1, self, name) for place, name in enumerate(self._records)]
        made += [(place, 0, layer, name) for place, layer, name in self._inside]
        found: dict[int, Any] = {}
        for _, _, layer, name in sorted(made, key=lambda one: one[:2]):
            record = layer._records.get(name)
            if record is None:  # taken back, or of a layer that was loaded anew
                continue
            if (record.trainable and (layer is self or layer._trainable)) is trainable:
                variable = getattr(layer, record.attribute)
                found.setdefault(id(variable), variable)
        return list(found.values())

    @property
    def trainable_weights(self) -> list[Any]:
        """Trainable variables in creation order; empty when the layer is not trainable."""
        return self._own(True) if self._trainable else []

    @property
    def non_trainable_weights(self) -> list[Any]:
        """The other variables; all of them when the layer is not trainable."""
        return self._own(False) if self._trainable else [*self._own(True), *self._own(False)]

    @property
    def weights(self) -> list[Any]:
        """Trainable variables, then the others."""
        return [*self.trainable_weights, *self.non_trainable_weights]

    @property
    def trainable_variables(self) -> list[Any]:
        """Same as `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Any]:
        """Same as `non_trainable_weights`."""
        return self.non_trainable_weights

    @property
    def variables(self) -> list[Any]:
        """Same as `weights`."""
        return self.weights

    def get_weights(self) -> list[np.ndarray[Any, Any]]:
        """Copies of the weights as NumPy arrays, in the order of `weights`; bfloat16 comes as float32."""
        found = []
        for weight in self.weights:
            value = weight.detach().cpu()
            found.append((value.float() if value.dtype == torch.bfloat16 else value).numpy().copy())
        return found

    def set_weights(self, weights: list[Any]) -> None:
        """Set all weights from arrays in the order of `weights`; nothing is changed when one does not fit.

        Raises:
            ShapeError: wrong number of arrays, or a wrong shape.
        """
        mine = self.weights
        if len(weights) != len(mine):
            hint = "" if self._built else " Call the layer or build it first: it has no weights yet."
            raise ShapeError(f"{self.where}.set_weights: expected {len(mine)} arrays, got {len(weights)}.{hint}")
        values = [torch.as_tensor(value) for value in weights]
        for index, (value, variable) in enumerate(zip(values, mine, strict=True)):
            if value.shape != variable.shape:
                raise ShapeError(
                    f"{self.where}.set_weights: expected shape {list(variable.shape)} for array {index}, "
                    f"got {list(value.shape)}."
                )
        with torch.no_grad():
            for value, variable in zip(values, mine, strict=True):
                variable.copy_(value)

    def count_params(self) -> int:
        """Number of scalars in the weights. Raises ScopeError before they exist."""
        if not self._built:
            raise ScopeError(
                f"{self.where}.count_params: expected a built layer, got one without weights. "
                "Call it or build it first."
            )
        return sum(int(weight.numel()) for weight in self.weights)

    def _weight_attributes(self) -> tuple[str, ...]:
        """Attributes that the weights will have, where that is known before they exist."""
        return ()

    def _accepts_weight(self, attribute: str) -> bool:
        """Whether an unbuilt layer may take this entry of a state_dict as a weight to be."""
        return self.makes_variables and attribute in (self._weight_attributes() or (attribute,))

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if not self._built:
            self._adopt(state_dict, prefix)
            if local_metadata.get("built", True):  # else the one that was saved had no weights either
                expected = [name for name in self._weight_attributes() if name not in self._adopted]
                missing_keys.extend(prefix + name for name in expected)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {}).get(prefix[:-1])
        if metadata is not None:
            metadata["built"] = self._built

    def _adopt(self, state_dict: Mapping[str, Any], prefix: str) -> None:
        """Make room for the weights of a state_dict that comes before the first call."""
        attributes = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
        known_order = [name for name in self._weight_attributes() if name in attributes]
        for attribute in dict.fromkeys([*known_order, *attributes]):
            value = state_dict[prefix + attribute]
            if "." in attribute or not isinstance(value, torch.Tensor):
                continue
            if attribute == "_extra_state" or attribute in self._buffers or not self._accepts_weight(attribute):
                continue
            known = self._parameters.get(attribute)
            if known is not None and known.shape == value.shape:
                continue
            if self._dtype is None and value.is_floating_point():
                self._dtype = value.dtype
            dtype = self._dtype if value.is_floating_point() and self._dtype is not None else value.dtype
            takes_gradient = self._trainable and (dtype.is_floating_point or dtype.is_complex)
            self.register_parameter(attribute, nn.Parameter(torch.empty_like(value, dtype=dtype), takes_gradient))
            self._adopted.add(attribute)
