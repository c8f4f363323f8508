"""What a bug report needs."""

from __future__ import annotations

import platform

import torch

from cellweave.training import describe_environment, package_versions


def test_versions_of_everything_involved():
    versions = package_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__
    assert {"cellweave", "numpy", "safetensors", "matplotlib", "typer", "rich"} <= set(versions)


def test_devices_and_a_reason_for_each_absent_backend():
    environment = describe_environment()
    assert list(environment) == ["versions", "platform", "devices", "backends"]
    assert "threads" in environment["devices"]["cpu"]
    assert any(name.startswith("cuda") for name in environment["devices"])
    assert list(environment["backends"]) == ["reference", "native", "triton", "cudnn"]
    assert all(text.startswith(("on: ", "off: ")) for text in environment["backends"].values())
