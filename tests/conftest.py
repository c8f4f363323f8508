"""What every test gets: fixed seeds, a clean environment, one thread, no graph seed left behind."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

pytest.register_assert_rewrite("helpers", "oracles")  # their asserts show values too

SEED = 20240229


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which sets of files tests/golden checks."""
    parser.addoption(
        "--goldens",
        metavar="DIR",
        default=None,
        help="directory with a manifest.json in the goldens' format (default: tests/golden/data)",
    )
    parser.addoption(
        "--checkpoints",
        metavar="DIR",
        default=None,
        help="directory of folders with a checkpoint and expected.json (default: tests/golden/checkpoints)",
    )
    parser.addoption(
        "--wild",
        metavar="DIR",
        default=None,
        help="directory of other people's models, each a folder with CASE.md (default: none)",
    )


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: no garbage collection need look at it again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> Iterator[None]:
    """One thread: sums come out the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Seeds set, `CELLWEAVE_` variables removed; afterwards no graph seed and torch's defaults."""
    for name in [name for name in os.environ if name.startswith("CELLWEAVE_")]:
        monkeypatch.delenv(name)
    random.seed(SEED)
    np.random.seed(SEED)
    # torch.manual_seed would also keep a formatted stack for each kind of device that is not there, in every test
    torch.default_generator.manual_seed(SEED)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(SEED)
    default_dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    torch.set_default_dtype(default_dtype)
    torch.set_grad_enabled(grad)
    if "cellweave" in sys.modules:
        sys.modules["cellweave"].set_random_seed(None)


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy numbers, the same in every test."""
    return np.random.default_rng(SEED)


@pytest.fixture
def nan_poison() -> Iterator[None]:
    """Fill fresh "empty" tensors with NaN, so that an output nobody wrote cannot pass."""
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = fill
    torch.use_deterministic_algorithms(before)
