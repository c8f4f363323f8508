from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cellweave import ArgumentError, ArgumentTypeError, CheckpointError, DTypeError
from cellweave.checkpoint import even_slices, open_checkpoint, write_checkpoint
from helpers.checkpoint_set import assert_same_bits


def values(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "z/kernel": rng.standard_normal((70, 900)).astype(np.float32),
        "a/bias": rng.standard_normal(5),
        "flag": np.array([True, False, True]),
        "odd": rng.standard_normal((3, 200, 120)).astype(np.float32),  # behind 3 bytes: not aligned
        "words": np.array([b"one", b"", b"\xff\0"], object),
        "step": np.int64(7),
    }


def test_what_is_written_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    given = values(rng)
    prefix = write_checkpoint(tmp_path / "m", given)
    with open_checkpoint(prefix) as checkpoint:
        assert list(checkpoint) == sorted(given)
        for name, value in given.items():
            assert_same_bits(checkpoint[name], np.asarray(value), name)


@pytest.mark.parametrize("shards", [1, 2, 9])
def test_same_input_same_bytes(tmp_path: Path, rng: np.random.Generator, shards: int) -> None:
    given = values(rng)
    backwards = dict(reversed(given.items()))
    contents = []
    for folder, tensors in ((tmp_path / "a", given), (tmp_path / "b", backwards)):
        folder.mkdir()
        write_checkpoint(folder / "m", tensors, num_shards=shards)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    assert len(contents[0]) == shards + 1
    with open_checkpoint(tmp_path / "a" / "m") as checkpoint:
        write_checkpoint(tmp_path / "b" / "m", checkpoint, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == contents[0]


DTYPES = [torch.bfloat16, torch.float16, torch.complex64, torch.uint16, torch.uint64, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_torch(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype).T
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"v": tensor})) as checkpoint:
        found = checkpoint.read_tensor("v")
        assert found.dtype == dtype and torch.equal(found, tensor)
        found.zero_()  # memory of its own


def test_tensor_that_needs_gradients_and_a_view(tmp_path: Path) -> None:
    tensor = torch.randn(300, 500, requires_grad=True)[::2, 1:]
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"v": tensor})) as checkpoint:
        assert torch.equal(checkpoint.read_tensor("v"), tensor)


def test_big_endian_arrays_are_turned(tmp_path: Path) -> None:
    with open_checkpoint(write_checkpoint(tmp_path / "m", {"v": np.arange(5, dtype=">i4")})) as checkpoint:
        assert checkpoint["v"].tolist() == [0, 1, 2, 3, 4]


def test_texts_numbers_and_lists(tmp_path: Path) -> None:
    given = {"text": "ü", "raw": b"\0a\0", "number": 2.5, "list": [1, 2]}
    with open_checkpoint(write_checkpoint(tmp_path / "m", given)) as checkpoint:
        assert checkpoint["text"].item() == "ü".encode()
        assert checkpoint["raw"].item() == b"\0a\0"
        assert checkpoint["number"].item() == 2.5 and checkpoint.variables["number"].shape == ()
        assert checkpoint["list"].tolist() == [1, 2]


@pytest.mark.parametrize("parts", [(1, 1), (3, 1), (1, 4), (3, 2)])
def test_slices_are_joined(tmp_path: Path, rng: np.random.Generator, parts: tuple[int, int]) -> None:
    array = rng.standard_normal((10, 7)).astype(np.float32)
    slices = even_slices(array.shape, parts)
    prefix = write_checkpoint(tmp_path / "m", {"v": array}, slices={"v": slices}, num_shards=2)
    with open_checkpoint(prefix) as checkpoint:
        assert_same_bits(checkpoint["v"], array, "v")
        assert checkpoint.variables["v"].slices == (slices if len(slices) > 1 else ())
        assert list(checkpoint) == ["v"]


def test_even_slices() -> None:
    assert even_slices((10,), (3,)) == (((0, 4),), ((4, 3),), ((7, 3),))
    assert even_slices((2, 3), (2, 1)) == (((0, 1), (0, 3)), ((1, 1), (0, 3)))
    for parts in ((0,), (11,), (1, 1), ()):
        with pytest.raises(ArgumentError, match=r"even_slices: expected parts of 1 to \[10\]"):
            even_slices((10,), parts)


@pytest.mark.parametrize(
    "slices", [[((0, 2),)], [((0, 2),), ((1, 2),)], [((0, 3),), ((3, 2),)], [((0, 2), (0, 1)), ((2, 2), (0, 1))], []]
)
def test_slices_that_do_not_divide_are_refused(tmp_path: Path, slices: list[Any]) -> None:
    with pytest.raises(ArgumentError, match=r"slices of 'v' that hold each element of shape \[4\] once"):
        write_checkpoint(tmp_path / "m", {"v": np.zeros(4)}, slices={"v": slices})
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="zero byte, got ''"):
        write_checkpoint(tmp_path / "m", {"": 1})
    with pytest.raises(ArgumentError, match="zero byte"):
        write_checkpoint(tmp_path / "m", {"\0a": 1})
    with pytest.raises(ArgumentTypeError, match="names that are texts, got 3"):
        write_checkpoint(tmp_path / "m", {3: 1})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match=r"variables that are written, got \['b'\]"):
        write_checkpoint(tmp_path / "m", {"a": 1}, slices={"b": [((0, 1),)]})
    with pytest.raises(ArgumentError, match="1 to 99999 data files, got 0"):
        write_checkpoint(tmp_path / "m", {"a": 1}, num_shards=0)
    with pytest.raises(DTypeError, match="'a', got longdouble|'a', got float128"):
        write_checkpoint(tmp_path / "m", {"a": np.longdouble(1)})
    with pytest.raises(DTypeError, match="texts for 'a', got NoneType"):
        write_checkpoint(tmp_path / "m", {"a": np.array([None])})
    assert list(tmp_path.iterdir()) == []


def test_earlier_checkpoint_stays_unless_told(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m", {"v": 1}, num_shards=3)
    with pytest.raises(ArgumentError, match=r"no checkpoint at .*m, got one. Pass overwrite=True"):
        write_checkpoint(tmp_path / "m", {"v": 2})
    write_checkpoint(tmp_path / "m", {"v": 2}, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.data-00000-of-00001", "m.index"]
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint["v"].item() == 2


class Failing(Mapping[str, Any]):
    """A mapping whose second value cannot be had."""

    def __getitem__(self, name: str) -> Any:
        if name == "b":
            raise RuntimeError("no value")
        return np.ones(1000)

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])

    def __len__(self) -> int:
        return 2


def test_failing_write_leaves_nothing_and_spares_the_earlier_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no value"):
        write_checkpoint(tmp_path / "m", Failing())
    assert list(tmp_path.iterdir()) == []
    write_checkpoint(tmp_path / "m", {"v": 1})
    with pytest.raises(RuntimeError, match="no value"):
        write_checkpoint(tmp_path / "m", Failing(), overwrite=True)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert checkpoint["v"].item() == 1


def test_damaged_source_is_not_copied(tmp_path: Path) -> None:
    prefix = write_checkpoint(tmp_path / "m", {"v": np.arange(9.0)})
    data = tmp_path / "m.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\x01")
    with open_checkpoint(prefix) as checkpoint, pytest.raises(CheckpointError, match="variable 'v': expected checksum"):
        write_checkpoint(tmp_path / "copy", checkpoint)
    assert not (tmp_path / "copy.index").exists()


def test_state_file_keeps_the_others(tmp_path: Path) -> None:
    for number in (1, 2, 1):
        write_checkpoint(tmp_path / f"m-{number}", {"v": number}, overwrite=True, update_state=True)
    assert (tmp_path / "checkpoint").read_text() == (
        'model_checkpoint_path: "m-1"\nall_model_checkpoint_paths: "m-2"\nall_model_checkpoint_paths: "m-1"\n'
    )
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint["v"].item() == 1
