"""Training on two processes: gradients are those of one process on the joined batch."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import cellweave as cw
from helpers.tolerances import assert_close

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available() or sys.platform != "linux",
    reason="needs torch.distributed with gloo, and Linux",
)

RANKS, B, T, D, N = 2, 6, 5, 4, 6
F32: dict[str, Any] = {"dtype": "float32"}
SECONDS = 60


class Tagger(nn.Module):
    """A model with two layers each way, one of them with variational masks that all rows share, and a cuDNN layer."""

    def __init__(self) -> None:
        super().__init__()
        masks: dict[str, Any] = {"state_keep_prob": 0.7, "variational_recurrent": True, "input_size": D, "seed": 3}
        self.forwards = cw.MultiRNNCell([cw.DropoutWrapper(cw.GRUCell(D), **masks, **F32), cw.LSTMCell(N)])
        self.backwards = cw.GRUCell(N)
        self.top = cw.CudnnLSTM(1, N)
        self.head = nn.Linear(N, 3)
        with torch.no_grad():
            self(torch.zeros(2, T, D), torch.tensor([T, 1]))  # makes the variables

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        both, _ = cw.bidirectional_dynamic_rnn(self.forwards, self.backwards, x, lengths, **F32)
        outputs, _ = self.top(torch.cat(both, 2).transpose(0, 1), training=self.training)
        return self.head(outputs)


def made() -> Tagger:
    torch.manual_seed(1)
    cw.set_random_seed(2)
    return Tagger()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(B, T, D, generator=generator), torch.tensor([5, 1, 0, 3, 5, 2])


def loss_of(model: Any, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return model(x, lengths).sin().sum() / len(x)


def whole(parameter: torch.Tensor) -> torch.Tensor:
    """A gradient in one piece."""
    grad = parameter.grad
    assert grad is not None
    return grad.full_tensor() if hasattr(grad, "full_tensor") else grad  # type: ignore[no-any-return]


def train(rank: int, folder: Path, way: str) -> None:
    model: Any = made()
    names = [name for name, _ in model.named_parameters()]
    if way == "ddp":
        model = DistributedDataParallel(model)
    elif way == "fsdp":
        from torch.distributed.fsdp import fully_shard

        model = fully_shard(model)
    x, lengths = [value.chunk(RANKS)[rank] for value in batch()]
    for _ in range(2):  # the second step is not the first one's special case
        model.zero_grad()
        loss_of(model, x, lengths).backward()
    grads = {name: whole(p) for name, p in zip(names, model.parameters(), strict=True)}
    torch.save(grads, folder / f"{way}-{rank}.pt")


def masks(rank: int, folder: Path) -> None:
    """One sequence of ones through masks alone, by a seed and by torch's generator."""
    found = {}
    for name, seed in (("seeded", 4), ("unseeded", None)):
        torch.manual_seed(100 + rank)
        cw.set_random_seed(9 if seed else None)
        cell = cw.DropoutWrapper(cw.BasicRNNCell(N), input_keep_prob=0.5, seed=seed)
        cw.dynamic_rnn(cell, torch.ones(2, T, D), **F32)
        with torch.no_grad():
            cell.cell.kernel.fill_(1.0)
        found[name] = cw.dynamic_rnn(cell, torch.ones(2, T, D), **F32)[0].detach()
    torch.save(found, folder / f"masks-{rank}.pt")


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    try:
        train(rank, Path(folder), "ddp")
        train(rank, Path(folder), "fsdp")
        masks(rank, Path(folder))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    place = tmp_path_factory.mktemp("ranks")
    context: Any = mp.spawn(work, args=(str(place),), nprocs=RANKS, join=False)
    ends = time.monotonic() + SECONDS
    while not context.join(timeout=1):
        if time.monotonic() < ends:
            continue
        for process in context.processes:
            process.kill()
        pytest.fail(f"two processes took more than {SECONDS} seconds")
    return place


@pytest.fixture(scope="module")
def joined() -> dict[str, torch.Tensor]:
    """Gradients of one process."""
    model = made()
    for _ in range(2):
        model.zero_grad()
        loss_of(model, *batch()).backward()
    return {name: whole(p) for name, p in model.named_parameters()}


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_gradients_are_those_of_the_joined_batch(way: str, folder: Path, joined: dict[str, torch.Tensor]) -> None:
    for rank in range(RANKS):
        found = torch.load(folder / f"{way}-{rank}.pt")
        assert list(found) == list(joined)
        for name, expected in joined.items():
            assert expected.abs().max() > 0
            assert_close(f"rank {rank}, {name}", found[name], expected, 1e-6)


def test_masks_are_drawn_per_rank(folder: Path) -> None:
    """A seed gives every rank the same masks for its rows; without one each rank's generator decides."""
    first, second = [torch.load(folder / f"masks-{rank}.pt") for rank in range(RANKS)]
    assert torch.equal(first["seeded"], second["seeded"])
    assert not torch.equal(first["unseeded"], second["unseeded"])
