"""Train with two processes, and show that the loss is that of one process on the joined batch.

    python examples/ddp.py                               # one process, then two; a plot of both
    torchrun --nproc-per-node=2 examples/ddp.py          # the two alone
    python examples/ddp.py --smoke                       # seconds

Each process takes every second row of the same batch; `DistributedDataParallel` averages the gradients over gloo. The
LSTM has no dropout here: random masks are drawn by each process from its own generator, so that their rows differ from
one process's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
import torch.distributed as dist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

import cellweave as cw

SYMBOLS, LONG = 8, 12  # kinds of symbols, steps of a sequence
#: The two curves may lie this far apart. Sums of gradients round differently, and training makes much of it: float32
#: losses drift apart where the loss falls fastest, which would hide a true fault. Hence float64.
AGREE = 1e-3


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    steps: int = 500
    rows: int = 64  # of all processes together
    units: int = 64
    seed: int = 1
    seconds: int = 300  # that the two processes may take


SMOKE = replace(Settings(), steps=8, rows=16, units=16, seconds=60)


class Memory(nn.Module):
    """Which symbol stood at the mark?"""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.memory = cw.nn.LSTM(SYMBOLS + 1, units)
        self.head = nn.Linear(units, SYMBOLS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, SYMBOLS]` of `[T, B, SYMBOLS + 1]`."""
        outputs, _ = self.memory(x)
        return self.head(outputs[-1])


def batch_of(number: int, settings: Settings) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs `[T, B, SYMBOLS + 1]` and answers `[B]` of a training step, the same in every process."""
    pick = torch.Generator().manual_seed(settings.seed * 1_000_000 + number)
    symbols = torch.randint(SYMBOLS, (LONG, settings.rows), generator=pick)
    marked = torch.randint(LONG // 2, (settings.rows,), generator=pick)
    mark = F.one_hot(marked, LONG).t().unsqueeze(2)
    x = torch.cat([F.one_hot(symbols, SYMBOLS), mark], dim=2).double()
    return x, symbols.gather(0, marked[None])[0]


def train(settings: Settings, rank: int, world: int) -> list[float]:
    """The loss of each step over all processes."""
    torch.manual_seed(settings.seed)
    model: nn.Module = Memory(settings.units).double()
    if world > 1:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for number in range(settings.steps):
        x, answers = batch_of(number, settings)
        loss = F.cross_entropy(model(x[:, rank::world]), answers[rank::world])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shared = loss.detach()
        if world > 1:
            dist.all_reduce(shared)
        losses.append(shared.item() / world)
    return losses


def work(settings: Settings, losses: Path | None) -> None:
    """One process of torchrun's."""
    dist.init_process_group("gloo")
    found = train(settings, dist.get_rank(), dist.get_world_size())
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} processes: loss {found[0]:.3f} at first, {found[-1]:.3f} at last")
        if losses is not None:
            losses.write_text(json.dumps(found), encoding="utf-8")
    dist.destroy_process_group()


def spawn(settings: Settings) -> list[float]:
    """The losses of two processes under torchrun, which are ended when they take too long."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "losses.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
                   "--nproc-per-node=2", __file__, f"--losses={path}"]  # fmt: skip
        command += [f"--{field.name}={getattr(settings, field.name)}" for field in fields(settings)]
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
        try:
            code = process.wait(settings.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # torchrun and what it started
            process.wait()
            raise
        if code:
            raise SystemExit(f"torchrun ended with {code}")
        return json.loads(path.read_text(encoding="utf-8"))


def draw(one: list[float], two: list[float], path: Path) -> None:
    """Both curves, and how far they lie apart."""
    figure = Figure(figsize=(8, 4.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    top.plot(one, color="#7aa6c2", linewidth=4, label="one process")
    top.plot(two, color="#c8553d", linewidth=1.2, label="two processes, gloo")
    top.set(ylabel="loss", ylim=(0, None))
    top.set_title("One batch, in one process and in two halves", loc="left")
    top.legend(frameon=False)
    bottom.plot([abs(a - b) for a, b in zip(one, two, strict=True)], color="#222222", linewidth=1)
    bottom.set(xlabel="training step", ylabel="difference")
    bottom.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (top, bottom):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """As torchrun's process: train. Else: train, spawn, compare, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds on one thread")
    parser.add_argument("--out", type=Path, default=Path("runs/examples/ddp.png"), help="the plot")
    parser.add_argument("--losses", type=Path, help="where torchrun's first process writes its losses, as JSON")
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=int, help=f"default {field.default}")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if getattr(options, f.name) is not None}
    settings = replace(SMOKE if options.smoke else Settings(), **given)
    if "RANK" in os.environ:
        return work(settings, options.losses)
    began = time.perf_counter()
    one = train(settings, 0, 1)
    print(f"one process: loss {one[0]:.3f} at first, {one[-1]:.3f} at last; {time.perf_counter() - began:.1f} s")
    two = spawn(settings)
    apart = max(abs(a - b) for a, b in zip(one, two, strict=True))
    print(f"largest difference of the losses in {settings.steps} steps: {apart:.1e}")
    if not apart <= AGREE:
        raise SystemExit(f"ddp: expected losses within {AGREE}, got {apart}")
    draw(one, two, options.out)
    print(f"plot: {options.out}")
    return None


if __name__ == "__main__":
    main()
