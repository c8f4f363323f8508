"""A module's parameters as the weights of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from cellweave._errors import MisfitError
from cellweave.nn._norms import norms_of
from cellweave.nn._plans import Place

#: Weights by their parameters' names.
Given = Mapping[str, torch.Tensor]


def weights_of(
    module: Any, place: Place, given: Given, dropout: float, dropped: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The weights of one place, by the names of its spec.

    torch.nn keeps two biases where one is enough: those are added up here. Dropped recurrent weights are drawn here,
    too, by torch's own dropout: one mask for the whole call.

    Args:
        given: As `given_weights` finds them.
        dropout: Probability of dropping a recurrent weight. dropped: What they are multiplied by instead, drawn before.
    Raises:
        MisfitError: a parameter has become one of another shape.
    """
    found = named_parameters(module, place, given)
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


def named_parameters(module: Any, place: Place, given: Given) -> dict[str, torch.Tensor]:
    """The parameters of one place, by what they are."""
    suffix = place.suffix
    found = {"kernel": parameter(module, "weight_ih" + suffix, given)}
    found["recurrent_kernel"] = parameter(module, "weight_hh" + suffix, given)
    if module.bias:
        found["bias"] = parameter(module, "bias_ih" + suffix, given)
        found["recurrent_bias"] = parameter(module, "bias_hh" + suffix, given)
    if module.proj_size > 0:
        found["projection/kernel"] = parameter(module, "weight_hr" + suffix, given)
    for name, gates in norms_of(place.spec.cell):
        for kind, ours in (("gamma", "norm_weight"), ("beta", "norm_bias")):
            parts = parameter(module, ours + name + suffix).chunk(len(gates))
            found |= {f"{gate}/{kind}": part for gate, part in zip(gates, parts, strict=True)}
    return found


def given_weights(module: Any) -> dict[str, torch.Tensor]:
    """What torch.nn would run on in place of parameters: tensors that were put into its list `_flat_weights` by hand.

    As in torch.nn a parameter that was replaced comes before them.
    """
    found: dict[str, torch.Tensor] = {}
    if isinstance(module, torch.nn.RNNCellBase):
        return found
    own, refs = module._parameters, module._flat_weight_refs
    for number, (name, flat) in enumerate(zip(module._flat_weights_names, module._flat_weights, strict=False)):
        if flat is None or own.get(name) is flat or hasattr(type(module), name):  # the class: of a parametrization
            continue
        held = getattr(module, name, None)
        made = refs[number]() if number < len(refs) and refs[number] is not None else None
        if held is not flat and (held is None or held is made):
            found[name] = flat
    return found


def parameter(module: Any, name: str, given: Given | None = None) -> torch.Tensor:
    """A parameter, what a parametrization puts in its place, or what is given in its place."""
    found = given.get(name) if given else module._parameters.get(name)
    if found is None:
        found = getattr(module, name)
    return found
