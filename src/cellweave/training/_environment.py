"""What a run depends on outside of its settings: versions, devices, backends."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import torch

from cellweave.weave import backend_names, missing_backends

#: Packages whose versions a run writes down, besides Python itself.
_PACKAGES = ("cellweave", "torch", "numpy", "safetensors", "matplotlib", "typer", "rich")


def package_versions() -> dict[str, str]:
    """Versions of Python and of every package involved; "not installed" where one is missing."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions["torch"] = str(torch.__version__)  # names the build too, such as 2.13.0+cu130
    return versions


def _devices() -> dict[str, str]:
    devices = {
        "cpu": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    }
    if not torch.cuda.is_available():
        return devices | {
            "cuda": "none: torch built without it" if torch.version.cuda is None else "none: no device found"
        }
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return devices | {f"cuda:{number}": name for number, name in enumerate(names)}


#: What each backend is.
_BACKENDS = {
    "reference": "step by step in PyTorch, any device",
    "native": "C++ time loops on the CPU",
    "torch": "torch's own fused layers, on CUDA devices cuDNN's",
    "triton": "cellweave's own kernels on CUDA devices",
}


def _backends() -> dict[str, str]:
    missing, known = missing_backends(), backend_names()
    found = {}
    for name, words in _BACKENDS.items():
        reason = missing.get(name, "" if name in known else "not part of this version")
        found[name] = f"off: {reason}" if reason else f"on: {words}"
    return found


def describe_environment() -> dict[str, dict[str, str]]:
    """What a bug report needs: `versions`, `platform`, `devices` and `backends`, each a dict of text by name."""
    return {
        "versions": package_versions(),
        "platform": {"system": platform.platform(), "executable": sys.executable},
        "devices": _devices(),
        "backends": _backends(),
    }
