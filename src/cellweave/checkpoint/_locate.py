"""From the path that a user gives to the files of a checkpoint."""

from __future__ import annotations

import re
from pathlib import Path

from cellweave._errors import CheckpointError
from cellweave.checkpoint._bundle import Bundle, index_path
from cellweave.checkpoint._files import File
from cellweave.checkpoint._frozen import FrozenGraph
from cellweave.checkpoint._graph import read_graph
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._state_file import STATE_FILE, latest
from cellweave.checkpoint._tables import is_table
from cellweave.checkpoint._v1 import V1
from cellweave.checkpoint._variables import Source

_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_SHARD = re.compile(r"(.+)-(?:\d{5}|\?{5})-of-(\d{5})")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NAMED = 5  # how many candidates an error names


def locate(path: Path, *, verify: bool) -> tuple[Path, Source]:
    """The checkpoint's own path, without suffixes, and its content."""
    if path.is_dir():
        path = _in_folder(path)
    elif path.name == STATE_FILE and path.is_file():
        path = latest(path)
    prefix = _bundle_prefix(path)
    if prefix is not None:
        return prefix, Bundle(prefix, verify=verify)
    if path.suffix == ".pb":
        variables = path.parent / "variables" / "variables"
        if path.name == "saved_model.pb" and index_path(variables).is_file():
            return variables, Bundle(variables, verify=verify)
        return path, FrozenGraph(read_graph(path))
    shards = _v1_shards(path)
    if shards is not None:
        return shards[0], V1(shards[1])
    if not path.exists():
        raise _missing(path)
    file = File(path)
    try:
        if not is_table(file):
            raise _no_table(file)
    finally:
        file.close()
    return path, V1([path])


def _in_folder(folder: Path) -> Path:
    """The checkpoint of a folder: a SavedModel's, the latest one of a state file, or the only one."""
    variables = folder / "variables" / "variables"
    if index_path(variables).is_file():
        return variables
    if (folder / STATE_FILE).is_file():
        return latest(folder / STATE_FILE)
    if (folder / "saved_model.pb").is_file():
        return folder / "saved_model.pb"
    found = sorted(folder.glob("*.index"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")
    got = f"{len(found)} of them: {names}" if found else "none"
    advice = "Give the path of one." if found else ""
    raise Place(str(folder)).error("a folder with a checkpoint", got, advice=advice)


def _no_table(file: File) -> CheckpointError:
    """The error for a file that is of none of the formats."""
    got = "a file that does not end as a table of TensorFlow's does"
    if file.read(0, min(file.size, len(_HDF5)), file.place) == _HDF5:
        advice = "Keras saves its own weights as a checkpoint by save_weights(path, save_format='tf')."
        return file.place.error("a checkpoint", "an HDF5 file", advice=advice)
    advice = "Its graph is read by read_graph." if file.path.suffix == ".meta" else "A frozen graph is called *.pb."
    return file.place.error("a checkpoint", got, advice=advice)


def _bundle_prefix(path: Path) -> Path | None:
    """The prefix of the V2 bundle that a path belongs to."""
    data = _DATA.fullmatch(path.name)
    if path.suffix == ".index":
        return path.with_suffix("")
    if data:
        return path.with_name(data[1])
    if index_path(path).is_file():
        return path
    if path.suffix == ".meta" and index_path(path.with_suffix("")).is_file():
        return path.with_suffix("")
    return None


def _v1_shards(path: Path) -> tuple[Path, list[Path]] | None:
    """The prefix and the files of a sharded V1 checkpoint, given by its prefix, a shard, or its name with `?????`."""
    found = _SHARD.fullmatch(path.name)
    if found:
        prefix, total = path.with_name(found[1]), int(found[2])
    elif path.exists():
        return None
    else:
        prefix = path
        totals = {
            int(match[2])
            for sibling in path.parent.glob(f"{_literal(path.name)}-*-of-*")
            if (match := _SHARD.fullmatch(sibling.name)) and match[1] == path.name
        }
        if not totals:
            return None
        if len(totals) > 1:
            got = ", ".join(f"of {total}" for total in sorted(totals))
            raise Place(str(path)).error("shards of one checkpoint", got, advice="Give the path of one shard.")
        total = totals.pop()
    shards = []
    for number in range(total):
        shards.append(prefix.with_name(f"{prefix.name}-{number:05d}-of-{total:05d}"))
        if not shards[-1].exists():  # the reader says so; a name can claim many more files than there are
            break
    if not shards:
        raise Place(str(path)).error("at least one shard", "none")
    return prefix, shards


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _missing(path: Path) -> CheckpointError:
    similar = sorted(sibling.name for sibling in path.parent.glob(f"{_literal(path.name)}*")) if path.name else []
    got = f"only {', '.join(similar[:_NAMED])}" if similar else "no such file"
    return Place(str(path)).error("a checkpoint: PATH.index, a V1 file, a folder or a graph", got)
