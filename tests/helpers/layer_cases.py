"""The one table of layer runs that every backend is checked on: variants, awkward sizes, masks, resets, directions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cellweave.ops import gru, lstm, rnn
from cellweave.ops.common import Backend, BoundMask, LayerCall, RunContext
from cellweave.specs import ZONES, CellSpec, GRUSpec, LSTMSpec, MaskSpec, RNNSpec, RunSpec
from helpers.recurrence_cases import SIZES, laid_out
from oracles import keras, tf1
from oracles.activations import Array
from oracles.by_unit import ByUnit
from oracles.composition import flatten, rebuild
from oracles.contrib import LSTMVariant
from oracles.layer import Mask, mask_values


@dataclass(frozen=True)
class LayerVariant:
    """A cell's spec and its oracle.

    Attributes:
        spec: From H. oracle: From D and H.
        kinked: Has clips or relus, whose gradients jump: large float32 cases could fall on either side. Or normalizes:
            the largest cases have rows with so little variance that their rounding is magnified past the tolerance
            (T = 65, B = 32, H = 9: 3 of 12480 gradients by 3.7e-6 in float32).
    """

    name: str
    spec: Callable[[int], CellSpec]
    oracle: Callable[[int, int], tf1.Cell]
    kinked: bool = False


def _keras_lstm(units: int, **options: Any) -> LSTMSpec:
    return LSTMSpec(units, gate_order="ifjo", joined_kernel=False, **options)


def _keras_gru(units: int, **options: Any) -> GRUSpec:
    return GRUSpec(units, gate_order="urc", joined_kernel=False, **options)


def _half(units: int) -> int:
    return max(1, units // 2)


VARIANTS = (
    LayerVariant("rnn", lambda n: RNNSpec(n), lambda d, n: tf1.BasicRNNCell(d, n)),
    LayerVariant("rnn-relu", lambda n: RNNSpec(n, "relu"), lambda d, n: tf1.BasicRNNCell(d, n, "relu"), kinked=True),
    LayerVariant("rnn-split", lambda n: RNNSpec(n, joined_kernel=False), lambda d, n: keras.SimpleRNNCell(d, n)),
    LayerVariant(
        "rnn-unbiased",
        lambda n: RNNSpec(n, "softplus", joined_kernel=False, use_bias=False),
        lambda d, n: keras.SimpleRNNCell(d, n, "softplus"),
    ),
    LayerVariant("gru", lambda n: GRUSpec(n), lambda d, n: tf1.GRUCell(d, n)),
    LayerVariant("gru-softsign", lambda n: GRUSpec(n, "softsign"), lambda d, n: tf1.GRUCell(d, n, "softsign")),
    LayerVariant("gru-split", lambda n: _keras_gru(n), lambda d, n: keras.GRUCell(d, n, reset_after=False)),
    LayerVariant("gru-after", lambda n: _keras_gru(n, reset_after=True), lambda d, n: keras.GRUCell(d, n)),
    LayerVariant(
        "gru-after-unbiased",
        lambda n: _keras_gru(n, reset_after=True, use_bias=False),
        lambda d, n: keras.GRUCell(d, n),
    ),
    LayerVariant("lstm", lambda n: LSTMSpec(n, forget_bias=1.0), lambda d, n: tf1.LSTMCell(d, n)),
    LayerVariant("lstm-split", lambda n: _keras_lstm(n), lambda d, n: keras.LSTMCell(d, n)),
    LayerVariant(
        "lstm-unbiased",
        lambda n: _keras_lstm(n, use_bias=False, activation="elu"),
        lambda d, n: keras.LSTMCell(d, n, "elu"),
    ),
    LayerVariant(
        "peephole", lambda n: LSTMSpec(n, peepholes=True), lambda d, n: tf1.LSTMCell(d, n, True, forget_bias=0)
    ),
    LayerVariant(
        "clip",
        lambda n: LSTMSpec(n, cell_clip=0.5),
        lambda d, n: tf1.LSTMCell(d, n, cell_clip=0.5, forget_bias=0),
        True,
    ),
    LayerVariant(
        "proj",
        lambda n: LSTMSpec(n, projection=_half(n)),
        lambda d, n: tf1.LSTMCell(d, n, num_proj=_half(n), forget_bias=0),
    ),
    LayerVariant(
        "all",
        lambda n: LSTMSpec(n, peepholes=True, cell_clip=0.9, projection=_half(n), proj_clip=0.4, forget_bias=0.3),
        lambda d, n: tf1.LSTMCell(d, n, True, 0.9, _half(n), 0.4, 0.3),
        kinked=True,
    ),
    LayerVariant(
        "norm",
        lambda n: LSTMSpec(n, use_bias=False, layer_norm=True, forget_bias=1.0),
        lambda d, n: LSTMVariant(d, n, layer_norm=True),
        kinked=True,
    ),
    LayerVariant(
        "block",
        lambda n: LSTMSpec(n, peepholes=True, cell_clip=0.5, peephole_order="ifo", clip_passes_gradient=True),
        lambda d, n: LSTMVariant(
            d, n, peepholes=True, peephole_order="ifo", cell_clip=0.5, clip_stops=False, forget_bias=0
        ),
    ),
    LayerVariant(
        "coupled",
        lambda n: LSTMSpec(n, gate_order="jfo", coupled=True, forget_bias=0.3),
        lambda d, n: LSTMVariant(d, n, coupled=True, forget_bias=0.3),
    ),
    LayerVariant(
        "coupled-all",
        lambda n: LSTMSpec(n, gate_order="jfo", coupled=True, peepholes=True, projection=_half(n), proj_clip=0.4),
        lambda d, n: LSTMVariant(d, n, coupled=True, peepholes=True, projection=_half(n), proj_clip=0.4, forget_bias=0),
        kinked=True,
    ),
    LayerVariant(
        "coupled-norm",
        lambda n: LSTMSpec(
            n, "softsign", gate_order="jfo", coupled=True, use_bias=False, layer_norm=True, peepholes=True
        ),
        lambda d, n: LSTMVariant(
            d, n, coupled=True, layer_norm=True, peepholes=True, activation="softsign", forget_bias=0
        ),
        kinked=True,
    ),
    LayerVariant(
        "rnn-by-unit",
        lambda n: RNNSpec(n, joined_kernel=False, transposed=True),
        lambda d, n: ByUnit(keras.SimpleRNNCell(d, n), d),
    ),
    LayerVariant(
        "gru-by-unit",
        lambda n: _keras_gru(n, transposed=True),
        lambda d, n: ByUnit(keras.GRUCell(d, n, reset_after=False), d),
    ),
    LayerVariant(
        "gru-after-by-unit",
        lambda n: _keras_gru(n, reset_after=True, transposed=True),
        lambda d, n: ByUnit(keras.GRUCell(d, n), d),
    ),
    LayerVariant(
        "lstm-by-unit", lambda n: _keras_lstm(n, transposed=True), lambda d, n: ByUnit(keras.LSTMCell(d, n), d)
    ),
    LayerVariant(
        "proj-by-unit",
        lambda n: LSTMSpec(n, joined_kernel=False, projection=_half(n), transposed=True),
        lambda d, n: ByUnit(tf1.LSTMCell(d, n, num_proj=_half(n), forget_bias=0), d),
    ),
    LayerVariant(
        "norm-all",
        lambda n: LSTMSpec(
            n, layer_norm=True, peepholes=True, cell_clip=0.9, projection=_half(n), proj_clip=0.4, norm_epsilon=1e-5
        ),
        lambda d, n: LSTMVariant(
            d,
            n,
            layer_norm=True,
            biased=True,
            peepholes=True,
            cell_clip=0.9,
            projection=_half(n),
            proj_clip=0.4,
            forget_bias=0,
            epsilon=1e-5,
        ),
        kinked=True,
    ),
    LayerVariant(
        "rnn-norm",
        lambda n: RNNSpec(n, layer_norm=True, norm_epsilon=1e-5),
        lambda d, n: tf1.BasicRNNCell(d, n, epsilon=1e-5),
        kinked=True,
    ),
    LayerVariant(
        "gru-norm",
        lambda n: GRUSpec(n, layer_norm=True),
        lambda d, n: tf1.GRUCell(d, n, epsilon=1e-12),
        kinked=True,
    ),
    LayerVariant(
        "gru-norm-split",
        lambda n: _keras_gru(n, layer_norm=True, norm_epsilon=1e-5),
        lambda d, n: keras.GRUCell(d, n, reset_after=False, epsilon=1e-5),
        kinked=True,
    ),
    LayerVariant(
        "gru-norm-after",
        lambda n: _keras_gru(n, reset_after=True, layer_norm=True, norm_epsilon=1e-5),
        lambda d, n: keras.GRUCell(d, n, epsilon=1e-5),
        kinked=True,
    ),
)


class Kind(NamedTuple):
    """How often a mask is drawn, and from what.

    Attributes:
        per_step: At every step. per_row: A row of its own for each batch row. by_floor: By TF1's floor.
        given: From given noise. expected: Not at all.
    """

    per_step: bool
    per_row: bool
    by_floor: bool
    given: bool = False
    expected: bool = False


KINDS = {
    "step": Kind(True, True, False),
    "fed": Kind(True, True, True),
    "shared": Kind(False, False, True),
    "rows": Kind(False, True, True),
    "noise": Kind(False, False, True, given=True),
    "noises": Kind(False, True, True, given=True),
    "expected": Kind(True, True, False, expected=True),
}
MASKS = {
    "none": "",
    "input": "input:step",
    "output": "output:shared",
    "variational": "input:shared h:shared output:shared",
    "rows": "input:rows c:rows h:rows",
    "steps": "input:step c:step h:step output:step",
    "twice": "h:step h:shared output:rows output:fed input:fed input:step",
    "noise": "input:noise h:noise c:noises output:noises",
    "zoneout": "zone_c:step zone_h:step",
    "expected": "zone_c:expected zone_h:expected output:rows",
    "zones": "input:step zone_h:fed h:shared zone_c:rows c:step zone_h:shared output:step",
    "zone-noise": "zone_h:noises h:step zone_c:noise",
}
FEATURES: dict[str, tuple[Any, ...]] = {
    "masks": tuple(MASKS),
    "lengths": ("full", "ragged"),
    "resets": ("never", "zeros", "given"),
    "reverse": (False, True),
    "residual": (False, True),
    "states": (False, True),
    "layout": ("plain", "strided", "offset", "batchmajor"),
}
_PER_VARIANT = 12
_KINKED_LIMIT = 2500  # T * B * H, as in recurrence_cases


@dataclass(frozen=True)
class LayerCase:
    """One case; its id reads `T7-B3-H65-peephole-twice-ragged-given-backwards-residual-strided-float32`."""

    variant: LayerVariant
    T: int
    B: int
    H: int
    masks: str = "none"
    lengths: str = "full"
    resets: str = "never"
    reverse: bool = False
    residual: bool = False
    states: bool = False
    layout: str = "plain"
    dtype: str = "float64"

    @property
    def id(self) -> str:
        """Readable name."""
        words = [self.variant.name, self.masks, self.lengths, self.resets, "backwards" if self.reverse else "forwards"]
        words += ["residual"] if self.residual else []
        words += ["states"] if self.states else []
        return "-".join([f"T{self.T}-B{self.B}-H{self.H}", *words, self.layout, self.dtype])

    def mask_kinds(self) -> list[tuple[str, Kind]]:
        """Place and kind of each mask that this cell can have."""
        pairs = [word.split(":") for word in MASKS[self.masks].split()]
        has_c = isinstance(self.variant.spec(self.H), LSTMSpec)
        return [(place, KINDS[kind]) for place, kind in pairs if has_c or place not in ("c", "zone_c")]

    def run(self) -> RunSpec:
        """The case as a planner would describe it."""
        masks = tuple(MaskSpec(place, kind.per_step, kind.per_row) for place, kind in self.mask_kinds())  # type: ignore[arg-type]
        ragged, resets = self.lengths == "ragged", self.resets != "never"
        return RunSpec(self.variant.spec(self.H), masks, self.residual, ragged, resets, self.reverse, self.states)

    @property
    def D(self) -> int:  # noqa: N802 (the axis's name)
        """Input depth: odd beside even units, so that a swapped axis shows; that of the outputs under a residual."""
        return self.variant.spec(self.H).output_size if self.residual else max(1, self.H // 2 + self.H % 2 + 1)

    def numbers(self) -> np.random.Generator:
        """Random numbers of this case, the same for every backend and dtype."""
        return np.random.default_rng(zlib.crc32(self.id.rsplit("-", 1)[0].encode()))


_LONG = 20  # steps


@functools.cache
def layer_cases() -> tuple[LayerCase, ...]:
    """Sizes take turns over the variants; features are chosen so that every pair of them occurs together."""
    chooser, cases = random.Random(7), []
    missing = [
        (first, one, second, other)
        for first, second in itertools.combinations(FEATURES, 2)
        for one in FEATURES[first]
        for other in FEATURES[second]
    ]
    for v, variant in enumerate(VARIANTS):
        for k in range(_PER_VARIANT):
            T, B, H = SIZES[(5 * v + 7 * k) % len(SIZES)]
            if variant.kinked and T * B * H > _KINKED_LIMIT:
                continue
            if getattr(variant.spec(1), "layer_norm", False) and H == 1:
                H = 7  # one unit has no variance: its rounding would be multiplied by 1 / sqrt(1e-12)
            features = _features(missing, chooser)
            if features["masks"] == "zones" and T > _LONG:
                T = 7  # what zoneout keeps is divided by its h mask's keep at every step: it would grow to hundreds
            if T > 1:
                missing = [pair for pair in missing if not _holds(features, pair)]
            cases += [LayerCase(variant, T, B, H, **features, dtype=dtype) for dtype in ("float32", "float64")]
    return tuple(cases)


def _features(missing: list[tuple[str, Any, str, Any]], chooser: random.Random) -> dict[str, Any]:
    """As many missing pairs as go together, and anything for the rest."""
    chosen: dict[str, Any] = {}
    for first, one, second, other in chooser.sample(missing, len(missing)):
        if chosen.get(first, one) == one and chosen.get(second, other) == other:
            chosen |= {first: one, second: other}
    return {name: chosen.get(name, chooser.choice(values)) for name, values in FEATURES.items()}


def _holds(features: dict[str, Any], pair: tuple[str, Any, str, Any]) -> bool:
    first, one, second, other = pair
    return bool(features[first] == one and features[second] == other)


@dataclass
class LayerData:
    """Numbers of a case, float64, time major; states in the oracle's structure."""

    oracle: tf1.Cell
    run: RunSpec
    x: Array
    state: Any
    fresh: Any
    weights: dict[str, Array]
    lengths: list[int] | None
    resets: Array | None
    masks: tuple[BoundMask, ...]
    oracle_masks: list[Mask]
    d_out: Array
    d_state: Any
    d_states: list[Array]

    def oracle_options(self) -> dict[str, Any]:
        """Arguments of the oracle's `layer_forward` after the state."""
        return {
            "lengths": self.lengths, "resets": self.resets, "fresh": self.fresh, "masks": self.oracle_masks,
            "residual": self.run.residual, "reverse": self.run.reverse,
        }  # fmt: skip


def make_data(case: LayerCase) -> LayerData:
    """Random inputs, non-zero state, weights that keep the gates inside ±2, random upstream gradients."""
    rng, T, B, D = case.numbers(), case.T, case.B, case.D
    oracle = case.variant.oracle(D, case.H)
    names = {weight.name for weight in case.variant.spec(case.H).weights(D)}

    def normal(*shape: int) -> Array:
        return rng.normal(size=shape).astype(np.float32).astype(np.float64)

    def state_like(size: Any) -> Any:
        if isinstance(size, tuple | list):
            return rebuild(size, [state_like(item) for item in size])
        return normal(B, size) * 0.5

    weights = {}
    for name, shape in oracle.shapes.items():
        bound = 1.0 / np.sqrt(shape[0]) if len(shape) == 2 and "bias" not in name else 0.4
        bound = bound if name in names else 0.0  # an oracle without a bias has zeros
        weights[name] = rng.uniform(-bound, bound, size=shape).astype(np.float32).astype(np.float64)
    oracle.set_weights(weights)
    lengths = resets = fresh = None
    if case.lengths == "ragged":
        lengths = rng.integers(0, T + 1, size=B).tolist()
        lengths[0], lengths[-1] = T, 0 if B > 1 else T
    if case.resets != "never":
        resets = rng.random((T, B)) < 0.3
        resets[:1, 0] = resets[-1:, 0] = True  # before the first step too, whichever end that is
        fresh = state_like(oracle.state_size) if case.resets == "given" else None
    masks, oracle_masks = _make_masks(case, rng)
    x, state = normal(T, B, D), state_like(oracle.state_size)
    d_out, d_state = normal(T, B, oracle.output_size), state_like(oracle.state_size)
    d_states = [normal(T, *leaf.shape) for leaf in flatten(state)] if case.states else []
    return LayerData(
        oracle, case.run(), x, state, fresh, weights, lengths, resets, masks, oracle_masks, d_out, d_state, d_states
    )


def _make_masks(case: LayerCase, rng: np.random.Generator) -> tuple[tuple[BoundMask, ...], list[Mask]]:
    cell = case.variant.spec(case.H)
    widths = {"input": case.D, "h": cell.output_size, "c": cell.units, "output": cell.output_size}
    widths |= {"zone_h": widths["h"], "zone_c": widths["c"]}
    bound, values = [], []
    for number, (place, kind) in enumerate(case.mask_kinds()):
        per_step, per_row, by_floor, given, expected = kind
        shape = (case.B if per_row else 1, widths[place])
        # States are kept more often: what is multiplied by 2 at each of 65 steps would outgrow every tolerance.
        keep = float(np.float32({"h": 0.9, "c": 0.85}.get(place, (0.7, 0.5, 0.6)[number % 3])))
        seed, seed2 = (int(word) for word in rng.integers(0, 2**63, size=2))
        stream = (seed, seed2, 2**64 - 3 if number % 2 else 5)  # the first counters carry into the upper half
        stride = 256 * shape[0] * shape[1] + 1000 * number if per_step else 0  # as of streams that masks share
        noise = rng.random(shape).astype(case.dtype) if given else None
        tensor = None if noise is None else torch.tensor(noise)
        bound.append(BoundMask(case.run().masks[number], keep, by_floor, *stream, stride, tensor, expected))
        if expected:
            values.append(Mask(place, np.full((1, 1, widths[place]), keep)))
            continue
        drawn = mask_values(
            case.T if per_step else 1, shape, case.dtype, keep,
            by_floor=by_floor, stream=stream, stride=stride, noise=noise, zone=place in ZONES,
        )  # fmt: skip
        values.append(Mask(place, drawn))
    return tuple(bound), values


def make_call(case: LayerCase, data: LayerData, *, threads: int = 1) -> LayerCall:
    """The call in the library's form; its tensors require gradients."""
    dtype = getattr(torch, case.dtype)

    def leaf(value: Array) -> torch.Tensor:
        return _laid_out(value, case.layout, dtype).requires_grad_()

    def state(value: Any) -> tuple[torch.Tensor, ...]:
        leaves = [leaf(item) for item in flatten(value)]
        return tuple(reversed(leaves)) if isinstance(value, list) else tuple(leaves)  # Keras keeps h before c

    names = [weight.name for weight in data.run.cell.weights(1)]
    return LayerCall(
        data.run, leaf(data.x), state(data.state), {name: leaf(data.weights[name]) for name in names}, data.masks,
        None if data.lengths is None else torch.tensor(data.lengths, dtype=torch.int32),
        None if data.resets is None else torch.tensor(data.resets),
        None if data.fresh is None else state(data.fresh), threads,
    )  # fmt: skip


def on_device(call: LayerCall, device: str) -> LayerCall:
    """The call with its tensors on a device, as leaves that require gradients where they did."""
    if device == "cpu":
        return call

    def moved(value: torch.Tensor) -> torch.Tensor:
        return value.detach().to(device).requires_grad_(value.requires_grad)

    return dataclasses.replace(
        call,
        x=moved(call.x),
        state=tuple(map(moved, call.state)),
        weights={name: moved(weight) for name, weight in call.weights.items()},
        masks=tuple(m if m.noise is None else dataclasses.replace(m, noise=m.noise.to(device)) for m in call.masks),
        lengths=None if call.lengths is None else call.lengths.to(device),
        resets=None if call.resets is None else call.resets.to(device),
        reset_state=None if call.reset_state is None else tuple(map(moved, call.reset_state)),
    )


def _laid_out(value: Array, layout: str, dtype: torch.dtype) -> torch.Tensor:
    if layout == "batchmajor":
        plain = torch.tensor(value, dtype=dtype)
        return plain.transpose(0, 1).contiguous().transpose(0, 1) if plain.dim() > 1 else plain
    return laid_out(value, layout, dtype)


def backends_of(run: RunSpec) -> tuple[Backend, ...]:
    """The backends of the run's cell."""
    kinds: dict[type[Any], Any] = {RNNSpec: rnn, GRUSpec: gru, LSTMSpec: lstm}
    found: tuple[Backend, ...] = kinds[type(run.cell)].BACKENDS
    return found


def backend_of(run: RunSpec, name: str) -> Backend:
    """One of them by name."""
    return next(backend for backend in backends_of(run) if backend.name == name)


def context_of(case: LayerCase, **changes: Any) -> RunContext:
    """What a planner would tell a backend about a case."""
    dtype = getattr(torch, case.dtype)
    context = RunContext(dtype, "cpu", case.T, case.B, case.D, needs_grad=True, transforms=False)
    return dataclasses.replace(context, **changes)


def refusal(backend: str, case: LayerCase) -> str | None:
    """Why a backend cannot run a case."""
    return backend_of(case.run(), backend).refuses(case.run(), context_of(case))


def needs_backend(backend: str, case: LayerCase) -> None:
    """Skip the test, with the backend's own reason, where it cannot run this."""
    reason = refusal(backend, case)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
