"""The native core knows no framework, leaves no process and is mirrored exactly by its loader."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellweave.ops.common import _library as native
from repo.source_files import ROOT

NATIVE = ROOT / "native"
HEADER = NATIVE / "include" / "cellweave.h"
SOURCES = sorted(path for path in NATIVE.rglob("*") if path.suffix in {".h", ".cc"})
CORE = [path for path in SOURCES if "tests" not in path.relative_to(NATIVE).parts]
MOST_LINES = 600
# What the core may include beside its own files: nothing that a C++ compiler does not bring, but for the system's calls
# that advise about memory and ask for the registers of tiles.
SYSTEM_HEADERS = {"cpuid.h", "immintrin.h", "omp.h", "stdint.h", "sys/mman.h", "sys/syscall.h", "unistd.h"}
LEAVES = r"\b(?:exit|_exit|quick_exit|abort|terminate|raise|throw|assert|__builtin_trap|new|malloc|realloc|calloc)\b"


def name(path: Path) -> str:
    return path.relative_to(NATIVE).as_posix()


def code(path: Path) -> str:
    """The file without its comments."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def constants(text: str) -> dict[str, int]:
    """`NAME = number` of all enums."""
    return {key: int(value) for key, value in re.findall(r"\b(CW_[A-Z0-9_]+) = (\d+)", text)}


def struct_fields(struct: str) -> list[tuple[str, str]]:
    """Names and types of a struct's fields as its Python mirror has them: arrays spread, pointers all alike."""
    body = re.search(rf"typedef struct {struct} {{(.*?)}} {struct};", code(HEADER), flags=re.DOTALL)
    assert body is not None
    found: list[tuple[str, str]] = []
    for declaration in filter(None, (part.strip() for part in body[1].split(";"))):
        kind, names = re.fullmatch(r"((?:const )?\w+) (.*)", declaration, flags=re.DOTALL).groups()  # type: ignore[union-attr]
        for item in re.split(r",\s*", names):
            bare = item.lstrip("*").strip()
            type_name = "pointer" if item.startswith("*") else kind
            array = re.fullmatch(r"(\w+)\[(\d+)\]", bare)
            spread = [f"{array[1]}{i}" for i in range(int(array[2]))] if array else [bare]
            found += [(field, type_name) for field in spread]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_framework_is_included(path: Path) -> None:
    included = re.findall(r"^\s*#\s*include\s*[<\"]([^>\"]+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [
        header for header in included if re.match(r"(torch|ATen|c10|Python|pybind11|nanobind|numpy)\b", header)
    ] == []


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_includes_itself_and_the_standard_library_only(path: Path) -> None:
    system = re.findall(r"^\s*#\s*include\s*<([^>]+)>", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [header for header in system if "." in header and header not in SYSTEM_HEADERS] == []


@pytest.mark.parametrize("path", CORE, ids=name)
def test_the_core_neither_ends_the_process_nor_allocates(path: Path) -> None:
    text = re.sub(r'#include.*|"[^"\n]*"', "", code(path))
    text = re.sub(r"\bnew \(memory\) ", "", text)  # placement, into memory that is there
    assert re.findall(LEAVES, text) == []


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_not_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("mirror, struct", [(native.MaskStruct, "cw_mask"), (native.SequenceStruct, "cw_sequence")])
def test_structs_are_mirrored(mirror: type[native.MaskStruct | native.SequenceStruct], struct: str) -> None:
    types = {"c_ulong": "uint64_t", "c_long": "int64_t", "c_longlong": "int64_t", "c_ulonglong": "uint64_t"}
    types |= {"c_double": "double", "c_void_p": "pointer"}
    mirrored = [(field[0], types[field[1].__name__]) for field in mirror._fields_]
    assert mirrored == struct_fields(struct)


def test_numbers_are_mirrored() -> None:
    header = constants(code(HEADER))
    version = re.search(r"#define CW_ABI_VERSION (\d+)", code(HEADER))
    assert version is not None and int(version[1]) == native.ABI_VERSION
    assert header["CW_OK"] == native.OK
    ops = [native.RNN, native.GRU_BEFORE, native.GRU_AFTER, native.LSTM]
    assert [header[f"CW_{op}"] for op in ("RNN", "GRU_BEFORE", "GRU_AFTER", "LSTM")] == ops
    assert [header["CW_SPLIT_UNITS"], header["CW_SPLIT_ROWS"]] == [native.SPLIT_UNITS, native.SPLIT_ROWS]
    for number, activation in enumerate(native.ACTIVATION_NAMES):
        assert header[f"CW_{activation.upper()}"] == number
    for number, place in enumerate(native.PLACE_NAMES):
        assert header[f"CW_MASK_{place.upper()}"] == number
    for number, isa in enumerate(native.ISA_NAMES):
        assert header[f"CW_{isa.upper()}"] == number
    bits = {str(dtype).removeprefix("torch.float"): value for dtype, value in native.DTYPE_CODES.items()}
    assert bits == {"32": header["CW_FLOAT32"], "64": header["CW_FLOAT64"]}
