"""A module's parameters as the weights of its runs."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from cellweave._errors import MisfitError
from cellweave.nn._norms import norms_of
from cellweave.nn._plans import Place


def weights_of(
    module: Any, place: Place, dropout: float, dropped: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The weights of one place, by the names of its spec.

    torch.nn keeps two biases where one is enough: those are added up here. Dropped recurrent weights are drawn here,
    too, by torch's own dropout: one mask for the whole call.

    Args:
        dropout: Probability of dropping a recurrent weight. dropped: What they are multiplied by instead, drawn before.
    Raises:
        MisfitError: a parameter has become one of another shape.
    """
    found = named_parameters(module, place)
    if dropped is not None:
        found["recurrent_kernel"] = found["recurrent_kernel"] * dropped
    elif dropout > 0:
        found["recurrent_kernel"] = F.dropout(found["recurrent_kernel"], dropout)
    if module.bias:
        biases = found.pop("bias"), found.pop("recurrent_bias")
        found["bias"] = torch.stack(biases) if place.row_biases else biases[0] + biases[1]
    for name, shape in place.shapes:
        if found[name].shape != shape:
            raise MisfitError(
                f"{type(module).__name__}: expected the {name} of its layer {place.suffix[1:] or 'l0'} to be "
                f"{list(shape)}, got {list(found[name].shape)}."
            )
    return found


def named_parameters(module: Any, place: Place) -> dict[str, torch.Tensor]:
    """The parameters of one place, by what they are."""
    suffix = place.suffix
    found = {"kernel": parameter(module, "weight_ih" + suffix)}
    found["recurrent_kernel"] = parameter(module, "weight_hh" + suffix)
    if module.bias:
        found["bias"] = parameter(module, "bias_ih" + suffix)
        found["recurrent_bias"] = parameter(module, "bias_hh" + suffix)
    if module.proj_size > 0:
        found["projection/kernel"] = parameter(module, "weight_hr" + suffix)
    for name, gates in norms_of(place.spec.cell):
        for kind, ours in (("gamma", "norm_weight"), ("beta", "norm_bias")):
            parts = parameter(module, ours + name + suffix).chunk(len(gates))
            found |= {f"{gate}/{kind}": part for gate, part in zip(gates, parts, strict=True)}
    return found


def parameter(module: Any, name: str) -> torch.Tensor:
    """A parameter, or what a parametrization puts in its place."""
    found = module._parameters.get(name)
    return getattr(module, name) if found is None else found  # type: ignore[no-any-return]
