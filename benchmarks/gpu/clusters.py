"""How many clusters of thread blocks a device runs at once, asked of its driver."""

from __future__ import annotations

import ctypes
from typing import Any

from program import NotTaken

_PTX = b".version 7.8\n.target sm_90\n.address_size 64\n.visible .entry nothing() { ret; }\n\0"
#: From cuda.h.
_MAX_DYNAMIC_SHARED, _NON_PORTABLE_CLUSTER, _CLUSTER_DIMENSION = 8, 14, 4
_THREADS = 256
#: Of what a program may use on Hopper, 227 KiB, as a persistent kernel would fill it.
SHARED = 200 << 10


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: its value is a union of 64 bytes, whose first three words are a cluster's sides here."""

    _fields_ = (("id", ctypes.c_int), ("pad", ctypes.c_char * 4), ("value", ctypes.c_uint32 * 16))


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", ctypes.c_uint32 * 3), ("block", ctypes.c_uint32 * 3), ("shared", ctypes.c_uint32),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.POINTER(LaunchAttribute)), ("count", ctypes.c_uint32),
    )  # fmt: skip


def active_clusters(size: int, shared: int = SHARED) -> int:
    """Clusters of `size` blocks, each with so many bytes of shared memory, that are on the current device at once.

    Raises:
        NotTaken: there is no driver, or it refuses; its function and number say why.
    """
    try:
        driver: Any = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NotTaken(f"no CUDA driver: {error}") from None

    def ask(name: str, *arguments: Any) -> None:
        status = getattr(driver, name)(*arguments)
        if status != 0:
            raise NotTaken(f"the driver refuses: {name} gave {status}")

    module, function, found = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    ask("cuModuleLoadData", ctypes.byref(module), _PTX)
    try:
        ask("cuModuleGetFunction", ctypes.byref(function), module, b"nothing")
        ask("cuFuncSetAttribute", function, _MAX_DYNAMIC_SHARED, shared)
        ask("cuFuncSetAttribute", function, _NON_PORTABLE_CLUSTER, 1)
        attribute = LaunchAttribute(id=_CLUSTER_DIMENSION)
        attribute.value[:3] = [size, 1, 1]
        config = LaunchConfig(shared=shared, attributes=ctypes.pointer(attribute), count=1)
        config.grid[:], config.block[:] = [size, 1, 1], [_THREADS, 1, 1]
        ask("cuOccupancyMaxActiveClusters", ctypes.byref(found), function, ctypes.byref(config))
    finally:
        driver.cuModuleUnload(module)
    return found.value
