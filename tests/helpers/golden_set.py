"""Reading a golden set: a directory with manifest.json, one npz per case and, perhaps, errors.json."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

Case = dict[str, Any]

DEFAULT = Path(__file__).resolve().parents[1] / "golden" / "data"
#: Cases of contrib's block cells, written by `tests/golden/make_contrib.py` in the same format.
CONTRIB = DEFAULT.parent / "contrib"
EXEMPT = Path(__file__).resolve().parents[1] / "golden" / "exempt.txt"
FORMAT = 1


class GoldenSetError(Exception):
    """The directory is not a golden set."""


class MissingFeatureError(Exception):
    """The library cannot run a case's driver yet: an exemption excuses nothing else."""


@functools.cache
def _read_json(path: Path) -> Any:
    """The file's contents, which nobody may change."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GoldenSetError(f"--goldens: expected a readable {path.name} in {path.parent}, got {error}.") from error


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest; its format number must be the one that this reader knows."""
    manifest = _read_json(directory / "manifest.json")
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or not isinstance(manifest.get("cases"), list)
    ):
        raise GoldenSetError(
            f"--goldens: expected manifest.json of format {FORMAT} with a list of cases in {directory}."
        )
    return manifest


def read_errors(directory: Path) -> list[Case]:
    """The error probes of a set, none when it has no errors.json."""
    path = directory / "errors.json"
    if not path.exists():
        return []
    errors = _read_json(path)
    if not isinstance(errors, dict) or errors.get("format") != FORMAT:
        raise GoldenSetError(f"--goldens: expected errors.json of format {FORMAT} in {directory}.")
    return list(errors["cases"])


def read_arrays(directory: Path, case: Case) -> dict[str, np.ndarray]:
    """All arrays of a case; shapes and dtypes must be those of the manifest."""
    with np.load(directory / case["file"], allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files}
    listed = {key: (list(entry["shape"]), entry["dtype"]) for key, entry in case["arrays"].items()}
    found = {key: (list(array.shape), str(array.dtype)) for key, array in arrays.items()}
    if listed != found:
        different = sorted(k for k in listed.keys() | found.keys() if listed.get(k) != found.get(k))
        raise AssertionError(f"{case['file']}: arrays differ from the manifest: {different}")
    return arrays


def read_exemptions(path: Path = EXEMPT) -> dict[str, str]:
    """Driver to reason, out of lines `driver: reason`; blank lines and `#` comments apart."""
    exemptions: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            driver, _, reason = line.partition(":")
            exemptions[driver.strip()] = reason.strip()
    return exemptions


class Arrays:
    """The arrays of a case, and which of them were looked at: one that nobody knows is a failure."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays, self._used = arrays, set()

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self._arrays:
            raise AssertionError(f"the golden has no array {key!r}")
        self._used.add(key)
        return self._arrays[key]

    def numbered(self, stem: str) -> list[str]:
        """The keys `stem0`, `stem1`, ... that exist."""
        keys: list[str] = []
        while f"{stem}{len(keys)}" in self._arrays:
            keys.append(f"{stem}{len(keys)}")
        return keys

    def check_all_used(self) -> None:
        """Fail when the golden holds arrays that the check never touched."""
        left = sorted(self._arrays.keys() - self._used)
        if left:
            raise AssertionError(f"the check knows nothing of these golden arrays: {left}")
