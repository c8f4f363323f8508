"""V1 files: tables that hold the tensors themselves, as messages. One file, or one per shard."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cellweave.checkpoint._dtypes import DType, dtype_of, readable
from cellweave.checkpoint._files import File
from cellweave.checkpoint._join import join
from cellweave.checkpoint._limits import MAX_ENTRIES
from cellweave.checkpoint._place import Place
from cellweave.checkpoint._shapes import Shape, Slice, is_whole, read_shape, read_slice, resolve_slice, slice_shape
from cellweave.checkpoint._slice_keys import slice_key
from cellweave.checkpoint._tables import Table
from cellweave.checkpoint._tensor_proto import read_tensor
from cellweave.checkpoint._variables import Array, VariableInfo, frozen
from cellweave.checkpoint._wire import LENGTH, VARINT, Buffer, expect, fields, text


@dataclass
class _Variable:
    dtype: DType
    shape: Shape
    slices: list[tuple[int, Slice]] = field(
        default_factory=list
    )  # the number of the file, the slice as it stands there


class V1:
    """V1 files as a source of variables. Their tables have checksums, which are always verified.

    Args:
        paths: The file, or all shards.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.format = "V1 file" if len(paths) == 1 else "V1 shards"
        self._files: list[File] = []
        self._variables: dict[str, _Variable] = {}
        try:
            for path in paths:
                self._files.append(File(path))
            self._tables = [Table(file) for file in self._files]
            for number in range(len(paths)):
                self._read_meta(number)
        except BaseException:
            self.close()
            raise

    def names(self) -> list[str]:
        """All names."""
        return list(self._variables)

    def info(self, name: str) -> VariableInfo:
        """What the tables say of a variable."""
        variable = self._variables[name]
        slices = self._resolved(name, variable)
        whole = len(slices) == 1 and is_whole(slices[0], variable.shape)
        return VariableInfo(name, variable.dtype.name, variable.shape, () if whole else slices)

    def read(self, name: str) -> Array:
        """A variable's data."""
        variable = self._variables[name]
        slices = self._resolved(name, variable)
        place = self._place(name, variable)
        if len(slices) == 1 and is_whole(slices[0], variable.shape):
            return self._piece(name, variable, 0, variable.shape)
        dtype = readable(variable.dtype, place)
        # Values of a piece take a byte at least, so what lies in the files bounds the whole.
        available = sum(file.size for file in self._files)
        elements = sum(_elements(part) for part in slices)
        if elements > available:
            raise place.error(f"slices of at most {available} elements", f"{elements}")
        return frozen(
            join(
                variable.shape,
                dtype,
                slices,
                lambda number: self._piece(name, variable, number, slice_shape(slices[number])),
                place,
            )
        )

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _place(self, name: str, variable: _Variable) -> Place:
        number = variable.slices[0][0] if variable.slices else 0
        return self._files[number].place.of(name)

    def _resolved(self, name: str, variable: _Variable) -> tuple[Slice, ...]:
        place = self._place(name, variable)
        return tuple(resolve_slice(part, variable.shape, place) for _, part in variable.slices)

    def _piece(self, name: str, variable: _Variable, number: int, shape: Shape) -> Array:
        """SavedTensorSlices: `data` 2 is a SavedSlice: `name` 1, `slice` 2, `data` 3, a TensorProto of values only."""
        file, part = variable.slices[number]
        place = self._files[file].place.of(name)
        value = self._tables[file].find(slice_key(name, part))
        if value is None:
            raise place.error(f"data of slice {number} of {len(variable.slices)}", "none")
        for outer in fields(value, 0, len(value), place):
            if outer.number != 2:
                continue
            for inner in fields(value, expect(outer, LENGTH, place).start, outer.end, place):
                if inner.number == 3:
                    span = expect(inner, LENGTH, place)
                    array = read_tensor(value, span.start, span.end, variable.dtype, shape, place)
                    if 0 in array.strides and array.size > 1:  # fewer values than elements are a graph's habit
                        raise place.error(f"{array.size} values", "fewer")
                    return array
        raise place.error("a tensor", "a message without one")

    def _read_meta(self, number: int) -> None:
        """SavedTensorSlices: `meta` 1 is a SavedTensorSliceMeta: `tensor` 1, repeated."""
        place = self._files[number].place.within("header")
        value = self._tables[number].find(b"")
        if value is None:
            raise place.error("a header", "a table without one")
        for outer in fields(value, 0, len(value), place):
            if outer.number != 1:
                continue
            for inner in fields(value, expect(outer, LENGTH, place).start, outer.end, place):
                if inner.number == 1:
                    expect(inner, LENGTH, place)
                    self._add(number, value, inner.start, inner.end, place)

    def _add(self, number: int, data: Buffer, start: int, end: int, place: Place) -> None:
        """SavedSliceMeta: `name` 1, `shape` 2, `type` 3, `slice` 4, repeated."""
        name, dtype = "", 0
        shape: Shape = ()
        slices: list[tuple[int, Slice]] = []
        for part in fields(data, start, end, place):
            if part.number == 1:
                name = text(data, part, place)
            elif part.number == 2:
                shape = read_shape(data, expect(part, LENGTH, place).start, part.end, place)
            elif part.number == 3:
                dtype = expect(part, VARINT, place).value
            elif part.number == 4:
                slices.append((number, read_slice(data, expect(part, LENGTH, place).start, part.end, place)))
        found = _Variable(dtype_of(dtype, place.of(name)), shape)
        known = self._variables.setdefault(name, found)
        if (known.dtype, known.shape) != (found.dtype, found.shape):
            raise place.of(name).error(
                f"{known.dtype.name}{list(known.shape)} in each file", f"{found.dtype.name}{list(found.shape)}"
            )
        known.slices.extend(slices)
        if len(self._variables) > MAX_ENTRIES:
            raise place.error(f"at most {MAX_ENTRIES} variables", "more")


def _elements(part: Slice) -> int:
    elements = 1
    for length in slice_shape(part):
        elements *= length
    return elements
