"""Checkpoints as mappings of names to arrays, whatever their format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import torch

from cellweave.checkpoint._dtypes import BFLOAT16, BY_NAME
from cellweave.checkpoint._locate import locate
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._variables import Array, Source, VariableInfo


class Checkpoint(Mapping[str, Array]):
    """An open checkpoint: a read-only mapping of variable names to arrays, iterated in sorted order.

    `open_checkpoint` makes it; it is a context manager. Data is read when a name is asked for and is not kept. Arrays
    are read-only. Large ones of a V2 bundle or a graph map the file: they cost no memory until they are looked at, they
    outlive the checkpoint, and the file must not be written while they live. Strings are object arrays of `bytes`.
    NumPy has no bfloat16: such a variable is a uint16 array of its bits, and `read_tensor` gives it as it is.
    """

    def __init__(self, path: Path, source: Source) -> None:
        self._path, self._source = path, source
        self._names = dict.fromkeys(sorted(source.names()))
        self._variables = _Variables(source, self._names)

    @property
    def path(self) -> Path:
        """The checkpoint's path: a bundle's prefix, or the file."""
        return self._path

    @property
    def format(self) -> str:
        """One of "V2 bundle", "V1 file", "V1 shards", "frozen graph"."""
        return self._source.format

    @property
    def source(self) -> Source:
        """What reads the files; of no use outside this package."""
        return self._source

    @property
    def variables(self) -> Mapping[str, VariableInfo]:
        """What is known of each variable; no data is read."""
        return self._variables

    def read(self, name: str) -> Array:
        """A variable's data as a read-only array; the same as `checkpoint[name]`.

        Args:
            name: The key in the file, as it stands there.
        Returns:
            The whole variable; slices of a partitioned one are joined.
        Raises:
            KeyError: there is no such variable.
            CheckpointError: the data is damaged or missing, or its dtype is none that is read.
        """
        if name not in self._names:
            raise KeyError(name)
        return self._source.read(name)

    def read_tensor(self, name: str) -> torch.Tensor:
        """A variable's data as a tensor of its own memory, bfloat16 included.

        Args:
            name: The key in the file, as it stands there.
        Raises:
            KeyError: there is no such variable.
            CheckpointError: as for `read`, or the variable holds strings.
        """
        array = self.read(name)
        dtype = BY_NAME[self.variables[name].dtype]
        if dtype.tensor is None:
            raise Place(str(self._path)).of(name).error("a dtype that torch has", dtype.name, advice="Use read.")
        tensor = torch.from_numpy(array.copy())
        return tensor.view(torch.bfloat16) if dtype is BFLOAT16 else tensor

    def close(self) -> None:
        """Close the files. Arrays that were read stay valid."""
        self._source.close()

    def __getitem__(self, name: str) -> Array:
        return self.read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({str(self._path)!r}, {self.format}, {len(self)} variables)"

    __hash__ = object.__hash__
    __eq__ = object.__eq__  # equal contents are found by comparing arrays, not by ==


class _Variables(Mapping[str, VariableInfo]):
    """Descriptions of variables, each made when it is asked for."""

    def __init__(self, source: Source, names: Mapping[str, None]) -> None:
        self._source, self._names = source, names

    def __getitem__(self, name: str) -> VariableInfo:
        if name not in self._names:
            raise KeyError(name)
        return self._source.info(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def open_checkpoint(path: str | Path, *, verify: bool = True) -> Checkpoint:
    """Open a TF1 checkpoint of any format.

    Args:
        path: One of
            - a V2 bundle: its prefix, or its `.index` or a data file;
            - a folder with a `checkpoint` state file, or that file: the latest checkpoint it names;
            - a folder with one bundle; a SavedModel's folder, or its `saved_model.pb`;
            - a V1 file; of a sharded one its prefix, one shard, or its name with `?????`;
            - a frozen GraphDef called `*.pb`: its constants count as variables.
        verify: Whether tensors of a V2 bundle are compared with their checksums. Tables are always compared.
    Returns:
        The open checkpoint. Close it, or use it in a `with` statement.
    Raises:
        CheckpointError: nothing is there, or it is damaged. The message names the file, the variable and the place.
    Source: TensorFlow's tensor_bundle.cc, saved_tensor_slice_util.cc, table_builder.cc.
    """
    return Checkpoint(*locate(Path(path), verify=verify))
