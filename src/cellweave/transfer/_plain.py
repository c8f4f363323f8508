"""Where TF1 keeps the variables of layers that are not recurrent, and of a model itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from cellweave.checkpoint import Inventory
from cellweave.scopes import Layer
from cellweave.transfer._match import join, within
from cellweave.transfer._reading import Reading

#: TF1's names below a layer's scope for each role, the usual one first; the last ones are joined by `_`.
_NAMES = {
    "kernel": ("kernel", "W", "w", "weight", "matrix", "Matrix"),
    "bias": ("bias", "b", "B", "Bias"),
    "table": ("embeddings", "embedding", "kernel", "W", "w", "embedding_matrix", "lookup_table", "embedding_table"),
    "gamma": ("gamma", "scale"),
    "beta": ("beta", "offset"),
    "mean": ("moving_mean",),
    "variance": ("moving_variance",),
}
_ENDS = {"kernel": ("w", "W", "kernel", "weights", "weight"), "bias": ("b", "B", "bias", "biases")}

#: What a parameter of a kind of module is called, and the order of TF1's axes in it.
_LAYOUTS: tuple[tuple[tuple[type[nn.Module], ...], dict[str, tuple[str, tuple[int, ...] | None]]], ...] = (
    ((nn.Linear,), {"weight": ("kernel", (1, 0)), "bias": ("bias", None)}),
    ((nn.Embedding, nn.EmbeddingBag), {"weight": ("table", None)}),
    ((nn.Conv1d,), {"weight": ("kernel", (2, 1, 0)), "bias": ("bias", None)}),
    ((nn.Conv2d,), {"weight": ("kernel", (3, 2, 0, 1)), "bias": ("bias", None)}),
    ((nn.LayerNorm,), {"weight": ("gamma", None), "bias": ("beta", None)}),
    (
        (nn.BatchNorm1d, nn.BatchNorm2d),
        {"weight": ("gamma", None), "bias": ("beta", None), "running_mean": ("mean", None),
         "running_var": ("variance", None)},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class PlainNeed:
    """One parameter outside of recurrent layers.

    Attributes:
        path: Its path in the model.
        module_path: Path of the module that has it.
        value: The parameter.
        role: What it does in its module: a key of the table of names; "" for a parameter of the model's own.
        axes: Order of TF1's axes in the parameter; None: the same.
        only: Whether the module has no other parameter.
    """

    path: str
    module_path: str
    value: torch.Tensor
    role: str = ""
    axes: tuple[int, ...] | None = None
    only: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape that TF1 stores."""
        shape = tuple(self.value.shape)
        if self.axes is None:
            return shape
        return tuple(shape[self.axes.index(axis)] for axis in range(len(shape)))

    @property
    def default_name(self) -> str:
        """TF1's usual name for it, where no other is known."""
        scope = self.module_path.replace(".", "/")
        own = _NAMES[self.role][0] if self.role else self.path.rpartition(".")[2]
        return join(scope, own)


def plain_needs(model: nn.Module) -> Iterator[PlainNeed]:
    """Every parameter outside of recurrent layers, a shared one once."""
    inside = {id(part) for module in model.modules() if isinstance(module, Layer) for part in module.modules()}
    seen: set[int] = set()
    for path, module in model.named_modules():
        if id(module) in inside:
            continue
        layout = next((roles for kinds, roles in _LAYOUTS if isinstance(module, kinds)), {})
        own = dict(module.named_parameters(recurse=False))
        own |= {name: buffer for name, buffer in module.named_buffers(recurse=False) if name in layout}
        for name, value in own.items():
            if id(value) in seen:
                continue
            seen.add(id(value))
            role, axes = layout.get(name, ("", None))
            yield PlainNeed(f"{path}.{name}" if path else name, path, value, role, axes, len(own) == 1)


def plain_options(need: PlainNeed, inventory: Inventory, scope: str | None, given: str | None) -> list[Reading]:
    """Variables that may be a parameter's; one that fits in shape comes before one that does not.

    Args:
        need: The parameter.
        inventory: The checkpoint's variables.
        scope: Only below this scope, in lookup form.
        given: Where the caller says that the module's variables are, in lookup form; None: by the module's path.
    """
    places = [given] if given is not None else _places(need, inventory)
    for place in places:
        found = []
        for lookup, variable in inventory.variables.items():
            if within(lookup, scope) and _named(need, place, lookup, exact=given is not None):
                found.append(Reading((variable,), need.axes))
        fitting = [reading for reading in found if reading.sources[0].shape == need.stored_shape]
        if fitting or found:
            return fitting or found
    return []


def _places(need: PlainNeed, inventory: Inventory) -> list[str]:
    """Scopes that the module's path stands for: the whole path, then its last part."""
    path = need.module_path if need.role else need.path
    whole = inventory.place(path.replace(".", "/"))
    return list(dict.fromkeys(place for place in (whole, whole.rpartition("/")[2]) if place))


def _named(need: PlainNeed, place: str, lookup: str, *, exact: bool) -> bool:
    wanted = [place] if (need.role == "" or need.only) else []
    wanted += [join(place, name) for name in _NAMES.get(need.role, ())]
    wanted += [f"{place}_{end}" for end in _ENDS.get(need.role, ())]
    return lookup in wanted or (not exact and any(lookup.endswith("/" + name) for name in wanted))
