"""The folder of a run: what its files are called, and how each is read and written."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cellweave._errors import ArgumentError, RunError
from cellweave.training._atomic import write_atomically
from cellweave.training._environment import package_versions
from cellweave.training._settings import TrainConfig, make_config
from cellweave.training._vocabulary import Vocabulary

#: Layout of `config.json` and of snapshots; raised when a reader of the old one could not read the new one.
_FORMAT = 1


@dataclass(frozen=True)
class RunDescription:
    """What `config.json` holds.

    Attributes:
        config: Settings, with threads and text path filled in.
        vocabulary: The model's tokens.
        source, sha256: Of the text.
    """

    config: TrainConfig
    vocabulary: Vocabulary
    source: str
    sha256: str


class RunFolder:
    """Files of a run.

    Attributes:
        model: Best weights so far, safetensors.
        config: Settings, vocabulary and versions, JSON.
        metrics: JSON lines.
        snapshot: Everything that a resumed run needs.
        curve_png, curve_svg: Learning curve.
        sample: Text that the finished model wrote.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model.safetensors"
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.snapshot = path / "snapshot.pt"
        self.curve_png = path / "curve.png"
        self.curve_svg = path / "curve.svg"
        self.sample = path / "sample.txt"

    def __str__(self) -> str:
        return f"run folder {self.path}"

    def create(self, *, overwrite: bool) -> None:
        """Make the folder ready for a new run.

        Args:
            overwrite: Remove an earlier run's files; other files stay.
        Raises:
            RunError: the folder holds a run and `overwrite` is not set, or the path is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self}: expected a folder or nothing, got a file. Name another folder.")
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.snapshot.exists() or self.model.exists()) and not overwrite:
            raise RunError(
                f"{self}: expected no earlier run there, got one. "
                "Continue it with --resume, replace it with --overwrite, or name another folder."
            )
        files = (self.snapshot, self.model, self.config, self.metrics, self.curve_png, self.curve_svg, self.sample)
        for file in files:  # the snapshot first: without it nothing can be resumed half removed
            file.unlink(missing_ok=True)

    def write_description(self, description: RunDescription) -> None:
        """Write `config.json`."""
        value = {
            "format": _FORMAT,
            "settings": description.config.to_settings(),
            "text": {"source": description.source, "sha256": description.sha256},
            "versions": package_versions(),
            "vocabulary": description.vocabulary.to_json(),
        }
        data = (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
        write_atomically(self.config, lambda file: file.write(data))

    def read_description(self) -> RunDescription:
        """Read `config.json`.

        Raises:
            RunError: it is missing, damaged or of another format.
        """
        self._require(self.config, "a run's config.json")
        where = self.config
        try:
            value = json.loads(self.config.read_bytes())
        except ValueError as error:
            raise RunError(f"{where}: expected JSON, got: {error}. The file is damaged; train again.") from error
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            found = value.get("format") if isinstance(value, dict) else type(value).__name__
            raise RunError(f"{where}: expected format {_FORMAT}, got {found!r}. Use the version that wrote it.")
        try:
            config, text = make_config(value["settings"]), value["text"]
            vocabulary = Vocabulary.from_json(value["vocabulary"])
            return RunDescription(config, vocabulary, str(text["source"]), str(text["sha256"]))
        except (KeyError, TypeError, ArgumentError) as error:
            raise RunError(f"{where}: expected a run's settings, got a damaged entry: {error}. Train again.") from error

    def write_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Write `model.safetensors`; the same weights give the same bytes."""
        data = save_safetensors({name: tensor.contiguous() for name, tensor in weights.items()}, {"format": "pt"})
        write_atomically(self.model, lambda file: file.write(data))

    def read_weights(self) -> dict[str, torch.Tensor]:
        """Read `model.safetensors`.

        Raises:
            RunError: it is missing or damaged.
        """
        self._require(self.model, "a model (model.safetensors)")
        try:
            return load_safetensors(self.model.read_bytes())
        except SafetensorError as error:
            raise RunError(
                f"{self.model}: expected safetensors, got: {error}. The file is damaged; train again."
            ) from error

    def write_snapshot(self, content: dict[str, Any]) -> None:
        """Write `snapshot.pt`."""
        write_atomically(self.snapshot, lambda file: torch.save({"format": _FORMAT, **content}, file))

    def read_snapshot(self) -> dict[str, Any]:
        """Read `snapshot.pt`, tensors and plain values only.

        Raises:
            RunError: it is missing, damaged or of another format.
        """
        if not self.snapshot.is_file():
            raise RunError(
                f"{self}: expected a snapshot to resume from (snapshot.pt), got none. "
                "Start the run without --resume, or check the path."
            )
        if not zipfile.is_zipfile(self.snapshot):  # torch would read older formats, with warnings
            raise RunError(f"{self.snapshot}: expected a snapshot, got a damaged file. Train again.")
        try:
            content = torch.load(self.snapshot, map_location="cpu", weights_only=True)
        except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise RunError(f"{self.snapshot}: expected a snapshot, got a damaged file. Train again.") from error
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise RunError(
                f"{self.snapshot}: expected a snapshot of format {_FORMAT}, got something else. Train again."
            )
        return content

    def _require(self, file: Path, what: str) -> None:
        if not self.path.is_dir():
            raise RunError(f"{self}: expected a folder with {what}, got no such folder. Check the path.")
        if not file.is_file():
            raise RunError(
                f"{self}: expected {what}, got a folder without. Train one: cellweave train --out {self.path}"
            )
