"""The one table of recurrences that every backend is checked on: variants, awkward sizes, lengths, memory layouts."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

import cellweave as cw
from oracles import tf1
from oracles.activations import Array
from oracles.composition import flatten, rebuild


@dataclass(frozen=True, eq=False)
class Variant:
    """A cell class with its options.

    Attributes:
        kinked: Has clips or relus, whose gradients jump: large float32 cases could fall on either side.
        projected: `num_proj` is about half of the units.
    """

    name: str
    cell: str
    options: dict[str, Any] = field(default_factory=dict)
    kinked: bool = False
    projected: bool = False


VARIANTS = (
    Variant("rnn", "BasicRNNCell"),
    Variant("rnn-relu", "BasicRNNCell", {"activation": "relu"}, kinked=True),
    Variant("gru", "GRUCell"),
    Variant("gru-softsign", "GRUCell", {"activation": "softsign"}),
    Variant("basic", "BasicLSTMCell"),
    Variant("basic-concat", "BasicLSTMCell", {"state_is_tuple": False, "forget_bias": 0.3}),
    Variant("lstm", "LSTMCell"),
    Variant("lstm-elu", "LSTMCell", {"activation": "elu", "forget_bias": 0.0}),
    Variant("peephole", "LSTMCell", {"use_peepholes": True}),
    Variant("clip", "LSTMCell", {"cell_clip": 0.5}, kinked=True),
    Variant("proj", "LSTMCell", projected=True),
    Variant("projclip", "LSTMCell", {"proj_clip": 0.3}, kinked=True, projected=True),
    Variant("all", "LSTMCell", {"use_peepholes": True, "cell_clip": 0.9, "proj_clip": 0.4}, True, True),
    Variant("concat-proj", "LSTMCell", {"state_is_tuple": False, "use_peepholes": True}, projected=True),
    Variant("cudnn-lstm", "CudnnCompatibleLSTMCell"),
    Variant("cudnn-gru", "CudnnCompatibleGRUCell"),
)

#: T, B, H: every T with every B, and every H around the vector widths.
SIZES = (
    (0, 1, 7), (0, 3, 8), (0, 32, 1),
    (1, 1, 64), (1, 3, 65), (1, 32, 9),
    (2, 1, 63), (2, 3, 1), (2, 32, 7),
    (7, 1, 9), (7, 3, 65), (7, 32, 8), (7, 3, 64),
    (65, 1, 8), (65, 3, 63), (65, 32, 9),
)  # fmt: skip
KINKED_LIMIT = 2500  # T * B * H
LENGTHS = ("full", "ragged")
LAYOUTS = ("plain", "strided", "offset", "timemajor")


@dataclass(frozen=True)
class RecurrenceCase:
    """One case; its id reads `T7-B3-H65-peephole-ragged-strided-float32`."""

    variant: Variant
    T: int
    B: int
    H: int
    lengths: str
    layout: str
    dtype: str

    @property
    def id(self) -> str:
        """Readable name."""
        return f"T{self.T}-B{self.B}-H{self.H}-{self.variant.name}-{self.lengths}-{self.layout}-{self.dtype}"

    @property
    def D(self) -> int:  # noqa: N802 (the axis's name)
        """Input depth: odd beside even units, so that a swapped axis shows."""
        return max(1, self.H // 2 + self.H % 2 + 1)

    def options(self) -> dict[str, Any]:
        """Constructor options, without `num_units`."""
        return self.variant.options | ({"num_proj": max(1, self.H // 2)} if self.variant.projected else {})

    def numbers(self) -> np.random.Generator:
        """Random numbers of this case, the same for every backend and dtype."""
        return np.random.default_rng(zlib.crc32(self.id.rsplit("-", 1)[0].encode()))


def recurrence_cases() -> list[RecurrenceCase]:
    """Every variant at every size, full and ragged, in both dtypes; the layouts take turns."""
    cases = []
    for v, variant in enumerate(VARIANTS):
        for s, (T, B, H) in enumerate(SIZES):
            if variant.kinked and T * B * H > KINKED_LIMIT:
                continue
            for k, lengths in enumerate(LENGTHS):
                layout = LAYOUTS[(s + v + 2 * k) % 4]
                cases += [RecurrenceCase(variant, T, B, H, lengths, layout, dtype) for dtype in ("float32", "float64")]
    return cases


@dataclass
class RecurrenceData:
    """Numbers of a case, float64, time major."""

    oracle: tf1.Cell
    x: Array
    state: Any
    weights: dict[str, Array]
    lengths: list[int] | None
    d_out: Array
    d_state: Any


def make_data(case: RecurrenceCase) -> RecurrenceData:
    """Random inputs, non-zero state, weights that keep the gates inside ±2, random upstream gradients.

    Every number is rounded to float32, so that both dtypes compute on the same ones.
    """
    rng = case.numbers()

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32).astype(np.float64)

    def state_like(size: Any) -> Any:
        if isinstance(size, tuple):
            return rebuild(size, [state_like(item) for item in size])
        return normal(case.B, size) * 0.5

    kinds: dict[str, Any] = {
        "BasicRNNCell": tf1.BasicRNNCell,
        "GRUCell": tf1.GRUCell,
        "CudnnCompatibleGRUCell": tf1.CudnnCompatibleGRUCell,
        "CudnnCompatibleLSTMCell": partial(tf1.LSTMCell, forget_bias=0.0),
    }
    oracle = kinds.get(case.variant.cell, tf1.LSTMCell)(case.D, case.H, **case.options())
    weights = {}
    for name, shape in oracle.shapes.items():
        bound = 1.0 / np.sqrt(shape[0]) if len(shape) == 2 else 0.4
        weights[name] = rng.uniform(-bound, bound, size=shape).astype(np.float32).astype(np.float64)
    oracle.set_weights(weights)
    lengths = None
    if case.lengths == "ragged":
        lengths = rng.integers(0, case.T + 1, size=case.B).tolist()
        lengths[0], lengths[-1] = case.T, 0 if case.B > 1 else case.T
    return RecurrenceData(
        oracle,
        normal(case.T, case.B, case.D),
        state_like(oracle.state_size),
        weights,
        lengths,
        normal(case.T, case.B, oracle.output_size),
        state_like(oracle.state_size),
    )


def laid_out(value: Array, layout: str, dtype: torch.dtype) -> torch.Tensor:
    """A tensor of these values: contiguous, with gaps in its last axis, or off its storage's start by one element."""
    plain = torch.tensor(value, dtype=dtype)
    if layout == "strided":
        wide = torch.full((*plain.shape[:-1], 2 * plain.shape[-1]), 9.0, dtype=dtype)
        wide[..., ::2] = plain
        return wide[..., ::2]
    if layout == "offset":
        buffer = torch.full((plain.numel() + 1,), 9.0, dtype=dtype)
        buffer[1:] = plain.reshape(-1)
        return buffer[1:].reshape(plain.shape)
    return plain


def make_cell(case: RecurrenceCase, weights: dict[str, Array]) -> Any:
    """The library's cell with these weights."""
    cell = getattr(cw, case.variant.cell)(case.H, dtype=case.dtype, **case.options())
    cell.build([case.B, case.D])
    cell.set_weights([value.astype(case.dtype) for value in weights.values()])
    return cell


def library_state(like: Any, cell: Any, layout: str, dtype: torch.dtype) -> tuple[Any, list[torch.Tensor]]:
    """The state as the library takes it, and its leaves, which require gradients."""
    leaves = [laid_out(leaf, layout, dtype).requires_grad_() for leaf in flatten(like)]
    if isinstance(cell.state_size, cw.LSTMStateTuple):
        return cw.LSTMStateTuple(*leaves), leaves
    return leaves[0], leaves
