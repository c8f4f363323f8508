"""The loader of the native core: what it finds, what it refuses, what it says when the core is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cellweave import BackendError
from cellweave.ops.common import _library as native
from cellweave.ops.common._library import Library, MaskStruct, SequenceStruct, new_sequence

needs_core = pytest.mark.skipif(
    native.native_library() is None, reason=f"native: {native.missing_reason()}; nothing of it can be called"
)


@pytest.fixture
def core() -> Library:
    return native.core()


#: Programs, each with variables that are set for it alone. One process imports torch for all of them, under values that
#: the first use refuses, and each program runs in a fork that has not used the loader yet.
PROGRAMS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("print(native.core().isa)", {"CELLWEAVE_ISA": "plain"}),
    "portable": ("print(native.core().isa)", {"CELLWEAVE_ISA": "portable"}),
    "neon": ("print('imported')\nnative.native_library()", {"CELLWEAVE_ISA": "neon"}),
    "off": ("print(native.native_library(), native.missing_reason())\nnative.core()", {"CELLWEAVE_NATIVE": "0"}),
    "no": ("native.native_library()", {"CELLWEAVE_NATIVE": "no"}),
}
REFUSED = {"CELLWEAVE_ISA": "neon", "CELLWEAVE_NATIVE": "no"}
RUNNER = """
import json, os, sys, traceback
from cellweave.ops.common import _library as native

for program, environment in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        for name in ("CELLWEAVE_ISA", "CELLWEAVE_NATIVE"):
            del os.environ[name]
        os.environ.update(environment)
        try:
            exec(program)
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with open(reading) as pipe:
        print(json.dumps(pipe.read()), flush=True)
    os.wait()
"""


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each of the programs prints."""
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork: the programs run in forks of one process")
    command = [sys.executable, "-c", RUNNER, json.dumps(list(PROGRAMS.values()))]
    environment = os.environ | REFUSED
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(zip(PROGRAMS, map(json.loads, done.stdout.splitlines()), strict=True))


def rnn(T: int = 3, B: int = 2, H: int = 5) -> tuple[SequenceStruct, dict[str, torch.Tensor]]:
    """A plain tanh network's call with its tensors; their inputs are random, their outputs NaN."""
    given = {"gate": (T, B, H), "w": (H, H), "h0": (B, H)}
    made = {"hs": (T, B, H), "out": (T, B, H), "h_last": (B, H)}
    tensors = {key: torch.randn(shape) for key, shape in given.items()}
    tensors |= {key: torch.full(shape, float("nan")) for key, shape in made.items()}
    call = new_sequence()
    call.op, call.dtype, call.T, call.B, call.H, call.P, call.save = native.RNN, 0, T, B, H, H, 1
    call.gate0, call.gate_ld0 = tensors["gate"].data_ptr(), H
    call.w0, call.w_ld0 = tensors["w"].data_ptr(), H
    call.h0, call.hs = tensors["h0"].data_ptr(), tensors["hs"].data_ptr()
    call.out, call.h_last = tensors["out"].data_ptr(), tensors["h_last"].data_ptr()
    return call, tensors


def give_scratch(core: Library, call: SequenceStruct) -> torch.Tensor:
    """Scratch memory for a forward call, aligned."""
    size = core.scratch_bytes(call, backward=False)
    memory = torch.empty(size + 64, dtype=torch.uint8)
    call.scratch, call.scratch_bytes = (memory.data_ptr() + 63) // 64 * 64, size
    return memory


def test_there_is_a_library_or_a_reason() -> None:
    assert (native.native_library() is None) == (native.missing_reason() is not None)


def test_it_loads_once() -> None:
    assert native.native_library() is native.native_library()


@needs_core
def test_versions_agree(core: Library) -> None:
    assert core.abi_version == native.ABI_VERSION
    assert core.isa in native.ISA_NAMES


@needs_core
def test_every_status_has_its_own_text(core: Library) -> None:
    texts = [core.status_text(status) for status in range(4)]
    assert len(set(texts)) == 4
    assert core.status_text(99) == "no such status"


@needs_core
@pytest.mark.parametrize("isa", native.ISA_NAMES)
def test_a_call_runs_on_every_instruction_set(core: Library, isa: str) -> None:
    before = core.isa
    try:
        try:
            core.use_isa(isa)
        except BackendError:
            pytest.skip(f"this machine or this build has no {isa}")
        assert core.isa == isa
        call, tensors = rnn()
        x, h = tensors["gate"].clone(), tensors["h0"]
        memory = give_scratch(core, call)
        core.forward(call)
        for t in range(3):
            h = torch.tanh(x[t] + h @ tensors["w"])
            torch.testing.assert_close(tensors["out"][t], h, rtol=0, atol=1e-6)
        assert torch.equal(tensors["h_last"], tensors["out"][-1])
        assert memory.numel() >= 64
    finally:
        core.use_isa(before)


@needs_core
def test_no_steps_leave_the_state(core: Library) -> None:
    call, tensors = rnn()
    call.T = 0
    core.forward(call)
    assert torch.equal(tensors["h_last"], tensors["h0"])


@needs_core
@pytest.mark.parametrize(
    "field, value",
    [("activation", 12), ("T", -1), ("threads", 0), ("h0", None), ("gate_ld0", 4), ("P", 3), ("dtype", 2)],
)
def test_a_bad_argument_raises_and_writes_nothing(core: Library, field: str, value: int | None) -> None:
    call, tensors = rnn()
    memory = give_scratch(core, call)
    setattr(call, field, value)
    with pytest.raises(BackendError, match=r"native: expected forward to run, got status 1 .*T=.*B=2, H=5"):
        core.forward(call)
    assert tensors["out"].isnan().all()
    assert memory.numel() >= 64


@needs_core
def test_too_little_scratch_is_told_apart(core: Library) -> None:
    call, _ = rnn(H=65)
    if core.scratch_bytes(call, backward=False) == 0:
        pytest.skip(f"{core.isa} needs no scratch for this call")
    with pytest.raises(BackendError, match=r"got status 2 \(the scratch memory"):
        core.forward(call)


@needs_core
def test_another_interface_version_is_refused(core: Library) -> None:
    call, _ = rnn()
    call.abi_version = native.ABI_VERSION + 1
    with pytest.raises(BackendError, match="got status 3"):
        core.forward(call)


@needs_core
def test_sizes_that_do_not_fit_have_no_scratch(core: Library) -> None:
    call, _ = rnn()
    call.P = 3
    with pytest.raises(BackendError, match=r"expected sizes and options that fit together, got .*P=3"):
        core.scratch_bytes(call, backward=False)


@needs_core
def test_masks_are_copied_and_live_with_the_call(core: Library) -> None:
    call, tensors = rnn()
    call.use_masks([MaskStruct(key=1, threshold=1 << 23, scale=1.0, rows=1, place=native.PLACE_CODES["output"])])
    memory = give_scratch(core, call)
    core.forward(call)
    assert torch.equal(tensors["out"], torch.zeros(3, 2, 5))  # no mantissa reaches that threshold
    assert tensors["h_last"].abs().min() > 0
    assert memory.numel() >= 64


@needs_core
def test_mask_sequence(core: Library) -> None:
    x = torch.randn(2, 3, 4)
    out = torch.full_like(x, float("nan"))
    lengths = torch.tensor([2, 0, 1], dtype=torch.int32)
    mask = MaskStruct(key=5, threshold=0, scale=0.5, rows=1)
    core.mask_sequence(0, x.data_ptr(), out.data_ptr(), (2, 3, 4), [mask], lengths=lengths.data_ptr())
    kept = torch.arange(2)[:, None] < lengths
    assert torch.equal(out, torch.where(kept[:, :, None], x * 0.5, 0.0))
    with pytest.raises(BackendError, match=r"mask_sequence to run, got status 1 .*N=4"):
        core.mask_sequence(7, x.data_ptr(), out.data_ptr(), (2, 3, 4), [mask])


@needs_core
def test_advice_changes_nothing(core: Library) -> None:
    tensor = torch.arange(1 << 20)
    core.advise_huge_pages(tensor.data_ptr(), tensor.numel() * tensor.element_size())
    assert torch.equal(tensor, torch.arange(1 << 20))


@needs_core
def test_an_unknown_instruction_set_lists_those_that_exist(core: Library) -> None:
    with pytest.raises(BackendError, match=r"CELLWEAVE_ISA: expected one of plain, portable, avx2, avx512, got 'sse'"):
        core.use_isa("sse")


@needs_core
def test_one_openmp_runtime_serves_torch_and_the_core(core: Library) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("only Linux lists the libraries of a process")
    assert core.path.is_file()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    loaded = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line}
    assert len(loaded) <= 1, "two OpenMP runtimes would fight for the cores"


@needs_core
@pytest.mark.parametrize("isa", ["plain", "portable"])
def test_the_environment_chooses_the_instruction_set(isa: str, said: dict[str, str]) -> None:
    assert said[isa] == f"{isa}\n"


@needs_core
def test_an_unknown_instruction_set_in_the_environment_raises_at_first_use(said: dict[str, str]) -> None:
    assert said["neon"].startswith("imported")
    expected = "BackendError: CELLWEAVE_ISA: expected one of plain, portable, avx2, avx512, got 'neon'."
    assert expected in said["neon"]


def test_the_environment_switches_it_off(said: dict[str, str]) -> None:
    assert said["off"].startswith("None switched off by CELLWEAVE_NATIVE=0\n")
    expected = "BackendError: native: expected the native core, got none: switched off by CELLWEAVE_NATIVE=0."
    assert expected in said["off"]


def test_another_value_of_the_switch_is_an_error(said: dict[str, str]) -> None:
    assert "BackendError: CELLWEAVE_NATIVE: expected 0 or 1, got 'no'." in said["no"]


@pytest.mark.parametrize(
    "content, reason",
    [
        ({}, "library not built: its build failed or was left out when cellweave was installed"),
        ({"native_missing.txt": "no C++ compiler was found\n"}, "library not built: no C++ compiler was found"),
        ({"libcellweave.so": "not a library"}, "library does not load: "),
    ],
    ids=["nothing", "reason", "broken"],
)
def test_reasons_for_its_absence(
    content: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, text in content.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    monkeypatch.setattr(native, "_folders", lambda: [tmp_path])
    found = native._load.__wrapped__()
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_a_package_without_a_folder_of_its_own_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tmp_path / "program.zip" / "cellweave"
    monkeypatch.setattr(native, "_folders", lambda: [packed])
    assert native._load.__wrapped__() == f"library not found: expected a folder with it at {packed}, got none"


@needs_core
def test_a_library_of_another_version_is_not_called(core: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "ABI_VERSION", native.ABI_VERSION + 1)
    found = native._load.__wrapped__()
    assert isinstance(found, str)
    assert f"expected C interface {native.ABI_VERSION}, got {core.abi_version}" in found
