"""The native core: finds its shared library, loads it once and calls it.

The C interface is native/include/cellweave.h; names and numbers here are its own. Every absence has a reason in words.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch  # before the library: torch brings an OpenMP runtime, which the library then shares

from cellweave._env import ISA, NATIVE, native_is_wanted, wanted_isa
from cellweave._errors import BackendError

ABI_VERSION = 5
OK = 0

RNN, GRU_BEFORE, GRU_AFTER, LSTM = range(4)
SPLIT_UNITS, SPLIT_ROWS = range(2)
#: By the number that the C interface gives them.
ISA_NAMES = ("plain", "portable", "avx2", "avx512")
ACTIVATION_NAMES = (
    "tanh", "sigmoid", "relu", "linear", "softsign", "softplus", "elu", "selu", "hard_sigmoid", "leaky_relu",
    "exponential", "relu6",
)  # fmt: skip
#: Masks of each gate's own have the last place and those behind it.
PLACE_NAMES = ("input", "h", "c", "output", "zone_h", "zone_c", "gate")

DTYPE_CODES = {torch.float32: 0, torch.float64: 1}
ACTIVATION_CODES = {name: code for code, name in enumerate(ACTIVATION_NAMES)} | {"identity": 3}
PLACE_CODES = {name: code for code, name in enumerate(PLACE_NAMES)}

_FILE_NAMES = ("libcellweave.so", "libcellweave.dylib", "cellweave.dll")
_REASON_FILE = "native_missing.txt"

_INTEGER, _REAL, _POINTER = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
_UNSIGNED = ctypes.c_uint64
_MASK64 = (1 << 64) - 1


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class MaskStruct(ctypes.Structure):
    """`cw_mask`: one random mask, its fields by keyword."""

    _fields_ = [
        *_fields(_UNSIGNED, "key high low stride threshold"),
        *_fields(_REAL, "scale"),
        *_fields(_POINTER, "factors"),
        *_fields(_INTEGER, "rows place first width bits"),
    ]


_MASK_BYTES = struct.Struct("=5QdQ5q")


def new_mask(
    key: int,
    counter: int,
    stride: int,
    threshold: int,
    scale: float,
    factors: int | None,
    rows: int,
    place: int,
    first: int,
    width: int,
    bits: int,
) -> MaskStruct:
    """A `MaskStruct`, by way of its bytes: a third of the time that its constructor takes."""
    high, low = (counter >> 64) & _MASK64, counter & _MASK64
    return MaskStruct.from_buffer_copy(
        _MASK_BYTES.pack(
            key & _MASK64, high, low, stride, threshold, scale, factors or 0, rows, place, first, width, bits
        )
    )


class SequenceStruct(ctypes.Structure):
    """`cw_sequence`: one layer over one sequence.

    Every field is an attribute; arrays are spread over `gate0`..`gate3`, `gate_ld0`.., `w0`.., `w_ld0`..,
    `peephole0`..`peephole2`. Pointers are addresses (`Tensor.data_ptr()`) or None; the caller keeps the tensors alive.
    A new one (`new_sequence`) has one thread, no clips, and 0 and NULL elsewhere.
    """

    _fields_ = [
        *_fields(_INTEGER, "abi_version op dtype T B H P threads split reverse save activation gate_activation"),
        *_fields(_REAL, "forget_bias cell_clip proj_clip"),
        *_fields(_POINTER, "gate0 gate1 gate2 gate3"),
        *_fields(_INTEGER, "gate_ld0 gate_ld1 gate_ld2 gate_ld3"),
        *_fields(_POINTER, "w0 w1 w2 w3"),
        *_fields(_INTEGER, "w_ld0 w_ld1 w_ld2 w_ld3"),
        *_fields(_POINTER, "bias_h peephole0 peephole1 peephole2 projection"),
        *_fields(_POINTER, "h0 c0 out hs cs h_last c_last proj_raw lengths resets reset_h reset_c masks"),
        *_fields(_INTEGER, "n_masks"),
        *_fields(
            _POINTER, "d_out d_h_last d_c_last d_h0 d_c0 d_reset_h d_reset_c d_peephole rh proj_in d_proj scratch"
        ),
        *_fields(_INTEGER, "scratch_bytes"),
        *_fields(_POINTER, "x"),
        *_fields(_INTEGER, "I"),
        *_fields(_POINTER, "wx0 wx1 wx2 wx3"),
        *_fields(_INTEGER, "wx_ld0 wx_ld1 wx_ld2 wx_ld3"),
        *_fields(_POINTER, "bias0 bias1 bias2 bias3"),
        *_fields(_INTEGER, "ahead"),
        *_fields(_POINTER, "packed"),
        *_fields(_INTEGER, "packed_ready"),
        *_fields(_INTEGER, "w_unit0 w_unit1 w_unit2 w_unit3"),
        *_fields(_INTEGER, "wx_unit0 wx_unit1 wx_unit2 wx_unit3"),
        *_fields(_INTEGER, "projection_ld projection_unit"),
        *_fields(_POINTER, "h_states c_states d_h_states d_c_states"),
        *_fields(_INTEGER, "clip_passes coupled"),
        *_fields(_REAL, "norm_epsilon"),
        *_fields(_POINTER, "gamma0 gamma1 gamma2 gamma3 gamma4 beta0 beta1 beta2 beta3 beta4 norm_kept d_norm"),
        *_fields(_INTEGER, "x_gate"),
        *_fields(_POINTER, "gate_h"),
        *_fields(_INTEGER, "products"),
    ]

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    def use_masks(self, masks: Sequence[MaskStruct]) -> None:
        """Take these masks; a copy of them lives as long as this object."""
        array = (MaskStruct * len(masks))(*masks)
        self.mask_array, self.masks, self.n_masks = array, ctypes.addressof(array), len(masks)


_BLANK = SequenceStruct(abi_version=ABI_VERSION, threads=1, cell_clip=-1.0, proj_clip=-1.0)


def new_sequence() -> SequenceStruct:
    """A `SequenceStruct` with one thread, no clips, and 0 and NULL in all other fields."""
    return SequenceStruct.from_buffer_copy(_BLANK)


class Library:
    """The loaded native core.

    Its functions check their arguments and raise BackendError with the core's own words; nothing is computed then.
    """

    def __init__(self, path: Path) -> None:
        """Load the file. OSError: the system cannot; AttributeError: it is some other library."""
        self.path = path
        library = ctypes.CDLL(str(path))
        self.abi_version: int = _function(library, "cw_abi_version")()
        if self.abi_version != ABI_VERSION:
            return  # what follows may have other arguments there
        self._isa = _function(library, "cw_isa")
        self._best_isa = _function(library, "cw_best_isa")
        #: Whether the processor is Intel's.
        self.is_intel = bool(_function(library, "cw_is_intel")())
        self._has_bfloat16 = _function(library, "cw_has_bfloat16")
        self._set_isa = _function(library, "cw_set_isa", _INTEGER)
        self._status_text = _function(library, "cw_status_text", _INTEGER)
        self._status_text.restype = ctypes.c_char_p
        sequence = ctypes.POINTER(SequenceStruct)
        self._scratch_bytes = _function(library, "cw_scratch_bytes", sequence, _INTEGER)
        self._packed_bytes = _function(library, "cw_packed_bytes", sequence)
        families = ("rnn", "gru", "gru", "lstm")  # by op
        self._forward = [_function(library, f"cw_{name}_forward", sequence) for name in families]
        self._backward = [_function(library, f"cw_{name}_backward", sequence) for name in families]
        self._mask_sequence = _function(
            library, "cw_mask_sequence", _INTEGER, _POINTER, _POINTER, _INTEGER, _INTEGER, _INTEGER,
            ctypes.POINTER(MaskStruct), _INTEGER, _POINTER, _INTEGER, _INTEGER,
        )  # fmt: skip
        self._digest = _function(library, "cw_digest", _POINTER, _INTEGER, _INTEGER)
        self._digest.restype = _UNSIGNED
        #: Number of the instruction set in use.
        self.isa_number: int = self._isa()
        #: Whether that makes products of bfloat16.
        self.has_bfloat16 = bool(self._has_bfloat16())
        self._advise_huge_pages = _function(library, "cw_advise_huge_pages", _POINTER, _INTEGER)
        self._advise_huge_pages.restype = None

    @property
    def isa(self) -> str:
        """The instruction set in use, one of ISA_NAMES."""
        return ISA_NAMES[self._isa()]

    @property
    def best_isa(self) -> str:
        """The best instruction set that this machine and this build have."""
        return ISA_NAMES[self._best_isa()]

    def use_isa(self, name: str) -> None:
        """Use this instruction set from now on; not while calls run.

        Raises:
            BackendError: no such name, or the machine or the build lacks it.
        """
        if name not in ISA_NAMES:
            raise BackendError(f"{ISA}: expected one of {', '.join(ISA_NAMES)}, got {name!r}.")
        if self._set_isa(ISA_NAMES.index(name)) != OK:
            raise BackendError(
                f"{ISA}: expected an instruction set that this machine and this build have, got {name!r}. "
                f"The best here is {self.best_isa}."
            )
        self.isa_number, self.has_bfloat16 = self._isa(), bool(self._has_bfloat16())

    def scratch_bytes(self, call: SequenceStruct, *, backward: bool) -> int:
        """Bytes of scratch that the call needs. It reads sizes, options and masks, and which pointers are NULL."""
        found: int = self._scratch_bytes(call, backward)
        if found < 0:
            raise BackendError(f"native: expected sizes and options that fit together, got {_facts(call)}.")
        return found

    def packed_bytes(self, call: SequenceStruct) -> int:
        """Bytes that `call.packed` needs."""
        found: int = self._packed_bytes(call)
        if found < 0:
            raise BackendError(f"native: expected sizes and options that fit together, got {_facts(call)}.")
        return found

    def bare_forward(self, op: int) -> Callable[[SequenceStruct], int]:
        """The C function behind `forward` for one recurrence; it answers with a status."""
        function: Callable[[SequenceStruct], int] = self._forward[op]
        return function

    def forward(self, call: SequenceStruct) -> None:
        """Run the time loop of `call.op` forward."""
        status = self._forward[call.op](call)
        if status != OK:
            raise self._failure("forward", status, _facts(call))

    def backward(self, call: SequenceStruct) -> None:
        """Run the time loop of `call.op` backward."""
        status = self._backward[call.op](call)
        if status != OK:
            raise self._failure("backward", status, _facts(call))

    def mask_sequence(
        self,
        dtype: int,
        x: int,
        out: int,
        sizes: tuple[int, int, int],
        masks: Sequence[MaskStruct],
        *,
        lengths: int | None = None,
        reverse: bool = False,
        threads: int = 1,
    ) -> None:
        """`out = x` times all masks, 0 past a row's length.

        Args:
            dtype: Code of DTYPE_CODES. x, out: Addresses of `[T, B, N]`; they may be the same. sizes: `(T, B, N)`.
            masks: Their places are ignored. lengths: Address of int32 `[B]`. reverse: Rows are read backwards.
            threads: How many.
        """
        array = (MaskStruct * len(masks))(*masks)
        status = self._mask_sequence(dtype, x, out, *sizes, array, len(masks), lengths, reverse, threads)
        if status != OK:
            raise self._failure("mask_sequence", status, f"T={sizes[0]}, B={sizes[1]}, N={sizes[2]}")

    def digest(self, address: int, size: int, threads: int) -> int:
        """A number that tells whether the `size` bytes at this address have changed."""
        found: int = self._digest(address, size, threads)
        return found

    def advise_huge_pages(self, address: int, size: int) -> None:
        """Ask the system for huge pages under `size` bytes at this address; only advice."""
        self._advise_huge_pages(address, size)

    def status_text(self, status: int) -> str:
        """What a status means."""
        text: bytes = self._status_text(status)
        return text.decode()

    def _failure(self, act: str, status: int, facts: str) -> BackendError:
        return BackendError(
            f"native: expected {act} to run, got status {status} ({self.status_text(status)}) for {facts}."
        )


def any_byte(address: int, size: int) -> bool:
    """Whether any of `size` bytes at this address is not 0: a fifth of the time that a tensor's `any` takes."""
    return ctypes.string_at(address, size).count(0) < size


def _function(library: ctypes.CDLL, name: str, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = list(arguments), _INTEGER
    return function


def _facts(call: SequenceStruct) -> str:
    names = ("op", "dtype", "T", "B", "H", "P", "threads", "split", "reverse", "save", "n_masks", "scratch_bytes")
    return ", ".join(f"{name}={getattr(call, name)}" for name in names)


def native_library() -> Library | None:
    """The native core, loaded at the first call; None where it is missing.

    Raises:
        BackendError: `CELLWEAVE_NATIVE` or `CELLWEAVE_ISA` has a value that cannot be met.
    """
    found = _load()
    return found if isinstance(found, Library) else None


def missing_reason() -> str | None:
    """Why `native_library()` is None, in words; None if it is not."""
    found = _load()
    return found if isinstance(found, str) else None


def core() -> Library:
    """The native core.

    Raises:
        BackendError: it is missing; the message says why.
    """
    found = _load()
    if isinstance(found, str):
        raise BackendError(f"native: expected the native core, got none: {found}.")
    return found


@functools.cache
def _load() -> Library | str:
    if not native_is_wanted():
        return f"switched off by {NATIVE}=0"
    folders = _folders()
    path = _first_file(folders, _FILE_NAMES)
    if path is None:
        return _absence(folders)
    try:
        library = Library(path)
    except (OSError, AttributeError) as error:
        return f"library does not load: {error}"
    if library.abi_version != ABI_VERSION:
        return (
            f"library is of another version: expected C interface {ABI_VERSION}, got {library.abi_version} in {path}. "
            "Install cellweave again"
        )
    isa = wanted_isa()
    if isa is not None:
        library.use_isa(isa)
    return library


def _folders() -> list[Path]:
    """Where the package lies. An editable install has two folders: the sources, and what the build installed."""
    spec = find_spec("cellweave")
    return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]


def _first_file(folders: Sequence[Path], names: Sequence[str]) -> Path | None:
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def _absence(folders: Sequence[Path]) -> str:
    path = _first_file(folders, (_REASON_FILE,))
    if path is not None:
        return f"library not built: {path.read_text(encoding='utf-8').strip()}"
    if not any(folder.is_dir() for folder in folders):  # in a zip file, or a program that was frozen without it
        places = " or ".join(str(folder) for folder in folders)
        return f"library not found: expected a folder with it at {places}, got none"
    return "library not built: its build failed or was left out when cellweave was installed"
