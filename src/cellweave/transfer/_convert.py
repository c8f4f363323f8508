"""Turning a checkpoint into files of other formats, without a model."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

import torch

from cellweave._errors import ArgumentError, CheckpointError
from cellweave._types import dtype_name
from cellweave.checkpoint import Checkpoint, Inventory, Stored, open_checkpoint, take_inventory, write_checkpoint
from cellweave.transfer._arrays import Array, as_tensor, stored_dtype
from cellweave.transfer._match import join
from cellweave.transfer._tables import variable_table

FORMATS = ("safetensors", "torch", "tf1")
_WHERE = "convert_tf1"
_NOT_IN_SAFETENSORS = (torch.complex128,)


@dataclass(frozen=True)
class Conversion:
    """What `convert_tf1` wrote.

    Attributes:
        path: The file, or the prefix of the bundle.
        names: Name in the new file to the keys that it was read from.
        left: Keys that were not written.
    """

    path: str
    names: dict[str, tuple[str, ...]]
    left: tuple[str, ...]


def convert_tf1(
    path: str | PathLike[str],
    out: str | PathLike[str],
    *,
    to: str,
    everything: bool = False,
    stored_names: bool = False,
    overwrite: bool = False,
) -> Conversion:
    """Write the variables of a TF1 checkpoint into a file of another format.

    Args:
        path: As for `load_tf1`.
        out: The new file; a bundle's prefix for `tf1`.
        to: `safetensors`; `torch`, a dict of tensors for `torch.load`; or `tf1`, a V2 bundle.
        everything: Also optimizer slots, averages and counters.
        stored_names: Keep the file's own keys. Default: names as TF 1.2 and later spell them, slices joined.
        overwrite: Whether an earlier file may be replaced.
    Returns:
        What was written under which name, and what was left: strings and dtypes that are not read always are, such as
        an input pipeline's state.
    Raises:
        ArgumentError: an unknown format; a file that is there already, or cannot be; a dtype that the format has not.
        CheckpointError: the checkpoint is damaged, or two keys would get one name. OSError: the file cannot be written.
        Nothing is left behind then.
    Numerics: bit for bit; axes stay in TF1's order.
    """
    if to not in FORMATS:
        raise ArgumentError(f"{_WHERE}: expected a format out of {', '.join(FORMATS)}, got {to!r}.")
    with open_checkpoint(fspath(path)) as checkpoint:
        table = variable_table(checkpoint)
        inventory = take_inventory(table)
        sources = _sources(checkpoint, inventory, everything=everything, stored_names=stored_names)
        arrays: dict[str, Array] = {}
        dtypes: dict[str, torch.dtype] = {}
        names: dict[str, tuple[str, ...]] = {}
        for name, (keys, array) in sources.items():
            dtype = stored_dtype(checkpoint.variables[keys[0]].dtype)
            arrays[name], dtypes[name], names[name] = array, dtype, keys
        _write(fspath(out), to, arrays, dtypes, overwrite)
        used = {key for keys in names.values() for key in keys}
        return Conversion(fspath(out), names, tuple(key for key in table if key not in used))


def _sources(
    checkpoint: Checkpoint, inventory: Inventory, *, everything: bool, stored_names: bool
) -> dict[str, tuple[tuple[str, ...], Array]]:
    found: dict[str, tuple[tuple[str, ...], Array]] = {}

    def add(name: str, stored: Stored) -> None:
        keys = stored.keys
        if any(checkpoint.variables[key].nbytes is None for key in keys):
            return
        if name in found:
            raise CheckpointError(
                f"{_WHERE}: {checkpoint.path}: expected one variable per name, got {found[name][0][0]} and {keys[0]} "
                f"for {name}. Keep the stored names."
            )
        found[name] = (keys, stored.read(checkpoint))

    for variable in inventory.variables.values():
        parts = {} if variable.value is None else {"": variable.value}
        if everything:
            parts |= {**variable.averages, **variable.slots}
        for part, stored in parts.items():
            scope, _, tail = part.rpartition("/")
            if stored_names:
                for key in stored.keys:
                    add(key, _one(checkpoint, key))
            else:
                add(join(scope, variable.saved_as, tail), stored)
    for other in inventory.others if everything else ():
        key = other.stored
        add(key if stored_names else key.removesuffix(":0"), _one(checkpoint, key))
    return found


def _one(checkpoint: Checkpoint, key: str) -> Stored:
    info = checkpoint.variables[key]
    return Stored((key,), 0, info.shape, info.dtype)


def _write(out: str, to: str, arrays: dict[str, Array], dtypes: dict[str, torch.dtype], overwrite: bool) -> None:
    tensors = {name: as_tensor(array, dtypes[name]).contiguous() for name, array in arrays.items()}
    if to == "tf1":
        write_checkpoint(out, tensors, overwrite=overwrite)
        return
    path = Path(out)
    if path.is_dir() or not path.parent.is_dir():
        got = "a folder" if path.is_dir() else "a name in a folder that is not there"
        raise ArgumentError(f"{_WHERE}: expected the name of a file, got {out}, {got}.")
    if path.exists() and not overwrite:
        raise ArgumentError(f"{_WHERE}: expected a new file, got {out}, which exists. Pass overwrite.")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, out) from error
    try:
        rights = temporary.stat().st_mode
        if to == "torch":
            _save_torch(tensors, temporary)
        else:
            _save_safetensors(tensors, temporary)
        temporary.chmod(rights)  # safetensors makes files that nobody else may read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _save_torch(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        torch.save(tensors, path)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(errno.EIO, str(error), str(path)) from error


def _save_safetensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    try:
        from safetensors import SafetensorError  # the library itself runs without it
        from safetensors.torch import save_file
    except ModuleNotFoundError as error:
        raise ArgumentError(
            f"{_WHERE}: expected the package safetensors for this format, got none. "
            "Install it: pip install 'cellweave[train]'."
        ) from error
    for name, tensor in tensors.items():
        if tensor.dtype in _NOT_IN_SAFETENSORS:
            raise ArgumentError(
                f"{_WHERE}: expected dtypes that safetensors has, got {dtype_name(tensor.dtype)} of {name}. "
                "Write another format."
            )
    try:
        save_file(tensors, str(path), {"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error
