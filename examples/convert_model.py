"""Take an ordinary PyTorch model, exchange its recurrent modules with one call, and measure.

    python examples/convert_model.py            # about a minute on two cores
    python examples/convert_model.py --smoke    # seconds

The model knows nothing of cellweave: an embedding, a bidirectional `nn.LSTM`, two layers of `nn.GRU`, a linear layer.
A copy is converted in the middle of its training, with its optimizer. Both go on: same losses, other times.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import nn
from torch.nn import functional as F

import cellweave as cw


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    units: int = 256
    rows: int = 16
    steps: int = 100
    timings: int = 11
    seed: int = 1


SMOKE = replace(Settings(), units=32, rows=4, steps=12, timings=3)
SYMBOLS = 50


class OrdinaryModel(nn.Module):
    """Reads both ways, then says something of each position."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, units)
        self.reader = nn.LSTM(units, units // 2, batch_first=True, bidirectional=True)
        self.thinker = nn.GRU(units, units, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(units, SYMBOLS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits `[B, T, SYMBOLS]`."""
        outputs, _ = self.reader(self.embedding(ids))
        outputs, _ = self.thinker(outputs)
        return self.head(outputs)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, ids: torch.Tensor) -> float:
    """One training step: say the symbol at each place again, turned around in time."""
    loss = F.cross_entropy(model(ids).flatten(0, 1), ids.flip(1).flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def median_ms(ways: list[Callable[[], object]], count: int) -> list[float]:
    """Of each, in turns, after one run to warm up."""
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(count + 1):
        for way, kept in zip(ways, times, strict=True):
            began = time.perf_counter()
            way()
            if turn:
                kept.append(time.perf_counter() - began)
    return [statistics.median(kept) * 1e3 for kept in times]


def inferring(model: nn.Module, ids: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call without gradients, in evaluation mode."""

    def run() -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            outputs = model(ids)
        model.train()
        return outputs

    return run


def main() -> None:
    """Train, convert, compare, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a few seconds on one thread")
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=int, help=f"default {field.default}")
    options = parser.parse_args()
    given = {f.name: getattr(options, f.name) for f in fields(Settings) if getattr(options, f.name) is not None}
    settings = replace(SMOKE if options.smoke else Settings(), **given)
    torch.manual_seed(settings.seed)
    before = OrdinaryModel(settings.units)
    before_optimizer = torch.optim.Adam(before.parameters(), 2e-3)
    ids = torch.randint(SYMBOLS, (settings.rows, settings.steps))
    for _ in range(3):
        step(before, before_optimizer, ids)

    after, after_optimizer = copy.deepcopy((before, before_optimizer))  # the copy's optimizer holds the copy's weights
    report = cw.convert(after)
    print(report)

    plain, woven = inferring(before, ids)(), inferring(after, ids)()
    torch.testing.assert_close(woven, plain, rtol=1e-4, atol=1e-5)
    print(f"\nlargest difference of the outputs: {(woven - plain).abs().max():.1e}")
    losses = []
    for _ in range(3):
        torch.manual_seed(settings.seed)  # the same dropout between the GRU's layers
        first = step(before, before_optimizer, ids)
        torch.manual_seed(settings.seed)
        losses.append((first, step(after, after_optimizer, ids)))
    print("losses of the next steps, before and after: " + ", ".join(f"{a:.5f} {b:.5f}" for a, b in losses))
    torch.testing.assert_close(losses[-1][1], losses[-1][0], rtol=1e-3, atol=1e-4)

    short = ids[:1, :1]
    rows = (
        ("training step", [lambda: step(before, before_optimizer, ids), lambda: step(after, after_optimizer, ids)]),
        ("inference", [inferring(before, ids), inferring(after, ids)]),
        ("inference, one symbol of one row", [inferring(before, short), inferring(after, short)]),
    )
    print(f"\n{settings.rows} rows, {settings.steps} steps, {settings.units} units, {torch.get_num_threads()} threads")
    print(f"{'median milliseconds':34}{'torch.nn':>10}{'cellweave':>11}{'ratio':>8}")
    for name, ways in rows:
        plain_ms, woven_ms = median_ms(ways, settings.timings)
        print(f"{name:34}{plain_ms:>10.2f}{woven_ms:>11.2f}{plain_ms / woven_ms:>8.2f}")

    cw.convert_back(after)
    OrdinaryModel(settings.units).load_state_dict(after.state_dict())
    print(f"\nand back: {type(after.reader).__name__} is torch.nn's again: {type(after.reader) is nn.LSTM}")


if __name__ == "__main__":
    main()
