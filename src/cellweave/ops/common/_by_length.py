"""Rows of unequal lengths in groups of similar ones, so that no group runs more steps than its longest row has."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from cellweave.ops.common._calls import LayerCall, LayerResult
from cellweave.ops.common._masks import BoundMask

#: More groups save less than their smaller products cost; so do fewer rows than two tiles of a product have.
_MOST_GROUPS, _FEWEST_ROWS = 4, 12
#: Groups must leave at most this share of the steps: sorting copies the sequence four times.
_WORTH = 0.8


class Groups(NamedTuple):
    """A call in groups of its rows.

    Attributes:
        calls: The longest rows first.
        order: The rows in the order of the groups.
    """

    calls: list[LayerCall]
    order: torch.Tensor


def by_length(call: LayerCall) -> Groups | None:
    """The call in groups of rows of similar lengths; None where they would save too little, or rows must stay together.

    They must where random masks differ from row to row, for a row's numbers go by its place in the batch.
    """
    lengths, (steps, rows) = call.lengths, call.x.shape[:2]
    count = min(_MOST_GROUPS, rows // _FEWEST_ROWS)
    if lengths is None or count < 2 or call.spec.all_states or any(_differs(mask) for mask in call.masks):
        return None
    order = lengths.argsort(descending=True, stable=True)
    ordered = lengths[order].tolist()
    bounds = [rows * number // count for number in range(count + 1)]
    sizes = [last - first for first, last in itertools.pairwise(bounds)]
    longest = [max(1, ordered[first]) for first in bounds[:-1]]
    if sum(size * most for size, most in zip(sizes, longest, strict=True)) > _WORTH * steps * rows:
        return None
    x = torch.split(call.x.index_select(1, order), sizes, 1)
    state, fresh = _split(call.state, order, sizes), _split(call.reset_state, order, sizes)
    resets = [None] * count if call.resets is None else torch.split(call.resets.index_select(1, order), sizes, 1)
    calls = [
        dataclasses.replace(
            call,
            x=x[k][:most],
            state=tuple(leaf[k] for leaf in state),
            lengths=lengths[order[bounds[k] : bounds[k + 1]]],
            resets=None if (flags := resets[k]) is None else flags[:most],
            reset_state=tuple(leaf[k] for leaf in fresh) if call.reset_state is not None else None,
        )
        for k, most in enumerate(longest)
    ]
    return Groups(calls, order)


def together(call: LayerCall, groups: Groups, results: Sequence[LayerResult]) -> LayerResult:
    """What the whole call gives, from what its groups give."""
    steps, back = call.x.shape[0], groups.order.argsort()
    outputs = [F.pad(result.outputs, (0, 0, 0, 0, 0, steps - result.outputs.shape[0])) for result in results]
    leaves = zip(*[result.state for result in results], strict=True)
    state = tuple([torch.cat(leaf).index_select(0, back) for leaf in leaves])
    return LayerResult(torch.cat(outputs, 1).index_select(1, back), state)


def _differs(mask: BoundMask) -> bool:
    """Whether a mask has other elements for other rows or steps."""
    return (mask.spec.per_row or mask.spec.per_step) and not mask.expected


def _split(
    leaves: Sequence[torch.Tensor] | None, order: torch.Tensor, sizes: Sequence[int]
) -> list[tuple[torch.Tensor, ...]]:
    """The leaves of a state by group."""
    return [tuple(torch.split(leaf.index_select(0, order), list(sizes))) for leaf in leaves or ()]
