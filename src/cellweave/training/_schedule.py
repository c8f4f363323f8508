"""The learning rate at each step."""

from __future__ import annotations

import math

from cellweave.training._settings import TrainConfig

#: Share of the highest learning rate that the cosine ends at.
_COSINE_END = 0.05


def learning_rate(config: TrainConfig, step: int, total_steps: int, factor: float) -> float:
    """The learning rate of a step.

    Args:
        config: Names `lr`, `warmup` and `schedule`.
        step: Number of the step, from 0.
        total_steps: Steps of the run.
        factor: What the plateau schedule has multiplied so far; the others ignore it.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / (config.warmup + 1)
    if config.schedule == "plateau":
        return config.lr * factor
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, total_steps - config.warmup)
    return config.lr * (_COSINE_END + (1.0 - _COSINE_END) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))
