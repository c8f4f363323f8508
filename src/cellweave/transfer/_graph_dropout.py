"""Dropouts in a graph: what they drop, what they keep, and whether one mask serves every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cellweave.checkpoint import Node
from cellweave.transfer._graph_reader import ADDING, GraphReader

#: Operations that put a mask on values: a product with zeros and ones, or a choice between values and zeros.
_MASKING = ("Mul", "Select", "SelectV2")
#: Decimals of a probability that one minus a float32 still has.
_DECIMALS = 7
#: Operations that make a mask out of random numbers: rounded down, compared with a rate, and as numbers again.
_ROUNDING = ("Floor", "Cast", "GreaterEqual", *ADDING)


@dataclass(frozen=True)
class Keep:
    """A keep probability.

    Attributes:
        node: The operation that applies the mask.
        value: The probability where it is a constant.
        placeholder: The placeholder that it is fed by.
        shared: Whether one mask serves every step.
    """

    node: str
    value: str | None = None
    placeholder: str | None = None
    shared: bool = False

    @property
    def shown(self) -> str:
        """In words."""
        words = "keep probability not told"
        if self.value is not None:
            words = f"keep probability {self.value}"
        elif self.placeholder is not None:
            words = f"keep probability fed by {self.placeholder}"
        return words + (", one mask for every step (variational_recurrent)" if self.shared else "")


def dropouts_of(reader: GraphReader, tensor: str) -> Iterator[Node]:
    """The operations that put masks on a tensor."""
    for user in reader.users(tensor):
        if user.op not in (*_MASKING, "RealDiv"):
            continue
        if _random_of(reader, user) is not None:
            yield user
        else:  # divided by the probability, or multiplied with its inverse, first
            yield from (n for n in reader.users(user.name) if n.op in _MASKING and _random_of(reader, n) is not None)


def undropped(reader: GraphReader, node: Node) -> str | None:
    """The tensor that a dropout has put its mask on; None when the operation is no dropout."""
    if node.op not in _MASKING or (mask := _mask_of(reader, node)) is None:
        return None
    values = [name for name in node.inputs if reader.maker(name) != mask and reader.constant(name) is None]
    scaled = reader.maker(values[0]) if values else None
    if scaled is not None and scaled.op in ("RealDiv", "Mul") and _random_of(reader, scaled) is None:
        factor = [name for name in scaled.inputs if _is_probability(reader, name)]
        kept = [name for name in scaled.inputs if name not in factor]
        if factor and kept:
            return kept[0]
    return values[0] if values else None


def keep_of(reader: GraphReader, masked: Node) -> Keep:
    """The keep probability of a dropout: followed from the division by it, or from the drawing."""
    random = _random_of(reader, masked)
    shared = random is not None and _serves_all_steps(reader, random, masked)
    for name in masked.inputs:
        divided = reader.maker(name)
        if divided is None or divided.op != "RealDiv" or len(divided.inputs) != 2:
            continue
        source, value = reader.maker(divided.inputs[1]), reader.constant(divided.inputs[1])
        if value is not None and 0.0 < value < 1.0:
            return Keep(masked.name, value=number(value), shared=shared)
        if source is not None and source.op.startswith("Placeholder"):
            return Keep(masked.name, placeholder=source.name, shared=shared)
    return _keep_of_rate(reader, masked, shared)


def _keep_of_rate(reader: GraphReader, masked: Node, shared: bool) -> Keep:
    """The same where numbers are compared with the rate of what is dropped, as TF 1.13 and later do."""
    made = [reader.maker(name) for name in masked.inputs]
    made += [reader.maker(node.inputs[0]) for node in made if node is not None and node.op == "Cast"]
    drawing = next((node for node in made if node is not None and node.op == "GreaterEqual"), None)
    rate = None if drawing is None else reader.constant(drawing.inputs[1])
    if rate is not None and 0.0 < rate < 1.0:
        return Keep(masked.name, value=number(round(1.0 - rate, _DECIMALS)), shared=shared)
    source = None if drawing is None else reader.maker(drawing.inputs[1])
    if source is not None and source.op == "Sub" and reader.constant(source.inputs[0]) == 1.0:
        kept = reader.maker(source.inputs[1])
        if kept is not None and kept.op.startswith("Placeholder"):
            return Keep(masked.name, placeholder=kept.name, shared=shared)
    return Keep(masked.name, shared=shared)


def _mask_of(reader: GraphReader, node: Node) -> Node | None:
    """What an operation takes that is made of random numbers by comparing or rounding."""
    for name in node.inputs:
        made = reader.maker(name)
        if made is not None and made.op in _ROUNDING[:3] and _drawn(reader, made) is not None:
            return made
    return None


def _random_of(reader: GraphReader, node: Node) -> Node | None:
    """The random numbers whose mask an operation applies; None when it applies none."""
    mask = _mask_of(reader, node) if node.op in _MASKING else None
    return None if mask is None else _drawn(reader, mask)


def _drawn(reader: GraphReader, mask: Node) -> Node | None:
    open_nodes = [mask]
    for _ in range(8):  # rounding, adding the probability, and the range that TF1 draws numbers of
        following = []
        for node in open_nodes:
            made = [found for name in node.inputs if (found := reader.maker(name)) is not None]
            drawn = next((found for found in made if "Random" in found.op), None)
            if drawn is not None:
                return drawn
            following += [found for found in made if found.op in (*_ROUNDING, "Mul", "Sub")]
        open_nodes = following
    return None


def _serves_all_steps(reader: GraphReader, random: Node, masked: Node) -> bool:
    """Whether the numbers are drawn outside of the loop whose steps they mask, or for several steps without a loop."""
    loop, inside, _ = masked.name.rpartition("/while/")
    if inside:
        return not random.name.startswith(loop + inside)
    masks = [user for user in reader.users(random.name) if user.op in _ROUNDING]
    return len(masks) > 1


def _is_probability(reader: GraphReader, tensor: str) -> bool:
    made = reader.maker(tensor)
    return made is not None and (made.op in ("Const", "RealDiv", "Sub") or made.op.startswith("Placeholder"))


def number(value: float) -> str:
    """A float32's shortest text that gives it back."""
    return repr(float(str(np.float32(value))))
