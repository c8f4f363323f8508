"""Initializers: distributions, kinds, seeds, plain-data forms."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
import torch

import cellweave as cw
from cellweave import initializers
from helpers.ids import named

SHAPE = (300, 200)
FAN_AVERAGE = (SHAPE[0] + SHAPE[1]) / 2
ALL: list[Any] = [
    initializers.Zeros(),
    initializers.Ones(),
    initializers.Constant(0.5),
    initializers.RandomUniform(-0.2, 0.3, seed=1),
    initializers.RandomNormal(0.1, 0.2, seed=2),
    initializers.TruncatedNormal(0.1, 0.2, seed=3),
    initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=4),
    initializers.GlorotUniform(seed=5),
    initializers.GlorotNormal(seed=6),
    initializers.Orthogonal(2.0, seed=7),
    initializers.Identity(3.0),
]
RANDOM = [value for value in ALL if hasattr(value, "seed")]


def _drawn(initializer: Any, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return initializer(shape, dtype=torch.float64)


def _name(initializer: Any) -> str:
    return type(initializer).__name__


def _standard_error(std: float) -> float:
    return 5 * std / math.sqrt(math.prod(SHAPE))


@pytest.mark.parametrize("initializer", ALL, ids=_name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_shape_and_dtype(initializer: Any, dtype: torch.dtype) -> None:
    if dtype is torch.bfloat16 and isinstance(initializer, initializers.Orthogonal):
        dtype = torch.float32  # torch has no bfloat16 QR
    value = initializer((4, 3), dtype=dtype)
    assert tuple(value.shape) == (4, 3)
    assert value.dtype is dtype
    assert not value.requires_grad


def test_constants() -> None:
    assert (_drawn(initializers.Zeros()) == 0).all()
    assert (_drawn(initializers.Ones()) == 1).all()
    assert (_drawn(initializers.Constant(-2.5)) == -2.5).all()
    assert initializers.Constant([1, 2, 3, 4])((2, 2)).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert initializers.Constant([1, 2])((2, 2)).tolist() == [[1.0, 2.0], [2.0, 2.0]]
    assert initializers.Constant([])((2,)).tolist() == [0.0, 0.0]
    with pytest.raises(cw.ShapeError, match=r"Constant: expected at most 6 values for \[2, 3\], got 7"):
        initializers.Constant([1, 2, 3, 4, 5, 6, 7])((2, 3))


def test_a_constant_array_is_copied() -> None:
    given = torch.ones(2)
    initializers.Constant(given)((2,)).add_(1)
    assert given.tolist() == [1.0, 1.0]


def test_uniform() -> None:
    value = _drawn(initializers.RandomUniform(-0.2, 0.3))
    assert value.min() >= -0.2 and value.max() < 0.3
    assert value.min() < -0.199 and value.max() > 0.299
    assert value.mean().item() == pytest.approx(0.05, abs=_standard_error(0.5 / math.sqrt(12)))


def test_normal() -> None:
    value = _drawn(initializers.RandomNormal(0.1, 0.2))
    assert value.mean().item() == pytest.approx(0.1, abs=_standard_error(0.2))
    assert value.std().item() == pytest.approx(0.2, rel=0.02)
    assert (value - 0.1).abs().max() > 0.6


def test_truncated_normal() -> None:
    value = _drawn(initializers.TruncatedNormal(0.1, 0.2))
    assert (value - 0.1).abs().max() <= 0.4
    assert value.mean().item() == pytest.approx(0.1, abs=_standard_error(0.2))
    assert value.std().item() == pytest.approx(0.2 * 0.8796, rel=0.02)


@pytest.mark.parametrize("distribution", ["uniform", "truncated_normal", "untruncated_normal", "normal"])
@pytest.mark.parametrize("mode, fan", [("fan_in", SHAPE[0]), ("fan_out", SHAPE[1]), ("fan_avg", FAN_AVERAGE)])
def test_variance_scaling(mode: str, fan: float, distribution: str) -> None:
    value = _drawn(initializers.VarianceScaling(2.0, mode, distribution))
    assert value.std().item() == pytest.approx(math.sqrt(2.0 / fan), rel=0.02)
    assert value.mean().item() == pytest.approx(0.0, abs=_standard_error(math.sqrt(2.0 / fan)))


@pytest.mark.parametrize(
    "arguments", [{"mode": "fan"}, {"distribution": "gauss"}, {"scale": 0.0}, {"scale": -1.0}], ids=str
)
def test_variance_scaling_refuses(arguments: dict[str, Any]) -> None:
    with pytest.raises(cw.ArgumentError, match=r"VarianceScaling: expected .*got "):
        initializers.VarianceScaling(**arguments)


def test_glorot() -> None:
    limit = math.sqrt(6 / (SHAPE[0] + SHAPE[1]))
    uniform, normal = _drawn(initializers.GlorotUniform()), _drawn(initializers.GlorotNormal())
    assert uniform.abs().max() <= limit
    assert uniform.abs().max() > 0.999 * limit
    for value in (uniform, normal):
        assert value.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("shape, fans", [((), 2), ((50,), 100), ((3, 4, 5), 3 * (4 + 5))], ids=str)
def test_fans_of_other_ranks(shape: tuple[int, ...], fans: int) -> None:
    limit = math.sqrt(6 / fans)
    drawn = torch.stack([_drawn(initializers.GlorotUniform(), shape) for _ in range(200)])
    assert 0.9 * limit < drawn.abs().max() <= limit


def test_orthogonal() -> None:
    value = initializers.Orthogonal(2.0)((6, 4), torch.float64)
    assert torch.allclose(value.T @ value, 4 * torch.eye(4, dtype=torch.float64))
    wide = initializers.Orthogonal()((4, 6), torch.float64)
    assert torch.allclose(wide @ wide.T, torch.eye(4, dtype=torch.float64))
    with pytest.raises(cw.ShapeError, match=r"Orthogonal.*got \[3\]"):
        initializers.Orthogonal()((3,))


def test_identity() -> None:
    assert initializers.Identity(3.0)((2, 3)).tolist() == [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0]]
    with pytest.raises(cw.ShapeError, match=r"Identity.*got \[2\]"):
        initializers.Identity()((2,))


class TestSeeds:
    @pytest.mark.parametrize("initializer", RANDOM, ids=_name)
    def test_a_seed_repeats_and_leaves_torchs_generator_alone(self, initializer: Any) -> None:
        before = torch.get_rng_state()
        first, second = _drawn(initializer, (5, 4)), _drawn(initializer, (5, 4))
        assert torch.equal(first, second)
        assert torch.equal(torch.get_rng_state(), before)
        other = type(initializer)(**{**vars(initializer), "seed": 99})
        assert not torch.equal(first, _drawn(other, (5, 4)))

    @pytest.mark.parametrize("initializer", RANDOM, ids=_name)
    def test_without_a_seed_torchs_generator_draws(self, initializer: Any) -> None:
        unseeded = type(initializer)(**{**vars(initializer), "seed": None})
        drawn = []
        for _ in range(2):
            torch.manual_seed(5)
            drawn.append(_drawn(unseeded, (5, 4)))
        assert torch.equal(*drawn)
        assert not torch.equal(drawn[0], _drawn(unseeded, (5, 4)))

    def test_a_graph_seed_makes_unseeded_ones_repeat(self) -> None:
        drawn = []
        for _ in range(2):
            cw.set_random_seed(3)
            drawn.append([_drawn(initializers.GlorotUniform(), (3, 3)) for _ in range(2)])
        assert torch.equal(drawn[0][0], drawn[1][0])
        assert torch.equal(drawn[0][1], drawn[1][1])
        assert not torch.equal(drawn[0][0], drawn[0][1])

    def test_cells_weights_repeat_with_torchs_seed(self) -> None:
        cells = []
        for _ in range(2):
            torch.manual_seed(1)
            cells.append(cw.GRUCell(3))
            cells[-1].build([None, 4])
        assert all(torch.equal(a, b) for a, b in zip(*[cell.weights for cell in cells], strict=True))


def _made(initializer: Any, **kwargs: Any) -> torch.Tensor:
    return cw.get_variable("v", initializer=initializer, **kwargs).detach()


class TestKinds:
    """What `initializer=` takes."""

    KINDS: dict[str, Any] = {
        "instance": initializers.ones_initializer(),
        "class": initializers.ones_initializer,
        "name": "ones",
        "class name": "Ones",
        "plain data": {"class_name": "Constant", "config": {"value": 1.0}},
        "function": lambda shape, dtype: torch.ones(shape, dtype=dtype),
        "tf1 function": lambda shape, dtype=None, partition_info=None: torch.ones(shape, dtype=dtype),
        "torch in place": torch.nn.init.ones_,
        "torch in place with arguments": functools.partial(torch.nn.init.constant_, val=1.0),
        "array": np.ones((2, 3), np.float32),
        "list": [[1.0] * 3] * 2,
        "tensor": torch.ones(2, 3),
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_get_variable(self, kind: str) -> None:
        value = _made(self.KINDS[kind], shape=[2, 3])
        assert value.tolist() == [[1.0] * 3] * 2
        assert value.dtype == torch.float32

    @pytest.mark.parametrize("kind", KINDS)
    def test_of_add_weight(self, kind: str) -> None:
        weight = cw.Layer(dtype="float64").add_weight("v", [2, 3], initializer=self.KINDS[kind])
        assert weight.tolist() == [[1.0] * 3] * 2
        assert weight.dtype == torch.float64

    @pytest.mark.parametrize("kind", [key for key in KINDS if key not in ("array", "list", "tensor")])
    def test_of_a_cell(self, kind: str) -> None:
        cell = cw.GRUCell(3, kernel_initializer=self.KINDS[kind], bias_initializer=self.KINDS[kind])
        cell.build([None, 2])
        assert all((weight == 1).all() for weight in cell.weights)

    def test_a_value_brings_its_shape(self) -> None:
        """TF1: `get_variable("step", initializer=0)`."""
        assert _made(torch.tensor([1.0, 2.0]).double()).dtype == torch.float64
        assert _made(np.array([1.0, 2.0], np.float32)).tolist() == [1.0, 2.0]
        assert _made([1.0, 2.0]).tolist() == [1.0, 2.0]
        assert _made(3.0).shape == ()
        assert not cw.get_variable("v", initializer=0).is_floating_point()

    @pytest.mark.parametrize(
        "value, dtype",
        [
            (np.zeros(2), torch.float64), (np.zeros(2, np.float32), torch.float32), (np.float64(1), torch.float64),
            (np.int64(3), torch.int64), (3.0, torch.float32), ([3.0, 4], torch.float32), (3, torch.int32),
            ([3, 4], torch.int32), (2**40, torch.int64), (True, torch.bool), (torch.ones(1).double(), torch.float64),
        ],
        ids=repr,
    )  # fmt: skip
    def test_a_value_brings_its_dtype(self, value: Any, dtype: torch.dtype) -> None:
        with cw.variable_scope("s", dtype="float16"):
            assert _made(value).dtype == dtype
        assert _made(value, dtype="float32").dtype == torch.float32

    def test_values_are_copied(self) -> None:
        given = torch.ones(2)
        with torch.no_grad():
            cw.get_variable("v", [2], initializer=given).add_(1)
        assert given.tolist() == [1.0, 1.0]

    def test_a_value_that_takes_gradients_is_cut_off(self) -> None:
        made = cw.get_variable("v", [2], initializer=torch.ones(2, requires_grad=True) * 2)
        assert made.is_leaf
        assert made.tolist() == [2.0, 2.0]

    WRONG: dict[str, tuple[Any, type[Exception]]] = {
        "value of another shape": (np.ones(3), ValueError),
        "function with another shape": (lambda shape, dtype: torch.ones(7), ValueError),
        "function without a tensor": (lambda shape, dtype: None, TypeError),
        "unknown name": ("onez", ValueError),
        "unknown class": ({"class_name": "Onez"}, ValueError),
        "nothing sensible": (object(), TypeError),
    }

    @pytest.mark.parametrize("kind", WRONG)
    def test_wrong_ones(self, kind: str) -> None:
        initializer, error = self.WRONG[kind]
        with pytest.raises(error, match=r"expected .*got ") as info:
            _made(initializer, shape=[2])
        assert isinstance(info.value, cw.CellweaveError)


class TestPlainData:
    @pytest.mark.parametrize("initializer", ALL, ids=_name)
    def test_round_trip(self, initializer: Any) -> None:
        data = initializers.serialize(initializer)
        assert data == {"class_name": _name(initializer), "config": vars(initializer)}
        assert initializers.deserialize(data, "here") == initializer

    @pytest.mark.parametrize("initializer", ALL, ids=_name)
    def test_snake_names(self, initializer: Any) -> None:
        snake = {"VarianceScaling": "variance_scaling", "GlorotUniform": "glorot_uniform"}.get(_name(initializer))
        if snake is not None:
            assert type(initializers.deserialize(snake, "here")) is type(initializer)
        assert type(initializers.deserialize(_name(initializer), "here")) is type(initializer)

    @pytest.mark.parametrize("other", [None, torch.nn.init.ones_, 3.0], ids=named)
    def test_anything_else_passes_through(self, other: Any) -> None:
        assert initializers.serialize(other) is other
        assert initializers.deserialize(other, "here") is other

    def test_unknown_names(self) -> None:
        with pytest.raises(cw.ArgumentError, match=r"^here: expected an initializer out of zeros.*got 'glorot'"):
            initializers.deserialize("glorot", "here")


@pytest.mark.parametrize(
    "old, new",
    [
        ("zeros", "Zeros"), ("ones", "Ones"), ("constant", "Constant"), ("variance_scaling", "VarianceScaling"),
        ("orthogonal", "Orthogonal"), ("identity", "Identity"), ("glorot_uniform", "GlorotUniform"),
        ("glorot_normal", "GlorotNormal"),
    ],
)  # fmt: skip
def test_tf1_names(old: str, new: str) -> None:
    assert getattr(initializers, f"{old}_initializer") is getattr(initializers, new)


@pytest.mark.parametrize(
    "old, defaults, keras",
    [
        ("RandomUniform", {"minval": 0.0, "maxval": None}, {"minval": -0.05, "maxval": 0.05}),
        ("RandomNormal", {"mean": 0.0, "stddev": 1.0}, {"mean": 0.0, "stddev": 0.05}),
        ("TruncatedNormal", {"mean": 0.0, "stddev": 1.0}, {"mean": 0.0, "stddev": 0.05}),
    ],
)
def test_tf1_and_keras_have_other_defaults(old: str, defaults: dict[str, Any], keras: dict[str, Any]) -> None:
    tf1 = {"RandomUniform": "random_uniform", "RandomNormal": "random_normal", "TruncatedNormal": "truncated_normal"}
    rest = {"seed": None, "dtype": "float32"}
    made = initializers.serialize(getattr(initializers, f"{tf1[old]}_initializer")())
    assert made == {"class_name": old, "config": {**defaults, **rest}}
    assert initializers.serialize(getattr(initializers, old)()) == {"class_name": old, "config": {**keras, **rest}}


def test_a_normal_of_tf1_has_unit_variance_and_a_uniform_ends_at_one() -> None:
    assert _drawn(initializers.random_normal_initializer(seed=1)).std().item() == pytest.approx(1.0, rel=0.02)
    drawn = _drawn(initializers.random_uniform_initializer(seed=1))
    assert drawn.min() >= 0.0 and drawn.min() < 0.001 and 0.999 < drawn.max() < 1.0


@pytest.mark.parametrize("kind", [type(value) for value in ALL])
def test_a_dtype_of_ones_own(kind: Any) -> None:
    made = kind(dtype=np.float64)
    assert made.dtype == "float64"
    assert made((2, 2)).dtype == torch.float64
    assert made((2, 2), torch.float32).dtype == torch.float32
    assert initializers.deserialize(initializers.serialize(made), "here") == made


def test_whole_numbers() -> None:
    drawn = initializers.random_uniform_initializer(2, 5, seed=1, dtype="int32")((1000,))
    assert drawn.dtype == torch.int32
    assert drawn.unique().tolist() == [2, 3, 4]
    with pytest.raises(cw.ArgumentError, match="expected maxval for int32, got None"):
        initializers.random_uniform_initializer()((2,), "int32")
    with pytest.raises(cw.ArgumentError, match="random_normal_initializer: expected a floating dtype, got int32"):
        initializers.random_normal_initializer(dtype="int32")


@pytest.mark.parametrize("initializer", ALL, ids=_name)
def test_on_the_meta_device(initializer: Any) -> None:
    """Weights without values, for models that are loaded later."""
    with torch.device("meta"):
        value = initializer((2, 2))
    assert value.device.type == "meta"
    assert value.shape == (2, 2)


def test_deserialize_takes_the_value_alone() -> None:
    assert repr(initializers.deserialize("ones")) == repr(initializers.Ones())
    with pytest.raises(cw.ArgumentError, match="^deserialize: expected an initializer out of .*got 'one'"):
        initializers.deserialize("one")
