"""A set of checkpoints that TensorFlow wrote, each a folder with `expected.json` and `expected.npz`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from cellweave.checkpoint import Checkpoint
from helpers.golden_set import GoldenSetError

DEFAULT = Path(__file__).parents[1] / "golden" / "checkpoints"


def read_cases(directory: Path) -> list[Path]:
    """The folders of a set, sorted."""
    cases = sorted(path.parent for path in directory.glob("*/expected.json"))
    if not cases:
        raise GoldenSetError(f"{directory}: expected folders with an expected.json, got none.")
    return cases


def read_expected(case: Path) -> dict[str, Any]:
    """What a case says of itself and its tensors."""
    return json.loads((case / "expected.json").read_text(encoding="utf-8"))


def expected_arrays(case: Path) -> dict[str, np.ndarray]:
    """Every tensor by name: bits of bfloat16 in uint16, strings as objects."""
    arrays: dict[str, np.ndarray] = {}
    with np.load(case / "expected.npz", allow_pickle=False) as stored:
        for tensor in read_expected(case)["tensors"]:
            if "values_base64" in tensor:
                array = np.empty(len(tensor["values_base64"]), object)
                array[:] = [base64.b64decode(text) for text in tensor["values_base64"]]
                arrays[tensor["name"]] = array.reshape(tensor["shape"])
            else:
                arrays[tensor["name"]] = stored[tensor["key"]]
    return arrays


def assert_holds(checkpoint: Checkpoint, arrays: dict[str, np.ndarray]) -> None:
    """The checkpoint has these variables and no others, bit for bit."""
    assert list(checkpoint) == sorted(arrays)
    for name, expected in arrays.items():
        assert_same_bits(checkpoint[name], expected, name)


def assert_same_bits(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Two arrays are the same to the last bit, NaNs and signs of zeros included."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
    if expected.dtype == object:
        assert found.tolist() == expected.tolist(), name
    else:
        assert found.tobytes() == expected.tobytes(), name
