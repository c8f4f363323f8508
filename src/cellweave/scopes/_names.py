"""The TF1 names of a module's variables."""

from __future__ import annotations

from torch import nn

from cellweave._errors import ArgumentTypeError, ScopeError
from cellweave.scopes._context import Branch
from cellweave.scopes._graph import VariableHolder
from cellweave.scopes._layer import Layer


def variable_names(module: nn.Module) -> dict[str, nn.Parameter]:
    """TF1 name to parameter, for every variable of the layers in `module`, in creation order per layer.

    Names follow from the module alone. Layers that were called outside every scope and share a class name get `_1`,
    `_2`, ... in module order, as one TF1 graph holding just this module would name them.

    Args:
        module: Any module; layers in it must be built.
    Returns:
        Names without `:0`, such as `rnn/gru_cell/gates/kernel`. A shared variable appears once.
    Raises:
        ArgumentTypeError: no module. ScopeError: a layer is not built, or two variables have one name because their
            scopes do.
    """
    if not isinstance(module, nn.Module):
        raise ArgumentTypeError(f"variable_names: expected a module, got {module!r}.")
    found: dict[str, nn.Parameter] = {}
    heads: dict[Branch, str] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, VariableHolder) and layer.from_store:
            found.setdefault(layer.full_name, layer.value)
        if not isinstance(layer, Layer):
            continue
        if layer.makes_variables and not layer.built:
            raise ScopeError(
                f"variable_names: expected built layers, got {path or type(layer).__name__!r} without weights. "
                "Call or build it."
            )
        for record in layer.variable_records():
            name = _renamed(record.full_name, layer, heads)
            variable = getattr(layer, record.attribute)
            if found.setdefault(name, variable) is not variable:
                raise ScopeError(
                    f"variable_names: expected one variable per name, got two called {name!r}. "
                    "Give the cells other scopes (scope=) or names, or build them in a VariableStore."
                )
    return found


def _renamed(full_name: str, layer: Layer, heads: dict[Branch, str]) -> str:
    """The name with its automatic first part made unique among this module's."""
    branch = layer.scope_branch()
    if branch is None:
        return full_name
    head, _, rest = full_name.partition("/")
    if branch not in heads:
        taken, unique, index = set(heads.values()), head, 1
        while unique in taken:
            unique, index = f"{head}_{index}", index + 1
        heads[branch] = unique
    return f"{heads[branch]}/{rest}"
