"""What the weave is worth to a run: its training step woven and step by step, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from cellweave.layers import explain
from cellweave.training._language_model import LanguageModel
from cellweave.training._run_folder import RunFolder
from cellweave.training._runs import numerics
from cellweave.weave import use_backend

#: Rounds of one step each way, first ones left out: the least and the most.
_WARM_UP, _FEWEST, _MOST = 2, 5, 40


@dataclass(frozen=True)
class EngineComparison:
    """A training step of a run, woven and step by step.

    Attributes:
        steps, rows: Time steps T and rows B of the window.
        plan: The table that `explain` gives for its recurrent layers.
        woven, stepwise: Median seconds of a whole step: forward, loss, backward.
    """

    steps: int
    rows: int
    plan: str
    woven: float
    stepwise: float

    @property
    def speed_up(self) -> float:
        """How many times as fast the woven step is."""
        return self.stepwise / self.woven


def compare_engines(run: str | Path, *, seconds: float = 6.0) -> EngineComparison:
    """Time the training step of a run as it is and with the cells called step by step, in turns.

    Nothing in the run's folder changes. Text and weights are random: they do not matter to the time.

    Args:
        run: Folder of a run.
        seconds: How long to measure, about; a few rounds are always made.
    Raises:
        RunError: the folder holds no run.
    """
    description = RunFolder(Path(run)).read_description()
    config = description.config
    with numerics(config):
        model = LanguageModel(config.model, len(description.vocabulary), config.seed).train()
        tokens = torch.randint(len(description.vocabulary), (config.time + 1, config.batch))
        state = model.initial_state(config.batch)

        def step() -> None:
            model.zero_grad(set_to_none=True)
            model.loss(tokens[:-1], tokens[1:], state)[0].backward()  # type: ignore[no-untyped-call]

        def stepwise() -> None:
            with use_backend("reference"):
                step()

        woven, single = _medians(step, stepwise, seconds)
        inputs = model.embedding(tokens[:-1])
        plan = explain(model.cell, inputs, initial_state=state, time_major=True, show=False)
    return EngineComparison(config.time, config.batch, str(plan), woven, single)


def _medians(first: Callable[[], None], second: Callable[[], None], seconds: float) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    rounds = 0
    while rounds < _WARM_UP + _FEWEST or (rounds < _WARM_UP + _MOST and time.perf_counter() - began < seconds):
        for function, found in zip((first, second), times, strict=True):
            before = time.perf_counter()
            function()
            if rounds >= _WARM_UP:
                found.append(time.perf_counter() - before)
        rounds += 1
    return statistics.median(times[0]), statistics.median(times[1])
