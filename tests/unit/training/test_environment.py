"""What a bug report needs."""

from __future__ import annotations

import platform

import torch

from cellweave.training import describe_environment, package_versions
from helpers.fake_backend import Fake, fakes


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
    assert list(environment["backends"]) == ["reference", "native", "torch", "triton"]
    assert all(text.startswith(("on: ", "off: ")) for text in environment["backends"].values())
    assert environment["backends"]["reference"].startswith("on: step by step")
    triton = environment["backends"]["triton"]
    assert triton.startswith("off: needs a CUDA tensor") != torch.cuda.is_available()


def test_a_backend_that_is_off_says_why():
    with fakes(Fake("native", "library not built"), Fake("torch")):
        backends = describe_environment()["backends"]
    assert backends["native"] == "off: library not built" and backends["torch"].startswith("on: ")
